//! What can go wrong between here and a provider.

use std::io;

use dlambda_proto::{
    AdvertError, ContractRefusal, DecodeError, ErrorKind, FrameError, HasKind, Refusal,
};
use thiserror::Error;

/// The cause as the anonymity network's library tells it.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A connection that could not be made or held.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// This transport does not speak to this sort of address.
    #[error("this network cannot reach that sort of address")]
    WrongEndpoint,
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

/// A call or reply that could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SealError {
    /// Larger than the largest bucket.
    #[error("the message is larger than 64 MiB")]
    TooLarge,
    /// Not sealed to this key, or changed on the way.
    #[error("the message was not sealed for this key, or was changed on the way")]
    Open,
    /// The padding is not what our own padding looks like.
    #[error("the message is padded in another way than the protocol says")]
    Padding,
    /// What was sealed cannot be read.
    #[error("the sealed message cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The advertised key is no key.
    #[error("the advertised key is not a valid X25519 key")]
    BadKey,
}

/// Tokens that could not be issued or were not good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// An advertised key is no key of its kind.
    #[error("the advertised token key is not valid")]
    BadKey,
    /// A request for tokens is not one for this key and number.
    #[error("the request for tokens cannot be read")]
    Request,
    /// The issuer's answer is not what the advertised key gives.
    #[error("the tokens were not issued with the advertised key")]
    Proof,
    /// The library failed where it should not.
    #[error("tokens cannot be made here")]
    Unusable,
}

/// A contract that did not come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NegotiationError {
    /// The advert has no such plan, or one that needs no contract.
    #[error("{0}")]
    Unavailable(&'static str),
    /// The provider said no.
    #[error("{0}")]
    Refused(ContractRefusal),
    /// Tokens, or their key.
    #[error(transparent)]
    Tokens(#[from] TokenError),
    /// The provider's signature under the contract is not its identity's.
    #[error("the contract is not signed by the provider")]
    Signature,
    /// The provider answered something that has no place here.
    #[error("the provider's answer has no place at this point of the negotiation")]
    Unexpected,
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
    /// The call could not be sealed, or the reply not opened.
    #[error("the reply cannot be opened: {0}")]
    Reply(#[source] SealError),
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
            Self::WrongEndpoint => ErrorKind::Usage,
            Self::Unreachable(_) => ErrorKind::NoProvider,
            Self::NetworkDown(_) => ErrorKind::NetworkDown,
            Self::Local(_) => ErrorKind::Local,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::TooLarge(_) => ErrorKind::Refused,
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
}

impl HasKind for ExchangeError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Wire(wire) => wire.kind(),
            Self::Silent => ErrorKind::NoProvider,
            Self::Advert(advert) => advert.kind(),
            Self::Refused(refusal) => refusal.kind(),
            Self::Unreadable(_) | Self::Reply(_) => ErrorKind::ProviderMisbehaved,
        }
    }
}

impl HasKind for TokenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadKey | Self::Request | Self::Proof => ErrorKind::ProviderMisbehaved,
            Self::Unusable => ErrorKind::Bug,
        }
    }
}

impl HasKind for NegotiationError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Refused(_) => ErrorKind::Refused,
            Self::Tokens(error) => error.kind(),
            Self::Signature | Self::Unexpected => ErrorKind::ProviderMisbehaved,
        }
    }
}

impl HasKind for NetworkFileError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }
}
