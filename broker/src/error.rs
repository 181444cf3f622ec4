//! What can go wrong between a guest and the overlay, and on a guest's disk.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dlambda_crypto::SealError;
use dlambda_privacy::{TransportError, WireError};
use dlambda_proto::{DecodeError, ErrorKind, HasKind, ListingError, Requirement, Retry};
use thiserror::Error;

use crate::Refusal;

/// A snapshot that is not what its manifest says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The manifest breaks a bound.
    #[error("the manifest breaks a bound: {0}")]
    Manifest(&'static str),
    /// A chunk has another length than follows from the manifest.
    #[error("a chunk of {found} bytes where {expected} follow from the manifest")]
    ChunkLength {
        /// Bytes that follow from the manifest.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A listing in it cannot be read, or is of another network.
    #[error(transparent)]
    Listing(#[from] ListingError),
    /// Listings out of order, or two of one provider, or one in the wrong bucket.
    #[error("the listings are not in the order of their providers' ids")]
    Order,
    /// Another number of listings or of proofs than the manifest says.
    #[error("{found} parts where the manifest says {expected}")]
    Count {
        /// What the manifest says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// The listings of a bucket do not have the digest in the manifest.
    #[error("the listings of bucket {0} are not those of the manifest")]
    BucketDigest(u8),
    /// The proofs of forks do not have the digest in the manifest.
    #[error("the proofs of forks are not those of the manifest")]
    ForksDigest,
    /// The whole does not have the name in the manifest.
    #[error("the catalogue is not the one that the manifest names")]
    SnapshotId,
}

/// A request of a guest that brought no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GuestError {
    /// No connection to the node.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The frames were not sent or received.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No answer in time.
    #[error("the node did not answer in time")]
    Deadline,
    /// The ask is larger than an ask can be.
    #[error("the request is larger than {0} bytes")]
    TooLarge(usize),
    /// The frame has none of the lengths that frames of its kind have.
    #[error("the frame has a length that no such frame has")]
    Length,
    /// The padding is not what it has to be.
    #[error("the frame is not padded as it has to be")]
    Padding,
    /// The frame holds no ask or answer.
    #[error("the node sent something that cannot be read")]
    Decode(#[from] DecodeError),
    /// An answer to an ask of another network.
    #[error("the answer belongs to no ask of this network")]
    Unbound,
    /// An ask cannot be sealed.
    #[error("the request cannot be sealed")]
    Seal(#[source] SealError),
    /// Not sealed with the network's pre-shared key, or in answer to something else.
    #[error("the frame cannot be opened; is the network's pre-shared key the same?")]
    Open(#[source] SealError),
}

/// Why a source of a sync or look-up does not count.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum SourceFault {
    /// It gave no answer.
    #[error("it gave no answer")]
    NoAnswer(#[from] GuestError),
    /// It has too many guests.
    #[error("it has too many guests at once")]
    Busy,
    /// It dropped what it had named a moment before, twice.
    #[error("it does not keep what it names")]
    Gone,
    /// It answered something else than was asked.
    #[error("it answered something else than was asked")]
    WrongAnswer,
    /// What it served is not what its manifest says.
    #[error("its catalogue is not what it says")]
    Snapshot(#[from] SnapshotError),
    /// It served something that no node takes.
    #[error("it served something that no node takes")]
    Listing(#[from] Refusal),
    /// It lists far fewer providers than all bootstrap nodes do.
    #[error("it withholds providers that all bootstrap nodes list")]
    Withheld,
    /// The time was over before it had answered everything.
    #[error("it did not answer everything in time")]
    Unfinished,
}

/// A sync or look-up that brought nothing to rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The network file names no bootstrap node that this machine can reach.
    #[error("no bootstrap node is known that this transport reaches")]
    NoSource,
    /// No bootstrap node answered.
    #[error("no bootstrap node answers")]
    NoBootstrap,
    /// Too few sources answered to tell what most of them list.
    #[error("{answered} nodes answered, where {needed} are needed")]
    TooFew {
        /// How many answered.
        answered: usize,
        /// How many are needed.
        needed: usize,
    },
}

/// No chosen provider meets the requirements.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NoneFits {
    /// There is none at all.
    #[error("no provider is known that most sources list; sync first")]
    NoProvider,
    /// Some meet the requirements, and none of these has offered capacity lately.
    #[error("no provider that meets the requirements has offered capacity within half an hour")]
    NoOffer,
    /// All lack something.
    #[error(
        "none of {providers} providers meets the requirements: {lacking} of them do not meet {most}"
    )]
    Lacking {
        /// How many providers there are.
        providers: usize,
        /// The requirement that most of them do not meet.
        most: Requirement,
        /// How many do not meet it.
        lacking: usize,
        /// How many do not meet each requirement.
        counts: BTreeMap<Requirement, usize>,
    },
}

/// The stored directory cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file cannot be read or written.
    #[error("{} cannot be used", path.display())]
    File {
        /// What it is about.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The file is not what this program wrote.
    #[error("{}: cannot be used: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Another process is storing it now.
    #[error("{}: another process is writing it", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
    },
    /// The file is of another network.
    #[error("{}: it is of another network", path.display())]
    OtherNetwork {
        /// The file.
        path: PathBuf,
    },
}

impl HasKind for SnapshotError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ProviderMisbehaved
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl HasKind for GuestError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Transport(transport) => transport.kind(),
            Self::Wire(wire) => wire.kind(),
            Self::Deadline => ErrorKind::Deadline,
            Self::TooLarge(_) => ErrorKind::Usage,
            Self::Seal(_) | Self::Unbound => ErrorKind::Bug,
            Self::Length | Self::Padding | Self::Decode(_) | Self::Open(_) => {
                ErrorKind::ProviderMisbehaved
            }
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Transport(transport) => transport.retry(),
            Self::Wire(wire) => wire.retry(),
            Self::Deadline => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl SourceFault {
    /// Whether the source lied or broke the protocol, and is not only slow or full.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::NoAnswer(error) => error.kind() == ErrorKind::ProviderMisbehaved,
            Self::Busy | Self::Gone | Self::Unfinished => false,
            Self::WrongAnswer | Self::Snapshot(_) | Self::Listing(_) | Self::Withheld => true,
        }
    }
}

impl HasKind for SourceFault {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoAnswer(error) => error.kind(),
            Self::Busy | Self::Gone => ErrorKind::Refused,
            Self::Unfinished => ErrorKind::Deadline,
            Self::WrongAnswer | Self::Snapshot(_) | Self::Listing(_) | Self::Withheld => {
                ErrorKind::ProviderMisbehaved
            }
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NoAnswer(error) => error.retry(),
            Self::Busy | Self::Gone | Self::Unfinished => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl HasKind for SyncError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSource => ErrorKind::Usage,
            Self::NoBootstrap | Self::TooFew { .. } => ErrorKind::NetworkDown,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NoSource => Retry::Never,
            Self::NoBootstrap | Self::TooFew { .. } => Retry::Later,
        }
    }
}

impl HasKind for NoneFits {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoProvider
    }

    fn retry(&self) -> Retry {
        Retry::Later
    }
}

impl HasKind for StoreError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Local
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Busy { .. } => Retry::Now,
            Self::File { .. } => Retry::Later,
            Self::Damaged { .. } | Self::OtherNetwork { .. } => Retry::Never,
        }
    }
}
