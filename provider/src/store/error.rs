//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dlambda_proto::{ErrorKind, HasKind, Retry};
use redb::{DatabaseError, StorageError};
use thiserror::Error;

/// Why the store did not do what it was asked to. Holds no secret, no token
/// and no contract; it does hold paths, so it is for the operator, not for a peer.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// Too many tokens wait to be written. Nothing was done.
    #[error("too many tokens wait to be written to the store")]
    Busy,
    /// The epoch was not begun, or is over.
    #[error("the store does not know this epoch")]
    UnknownEpoch,
    /// An epoch's number is used once, and numbers only grow.
    #[error("this epoch's number, or a higher one, was used before")]
    EpochNotNew,
    /// No such contract in an epoch that is not over.
    #[error("the store does not know this contract")]
    UnknownContract,
    /// The contract was granted already, to another proposal.
    #[error("this contract was granted to another proposal before")]
    ContractTaken,
    /// The store's thread has ended.
    #[error("the store has stopped")]
    Stopped,
    /// Another process has the file open.
    #[error("another process uses {}", .0.display())]
    InUse(PathBuf),
    /// Others could read or change the file.
    #[error("{}: others can read or change it; it must be its owner's alone", .0.display())]
    Exposed(PathBuf),
    /// The file is none of ours, or is damaged. It was left as it is.
    #[error("{}: damaged, or not a store ({reason})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: Arc<str>,
    },
    /// The disk is full. Nothing is lost; the store goes on, reading too,
    /// within seconds of there being room.
    #[error("{}: the disk is full", .0.display())]
    DiskFull(PathBuf),
    /// The disk failed. What was to be written may or may not be there.
    #[error("{}: {source}", path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: Arc<redb::Error>,
    },
}

impl StoreError {
    pub(super) fn damaged(path: &Path, reason: &str) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::from_redb(path, redb::Error::Io(error))
    }

    pub(super) fn from_redb(path: &Path, error: redb::Error) -> Self {
        match error {
            redb::Error::DatabaseAlreadyOpen => Self::InUse(path.to_owned()),
            redb::Error::Io(error) if is_full(&error) => Self::DiskFull(path.to_owned()),
            // What redb says of a file that is no database, or one cut short.
            redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
                ) =>
            {
                Self::damaged(path, &error.to_string())
            }
            redb::Error::Corrupted(reason) => Self::damaged(path, &reason),
            error @ (redb::Error::TableDoesNotExist(_)
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::UpgradeRequired(_)) => Self::damaged(path, &error.to_string()),
            error => Self::Disk {
                path: path.to_owned(),
                source: Arc::new(error),
            },
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

impl HasKind for StoreError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Busy | Self::UnknownContract | Self::ContractTaken => ErrorKind::Refused,
            Self::UnknownEpoch => ErrorKind::Refused,
            Self::EpochNotNew => ErrorKind::Bug,
            Self::Stopped
            | Self::InUse(_)
            | Self::Exposed(_)
            | Self::Damaged { .. }
            | Self::DiskFull(_)
            | Self::Disk { .. } => ErrorKind::Local,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy | Self::Disk { .. } | Self::DiskFull(_) | Self::InUse(_) | Self::Stopped => {
                Retry::Later
            }
            Self::ContractTaken
            | Self::Damaged { .. }
            | Self::EpochNotNew
            | Self::Exposed(_)
            | Self::UnknownContract
            | Self::UnknownEpoch => Retry::Never,
        }
    }
}

/// What ends the work on the database, before it has the file's name.
pub(super) enum Fault {
    Redb(redb::Error),
    /// A value that this version did not write so.
    Damaged(&'static str),
}

impl Fault {
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            Self::Redb(error) => StoreError::from_redb(path, error),
            Self::Damaged(reason) => StoreError::damaged(path, reason),
        }
    }
}

macro_rules! faults {
    ($($error:ty),*) => {$(
        impl From<$error> for Fault {
            fn from(error: $error) -> Self {
                Self::Redb(error.into())
            }
        }
    )*};
}

faults!(
    redb::CommitError,
    redb::CompactionError,
    redb::SetDurabilityError,
    redb::TableError,
    redb::TransactionError,
    DatabaseError,
    StorageError
);
