//! A token for each call.

use dlambda_privacy::os_rng;
use dlambda_proto::{
    ANSWER_KEPT_SECONDS, CallToken, ContractId, Endpoint, PlanName, ProviderId, UnixSeconds,
};
use rand_core::Rng as _;

use super::file::{Holdings, Record, Slot, call_tag};
use super::store::Durability;
use super::{Operation, ReservedToken, Wallet, WalletError};

/// What a token is wanted for.
#[derive(Clone)]
pub struct TokenQuery {
    /// Whom to call: where the contract was proposed.
    pub endpoint: Endpoint,
    /// On which plan; without one, on the first in the contract's advert.
    pub plan: Option<PlanName>,
    /// Who answers there, once that is known: another identity is another
    /// provider, whom the tokens of this one would tell whose they are.
    pub provider: Option<ProviderId>,
    /// A hash of all that is called: function, arguments and input. The same
    /// call gets its interrupted token back. It is not stored.
    pub call: [u8; 32],
    /// The time now.
    pub now: UnixSeconds,
    /// The time at which the contract has to be good: now, or what is shown instead of it.
    pub valid_at: UnixSeconds,
    /// Which interrupted tokens come back.
    pub resuming: Resuming,
}

/// Which tokens come back that the same call was interrupted with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resuming {
    /// Those taken within [`ANSWER_KEPT_SECONDS`]: the provider still has the answer, and learns
    /// little that the first attempt did not tell. Otherwise the call gets a fresh token.
    Soon,
    /// Those taken at any time, and no other: the provider sees that the same caller was there
    /// then. Only when it is asked for.
    AtAnyTime,
}

impl Wallet {
    /// Takes a token for one call; `None` if there is none. It is marked on
    /// disk when this returns. Blocks.
    ///
    /// First choice is a token that the same call was interrupted with, of any
    /// contract for this endpoint and plan that is valid at `valid_at`, if it is
    /// one that [comes back](Resuming). A token in
    /// use is never given out, so the same call made twice at once gets two
    /// tokens. Next is a fresh token of the contract that is valid longest, the
    /// first that is there. The order says nothing of its caller: the provider
    /// cannot tell tokens of one epoch from each other, nor from another
    /// caller's, and everybody uses the latest epoch that they have.
    ///
    /// Tokens of a contract that is not confirmed yet are taken too, but none of
    /// a contract whose provider was not looked at again ([`Wallet::checked`]). Files that
    /// cannot be used are passed over; [`Wallet::contracts`] lists them.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read or the contract's
    /// file not be written; [`WalletError::Busy`]. At worst a token is then
    /// interrupted, and there for the same call.
    pub fn reserve(&self, query: &TokenQuery) -> Result<Option<ReservedToken>, WalletError> {
        let operation = self.shared.enter()?;
        let Some(mut choice) = operation.choose(query)? else {
            return Ok(None);
        };
        let Some((token, seed)) = choice.mark(&operation, query) else {
            return Ok(None);
        };
        let Choice {
            id, record, index, ..
        } = choice;
        operation.write(&id, &record, Durability::Now)?;
        // Before anybody else is let in, who would take it for interrupted.
        let held = ReservedToken::list(
            &self.shared,
            (id, index),
            token,
            seed,
            record,
            choice.resumed,
        );
        Ok(Some(held))
    }

    /// How many fresh tokens there are for this endpoint and plan; without a
    /// plan, for the first in each contract's advert. Files that cannot be used
    /// are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn tokens_left(
        &self,
        endpoint: &Endpoint,
        plan: Option<&PlanName>,
        now: UnixSeconds,
    ) -> Result<usize, WalletError> {
        let operation = self.shared.enter()?;
        let mut left = 0;
        for id in operation.contracts()? {
            if let Ok(Some(record)) = operation.read(&id)
                && let Some(holdings) = record.serving(endpoint, plan, now)
            {
                let is_fresh = |slot: &&Slot| matches!(slot, Slot::Fresh(_));
                left += holdings.slots.iter().filter(is_fresh).count();
            }
        }
        Ok(left)
    }
}

impl TokenQuery {
    /// Whether a token that was first taken at `since` does.
    fn comes_back(&self, since: Option<UnixSeconds>) -> bool {
        let age = since.map(|since| since.0.abs_diff(self.now.0));
        self.resuming == Resuming::AtAnyTime || age.is_some_and(|age| age < ANSWER_KEPT_SECONDS)
    }
}

