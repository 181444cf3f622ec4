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
    Greeting, IdentityKey, Plan, PlanName, PublishedFunction, ReceiptKey, Refusal, ServiceTerms,
    SignedAdvert, Specs, UnixSeconds, Validity, encode,
};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ProviderError;
use crate::ledger::EpochRecord;

/// Calls and works remembered per epoch, 16 bytes each: 16 MiB. A busier epoch
/// ends early.
const MAX_SEEN: usize = 1 << 20;

/// Callers' clocks may be off by an hour.
const CLOCK_TOLERANCE: u64 = 3600;

/// An advert is valid from so long before it was made: callers look with a clock that they have blurred.
const VALID_BEFORE: u64 = CLOCK_TOLERANCE + CLOCK_BLUR_SECONDS;

/// And for so long at least after it was last shown.
const VALID_AFTER: u64 = 2 * CLOCK_BLUR_SECONDS;

/// What every advert of a provider says, whatever the epoch.
pub(crate) struct Offer {
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
    offer: Arc<Offer>,
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
    issuers: Arc<Issuers>,
    seed: Zeroizing<[u8; 32]>,
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
pub(crate) struct Opening {
    pub(crate) secret: Arc<EpochSecret>,
    pub(crate) receipts: Arc<ReceiptKey>,
    pub(crate) advert: Arc<Advert>,
    pub(crate) issuers: Arc<Issuers>,
}

impl Keyring {
    /// Starts with a first epoch.
    pub(crate) fn new(offer: Arc<Offer>, first: EpochKeys) -> Self {
        let tokens = HashMap::from([(first.secret.epoch(), first.token_keys())]);
        Self {
            offer,
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
        let provider = self.offer.identity.id();
        let issuers = Issuers::restore(&record.seed, &provider, epoch, &record.plans)?;
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
        let overlap = now.plus(self.offer.overlap.as_secs());
        old.opens_until = old.opens_until.min(overlap);
        self.previous = Some(old);
    }

    /// Whether a new epoch is due, by time or because this one remembers too much.
    pub(crate) fn rotation_due(&self, now: UnixSeconds) -> bool {
        let set_back = now.plus(CLOCK_TOLERANCE) < self.current.made;
        set_back || self.current.advertised_until <= now || self.current.seen.len() >= MAX_SEEN
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
    pub(crate) fn offer(&self) -> Arc<Offer> {
        Arc::clone(&self.offer)
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
            effort,
        };
        Frame::new(FrameKind::Advert, encode(&greeting)).ok()
    }

    /// The plan of a call.
    pub(crate) fn plan(&self, envelope: &CallEnvelope) -> Option<&Plan> {
        let name = &envelope.header.plan;
        self.offer.plans.iter().find(|plan| plan.name == *name)
    }

    /// The keys for what is sealed to this epoch. Opening takes a while for a
    /// large call, so it happens outside the keyring.
    pub(crate) fn opening(&mut self, epoch: Epoch, now: UnixSeconds) -> Result<Opening, Refusal> {
        self.expire(now);
        self.keys(epoch).map(|keys| Opening {
            secret: Arc::clone(&keys.secret),
            receipts: Arc::clone(&keys.receipts),
            advert: Arc::clone(&keys.advert),
            issuers: Arc::clone(&keys.issuers),
        })
    }

    /// The keys of the current epoch.
    pub(crate) fn current(&self) -> Opening {
        let keys = &self.current;
        Opening {
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

fn mark(one_time: &[u8; 32]) -> [u8; 16] {
    let digest = Sha256::digest(one_time);
    *digest.first_chunk::<16>().unwrap_or(&[0; 16])
}

impl EpochKeys {
    /// Makes all keys of an epoch, and its advert. [`EpochKeys::record`] must
    /// be on disk before anybody sees the advert.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if a key or the advert cannot be made.
    pub(crate) fn make(
        offer: &Offer,
        epoch: Epoch,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ProviderError> {
        let provider = offer.identity.id();
        let secret = EpochSecret::generate(provider, epoch, rng);
        let mut receipt_seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *receipt_seed);
        let receipts = ReceiptKey::from_seed(&receipt_seed);
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let issuers = Issuers::generate(&seed, &provider, epoch, &offer.paid_plans(), rng)?;
        let advertised_until = now.plus(offer.epoch.as_secs());
        let opens_until = advertised_until.plus(offer.overlap.as_secs());
        let advert = offer.advert(&secret, &receipts, &issuers, now);
        let signed = advert.sign(&offer.identity)?;
        let keys = Self {
            secret: Arc::new(secret),
            receipts: Arc::new(receipts),
            advert: Arc::new(advert),
            signed,
            issuers: Arc::new(issuers),
            seed,
            made: now,
            advertised_until,
            opens_until,
            seen: HashSet::new(),
        };
        let greeting = Greeting {
            advert: keys.signed.clone(),
            effort: 0,
        };
        Frame::new(FrameKind::Advert, encode(&greeting)).map_err(|_| {
            dlambda_proto::AdvertError::Bound("size: fewer functions fit into one advert")
        })?;
        Ok(keys)
    }

    /// What has to survive a restart: from it, tokens are recognised.
    pub(crate) fn record(&self) -> EpochRecord {
        let plans = self.advert.call_keys.iter();
        EpochRecord {
            seed: self.seed.clone(),
            validity: self.advert.tokens,
            plans: plans.map(|key| key.plan.clone()).collect(),
        }
    }

    fn token_keys(&self) -> TokenKeys {
        TokenKeys {
            issuers: Arc::clone(&self.issuers),
            until: self.advert.tokens.until,
        }
    }
}

impl Offer {
    fn paid_plans(&self) -> Vec<PlanName> {
        let paid = self.plans.iter().filter(|plan| plan.needs_token);
        paid.map(|plan| plan.name.clone()).collect()
    }

    fn advert(
        &self,
        secret: &EpochSecret,
        receipts: &ReceiptKey,
        issuers: &Issuers,
        now: UnixSeconds,
    ) -> Advert {
        let from = UnixSeconds(now.0.saturating_sub(VALID_BEFORE));
        let advertised = now.plus(self.epoch.as_secs());
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
            ..Advert::minimal(
                self.identity.id(),
                secret.epoch(),
                Validity {
                    from,
                    until: advertised.plus(self.overlap.as_secs().max(VALID_AFTER)),
                },
                secret.public_key(),
                receipts.id(),
                self.endpoints.first(),
            )
        }
    }
}

#[cfg(test)]
mod tests;
