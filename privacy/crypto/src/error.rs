//! What can go wrong with what is sealed, issued and negotiated.

use dlambda_proto::{ContractRefusal, DecodeError, ErrorKind, HasKind, Retry};
use thiserror::Error;

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
    #[error("the sealed message cannot be read")]
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

/// The libraries' errors are not kept: they say no more than the variant does, and a peer that
/// learnt which check its message failed could use this side as an oracle.
impl SealError {
    pub(crate) fn open<E>(_: E) -> Self {
        Self::Open
    }

    pub(crate) fn too_large<E>(_: E) -> Self {
        Self::TooLarge
    }

    pub(crate) fn bad_key<E>(_: E) -> Self {
        Self::BadKey
    }
}

/// The libraries' errors are not kept, as those of [`SealError`].
impl TokenError {
    pub(crate) fn bad_key<E>(_: E) -> Self {
        Self::BadKey
    }

    pub(crate) fn request<E>(_: E) -> Self {
        Self::Request
    }

    pub(crate) fn proof<E>(_: E) -> Self {
        Self::Proof
    }

    pub(crate) fn unusable<E>(_: E) -> Self {
        Self::Unusable
    }
}

impl HasKind for TokenError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::BadKey | Self::Request | Self::Proof => ErrorKind::ProviderMisbehaved,
            Self::Unusable => ErrorKind::Bug,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::BadKey | Self::Request | Self::Proof | Self::Unusable => Retry::Never,
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

    fn retry(&self) -> Retry {
        match self {
            Self::Refused(_) => Retry::Later,
            Self::Tokens(error) => error.retry(),
            Self::Unavailable(_) | Self::Signature | Self::Unexpected => Retry::Never,
        }
    }
}
