//! Rating tokens: they are spent after the calls that they speak for, and so outlive them.

use std::sync::Arc;

use dlambda_proto::{ContractId, ProviderId, RatingToken, UnixSeconds};
use zeroize::Zeroizing;

use super::file::{Holdings, Rating, Record, Slot};
use super::store::Durability;
use super::{Shared, Wallet, WalletError};

/// A rating token that is no longer in the wallet.
///
/// It is given out once: if it is dropped, or the process is killed, it is
/// lost, since it is not known whether a rating was made with it, and two ratings
/// under one key contradict each other. [`ReservedRating::release`] puts it back.
#[must_use = "a rating token that is dropped is lost"]
pub struct ReservedRating {
    shared: Arc<Shared>,
    contract: ContractId,
    rating: Rating,
}

impl ReservedRating {
    /// The token.
    #[must_use]
    pub fn token(&self) -> &RatingToken {
        &self.rating.token
    }

    /// The seed of the one-time key that signs the rating. Secret.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.rating.seed)
    }

    /// No rating was made: the token is in the wallet again, on disk when this returns. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::NoSuchContract`] if the contract was removed meanwhile;
    /// [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`].
    /// The token is then lost.
    pub fn release(self) -> Result<(), WalletError> {
        let operation = self.shared.enter()?;
        let mut record = operation
            .read(&self.contract)?
            .ok_or(WalletError::NoSuchContract)?;
        let holdings = record.holdings_mut().ok_or(WalletError::NoSuchContract)?;
        holdings.ratings.push(self.rating);
        operation.write(&self.contract, &record, Durability::Now)
    }
}

impl Wallet {
    /// Takes a rating token of this provider out of the wallet, of the contract
    /// whose ratings end first; `None` if there is none whose time for ratings
    /// (`Advert::ratings`) has begun and is not over, or none of a contract whose
    /// provider was looked at again ([`Wallet::checked`]). It is gone from the disk
    /// when this returns. Blocks.
    ///
    /// A provider sets the edges of that time, and sees ratings: pass a
    /// [blurred](UnixSeconds::blurred) `now`.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read or the contract's
    /// file not be written; [`WalletError::Busy`].
    pub fn reserve_rating(
        &self,
        provider: &ProviderId,
        now: UnixSeconds,
    ) -> Result<Option<ReservedRating>, WalletError> {
        let operation = self.shared.enter()?;
        let mut best: Option<(UnixSeconds, ContractId, Record)> = None;
        for id in operation.contracts()? {
            let Ok(Some(record)) = operation.read(&id) else {
                continue;
            };
            let Some(until) = record.ratings_until(now) else {
                continue;
            };
            if record.contract.provider == *provider
                && best.as_ref().is_none_or(|(earliest, ..)| until < *earliest)
            {
                best = Some((until, id, record));
            }
        }
        let Some((_, contract, mut record)) = best else {
            return Ok(None);
        };
        let Some(rating) = record.holdings_mut().and_then(|it| it.ratings.pop()) else {
            return Ok(None);
        };
        operation.write(&contract, &record, Durability::Now)?;
        Ok(Some(ReservedRating {
            shared: Arc::clone(&self.shared),
            contract,
            rating,
        }))
    }
}

impl Holdings {
    /// Whether there are rating tokens, and the provider's keys were seen on a second circuit: a
    /// rating verifies under the rating key only, and one of a single buyer would say whose it is.
    fn may_rate(&self) -> bool {
        self.seen.is_some() && !self.ratings.is_empty()
    }
}

impl Record {
    /// Until when ratings can be made with what it holds, if they can be made now.
    fn ratings_until(&self, now: UnixSeconds) -> Option<UnixSeconds> {
        self.holdings().filter(|it| it.may_rate())?;
        let advert = self.advert.clone().authenticate().ok()?;
        let ratings = advert.ratings();
        ratings.contains(now).then_some(ratings.until)
    }

    /// Whether it holds rating tokens that are good at `now` or later.
    pub(super) fn keeps_ratings(&self, now: UnixSeconds) -> bool {
        let holds = self.holdings().is_some_and(Holdings::may_rate);
        let advert = || self.advert.clone().authenticate();
        holds && advert().is_ok_and(|advert| now < advert.ratings().until)
    }

    /// Erases the call tokens of a contract that is over; whether there were any.
    pub(super) fn erase_calls(&mut self) -> bool {
        let slots = self.holdings_mut().map(|it| it.slots.iter_mut());
        let mut erased = false;
        for slot in slots.into_iter().flatten() {
            erased |= *slot != Slot::Spent;
            *slot = Slot::Spent;
        }
        erased
    }
}
