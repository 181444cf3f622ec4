//! The epochs: which keys open calls now, which tokens are good, which calls
//! were seen.
//!
//! Sans-I/O: the caller passes the time, randomness and fresh epoch numbers.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use dlambda_crypto::negotiation::Issuers;
use dlambda_crypto::seal::EpochSecret;
use dlambda_proto::{
    Admission, Advert, CLOCK_BLUR_SECONDS, CallEnvelope, Endpoints, Epoch, Frame, FrameKind,
    Greeting, IdentityKey, PastEpoch, Plan, PlanName, PublishedFunction, ReceiptKey, ReceiptKeyId,
    Refusal, ServiceTerms, Sighting, SignedAdvert, SignedSealingKey, Specs, UnixSeconds, Validity,
    encode,
};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ProviderError;
use crate::store::{EpochRecord, EpochSecrets};

/// Calls and works remembered for a sealing key, 16 bytes each: 16 MiB. After
/// that the key is replaced, and with it what has to be remembered.
const MAX_SEEN: usize = 1 << 20;

/// Callers' clocks may be off by an hour.
const CLOCK_TOLERANCE: u64 = 3600;

/// An advert is valid from so long before it was made: callers look with a clock that they have blurred.
const VALID_BEFORE: u64 = CLOCK_TOLERANCE + CLOCK_BLUR_SECONDS;

/// And for so long at least after it was last shown.
const VALID_AFTER: u64 = 2 * CLOCK_BLUR_SECONDS;

/// What every advert of a provider says, whatever the epoch.
pub(crate) struct AdvertTemplate {
    pub(crate) identity: IdentityKey,
    pub(crate) endpoints: Endpoints,
    pub(crate) specs: Specs,
    pub(crate) plans: Vec<Plan>,
    pub(crate) functions: Vec<PublishedFunction>,
    pub(crate) max_function_bytes: u32,
    pub(crate) epoch: Duration,
    pub(crate) overlap: Duration,
    pub(crate) admission: Admission,
    pub(crate) service: ServiceTerms,
}

/// The current epoch's keys, for a while those of the one before, and the
/// token keys of every epoch whose tokens can still be spent.
pub(crate) struct Keyring {
    template: Arc<AdvertTemplate>,
    current: EpochKeys,
    previous: Option<EpochKeys>,
    tokens: HashMap<Epoch, TokenKeys>,
}

/// All keys of an epoch that is about to begin. Making them takes a good part
/// of a second, so it happens outside the keyring.
pub(crate) struct EpochKeys {
    secret: Arc<EpochSecret>,
    receipts: Arc<ReceiptKey>,
    advert: Arc<Advert>,
    signed: SignedAdvert,
    /// Of `secret`: not a part of the advert, since it lives no longer than this process.
    sealing: SignedSealingKey,
    issuers: Arc<Issuers>,
    secrets: EpochSecrets,
    made: UnixSeconds,
    /// No longer advertised from then on.
    advertised_until: UnixSeconds,
    /// No longer opens calls from then on; the secret is erased.
    opens_until: UnixSeconds,
    seen: HashSet<[u8; 16]>,
}

#[derive(Clone)]
struct TokenKeys {
    issuers: Arc<Issuers>,
    until: UnixSeconds,
}

/// What serves the calls and contracts that are sealed to one epoch's key.
#[derive(Clone)]
pub(crate) struct EpochKeysRef {
    pub(crate) secret: Arc<EpochSecret>,
    pub(crate) receipts: Arc<ReceiptKey>,
    pub(crate) advert: Arc<Advert>,
    pub(crate) issuers: Arc<Issuers>,
}

impl Keyring {
    /// Starts with a first epoch.
    pub(crate) fn new(template: Arc<AdvertTemplate>, first: EpochKeys) -> Self {
        let tokens = HashMap::from([(first.secret.epoch(), first.token_keys())]);
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
        let epoch = fresh.secret.epoch();
        self.tokens.insert(epoch, fresh.token_keys());
        let mut old = std::mem::replace(&mut self.current, fresh);
        // An epoch that ended early ends whole: its key lives one overlap longer.
        let overlap = now.plus(self.template.overlap.as_secs());
        old.opens_until = old.opens_until.min(overlap);
        self.previous = Some(old);
    }

    /// Whether a new epoch is due.
    pub(crate) fn rotation_due(&self, now: UnixSeconds) -> bool {
        is_over(self.current.made, self.current.advertised_until, now)
    }

    /// Replaces the sealing key of the current epoch, once too much has to be
    /// remembered for it. The epoch goes on: nobody can end it by calling often.
    /// A call that was sealed to the old key and is not open yet is refused.
    pub(crate) fn renew_sealing(&mut self, rng: &mut impl CryptoRng) -> Result<(), ProviderError> {
        if self.current.seen.len() < MAX_SEEN {
            return Ok(());
        }
        let epoch = self.epoch();
        let secret = EpochSecret::generate(self.template.identity.id(), epoch, rng);
        self.current.sealing = secret.sealing_key().sign(&self.template.identity)?;
        self.current.secret = Arc::new(secret);
        self.current.seen = HashSet::new();
        Ok(())
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
        self.current.secret.epoch()
    }

