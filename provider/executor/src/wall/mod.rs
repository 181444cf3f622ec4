//! The second wall: what a process gives up before it touches what strangers wrote.
//!
//! WebAssembly is the first. Should somebody find a hole in it, they are in a process that can compute and talk over
//! the one descriptor it was given, and nothing else: no files, no sockets, no signals to others, no new programs.

#[cfg(target_os = "linux")]
mod filter;
#[cfg(target_os = "linux")]
mod linux;
pub(crate) mod probe;

use crate::ExecutorError;

/// What the process may still use.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confinement {
    /// Bytes of private memory.
    pub(crate) data_bytes: u64,
    /// CPU time, in seconds.
    pub(crate) cpu_seconds: Option<u64>,
    /// Bytes that may be written to one file.
    pub(crate) file_bytes: u64,
    /// How much others go first, 0 to 19.
    pub(crate) niceness: i32,
}

/// A measure that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Wall {
    /// Only the system calls that guests need (seccomp).
    SystemCalls,
    /// Bounds on memory, files and time (resource limits).
    Resources,
    /// No access to any file (Landlock).
    Files,
    /// A network of its own with nothing in it (a namespace).
    Network,
    /// An empty file system (chroot).
    Root,
    /// An unprivileged user.
    User,
}

/// Why a wall does not stand although nothing failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Absence {
    /// The kernel is too old, or was built without it.
    NoKernelSupport,
    /// Only root may have it.
    NotRoot,
    /// This system does not give it to root either, as containers often do not.
    NotPermitted,
}

/// The walls around a process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Walls {
    /// Those in force.
    pub(crate) standing: Vec<Wall>,
    /// Those that this system does not offer.
    pub(crate) absent: Vec<(Wall, Absence)>,
}

impl Absence {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::NoKernelSupport, Self::NotRoot, Self::NotPermitted];

    /// Why, in a few words.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoKernelSupport => "this kernel has none",
            Self::NotRoot => "only when started as root",
            Self::NotPermitted => "not permitted on this system",
        }
    }
}

impl Walls {
    /// Records what came of an attempt to put up a wall.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Setup`], naming the wall, if it failed for another reason than that the system does not offer
    /// it: it could stand, so there is to be no process without it.
    pub(crate) fn record(
        &mut self,
        wall: Wall,
        attempt: Result<(), NoWall>,
    ) -> Result<(), ExecutorError> {
        match attempt {
            Ok(()) => self.standing.push(wall),
            Err(NoWall::Absent(why)) => self.absent.push((wall, why)),
            Err(NoWall::Failed(error)) => {
                let name = wall.name();
                return Err(ExecutorError::Setup(format!(
                    "the wall {name} could stand on this system and does not: {error}"
                )));
            }
        }
        Ok(())
    }
}

/// Why a wall does not stand.
#[derive(Debug)]
pub(crate) enum NoWall {
    Absent(Absence),
    Failed(std::io::Error),
}

/// For what system calls say.
impl From<rustix::io::Errno> for NoWall {
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

impl Wall {
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

/// Closes everything above standard error, first thing in a process. The standard library opens all with
/// close-on-exec; this is for what others opened.
pub(crate) fn close_inherited() {
    #[cfg(target_os = "linux")]
    linux::close_inherited();
}

/// Gives up everything, for good. To be called while the process has one thread. Says which walls stand: resource
/// limits and the system call filter always do, the others as far as this kernel and user can have them.
///
/// # Errors
///
/// [`ExecutorError::Setup`] if a wall could stand and does not.
pub(crate) fn confine(confinement: &Confinement) -> Result<Walls, ExecutorError> {
    #[cfg(target_os = "linux")]
    return linux::confine(confinement);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = confinement;
        Err(ExecutorError::Setup("process isolation needs Linux".into()))
    }
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_wall_that_could_stand_and_does_not_is_an_error_that_names_it() {
        let mut walls = Walls::default();
        for (wall, errno) in [
            (Wall::Root, Errno::NOSPC),
            (Wall::Root, Errno::EXIST),
            (Wall::Network, Errno::NOMEM),
            (Wall::Files, Errno::TOOBIG),
        ] {
            let error = walls.record(wall, Err(errno.into())).unwrap_err();
            assert!(matches!(error, ExecutorError::Setup(_)), "{error}");
            assert!(error.to_string().contains(wall.name()), "{error}");
        }
        assert_eq!(walls, Walls::default());
    }

    #[test]
    fn a_wall_that_the_system_does_not_offer_is_absent_for_a_reason() {
        let mut walls = Walls::default();
        for (wall, attempt) in [
            (Wall::Network, Err(Errno::PERM.into())),
            (Wall::Files, Err(Errno::NOSYS.into())),
            (Wall::Root, Err(NoWall::Absent(Absence::NotRoot))),
            (Wall::User, Ok(())),
        ] {
            walls.record(wall, attempt).unwrap();
        }
        assert_eq!(walls.standing, [Wall::User]);
        assert_eq!(
            walls.absent,
            [
                (Wall::Network, Absence::NotPermitted),
                (Wall::Files, Absence::NoKernelSupport),
                (Wall::Root, Absence::NotRoot),
            ]
        );
    }
}
