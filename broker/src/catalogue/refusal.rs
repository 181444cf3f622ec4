//! Why the catalogue does not take something, and whose fault that is.

use std::collections::BTreeMap;

use dlambda_proto::{
    DecodeError, ErrorKind, HasKind, ListingError, ListingFork, Retry, SubmitRefusal,
};
use thiserror::Error;

/// Why the catalogue does not take a listing, a proof, an offer or a demand.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// More bytes than it may have.
    #[error("it is too large")]
    TooLarge,
    /// Not an encoding of it.
    #[error("the bytes are not what was expected")]
    Malformed,
    /// Another encoding of it than the canonical one.
    #[error("the bytes are not in canonical form")]
    NotCanonical,
    /// Of another network.
    #[error("it is of another network")]
    OtherNetwork,
    /// Its author did not sign it.
    #[error("it is not signed by the provider it names")]
    Forged,
    /// A field breaks a bound.
    #[error("it breaks a bound: {0}")]
    Bound(&'static str),
    /// Its work is no solution.
    #[error("it brings no work")]
    Unworked,
    /// Its work shows less effort than the network asks for.
    #[error("it brings too little work: {shown} of {required}")]
    TooLittleWork {
        /// The effort that it shows.
        shown: u64,
        /// The least that is enough.
        required: u64,
    },
    /// A proof of a fork that proves none.
    #[error("the two listings do not contradict each other")]
    NoFork,
    /// It begins later than any clock may differ.
    #[error("it is not valid yet")]
    Early,
    /// It is over.
    #[error("it is not valid any more")]
    Expired,
    /// A later one of the same provider is known.
    #[error("a later one of the same provider is known")]
    Superseded,
    /// The provider has published as many as it may.
    #[error("its provider has published as many as it may")]
    OverQuota,
    /// There is no room for it.
    #[error("there is no room for it")]
    Full,
    /// An offer of a provider, or for a listing, that is not in the catalogue.
    #[error("no such listing is known")]
    Unlisted,
    /// The provider was shown to contradict itself before.
    #[error("its provider has contradicted itself")]
    Convicted,
    /// The listing contradicts one that is known: here is the proof, which is kept. It has to be
    /// published.
    #[error("it contradicts another listing of its provider")]
    Fork(Box<ListingFork>),
}

/// How often the catalogue refused something, by the reason's name.
#[derive(Clone, Debug, Default)]
pub struct Refusals(BTreeMap<&'static str, u64>);

impl Refusal {
    /// Whether the node that forwarded it must have known: nodes check before they forward. Clocks,
    /// the order of arrival and the room of two nodes may differ, so the other reasons are no
    /// fault.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        match self {
            Self::TooLarge
            | Self::Malformed
            | Self::NotCanonical
            | Self::OtherNetwork
            | Self::Forged
            | Self::Bound(_)
            | Self::Unworked
            | Self::TooLittleWork { .. }
            | Self::NoFork => true,
            Self::Early
            | Self::Expired
            | Self::Superseded
            | Self::OverQuota
            | Self::Full
            | Self::Unlisted
            | Self::Convicted
            | Self::Fork(_) => false,
        }
    }

    /// The reason's name, for counters and for JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::NotCanonical => "not-canonical",
            Self::OtherNetwork => "other-network",
            Self::Forged => "forged",
            Self::Bound(_) => "bound",
            Self::Unworked => "unworked",
            Self::TooLittleWork { .. } => "too-little-work",
            Self::NoFork => "no-fork",
            Self::Early => "early",
            Self::Expired => "expired",
            Self::Superseded => "superseded",
            Self::OverQuota => "over-quota",
            Self::Full => "full",
            Self::Unlisted => "unlisted",
            Self::Convicted => "convicted",
            Self::Fork(_) => "fork",
        }
    }

    /// What a guest is told that submitted it.
    #[must_use]
    pub fn to_guest(&self) -> SubmitRefusal {
        match self {
            Self::Early | Self::Expired => SubmitRefusal::NotNow,
            Self::Unworked | Self::TooLittleWork { .. } => SubmitRefusal::TooLittleWork,
            Self::OverQuota => SubmitRefusal::OverQuota,
            Self::Full => SubmitRefusal::Full,
            Self::Convicted | Self::Fork(_) => SubmitRefusal::Fork,
            Self::Superseded => SubmitRefusal::Superseded,
            _ => SubmitRefusal::Invalid,
        }
    }
}

impl Refusals {
    pub(super) fn count(&mut self, refusal: &Refusal) {
        let count = self.0.entry(refusal.name()).or_default();
        *count = count.saturating_add(1);
    }

    /// Each reason that occurred, by name, and how often.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(name, count)| (*name, *count))
    }

    /// How often this reason occurred.
    #[must_use]
    pub fn of(&self, refusal: &Refusal) -> u64 {
        self.0.get(refusal.name()).copied().unwrap_or(0)
    }
}

impl From<ListingError> for Refusal {
    fn from(error: ListingError) -> Self {
        match error {
            ListingError::Decode(DecodeError::NotCanonical) => Self::NotCanonical,
            ListingError::TooLarge => Self::TooLarge,
            ListingError::OtherNetwork => Self::OtherNetwork,
            ListingError::Signature => Self::Forged,
            ListingError::Bound(what) => Self::Bound(what),
            ListingError::TooEarly => Self::Early,
            ListingError::Expired => Self::Expired,
            ListingError::NoFork => Self::NoFork,
            _ => Self::Malformed,
        }
    }
}

impl HasKind for Refusal {
    fn kind(&self) -> ErrorKind {
        if self.is_misbehaviour() || matches!(self, Self::Convicted | Self::Fork(_)) {
            ErrorKind::ProviderMisbehaved
        } else {
            ErrorKind::Refused
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Early | Self::OverQuota | Self::Full | Self::Unlisted => Retry::Later,
            _ => Retry::Never,
        }
    }
}
