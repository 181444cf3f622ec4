//! Epochs: their keys and adverts, what was seen under them, and what a contract costs now.

pub(crate) mod advert;
pub(crate) mod effort;
pub(crate) mod keyring;
pub(crate) mod keys;
mod replay;
pub(crate) mod rotation;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlambda_crypto::negotiation::Issuers;
use dlambda_privacy::clock::Clock;
use dlambda_proto::{CallEnvelope, Epoch, Frame, Plan, Refusal, SignedAdvert, UnixSeconds};

use self::advert::AdvertTemplate;
use self::keyring::Keyring;
use self::keys::EpochKeysRef;

/// The keyring behind a lock, and the clock that it is asked with.
pub(crate) struct Epochs {
    keyring: Mutex<Keyring>,
    clock: Arc<dyn Clock>,
}

impl Epochs {
    pub(crate) fn new(keyring: Keyring, clock: Arc<dyn Clock>) -> Self {
        Self {
            keyring: Mutex::new(keyring),
            clock,
        }
    }

    /// The time now.
    pub(crate) fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// The current epoch.
    pub(crate) fn number(&self) -> Epoch {
        self.lock().epoch()
    }

    /// What every epoch is made from.
    pub(crate) fn template(&self) -> Arc<AdvertTemplate> {
        self.lock().template()
    }

    /// The advert of the current epoch.
    pub(crate) fn signed_advert(&self) -> SignedAdvert {
        self.lock().signed_advert()
    }

    /// See [`Keyring::greeting`].
    pub(crate) fn greeting(&self, effort: u8) -> Option<Frame> {
        self.lock().greeting(effort)
    }

    /// The plan of a call.
    pub(crate) fn plan(&self, envelope: &CallEnvelope) -> Option<Plan> {
        self.lock().plan(envelope).cloned()
    }

    /// The keys of the current epoch.
    pub(crate) fn current(&self) -> EpochKeysRef {
        self.lock().current()
    }

    /// The keys for what is sealed to this epoch, while they open calls.
    pub(crate) fn keys(&self, epoch: Epoch) -> Result<EpochKeysRef, Refusal> {
        self.lock().keys_ref(epoch, self.now())
    }

    /// What recognises the tokens of this epoch, while they can be spent.
    pub(crate) fn token_issuers(&self, epoch: Epoch) -> Option<Arc<Issuers>> {
        self.lock().token_issuers(epoch, self.now())
    }

    /// See [`Keyring::remember`].
    pub(crate) fn remember(&self, epoch: Epoch, one_time: &[u8; 32]) -> Result<(), Refusal> {
        self.lock().remember(epoch, one_time)
    }

    /// Whether a message under this one-time key is remembered.
    pub(crate) fn remembers(&self, epoch: Epoch, one_time: &[u8; 32]) -> bool {
        self.lock().remembers(epoch, one_time)
    }

    fn lock(&self) -> MutexGuard<'_, Keyring> {
        // Whole between any two operations on it.
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
