//! What can go wrong between here and a provider.

use std::io;

use dlambda_crypto::SealError;
use dlambda_proto::{AdvertError, DecodeError, ErrorKind, FrameError, HasKind, Refusal, Retry};
use thiserror::Error;
use tokio::time::error::Elapsed;

/// The cause as the anonymity network's library tells it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A connection that could not be made or held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// This transport does not speak to this sort of address.
    #[error("this network cannot reach that sort of address")]
    WrongEndpoint,
    /// This transport does not carry streams of this service.
    #[error("this network does not carry that service")]
    WrongService,
    /// The network works; the other end does not answer.
    #[error("the provider cannot be reached")]
    Unreachable(#[source] Cause),
    /// The anonymity network cannot be used from here.
    #[error("the anonymity network cannot be used from here")]
    NetworkDown(#[source] Cause),
    /// Something on this machine: a file, a permission, a lock.
    #[error("the anonymity network cannot start on this machine")]
    Local(#[source] Cause),
    /// No answer in time.
    #[error("no {0} in time")]
    Deadline(&'static str),
    /// More than its streams carry, in bytes.
    #[error("the call is larger than the {0} bytes that this transport carries; Tor carries more")]
    TooLarge(usize),
}

impl TransportError {
    /// Whether the same may work at once on another circuit.
    #[must_use]
    pub fn is_worth_another_circuit(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Deadline(_))
    }
}

/// A frame that could not be sent or received.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WireError {
    /// The peer broke the rules.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The connection ended in the middle.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// No frame in time.
    #[error("the other side took too long")]
    Deadline,
    /// There is no memory left to receive into.
    #[error("too many bytes are being received at once")]
    NoBudget,
}

impl From<Elapsed> for WireError {
    fn from(_: Elapsed) -> Self {
        Self::Deadline
    }
}

/// An exchange with a provider that did not end in a reply.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ExchangeError {
    /// Frames were not received or sent.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A stream opened, and nothing came by it: over Nym that is how it is when
    /// nobody is at an address.
    #[error("the provider cannot be reached: nothing came from it in time")]
    Silent,
    /// The advert must not be believed.
    #[error(transparent)]
    Advert(#[from] AdvertError),
    /// The provider turned the call away.
    #[error("{0}")]
    Refused(Refusal),
    /// The provider's refusal or advert cannot be read.
    #[error("the provider sent something that cannot be read")]
    Unreadable(#[from] DecodeError),
    /// What was to be sent cannot be sealed.
    #[error("the request cannot be sealed")]
    Seal(#[source] SealError),
    /// The reply was not sealed to us, or was changed on the way.
    #[error("the reply cannot be opened")]
    Open(#[source] SealError),
}

/// A network file that cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum NetworkFileError {
    /// The file cannot be read.
    #[error("the network file cannot be read")]
    Io(#[from] io::Error),
    /// The file is not a network file.
    #[error("the network file is not valid: {0}")]
    Syntax(String),
}

impl ExchangeError {
    /// Whether the same, freshly sealed, may work at once on another circuit.
    #[must_use]
    pub fn is_worth_another_circuit(&self) -> bool {
        match self {
            Self::Silent | Self::Wire(WireError::Lost(_) | WireError::Deadline) => true,
            Self::Refused(refusal) => refusal.is_transient(),
            _ => false,
        }
    }
}

impl HasKind for TransportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::WrongEndpoint | Self::WrongService => ErrorKind::Usage,
            Self::Unreachable(_) => ErrorKind::NoProvider,
            Self::NetworkDown(_) => ErrorKind::NetworkDown,
            Self::Local(_) => ErrorKind::Local,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::TooLarge(_) => ErrorKind::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            // An earlier circuit of the same call may have reached the provider.
            Self::Deadline(_) | Self::Unreachable(_) | Self::NetworkDown(_) | Self::Local(_) => {
                Retry::Later
            }
            Self::WrongEndpoint | Self::WrongService | Self::TooLarge(_) => Retry::Never,
        }
    }
}

impl HasKind for WireError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Frame(frame) => frame.kind(),
            Self::Lost(_) => ErrorKind::NoProvider,
            Self::Deadline => ErrorKind::Deadline,
            Self::NoBudget => ErrorKind::Refused,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Lost(_) | Self::Deadline | Self::NoBudget => Retry::Later,
            Self::Frame(frame) => frame.retry(),
        }
    }
}

impl HasKind for ExchangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Wire(wire) => wire.kind(),
            Self::Silent => ErrorKind::NoProvider,
            Self::Advert(advert) => advert.kind(),
            Self::Refused(refusal) => refusal.kind(),
            Self::Seal(_) => ErrorKind::Bug,
            Self::Unreadable(_) | Self::Open(_) => ErrorKind::ProviderMisbehaved,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Wire(wire) => wire.retry(),
            Self::Advert(advert) => advert.retry(),
            Self::Refused(refusal) if refusal.is_transient() => Retry::Later,
            Self::Silent => Retry::Later,
            Self::Refused(_) | Self::Seal(_) | Self::Open(_) | Self::Unreadable(_) => Retry::Never,
        }
    }
}

impl HasKind for NetworkFileError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}
