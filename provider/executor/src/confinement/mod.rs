//! Confinement: what a process gives up before it touches what strangers wrote.
//!
//! WebAssembly is the first barrier. A function that breaks through it is in a process that
//! can compute and talk over the one descriptor it was given, and nothing else: no files, no
//! sockets, no signals to others, no new programs.

#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod linux;
pub(crate) mod probe;

use minicbor::{Decode, Encode};

use crate::ExecutorError;

/// What the process may still use.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConfinementConfig {
    /// Bytes of private memory.
    pub(crate) data_bytes: u64,
    /// CPU time, in seconds.
    pub(crate) cpu_seconds: Option<u64>,
    /// Bytes that may be written to one file.
    pub(crate) file_bytes: u64,
    /// How much others go first, 0 to 19.
    pub(crate) niceness: i32,
}

/// One measure of a process's confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum ConfinementLayer {
    /// Only the system calls that guests need (seccomp).
    #[n(0)]
    SystemCalls,
    /// Bounds on memory, files and time (resource limits).
    #[n(1)]
    Resources,
    /// No access to any file (Landlock).
    #[n(2)]
    Files,
    /// A network of its own with nothing in it (a namespace).
    #[n(3)]
    Network,
    /// An empty file system (chroot).
    #[n(4)]
    Root,
    /// An unprivileged user.
    #[n(5)]
    User,
}

/// Why a layer is not active although nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Absence {
    /// The kernel is too old, or was built without it.
    #[n(0)]
    NoKernelSupport,
    /// Only root may have it.
    #[n(1)]
    NotRoot,
    /// This system does not give it to root either, as containers often do not.
    #[n(2)]
    NotPermitted,
}

/// The confinement of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// Those in force.
    pub(crate) active: Vec<ConfinementLayer>,
    /// Those that this system does not offer.
    pub(crate) absent: Vec<(ConfinementLayer, Absence)>,
}

impl Absence {
    /// Why, in a few words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoKernelSupport => "this kernel has none",
            Self::NotRoot => "only when started as root",
            Self::NotPermitted => "not permitted on this system",
        }
    }
}

impl Confinement {
    /// Records what came of an attempt to apply a layer.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Setup`], naming the layer, if it failed although this system offers it:
    /// there is to be no process without it then.
    pub(crate) fn record(
        &mut self,
        layer: ConfinementLayer,
        attempt: Result<(), LayerError>,
    ) -> Result<(), ExecutorError> {
        match attempt {
            Ok(()) => self.active.push(layer),
            Err(LayerError::Absent(why)) => self.absent.push((layer, why)),
            Err(LayerError::Failed(error)) => {
                let name = layer.name();
                return Err(ExecutorError::Setup(format!(
                    "the confinement layer {name} is available on this system and failed: {error}"
                )));
            }
        }
        Ok(())
    }
}

/// Why a layer is not active.
#[derive(Debug)]
pub(crate) enum LayerError {
    Absent(Absence),
    Failed(std::io::Error),
}

/// For what system calls say.
impl From<rustix::io::Errno> for LayerError {
    fn from(errno: rustix::io::Errno) -> Self {
        use rustix::io::Errno;
        match errno {
            Errno::ACCESS | Errno::PERM | Errno::ROFS => Self::Absent(Absence::NotPermitted),
            Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP => {
                Self::Absent(Absence::NoKernelSupport)
            }
            errno => Self::Failed(errno.into()),
        }
    }
}

impl ConfinementLayer {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::SystemCalls,
        Self::Resources,
        Self::Files,
        Self::Network,
        Self::Root,
        Self::User,
    ];

    /// A word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::SystemCalls => "seccomp",
            Self::Resources => "rlimits",
            Self::Files => "landlock",
            Self::Network => "netns",
            Self::Root => "chroot",
            Self::User => "nobody",
        }
    }
}

/// Closes everything above standard error, first thing in a process. The standard library opens all
/// with close-on-exec; this is for what others opened.
pub(crate) fn close_inherited() {
    #[cfg(target_os = "linux")]
    linux::close_inherited();
}

/// Gives up everything, for good. To be called while the process has one thread. Says which layers
/// are active: resource limits and the system call filter always do, the others as far as this
/// kernel and user can have them.
///
/// # Errors
///
/// [`ExecutorError::Setup`] if a layer is available and failed.
pub(crate) fn confine(config: &ConfinementConfig) -> Result<Confinement, ExecutorError> {
    #[cfg(target_os = "linux")]
    return linux::confine(config);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = config;
        Err(ExecutorError::Setup("process isolation needs Linux".into()))
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_layer_that_is_available_and_fails_is_an_error_that_names_it() {
        let mut confinement = Confinement::default();
        for (layer, errno) in [
            (ConfinementLayer::Root, Errno::NOSPC),
            (ConfinementLayer::Root, Errno::EXIST),
            (ConfinementLayer::Network, Errno::NOMEM),
            (ConfinementLayer::Files, Errno::TOOBIG),
        ] {
            let error = confinement.record(layer, Err(errno.into())).unwrap_err();
            assert!(matches!(error, ExecutorError::Setup(_)), "{error}");
            assert!(error.to_string().contains(layer.name()), "{error}");
        }
        assert_eq!(confinement, Confinement::default());
    }

    #[test]
    fn a_layer_that_the_system_does_not_offer_is_absent_for_a_reason() {
        let mut confinement = Confinement::default();
        for (layer, attempt) in [
            (ConfinementLayer::Network, Err(Errno::PERM.into())),
            (ConfinementLayer::Files, Err(Errno::NOSYS.into())),
            (
                ConfinementLayer::Root,
                Err(LayerError::Absent(Absence::NotRoot)),
            ),
            (ConfinementLayer::User, Ok(())),
        ] {
            confinement.record(layer, attempt).unwrap();
        }
        assert_eq!(confinement.active, [ConfinementLayer::User]);
        assert_eq!(
            confinement.absent,
            [
                (ConfinementLayer::Network, Absence::NotPermitted),
                (ConfinementLayer::Files, Absence::NoKernelSupport),
                (ConfinementLayer::Root, Absence::NotRoot),
            ]
        );
    }
}
