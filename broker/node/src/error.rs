//! What can go wrong with a node.

use dlambda_privacy::TransportError;
use dlambda_proto::{ErrorKind, HasKind, Retry};
use thiserror::Error;

/// A node that cannot start, has ended, or does not take what it was given.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NodeError {
    /// The node's service cannot be listened for.
    #[error("cannot listen for the overlay")]
    Listen(#[source] TransportError),
    /// The transport has no onion service for the overlay.
    #[error("a node of the overlay needs an onion service; use the Tor transport")]
    NoOnionService,
    /// The node's libp2p identity cannot be used.
    #[error("the node's identity in the overlay cannot be used")]
    Identity,
    /// libp2p refuses the node's settings.
    #[error("libp2p refuses the settings: {0}")]
    Settings(&'static str),
    /// The listener has ended: nothing can reach the node any more.
    #[error("the onion service of the overlay has ended")]
    ListenerEnded,
    /// The node has been shut down.
    #[error("the node has ended")]
    Ended,
    /// The node did not answer in time.
    #[error("the node did not answer in time")]
    Deadline,
    /// The node's own catalogue does not accept the item.
    #[error("the catalogue refuses the item: {0}")]
    Refused(&'static str),
    /// The item is longer than a message of the overlay may be.
    #[error("an item of {bytes} bytes where at most {limit} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
}

impl HasKind for NodeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Listen(error) => error.kind(),
            Self::NoOnionService => ErrorKind::Usage,
            Self::Identity | Self::Settings(_) => ErrorKind::Bug,
            Self::ListenerEnded => ErrorKind::NetworkDown,
            Self::Ended => ErrorKind::Local,
            Self::Deadline => ErrorKind::Deadline,
            Self::Refused(_) | Self::TooLong { .. } => ErrorKind::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Listen(error) => error.retry(),
            Self::ListenerEnded | Self::Deadline => Retry::Later,
            Self::NoOnionService
            | Self::Identity
            | Self::Settings(_)
            | Self::Ended
            | Self::Refused(_)
            | Self::TooLong { .. } => Retry::Never,
        }
    }
}
