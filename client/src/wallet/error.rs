//! Why the wallet cannot do something.

use std::io;
use std::path::PathBuf;

use dlambda_proto::{ErrorKind, HasKind, Retry};
use thiserror::Error;

/// Why the wallet cannot do something.
///
/// A message may name a file of the wallet, by a contract's id, and never
/// holds a provider's address: it is for the wallet's owner, not for a log.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalletError {
    /// Another process has the wallet and does not go on.
    #[error(
        "{}: another process has had the wallet for more than {seconds} seconds; is it stopped?",
        path.display()
    )]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// For how long we waited.
        seconds: u64,
    },
    /// A contract's file is not what this wallet wrote. It is left as it is.
    #[error("{}: cannot be used: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A file or directory has the wrong owner or permissions, or cannot be used.
    #[error("{} cannot be used", path.display())]
    File {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The parts of what is to be stored contradict each other or the wallet.
    #[error("what the wallet was given contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// There is no such contract, or no longer.
    #[error("the wallet has no such contract; has another process removed it?")]
    NoSuchContract,
}

impl WalletError {
    pub(super) fn file(
        path: impl Into<PathBuf>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::File {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(super) fn io(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::file(path, error)
    }
}

impl HasKind for WalletError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy { .. } | Self::Damaged { .. } | Self::File { .. } | Self::NoSuchContract => {
                ErrorKind::Local
            }
            Self::Inconsistent(_) => ErrorKind::Bug,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy { .. } => Retry::Now,
            Self::File { .. } => Retry::Later,
            Self::Damaged { .. } | Self::Inconsistent(_) | Self::NoSuchContract => Retry::Never,
        }
    }
}
