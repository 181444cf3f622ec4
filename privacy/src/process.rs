//! What a process with keys does about its own memory.

use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};

/// Keeps this process's memory out of core dumps, and from other processes of the same user: no
/// debugger can attach, and what `/proc` shows of it is for root. To be called before there is
/// anything worth keeping; what it starts later has no core dumps either, and decides about the
/// rest itself.
///
/// It does not keep memory from being swapped out: keys are in types of other crates, whose pages
/// can only be locked by `unsafe` code. [`crate::swap`] finds swap that is not encrypted instead.
///
/// # Errors
///
/// If the system refuses: there is then no protection, and a program should not go on.
pub fn keep_memory_private() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{DumpableBehavior, set_dumpable_behavior};
        set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    }
    Ok(())
}
