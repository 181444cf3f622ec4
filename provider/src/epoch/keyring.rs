//! All epochs' keys: which open calls now, and which tokens are good.
//!
//! Sans-I/O: the caller passes the time, randomness and fresh epoch numbers.

use std::collections::HashMap;
use std::sync::Arc;

use dlambda_crypto::negotiation::Issuers;
use dlambda_proto::{CallEnvelope, Epoch, Frame, Plan, Refusal, SignedAdvert, UnixSeconds};
use rand_core::CryptoRng;

use crate::ProviderError;
use crate::epoch::advert::AdvertTemplate;
use crate::epoch::keys::{EpochKeys, EpochKeysRef};
use crate::store::EpochRecord;

/// The current epoch's keys, for a while those of the one before, and the
/// token keys of every epoch whose tokens can still be spent.
pub(crate) struct Keyring {
    template: Arc<AdvertTemplate>,
    current: EpochKeys,
    previous: Option<EpochKeys>,
    tokens: HashMap<Epoch, TokenKeys>,
}

struct TokenKeys {
    issuers: Arc<Issuers>,
    until: UnixSeconds,
}

impl Keyring {
    /// Starts with a first epoch.
    pub(crate) fn new(template: Arc<AdvertTemplate>, first: EpochKeys) -> Self {
        let tokens = HashMap::from([(first.epoch(), TokenKeys::of(&first))]);
        Self {
            template,
            current: first,
            previous: None,
            tokens,
        }
    }

    /// Takes in the token keys of an epoch before the last restart.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Tokens`] if its keys cannot be made again.
    pub(crate) fn restore(
        &mut self,
        epoch: Epoch,
        record: &EpochRecord,
    ) -> Result<(), ProviderError> {
        let provider = self.template.identity.id();
        let calls = &record.secrets.calls;
        let issuers = Issuers::restore(calls, &provider, epoch, &record.plans)?;
        let keys = TokenKeys {
            issuers: Arc::new(issuers),
            until: record.validity.until,
        };
        self.tokens.entry(epoch).or_insert(keys);
        Ok(())
    }

    /// Starts the next epoch. The one before the previous is erased.
    pub(crate) fn rotate(&mut self, fresh: EpochKeys, now: UnixSeconds) {
        self.tokens.insert(fresh.epoch(), TokenKeys::of(&fresh));
        let mut old = std::mem::replace(&mut self.current, fresh);
        // An epoch that ended early ends whole: its key lives one overlap longer.
        let overlap = now.plus(self.template.overlap.as_secs());
        old.opens_until = old.opens_until.min(overlap);
        self.previous = Some(old);
    }

    /// Whether a new epoch is due.
    pub(crate) fn rotation_due(&self, now: UnixSeconds) -> bool {
        self.current.is_over(now)
    }

    /// Replaces the sealing key of the current epoch, once too much has to be
    /// remembered for it. The epoch goes on: callers cannot end it by calling often.
    /// A call that was sealed to the old key and is not open yet is refused.
    pub(crate) fn renew_sealing(&mut self, rng: &mut impl CryptoRng) -> Result<(), ProviderError> {
        self.current.renew_sealing(&self.template.identity, rng)
    }

    /// Erases keys that no longer open calls, and those of tokens that can no
    /// longer be spent.
    pub(crate) fn expire(&mut self, now: UnixSeconds) {
        if self
            .previous
            .as_ref()
            .is_some_and(|keys| keys.opens_until <= now)
        {
            self.previous = None;
        }
        self.tokens.retain(|_, keys| now < keys.until);
    }

    /// What every epoch is made from.
    pub(crate) fn template(&self) -> Arc<AdvertTemplate> {
        Arc::clone(&self.template)
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.current.epoch()
    }

    /// The advert of the current epoch.
    pub(crate) fn signed_advert(&self) -> SignedAdvert {
        self.current.signed_advert()
    }

    /// The greeting's frame: the advert, the same for every caller of the
    /// epoch, and the work that a contract takes now.
    pub(crate) fn greeting(&self, effort: u8) -> Option<Frame> {
        self.current.greeting(effort)
    }

    /// The plan of a call.
    pub(crate) fn plan(&self, envelope: &CallEnvelope) -> Option<&Plan> {
        let name = &envelope.header.plan;
        self.template.plans.iter().find(|plan| plan.name == *name)
    }

    /// The keys for what is sealed to this epoch. Opening takes a while for a
    /// large call, so it happens outside the keyring.
    pub(crate) fn keys_ref(
        &mut self,
        epoch: Epoch,
        now: UnixSeconds,
    ) -> Result<EpochKeysRef, Refusal> {
        self.expire(now);
        self.keys(epoch).map(|keys| keys.to_ref())
    }

    /// The keys of the current epoch.
    pub(crate) fn current(&self) -> EpochKeysRef {
        self.current.to_ref()
    }

    /// What recognises the tokens of this epoch, while they can be spent.
    pub(crate) fn token_issuers(&mut self, epoch: Epoch, now: UnixSeconds) -> Option<Arc<Issuers>> {
        self.expire(now);
        let keys = self.tokens.get(&epoch)?;
        Some(Arc::clone(&keys.issuers))
    }

    /// Remembers a call that was opened, or a proof of work that was accepted,
    /// by its one-time key, and refuses one that is remembered already: of
    /// several copies, exactly one gets past this. Calls with a token are known
    /// by their token instead.
    pub(crate) fn remember(&mut self, epoch: Epoch, one_time: &[u8; 32]) -> Result<(), Refusal> {
        self.keys(epoch)?.replay.remember(one_time)
    }

    /// Whether a message under this one-time key is remembered.
    pub(crate) fn remembers(&mut self, epoch: Epoch, one_time: &[u8; 32]) -> bool {
        let keys = self.keys(epoch);
        keys.is_ok_and(|keys| keys.replay.contains(one_time))
    }

    fn keys(&mut self, epoch: Epoch) -> Result<&mut EpochKeys, Refusal> {
        [Some(&mut self.current), self.previous.as_mut()]
            .into_iter()
            .flatten()
            .find(|keys| keys.epoch() == epoch)
            .ok_or(Refusal::UnknownEpoch)
    }
}

impl TokenKeys {
    fn of(keys: &EpochKeys) -> Self {
        Self {
            issuers: Arc::clone(&keys.issuers),
            until: keys.advert.tokens.until,
        }
    }
}

#[cfg(test)]
mod tests;
