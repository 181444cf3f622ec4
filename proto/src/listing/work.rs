//! Work that a listing or a demand brings: identities are free, their days are not.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use super::{Class, NetworkId};
use crate::{ProviderId, UnixSeconds};

/// A day of Unix time: 86,400 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct Day(#[n(0)] pub u64);

/// A solution of Equihash (96, 5) for one day. `dlambda-crypto` makes and checks it.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Work {
    /// The day that it was done for.
    #[n(0)]
    pub day: Day,
    /// What makes one solution differ from the next.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// The solution's indices, 17 bits each.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub solution: [u8; 68],
}

impl Day {
    const SECONDS: u64 = 24 * 3600;

    /// The day that this second belongs to.
    #[must_use]
    pub fn of(time: UnixSeconds) -> Self {
        Self(time.0 / Self::SECONDS)
    }

    /// Its first second.
    #[must_use]
    pub fn begins(self) -> UnixSeconds {
        UnixSeconds(self.0.saturating_mul(Self::SECONDS))
    }

    /// The day after it.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Work {
    /// What the work of a listing is done on: network, provider and day, so that a provider that
    /// starts again need not work again.
    #[must_use]
    pub fn for_listing(network: NetworkId, provider: &ProviderId, day: Day) -> [u8; 32] {
        Self::challenge(b"listing", network, provider.as_bytes(), day)
    }

    /// What the work of a demand is done on.
    #[must_use]
    pub fn for_demand(network: NetworkId, class: Class, day: Day) -> [u8; 32] {
        Self::challenge(b"demand", network, &[class.number()], day)
    }

    /// SHA-256 over parts of fixed length for each purpose.
    fn challenge(purpose: &[u8], network: NetworkId, subject: &[u8], day: Day) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/overlay-work/v1\0");
        hash.update(purpose);
        hash.update([0]);
        hash.update(network.as_bytes());
        hash.update(subject);
        hash.update(day.0.to_be_bytes());
        hash.finalize().into()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Work({:?})", self.day)
    }
}
