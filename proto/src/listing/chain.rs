//! The listings of a provider over time: each names the one before it.
//!
//! A provider that shows one listing here and another there, and so an advert, keys or an epoch for
//! one visitor alone, has signed what proves it.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};

use super::{Listing, NetworkId, SignedListing};
use crate::{Authentic, ListingError, ProviderId};

/// Two listings of one provider that cannot both be what everybody was shown.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ListingFork {
    /// One.
    #[n(0)]
    pub one: SignedListing,
    /// And another.
    #[n(1)]
    pub other: SignedListing,
}

impl Listing {
    /// Whether an honest provider cannot have signed both. They differ, and:
    ///
    /// - they have one number or one predecessor, or
    /// - they are of one epoch and name different adverts, or
    /// - the later one has the earlier epoch, or
    /// - one follows the other directly and names another as its predecessor.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.provider != other.provider || self == other {
            return false;
        }
        let (earlier, later) = if self.number <= other.number {
            (self, other)
        } else {
            (other, self)
        };
        let follows = earlier.number.checked_add(1) == Some(later.number);
        earlier.number == later.number
            || earlier.previous == later.previous
            || (earlier.epoch == later.epoch && earlier.advert != later.advert)
            || earlier.epoch > later.epoch
            || (follows && later.previous != Some(earlier.digest()))
    }

    /// Whether this listing comes directly after `earlier`.
    #[must_use]
    pub fn succeeds(&self, earlier: &Self) -> bool {
        self.provider == earlier.provider && self.previous == Some(earlier.digest())
    }
}

impl Authentic<Listing> {
    /// The proof that the two contradict each other, if they do. One fork has one proof: the order
    /// of its listings is that of their digests.
    #[must_use]
    pub fn fork(&self, other: &Self) -> Option<ListingFork> {
        if !self.contradicts(other) {
            return None;
        }
        let (mut one, mut other) = (self, other);
        if one.digest() > other.digest() {
            (one, other) = (other, one);
        }
        Some(ListingFork {
            one: one.signed().clone(),
            other: other.signed().clone(),
        })
    }
}

impl ListingFork {
    /// Whose listings they are, if they are what the proof says.
    ///
    /// # Errors
    ///
    /// [`ListingError`] if one of them was not signed for this network, or they agree.
    pub fn verify(&self, network: NetworkId) -> Result<ProviderId, ListingError> {
        let one = self.one.clone().authenticate(network)?;
        let other = self.other.clone().authenticate(network)?;
        if !one.contradicts(&other) {
            return Err(ListingError::NoFork);
        }
        Ok(one.provider)
    }
}

impl fmt::Debug for ListingFork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ListingFork([scrubbed])")
    }
}
