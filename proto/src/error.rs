//! What can be wrong with bytes or names that came from elsewhere.

use thiserror::Error;

use crate::{ErrorKind, HasKind, Retry, UnixSeconds};

/// Bytes that are not the canonical encoding of the value expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Not an encoding of the value at all.
    #[error("the bytes are not what was expected here")]
    Malformed,
    /// An encoding of the value, but not its canonical one.
    #[error("the bytes are not in canonical form")]
    NotCanonical,
}

/// A frame that breaks the rules of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The peer speaks another version of the protocol.
    #[error("the peer speaks protocol version {found}, and we speak version {ours}")]
    Version {
        /// The version in the frame.
        found: u8,
        /// The version of this crate.
        ours: u8,
    },
    /// A kind of frame that this version does not know.
    #[error("unknown kind of frame ({0})")]
    UnknownKind(u8),
    /// A kind of frame that has no place at this point of a call.
    #[error("a frame of the wrong kind for this point of a call")]
    UnexpectedKind,
    /// The announced length is above the limit for this kind.
    #[error("a frame of {announced} bytes where at most {limit} are allowed")]
    TooLong {
        /// Announced length in bytes.
        announced: u32,
        /// The limit in bytes.
        limit: u32,
    },
}

/// A name that is not well formed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdError {
    /// Not a version 3 onion address.
    #[error("not an onion address: {0}")]
    Onion(&'static str),
    /// None, or more than eight.
    #[error("a provider has one to eight addresses, with commas between")]
    Endpoints,
    /// Not a Nym address.
    #[error("not a Nym address: {0}")]
    Nym(&'static str),
    /// Not a function id.
    #[error("not a function id: {0}")]
    Function(&'static str),
    /// Not a plan name.
    #[error("not a plan name: use 1 to 16 lower-case letters, digits or hyphens")]
    Plan,
    /// Not an overlay network's id.
    #[error("not a network id: 32 hexadecimal digits")]
    Network,
    /// Not a region.
    #[error("not a region: use 2 to 8 lower-case letters, digits or hyphens")]
    Region,
    /// An address that only `DangerouslyDirect` would understand, and not on loopback.
    #[error("direct connections are for loopback addresses only")]
    NotLoopback,
}

/// An advert that must not be believed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdvertError {
    /// The bytes are not an advert.
    #[error("the advert cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// The identity named in the advert did not sign it.
    #[error("the advert is not signed by the provider it names")]
    Signature,
    /// The advert is not valid at this time, or may soon not be, or was not a little while ago.
    #[error(
        "the advert is valid from {} until {} (Unix time), and that does not reach far enough around the time \
         of this machine; check its clock",
        from.0, until.0
    )]
    NotValidNow {
        /// First valid second.
        from: UnixSeconds,
        /// First second after validity.
        until: UnixSeconds,
    },
    /// The advert is served from an endpoint that it does not name.
    #[error("the advert does not name the address that served it")]
    OtherEndpoint,
    /// The key to seal to is not signed by the provider for this epoch.
    #[error("the key to seal to is not signed by the provider of the advert")]
    SealingKey,
    /// A field breaks a bound.
    #[error("the advert breaks a bound: {0}")]
    Bound(&'static str),
}

/// A listing, an offer or a proof of a fork that must not be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListingError {
    /// The bytes are not a listing.
    #[error("the listing cannot be read: {0}")]
    Decode(#[from] DecodeError),
    /// More bytes than any listing has.
    #[error("the listing is too large")]
    TooLarge,
    /// It was signed for another network.
    #[error("the listing is of another network")]
    OtherNetwork,
    /// The identity named in the listing did not sign it.
    #[error("the listing is not signed by the provider it names")]
    Signature,
    /// A field breaks a bound.
    #[error("the listing breaks a bound: {0}")]
    Bound(&'static str),
    /// It begins later than any clock may differ.
    #[error("the listing is not valid yet; check this machine's clock")]
    TooEarly,
    /// It is over.
    #[error("the listing is not valid any more; check this machine's clock")]
    Expired,
    /// The two listings of a proof do not contradict each other.
    #[error("the two listings do not contradict each other")]
    NoFork,
}

impl HasKind for ListingError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ProviderMisbehaved
    }

    fn retry(&self) -> Retry {
        match self {
            Self::TooEarly | Self::Expired => Retry::Later,
            _ => Retry::Never,
        }
    }
}

impl HasKind for FrameError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ProviderMisbehaved
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl HasKind for IdError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Usage
    }

    fn retry(&self) -> Retry {
        Retry::Never
    }
}

impl HasKind for AdvertError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::ProviderMisbehaved
    }

    fn retry(&self) -> Retry {
        match self {
            // The epoch may turn any moment, or one of the two clocks be put right.
            Self::NotValidNow { .. } => Retry::Later,
            _ => Retry::Never,
        }
    }
}