/// The slot that a call will get.
struct Choice {
    id: ContractId,
    record: Record,
    index: usize,
    resumed: bool,
}

impl Operation<'_> {
    fn choose(&self, query: &TokenQuery) -> Result<Option<Choice>, WalletError> {
        let mut best: Option<Choice> = None;
        for id in self.contracts()? {
            let Ok(Some(record)) = self.read(&id) else {
                continue;
            };
            let other = |provider: &ProviderId| record.contract.provider != *provider;
            if query.provider.as_ref().is_some_and(other) {
                continue;
            }
            let (plan, valid_at) = (query.plan.as_ref(), query.valid_at);
            let Some(holdings) = record.serving(&query.endpoint, plan, valid_at) else {
                continue;
            };
            if let Some(index) = self.interrupted(id, holdings, query) {
                return Ok(Some(Choice {
                    id,
                    record,
                    index,
                    resumed: true,
                }));
            }
            if query.resuming == Resuming::AtAnyTime {
                continue;
            }
            let until = record.contract.validity.until;
            let is_checked = holdings.seen.is_some();
            let is_fresh = |slot: &Slot| is_checked && matches!(slot, Slot::Fresh(_));
            let fresh = holdings.slots.iter().position(is_fresh);
            let is_better = |best: &Choice| until > best.record.contract.validity.until;
            if let Some(index) = fresh
                && best.as_ref().is_none_or(is_better)
            {
                best = Some(Choice {
                    id,
                    record,
                    index,
                    resumed: false,
                });
            }
        }
        Ok(best)
    }

    /// The slot of a token that this call was interrupted with, and that may come back.
    pub(super) fn interrupted(
        &self,
        id: ContractId,
        holdings: &Holdings,
        query: &TokenQuery,
    ) -> Option<usize> {
        let is_it = |(index, slot): (usize, &Slot)| match slot {
            Slot::Taken {
                seed,
                call,
                owner,
                since,
                ..
            } => {
                call_tag(seed, &query.call) == *call
                    && query.comes_back(*since)
                    && !self.is_in_use((id, index), *owner)
            }
            Slot::Fresh(_) | Slot::Spent => false,
        };
        holdings.slots.iter().enumerate().position(is_it)
    }
}

impl Choice {
    /// Marks the slot as taken by us, and returns token and seed.
    fn mark(
        &mut self,
        operation: &Operation<'_>,
        query: &TokenQuery,
    ) -> Option<(CallToken, [u8; 32])> {
        let slot = self.record.holdings_mut()?.slots.get_mut(self.index)?;
        let (token, seed, since) = match slot {
            Slot::Fresh(token) => {
                let mut seed = [0; 32];
                os_rng().fill_bytes(&mut seed);
                (*token, seed, Some(query.now))
            }
            // From the first time on, or a call made every few minutes would take it up for ever.
            Slot::Taken {
                token, seed, since, ..
            } => (*token, *seed, *since),
            Slot::Spent => return None,
        };
        *slot = Slot::Taken {
            token,
            seed,
            call: call_tag(&seed, &query.call),
            owner: Some(operation.shared.owner.id()),
            since,
        };
        Some((token, seed))
    }
}

impl Record {
    /// Whether the provider said that this is one of its places.
    fn is_reached_at(&self, endpoint: &Endpoint) -> bool {
        // The second is dearer: the signature is checked.
        self.endpoint == *endpoint
            || (self.advert.clone().authenticate()).is_ok_and(|it| it.endpoints.contains(endpoint))
    }

    /// What it holds, if that is good for such calls.
    pub(super) fn serving(
        &self,
        endpoint: &Endpoint,
        plan: Option<&PlanName>,
        now: UnixSeconds,
    ) -> Option<&Holdings> {
        let holdings = self.holdings()?;
        let own = &self.contract.plan.name;
        let serves = self.is_reached_at(endpoint) && self.contract.validity.contains(now);
        let is_plan = || match plan {
            Some(plan) => plan == own,
            // Dearer than the rest: the advert is parsed, and its signature checked.
            None => self
                .advert
                .clone()
                .authenticate()
                .is_ok_and(|advert| advert.plan(None).is_some_and(|first| first.name == *own)),
        };
        (serves && is_plan()).then_some(holdings)
    }
}