    /// The greeting's frame: the advert, the same for every caller of the
    /// epoch, and the work that a contract takes now.
    pub(crate) fn greeting(&self, effort: u8) -> Option<Frame> {
        let greeting = Greeting {
            advert: self.current.signed.clone(),
            sealing: self.current.sealing.clone(),
            effort,
        };
        Frame::new(FrameKind::Advert, encode(&greeting)).ok()
    }

    /// The plan of a call.
    pub(crate) fn plan(&self, envelope: &CallEnvelope) -> Option<&Plan> {
        let name = &envelope.header.plan;
        self.template.plans.iter().find(|plan| plan.name == *name)
    }

    /// The keys for what is sealed to this epoch. EpochKeysRef takes a while for a
    /// large call, so it happens outside the keyring.
    pub(crate) fn keys_ref(
        &mut self,
        epoch: Epoch,
        now: UnixSeconds,
    ) -> Result<EpochKeysRef, Refusal> {
        self.expire(now);
        self.keys(epoch).map(|keys| EpochKeysRef {
            secret: Arc::clone(&keys.secret),
            receipts: Arc::clone(&keys.receipts),
            advert: Arc::clone(&keys.advert),
            issuers: Arc::clone(&keys.issuers),
        })
    }

    /// The keys of the current epoch.
    pub(crate) fn current(&self) -> EpochKeysRef {
        let keys = &self.current;
        EpochKeysRef {
            secret: Arc::clone(&keys.secret),
            receipts: Arc::clone(&keys.receipts),
            advert: Arc::clone(&keys.advert),
            issuers: Arc::clone(&keys.issuers),
        }
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
        let keys = self.keys(epoch)?;
        if keys.seen.len() >= MAX_SEEN {
            return Err(Refusal::Busy);
        }
        if keys.seen.insert(mark(one_time)) {
            Ok(())
        } else {
            Err(Refusal::Replayed)
        }
    }

    /// Whether a message under this one-time key is remembered.
    pub(crate) fn remembers(&mut self, epoch: Epoch, one_time: &[u8; 32]) -> bool {
        let keys = self.keys(epoch);
        keys.is_ok_and(|keys| keys.seen.contains(&mark(one_time)))
    }

    fn keys(&mut self, epoch: Epoch) -> Result<&mut EpochKeys, Refusal> {
        [Some(&mut self.current), self.previous.as_mut()]
            .into_iter()
            .flatten()
            .find(|keys| keys.secret.epoch() == epoch)
            .ok_or(Refusal::UnknownEpoch)
    }
}

/// Whether an epoch has ended at `now`, or the clock was set back so far that
/// its advert is not valid.
fn is_over(made: UnixSeconds, advertised_until: UnixSeconds, now: UnixSeconds) -> bool {
    now.plus(CLOCK_TOLERANCE) < made || advertised_until <= now
}

fn mark(one_time: &[u8; 32]) -> [u8; 16] {
    let digest = Sha256::digest(one_time);
    *digest.first_chunk::<16>().unwrap_or(&[0; 16])
}

