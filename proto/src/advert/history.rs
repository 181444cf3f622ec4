//! The adverts of a provider over time: each lists the epochs before it whose
//! tokens are still good, with the digest of the advert of each.
//!
//! A provider that shows a customer keys of its own can so be found out after
//! the epoch has turned, too: the customer keeps the advert that it bought under and
//! compares it with the list in the advert that it meets on another circuit.

use minicbor::{CborLen, Decode, Encode};

use super::verify::{AdvertDigest, Authentic};
use crate::{Advert, Epoch, Validity};

/// An earlier epoch, as a later advert lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct PastEpoch {
    /// The epoch.
    #[n(0)]
    pub epoch: Epoch,
    /// When it was to begin and to end: [`Advert::period`] of its advert.
    #[n(1)]
    pub period: Validity,
    /// The epoch's advert.
    #[n(2)]
    pub advert: AdvertDigest,
}

impl Advert {
    /// How many epochs ended before they were to: an epoch counts if the next
    /// one that this advert knows of began before its end.
    ///
    /// Fewer callers share an epoch that ended early. A crash or another offer
    /// ends one now and then; a provider that ends many wants to know which of
    /// its customers calls.
    #[must_use]
    pub fn early_ends(&self) -> usize {
        let began = self.history.iter().skip(1).map(|next| next.period.from);
        let began = began.chain(std::iter::once(self.period.from));
        let epochs = self.history.iter().zip(began);
        epochs.filter(|(it, next)| *next < it.period.until).count()
    }
}

impl Authentic<Advert> {
    /// How a later advert lists this one.
    #[must_use]
    pub fn as_past(&self) -> PastEpoch {
        PastEpoch {
            epoch: self.epoch,
            period: self.period,
            advert: self.signed().digest(),
        }
    }

    /// Whether a provider that shows the same to everybody cannot have signed
    /// both: they are of one epoch and differ, or one lists another advert for
    /// an epoch than the other is or lists.
    #[must_use]
    pub fn contradicts(&self, other: &Self) -> bool {
        if self.provider != other.provider {
            return false;
        }
        let differs = |one: &PastEpoch, two: &PastEpoch| one.epoch == two.epoch && one != two;
        let ours = || self.known();
        other
            .known()
            .any(|its| ours().any(|one| differs(&one, &its)))
    }

    /// Whether this advert says of `earlier` that it was its epoch's: it is the
    /// same advert, or a later one that lists it.
    #[must_use]
    pub fn vouches_for(&self, earlier: &Self) -> bool {
        let wanted = earlier.as_past();
        self.provider == earlier.provider && self.known().any(|it| it == wanted)
    }

    /// Every epoch that it says something about.
    fn known(&self) -> impl Iterator<Item = PastEpoch> {
        let own = std::iter::once(self.as_past());
        self.history.iter().copied().chain(own)
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
