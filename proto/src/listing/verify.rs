//! What was checked of a listing, as types.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::{Listing, NetworkId};
use crate::advert::signed_by_its_author;
use crate::{Authentic, Current, IdentityKey, ListingError, Signable, UnixSeconds, decode, encode};

const PURPOSE: &str = "listing/v1";

/// A listing's bytes with a signature that is not checked yet.
///
/// Equality is *the same listing*: the same signed bytes, whatever the signature.
#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedListing {
    #[cbor(n(0), with = "minicbor::bytes")]
    listing: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// Names a listing: SHA-256(`"dlambda/listing-digest/v1" 00 listing`), over the signed bytes
/// without the signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct ListingDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl Signable for Listing {
    type Signed = SignedListing;
}

impl Listing {
    /// Signs the listing with the identity it names.
    ///
    /// # Errors
    ///
    /// [`ListingError::Signature`] if `key` is not the identity named in it,
    /// [`ListingError::TooLarge`] and [`ListingError::Bound`] if no reader would accept it.
    pub fn sign(&self, key: &IdentityKey) -> Result<SignedListing, ListingError> {
        if key.id() != self.provider {
            return Err(ListingError::Signature);
        }
        self.check_bounds()?;
        let listing = encode(self);
        let signature = key.sign(&self.network.domain(PURPOSE), &listing);
        let signed = SignedListing { listing, signature };
        signed.check_size()?;
        Ok(signed)
    }

    /// How far the clocks of two machines may be apart, in seconds.
    pub const CLOCK_SKEW_SECONDS: u64 = 3600;

    /// Names the listing, whatever its signature.
    #[must_use]
    pub fn digest(&self) -> ListingDigest {
        ListingDigest::of(&encode(self))
    }

    /// Whether the listing is valid at `now`.
    ///
    /// # Errors
    ///
    /// [`ListingError::TooEarly`] or [`ListingError::Expired`].
    pub fn check_time(&self, now: UnixSeconds) -> Result<(), ListingError> {
        if self.validity.from > now.plus(Self::CLOCK_SKEW_SECONDS) {
            return Err(ListingError::TooEarly);
        }
        if self.validity.until <= now {
            return Err(ListingError::Expired);
        }
        Ok(())
    }
}

impl SignedListing {
    /// Reads the canonical encoding of a signed listing.
    ///
    /// # Errors
    ///
    /// [`ListingError::TooLarge`] or [`ListingError::Decode`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ListingError> {
        if bytes.len() > Listing::MAX_BYTES {
            return Err(ListingError::TooLarge);
        }
        Ok(decode(bytes)?)
    }

    #[cfg(test)]
    pub(super) fn from_parts(listing: Vec<u8>, signature: [u8; 64]) -> Self {
        Self { listing, signature }
    }

    /// Names the listing, whatever its signature.
    #[must_use]
    pub fn digest(&self) -> ListingDigest {
        ListingDigest::of(&self.listing)
    }

    /// What the listing says. It keeps its bounds and is of this network; its signature, which
    /// costs ten times as much to check, is not looked at.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says which of these does not hold.
    pub fn claims(&self, network: NetworkId) -> Result<Listing, ListingError> {
        self.check_size()?;
        let value: Listing = decode(&self.listing)?;
        if value.network != network {
            return Err(ListingError::OtherNetwork);
        }
        value.check_bounds()?;
        Ok(value)
    }

    /// Believes that the identity in the listing signed it for this network, and that it keeps its
    /// bounds. Its work is not looked at.
    ///
    /// # Errors
    ///
    /// [`ListingError`] says which of these does not hold.
    pub fn authenticate(self, network: NetworkId) -> Result<Authentic<Listing>, ListingError> {
        let value = self.claims(network)?;
        let domain = network.domain(PURPOSE);
        if !(value.provider).verify(&domain, &self.listing, &self.signature) {
            return Err(ListingError::Signature);
        }
        Ok(signed_by_its_author(value, self))
    }

    fn check_size(&self) -> Result<(), ListingError> {
        if minicbor::len(self) > Listing::MAX_BYTES {
            return Err(ListingError::TooLarge);
        }
        Ok(())
    }
}

impl ListingDigest {
    fn of(listing: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/listing-digest/v1\0");
        hash.update(listing);
        Self(hash.finalize().into())
    }
}

impl Authentic<Listing> {
    /// Believes that the listing is valid at `now`.
    ///
    /// # Errors
    ///
    /// [`ListingError::TooEarly`] or [`ListingError::Expired`].
    pub fn at(self, now: UnixSeconds) -> Result<Current<Listing>, ListingError> {
        self.check_time(now)?;
        Ok(Current::new(self))
    }

    /// Names the listing.
    #[must_use]
    pub fn digest(&self) -> ListingDigest {
        self.signed().digest()
    }
}

impl PartialEq for SignedListing {
    fn eq(&self, other: &Self) -> bool {
        self.listing == other.listing
    }
}

impl Eq for SignedListing {}

impl fmt::Debug for SignedListing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedListing({} bytes)", self.listing.len())
    }
}
