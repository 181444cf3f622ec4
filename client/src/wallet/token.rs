//! A token in use, and how its use ends.

use std::sync::Arc;

use dlambda_proto::{CallToken, PlanName, ProviderId, SignedAdvert, Validity};

use super::file::{Record, Slot};
use super::store::Durability;
use super::{Operation, Place, Shared, WalletError};

const CHANGED: WalletError = WalletError::Inconsistent("a token in use was changed on disk");

/// A call token that is in use by one call.
///
/// It ends in [`ReservedToken::commit`] or [`ReservedToken::release`]. If it is dropped
/// instead, or the process is killed, it is *interrupted*: it is not known whether
/// it was sent. It then waits for the same call to be made again, through this
/// wallet at once and through another as soon as this one and its clones and
/// tokens are gone. Dropping it does not block.
#[must_use = "a token that is dropped is interrupted; release it if nothing was sent"]
pub struct ReservedToken {
    shared: Arc<Shared>,
    place: Place,
    /// Whether its place is in the list of those in use because of us.
    is_listed: bool,
    token: CallToken,
    seed: [u8; 32],
    advert: SignedAdvert,
    provider: ProviderId,
    plan: PlanName,
    validity: Validity,
    resumed: bool,
}

impl ReservedToken {
    /// Lists the place as in use, until this is dropped.
    pub(super) fn list(
        shared: &Arc<Shared>,
        place: Place,
        token: CallToken,
        seed: [u8; 32],
        record: Record,
        resumed: bool,
    ) -> Self {
        shared.held().insert(place);
        Self {
            shared: Arc::clone(shared),
            place,
            is_listed: true,
            token,
            seed,
            advert: record.advert,
            provider: record.contract.provider,
            plan: record.contract.plan.name,
            validity: record.contract.validity,
            resumed,
        }
    }

    /// The token.
    #[must_use]
    pub fn token(&self) -> CallToken {
        self.token
    }

    /// The request's seed: random, or that of the interrupted request. Secret.
    #[must_use]
    pub fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    /// The advert whose keys the request is for.
    #[must_use]
    pub fn advert(&self) -> &SignedAdvert {
        &self.advert
    }

    /// Who issued the token.
    #[must_use]
    pub fn provider(&self) -> &ProviderId {
        &self.provider
    }

    /// The plan it is for.
    #[must_use]
    pub fn plan(&self) -> &PlanName {
        &self.plan
    }

    /// When it is good.
    #[must_use]
    pub fn validity(&self) -> Validity {
        self.validity
    }

    /// Whether the same call was interrupted with this token before.
    #[must_use]
    pub fn resumed(&self) -> bool {
        self.resumed
    }

    /// The answer has arrived: the token is erased. Blocks.
    ///
    /// The record outlives the process, but perhaps not a crash of the machine.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`],
    /// [`WalletError::Inconsistent`] if the file was changed. None of
    /// them matters to the call: the token is not given out again while this
    /// wallet is open, and afterwards for the same call only.
    pub fn commit(mut self) -> Result<(), WalletError> {
        let shared = Arc::clone(&self.shared);
        let spent = shared
            .enter()
            .and_then(|operation| self.replace(&operation, Some(Slot::Spent), Durability::Later));
        match spent {
            // A contract that is gone has no token to erase.
            Err(WalletError::NoSuchContract) => Ok(()),
            Err(error) => {
                // What could not be recorded stays listed as in use.
                self.is_listed = false;
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Nothing was sent: the token is fresh again, on disk when this returns,
    /// and the next call will have another seed. Blocks.
    ///
    /// A token that was [resumed](ReservedToken::resumed) may have been sent the
    /// first time. It stays interrupted, for the same call only, from now on
    /// through any wallet.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`],
    /// [`WalletError::NoSuchContract`] or [`WalletError::Inconsistent`] if
    /// the file was removed or changed. The token is then interrupted.
    pub fn release(mut self) -> Result<(), WalletError> {
        let shared = Arc::clone(&self.shared);
        let operation = shared.enter()?;
        let fresh = (!self.resumed).then_some(Slot::Fresh(self.token));
        let released = self.replace(&operation, fresh, Durability::Now);
        // While we have the lock: the process that takes it next lists it anew,
        // and our drop must not strike that out.
        self.strike_out();
        released
    }

    /// Nothing was sent, and the contract's keys may not be everybody's: none of
    /// its tokens is given out before they are seen once more. Blocks.
    ///
    /// # Errors
    ///
    /// Those of [`ReservedToken::release`].
    pub fn release_in_doubt(self) -> Result<(), WalletError> {
        let shared = Arc::clone(&self.shared);
        let (id, _) = self.place;
        self.release()?;
        let operation = shared.enter()?;
        let mut record = operation.read(&id)?.ok_or(WalletError::NoSuchContract)?;
        let holdings = record.holdings_mut().ok_or(CHANGED)?;
        holdings.seen = None;
        operation.write(&id, &record, Durability::Now)
    }

    /// Replaces our slot; without a new one, by the same without an owner.
    fn replace(
        &self,
        operation: &Operation<'_>,
        new: Option<Slot>,
        durability: Durability,
    ) -> Result<(), WalletError> {
        let (id, index) = self.place;
        let ourselves = Some(self.shared.owner.id());
        let mut record = operation.read(&id)?.ok_or(WalletError::NoSuchContract)?;
        let slots = record.holdings_mut().map(|holdings| &mut holdings.slots);
        let Some(slot) = slots.and_then(|slots| slots.get_mut(index)) else {
            return Err(CHANGED);
        };
        match slot {
            Slot::Taken { seed, owner, .. } if *seed == self.seed && *owner == ourselves => {
                *owner = None;
            }
            _ => return Err(CHANGED),
        }
        if let Some(new) = new {
            *slot = new;
        }
        operation.write(&id, &record, durability)
    }

    fn strike_out(&mut self) {
        if self.is_listed {
            self.shared.held().remove(&self.place);
            self.is_listed = false;
        }
    }
}

impl Drop for ReservedToken {
    fn drop(&mut self) {
        self.strike_out();
    }
}