impl EpochKeys {
    /// Makes all keys of an epoch, and its advert, which lists `history`.
    /// [`EpochKeys::record`] must be on disk before anybody sees the advert.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if a key or the advert cannot be made.
    pub(crate) fn make(
        template: &AdvertTemplate,
        epoch: Epoch,
        history: Vec<PastEpoch>,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ProviderError> {
        let provider = template.identity.id();
        let mut secrets = EpochSecrets {
            calls: Zeroizing::new([0; 32]),
            receipts: Zeroizing::new([0; 32]),
            ratings: Zeroizing::new(Vec::new()),
        };
        rng.fill_bytes(&mut *secrets.calls);
        rng.fill_bytes(&mut *secrets.receipts);
        let plans = template.paid_plans();
        let issuers = Issuers::generate(&secrets.calls, &provider, epoch, &plans, rng)?;
        if let Some(ratings) = &issuers.ratings {
            secrets.ratings = ratings.secret()?;
        }
        let receipts = ReceiptKey::from_seed(&secrets.receipts).id();
        let advert = template.advert(epoch, receipts, &issuers, history, now);
        let signed = advert.sign(&template.identity)?;
        let keys = Self::assemble(template, advert, signed, issuers, secrets, rng)?;
        let greeting = Greeting {
            advert: keys.signed.clone(),
            sealing: keys.sealing.clone(),
            effort: 0,
        };
        Frame::new(FrameKind::Advert, encode(&greeting)).map_err(|_| {
            dlambda_proto::AdvertError::Bound("size: fewer functions fit into one advert")
        })?;
        Ok(keys)
    }

    /// The keys of an epoch that goes on after a restart, under the same advert
    /// and a fresh sealing key; `None` if the epoch is over, or the template is
    /// no longer the one in its advert.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if its keys cannot be made again.
    pub(crate) fn resume(
        template: &AdvertTemplate,
        epoch: Epoch,
        record: &EpochRecord,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<Option<Self>, ProviderError> {
        let Ok(advert) = record.advert.authenticate() else {
            return Ok(None);
        };
        let (made, secrets) = (advert.period.from, record.secrets.clone());
        if is_over(made, advert.period.until, now) {
            return Ok(None);
        }
        let provider = template.identity.id();
        let mut issuers = Issuers::restore(&secrets.calls, &provider, epoch, &record.plans)?;
        if !secrets.ratings.is_empty() {
            issuers = issuers.with_ratings(&secrets.ratings)?;
        }
        let receipts = ReceiptKey::from_seed(&secrets.receipts).id();
        let history = advert.history.clone();
        if template.advert(epoch, receipts, &issuers, history, made) != advert {
            return Ok(None);
        }
        let signed = record.advert.clone();
        Self::assemble(template, advert, signed, issuers, secrets, rng).map(Some)
    }

    fn assemble(
        template: &AdvertTemplate,
        advert: Advert,
        signed: SignedAdvert,
        issuers: Issuers,
        secrets: EpochSecrets,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ProviderError> {
        let secret = EpochSecret::generate(advert.provider, advert.epoch, rng);
        let advertised_until = advert.period.until;
        Ok(Self {
            sealing: secret.sealing_key().sign(&template.identity)?,
            secret: Arc::new(secret),
            receipts: Arc::new(ReceiptKey::from_seed(&secrets.receipts)),
            signed,
            issuers: Arc::new(issuers),
            secrets,
            made: advert.period.from,
            advertised_until,
            opens_until: advertised_until.plus(template.overlap.as_secs()),
            advert: Arc::new(advert),
            seen: HashSet::new(),
        })
    }

    /// What has to survive a restart: the advert, and all keys in it.
    pub(crate) fn record(&self) -> EpochRecord {
        let plans = self.advert.call_keys.iter();
        EpochRecord {
            secrets: self.secrets.clone(),
            advert: self.signed.clone(),
            validity: self.advert.tokens,
            plans: plans.map(|key| key.plan.clone()).collect(),
        }
    }

    /// How many epochs its advert shows as ended early.
    pub(crate) fn early_ends(&self) -> usize {
        self.advert.early_ends()
    }

    fn token_keys(&self) -> TokenKeys {
        TokenKeys {
            issuers: Arc::clone(&self.issuers),
            until: self.advert.tokens.until,
        }
    }
}

/// What the advert of the next epoch says of the epochs before it: all whose
/// tokens are good, the latest of them if there are too many.
pub(crate) fn history(earlier: &[(Epoch, EpochRecord)], now: UnixSeconds) -> Vec<PastEpoch> {
    let good = earlier
        .iter()
        .filter(|(_, record)| now < record.validity.until);
    let seen = good.filter_map(|(_, record)| Sighting::new(record.advert.clone()).ok());
    let mut history: Vec<PastEpoch> = seen.map(|it| it.as_past()).collect();
    history.drain(..history.len().saturating_sub(Advert::MAX_HISTORY));
    history
}

impl AdvertTemplate {
    fn paid_plans(&self) -> Vec<PlanName> {
        let paid = self.plans.iter().filter(|plan| plan.needs_token);
        paid.map(|plan| plan.name.clone()).collect()
    }

    /// The advert of an epoch that began at `made`: the same for the same arguments.
    fn advert(
        &self,
        epoch: Epoch,
        receipts: ReceiptKeyId,
        issuers: &Issuers,
        history: Vec<PastEpoch>,
        made: UnixSeconds,
    ) -> Advert {
        let from = UnixSeconds(made.0.saturating_sub(VALID_BEFORE));
        let advertised = made.plus(self.epoch.as_secs());
        // What is bought in the last minute of an epoch is good for a whole
        // epoch more, as far as readers accept.
        let longest = from.plus(Advert::MAX_VALIDITY_SECONDS);
        let spendable = advertised.plus(self.epoch.as_secs().max(self.overlap.as_secs()));
        let paid = self.paid_plans();
        Advert {
            endpoints: self.endpoints.as_slice().to_vec(),
            specs: self.specs.clone(),
            plans: self.plans.clone(),
            functions: self.functions.clone(),
            max_function_bytes: self.max_function_bytes,
            call_keys: paid
                .iter()
                .filter_map(|plan| Some(issuers.calls.get(plan)?.key()))
                .collect(),
            rating_key: issuers
                .ratings
                .as_ref()
                .map(|issuer| issuer.key().to_vec())
                .unwrap_or_default(),
            tokens: Validity {
                from,
                until: spendable.min(longest),
            },
            admission: self.admission,
            service: self.service,
            validity: Validity {
                from,
                until: advertised.plus(self.overlap.as_secs().max(VALID_AFTER)),
            },
            period: Validity {
                from: made,
                until: advertised,
            },
            history,
            ..Advert::minimal(
                self.identity.id(),
                epoch,
                made,
                receipts,
                self.endpoints.first(),
            )
        }
    }
}

#[cfg(test)]
mod tests;
