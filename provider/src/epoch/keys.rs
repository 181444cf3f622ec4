//! The keys of one epoch.
//!
//! Sans-I/O: the caller passes the time and randomness.

use std::sync::Arc;

use dlambda_crypto::negotiation::Issuers;
use dlambda_crypto::seal::SealingSecret;
use dlambda_proto::{
    Advert, AdvertError, Epoch, Frame, FrameKind, Greeting, IdentityKey, PastEpoch, ReceiptKey,
    SignedAdvert, SignedSealingKey, UnixSeconds, Validity, encode,
};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

use crate::ProviderError;
use crate::epoch::advert::{AdvertTemplate, CLOCK_TOLERANCE};
use crate::epoch::replay::ReplayMemory;
use crate::store::{EpochRecord, EpochSecrets};

/// All keys of an epoch that is about to begin. Making them takes a good part
/// of a second, so it happens outside the keyring.
pub(crate) struct EpochKeys {
    pub(super) secret: Arc<SealingSecret>,
    pub(super) receipts: Arc<ReceiptKey>,
    pub(super) advert: Arc<Advert>,
    pub(super) signed: SignedAdvert,
    /// Of `secret`: not a part of the advert, since it lives no longer than this process.
    sealing: SignedSealingKey,
    pub(super) issuers: Arc<Issuers>,
    secrets: EpochSecrets,
    /// No longer opens calls from then on; the secret is erased.
    pub(super) opens_until: UnixSeconds,
    pub(super) replay: ReplayMemory,
}

/// What serves the calls and contracts that are sealed to one epoch's key.
#[derive(Clone)]
pub(crate) struct EpochKeysRef {
    pub(crate) secret: Arc<SealingSecret>,
    pub(crate) receipts: Arc<ReceiptKey>,
    pub(crate) advert: Arc<Advert>,
    pub(crate) issuers: Arc<Issuers>,
}

impl EpochKeys {
    /// Makes all keys of an epoch, and its advert, which lists `history`.
    /// [`EpochKeys::record`] must be on disk before the advert is shown.
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
        let too_large = AdvertError::Bound("size: fewer functions fit into one advert");
        keys.greeting(0).ok_or(too_large)?;
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
        let Ok(advert) = record.advert.clone().authenticate() else {
            return Ok(None);
        };
        let (made, secrets) = (advert.period.from, record.secrets.clone());
        if is_over(advert.period, now) {
            return Ok(None);
        }
        let provider = template.identity.id();
        let mut issuers = Issuers::restore(&secrets.calls, &provider, epoch, &record.plans)?;
        if !secrets.ratings.is_empty() {
            issuers = issuers.with_ratings(&secrets.ratings)?;
        }
        let receipts = ReceiptKey::from_seed(&secrets.receipts).id();
        let history = advert.history.clone();
        let (advert, signed) = advert.into_parts();
        if template.advert(epoch, receipts, &issuers, history, made) != advert {
            return Ok(None);
        }
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
        let secret = SealingSecret::generate(advert.provider, advert.epoch, rng);
        let advertised_until = advert.period.until;
        Ok(Self {
            sealing: secret.sealing_key().sign(&template.identity)?,
            secret: Arc::new(secret),
            receipts: Arc::new(ReceiptKey::from_seed(&secrets.receipts)),
            signed,
            issuers: Arc::new(issuers),
            secrets,
            opens_until: advertised_until.plus(template.overlap.as_secs()),
            advert: Arc::new(advert),
            replay: ReplayMemory::default(),
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

    /// The epoch's advert.
    pub(super) fn signed_advert(&self) -> SignedAdvert {
        self.signed.clone()
    }

    /// How many epochs its advert shows as ended early.
    pub(crate) fn early_ends(&self) -> usize {
        self.advert.early_ends()
    }

    /// The epoch that they belong to.
    pub(super) fn epoch(&self) -> Epoch {
        self.secret.epoch()
    }

    /// Whether the epoch has ended at `now`.
    pub(super) fn is_over(&self, now: UnixSeconds) -> bool {
        is_over(self.advert.period, now)
    }

    /// The greeting's frame: the advert, the same for every caller of the
    /// epoch, and the work that a contract takes now. `None` if it is too large.
    pub(super) fn greeting(&self, effort: u8) -> Option<Frame> {
        let greeting = Greeting {
            advert: self.signed.clone(),
            sealing: self.sealing.clone(),
            effort,
        };
        Frame::new(FrameKind::Advert, encode(&greeting)).ok()
    }

    /// Replaces the sealing key, once too much has to be remembered for it. A
    /// call that was sealed to the old key and is not open yet is refused.
    pub(super) fn renew_sealing(
        &mut self,
        identity: &IdentityKey,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ProviderError> {
        if !self.replay.is_full() {
            return Ok(());
        }
        let secret = SealingSecret::generate(identity.id(), self.epoch(), rng);
        self.sealing = secret.sealing_key().sign(identity)?;
        self.secret = Arc::new(secret);
        self.replay = ReplayMemory::default();
        Ok(())
    }

    /// What serves calls and contracts of the epoch.
    pub(super) fn to_ref(&self) -> EpochKeysRef {
        EpochKeysRef {
            secret: Arc::clone(&self.secret),
            receipts: Arc::clone(&self.receipts),
            advert: Arc::clone(&self.advert),
            issuers: Arc::clone(&self.issuers),
        }
    }
}

/// Whether an epoch has ended at `now`, or the clock was set back so far that
/// its advert is not valid.
fn is_over(period: Validity, now: UnixSeconds) -> bool {
    now.plus(CLOCK_TOLERANCE) < period.from || period.until <= now
}
