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
pub(crate) fn confine(confinement: &Confinement) -> Result<Vec<Wall>, ExecutorError> {
    #[cfg(target_os = "linux")]
    return linux::confine(confinement);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = confinement;
        Err(ExecutorError::Setup("process isolation needs Linux".into()))
    }
}
