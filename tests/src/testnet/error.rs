//! Why a private network could not be started or used.

use std::{io, path::PathBuf};

/// A failure of the private network, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TestnetError {
    /// A helper program failed.
    #[error("`{program}` failed: {detail}")]
    Command {
        /// The program.
        program: &'static str,
        /// What it said.
        detail: String,
    },
    /// Another network runs in this directory.
    #[error("{} is in use by another running network; stop it or choose another directory", .0.display())]
    DirInUse(PathBuf),
    /// The directory holds somebody else's files.
    #[error("{} is not empty and was not made by dlambda-testnet; choose an empty directory", .0.display())]
    DirNotOurs(PathBuf),
    /// The consensus lacks a node or a flag.
    #[error("the first consensus is incomplete: {0}")]
    Incomplete(String),
    /// A file operation failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The mixnet's program is not there.
    #[error("`dlambda-mixnet` is not built, or not beside this program: `make nym` builds it")]
    MissingMixnet,
    /// A program is not installed.
    #[error("`{0}` is not installed or not on the PATH; on Debian or Ubuntu: apt install tor")]
    MissingProgram(&'static str),
    /// A process ended by itself.
    #[error("{name} ended unexpectedly; its log ends with:\n{log_tail}")]
    NodeExited {
        /// The node.
        name: String,
        /// The last lines of its log.
        log_tail: String,
    },
    /// No free port could be had.
    #[error("no free loopback port")]
    NoPort(#[source] io::Error),
    /// A file that tor wrote is not as expected.
    #[error("unexpected content in {}: {expected} is missing", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        expected: &'static str,
    },
    /// A chosen port was taken before the node could listen on it.
    #[error("a port chosen for {0} was taken meanwhile")]
    PortInUse(String),
    /// A size is out of bounds.
    #[error("{value} {what}: choose between {min} and {max}")]
    Size {
        /// What was counted.
        what: &'static str,
        /// The number asked for.
        value: usize,
        /// The smallest allowed.
        min: usize,
        /// The largest allowed.
        max: usize,
    },
    /// The time allowed ran out.
    #[error("timed out while {0}")]
    Timeout(&'static str),
    /// No node has this name.
    #[error("no node is called `{0}`")]
    UnknownNode(String),
}

impl TestnetError {
    pub(super) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// Bad luck, as opposed to something that would happen again.
    pub(super) fn is_worth_another_try(&self) -> bool {
        matches!(self, Self::Incomplete(_) | Self::PortInUse(_))
    }
}
