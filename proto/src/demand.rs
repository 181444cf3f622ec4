//! Active search: a class is asked for in public, and answered in public.
//!
//! A demand says nothing but a class. An answer is for everybody, since what one asker alone can
//! read can carry a mark.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::advert::signed_by_its_author;
use crate::{
    Authentic, Class, IdentityKey, ListingDigest, ListingError, NetworkId, ProviderId, Signable,
    UnixSeconds, Work, decode, encode,
};

const PURPOSE: &str = "offer/v1";

/// Asks providers of a class to say whether they have capacity.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Demand {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// The class.
    #[n(1)]
    pub class: Class,
    /// Work on network, class and day.
    #[n(2)]
    pub work: Work,
}

/// What a provider says of its capacity to everybody.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Offer {
    /// The network.
    #[n(0)]
    pub network: NetworkId,
    /// Whose offer it is.
    #[n(1)]
    pub provider: ProviderId,
    /// Its listing.
    #[n(2)]
    pub listing: ListingDigest,
    /// The class that was asked for.
    #[n(3)]
    pub class: Class,
    /// How much is free.
    #[n(4)]
    pub capacity: Capacity,
    /// When: minutes since the Unix epoch.
    #[n(5)]
    pub minute: u64,
}

/// How much of a provider is free, in three steps: finer would show single calls.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen, Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
pub enum Capacity {
    /// Nothing: calls would wait.
    #[n(0)]
    None,
    /// Less than half.
    #[n(1)]
    Some,
    /// Half or more.
    #[n(2)]
    Ample,
}

/// An offer's bytes with a signature that is not checked yet. Equality is of the signed bytes.
#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedOffer {
    #[cbor(n(0), with = "minicbor::bytes")]
    offer: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

impl Signable for Offer {
    type Signed = SignedOffer;
}

impl Offer {
    /// Shortest time between two offers of one provider: 10 minutes.
    pub const INTERVAL_MINUTES: u64 = 10;
    /// How long an offer is of use: 30 minutes.
    pub const LIFE_MINUTES: u64 = 30;
    /// How far the clocks of two machines may be apart, in minutes.
    const CLOCK_SKEW_MINUTES: u64 = 60;
    /// Largest offer with its signature, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// Signs the offer with the identity it names.
    ///
    /// # Errors
    ///
    /// [`ListingError::Signature`] if `key` is another identity's.
    pub fn sign(&self, key: &IdentityKey) -> Result<SignedOffer, ListingError> {
        if key.id() != self.provider {
            return Err(ListingError::Signature);
        }
        let offer = encode(self);
        let signature = key.sign(&self.network.domain(PURPOSE), &offer);
        Ok(SignedOffer { offer, signature })
    }

    /// Whether the offer is of use at `now`.
    ///
    /// # Errors
    ///
    /// [`ListingError::TooEarly`] or [`ListingError::Expired`].
    pub fn check_time(&self, now: UnixSeconds) -> Result<(), ListingError> {
        let minute = now.0 / 60;
        if self.minute > minute.saturating_add(Self::CLOCK_SKEW_MINUTES) {
            return Err(ListingError::TooEarly);
        }
        if self.minute.saturating_add(Self::LIFE_MINUTES) < minute {
            return Err(ListingError::Expired);
        }
        Ok(())
    }
}

impl SignedOffer {
    /// What the offer says. It is of this network; its signature is not looked at.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says why not.
    pub fn claims(&self, network: NetworkId) -> Result<Offer, ListingError> {
        if minicbor::len(self) > Offer::MAX_BYTES {
            return Err(ListingError::TooLarge);
        }
        let value: Offer = decode(&self.offer)?;
        if value.network != network {
            return Err(ListingError::OtherNetwork);
        }
        Ok(value)
    }

    /// Believes that the identity in the offer signed it for this network.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says why not.
    pub fn authenticate(self, network: NetworkId) -> Result<Authentic<Offer>, ListingError> {
        let value = self.claims(network)?;
        let domain = network.domain(PURPOSE);
        if !(value.provider).verify(&domain, &self.offer, &self.signature) {
            return Err(ListingError::Signature);
        }
        Ok(signed_by_its_author(value, self))
    }
}

impl PartialEq for SignedOffer {
    fn eq(&self, other: &Self) -> bool {
        self.offer == other.offer
    }
}

impl Eq for SignedOffer {}

impl fmt::Debug for Demand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Demand([scrubbed])")
    }
}

impl fmt::Debug for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Offer([scrubbed])")
    }
}

impl fmt::Debug for SignedOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedOffer([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offer_is_of_one_network_one_author_and_little_time() {
        let key = IdentityKey::from_seed(&[1; 32]);
        let network = NetworkId::from_bytes([1; 16]);
        let offer = Offer {
            network,
            provider: key.id(),
            listing: ListingDigest([2; 32]),
            class: Class::from_number(3).unwrap(),
            capacity: Capacity::Some,
            minute: 1_000,
        };
        let signed = offer.sign(&key).unwrap();
        assert!(minicbor::len(&signed) <= Offer::MAX_BYTES);
        let read = signed.clone().authenticate(network).unwrap();
        assert!(*read == offer);
        let elsewhere = NetworkId::from_bytes([2; 16]);
        let refused = signed.clone().authenticate(elsewhere);
        assert_eq!(refused.unwrap_err(), ListingError::OtherNetwork);
        let mut forged = signed;
        forged.signature[0] ^= 1;
        let refused = forged.authenticate(network);
        assert_eq!(refused.unwrap_err(), ListingError::Signature);
        let other = IdentityKey::from_seed(&[2; 32]);
        assert_eq!(offer.sign(&other).unwrap_err(), ListingError::Signature);
        let at = |minute: u64| offer.check_time(UnixSeconds(minute * 60));
        assert_eq!(at(1_030), Ok(()));
        assert_eq!(at(1_031), Err(ListingError::Expired));
        assert_eq!(at(940), Ok(()));
        assert_eq!(at(939), Err(ListingError::TooEarly));
    }
}
