//! The epochs: which keys open calls now, and which calls were seen.
//!
//! Sans-I/O: the caller passes the time, randomness and fresh epoch numbers.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::seal::EpochSecret;
use dlambda_proto::{
    Advert, CallEnvelope, Endpoint, Epoch, Frame, FrameKind, IdentityKey, Plan, PublishedFunction,
    Refusal, Specs, UnixSeconds, Validity, encode,
};
use rand_core::CryptoRng;
use sha2::{Digest as _, Sha256};

use crate::ProviderError;

/// Calls remembered per epoch, 16 bytes each: 16 MiB. A busier epoch ends early.
const MAX_SEEN: usize = 1 << 20;

/// An advert is valid from an hour before it was made: callers' clocks differ.
const CLOCK_TOLERANCE: u64 = 3600;

/// What every advert of a provider says, whatever the epoch.
pub(crate) struct Offer {
    pub(crate) identity: IdentityKey,
    pub(crate) endpoint: Endpoint,
    pub(crate) specs: Specs,
    pub(crate) plans: Vec<Plan>,
    pub(crate) functions: Vec<PublishedFunction>,
    pub(crate) max_function_bytes: u32,
    pub(crate) epoch: Duration,
    pub(crate) overlap: Duration,
}

/// The current epoch's keys and, for a while, those of the one before.
pub(crate) struct Keyring {
    offer: Offer,
    current: EpochKeys,
    previous: Option<EpochKeys>,
}

struct EpochKeys {
    secret: Arc<EpochSecret>,
    advert: Frame,
    made: UnixSeconds,
    /// No longer advertised from then on.
    advertised_until: UnixSeconds,
    /// No longer opens calls from then on; the secret is erased.
    opens_until: UnixSeconds,
    seen: HashSet<[u8; 16]>,
}

impl Keyring {
    /// Starts with a first epoch.
    pub(crate) fn new(
        offer: Offer,
        epoch: Epoch,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ProviderError> {
        let current = EpochKeys::make(&offer, epoch, now, rng)?;
        Ok(Self {
            offer,
            current,
            previous: None,
        })
    }

    /// Starts the next epoch. The one before the previous is erased.
    pub(crate) fn rotate(
        &mut self,
        epoch: Epoch,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<(), ProviderError> {
        let fresh = EpochKeys::make(&self.offer, epoch, now, rng)?;
        let mut old = std::mem::replace(&mut self.current, fresh);
        // An epoch that ended early ends whole: its key lives one overlap longer.
        let overlap = now.plus(self.offer.overlap.as_secs());
        old.opens_until = old.opens_until.min(overlap);
        self.previous = Some(old);
        Ok(())
    }

    /// Whether a new epoch is due, by time or because this one remembers too much.
    pub(crate) fn rotation_due(&self, now: UnixSeconds) -> bool {
        let set_back = now.plus(CLOCK_TOLERANCE) < self.current.made;
        set_back || self.current.advertised_until <= now || self.current.seen.len() >= MAX_SEEN
    }

    /// Erases keys that no longer open calls.
    pub(crate) fn expire(&mut self, now: UnixSeconds) {
        if self
            .previous
            .as_ref()
            .is_some_and(|keys| keys.opens_until <= now)
        {
            self.previous = None;
        }
    }

    /// The current epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.current.secret.epoch()
    }

    /// The advert's frame, the same for every caller of the epoch.
    pub(crate) fn advert(&self) -> Frame {
        self.current.advert.clone()
    }

    /// The plan of a call.
    pub(crate) fn plan(&self, envelope: &CallEnvelope) -> Option<&Plan> {
        let name = &envelope.header.plan;
        self.offer.plans.iter().find(|plan| plan.name == *name)
    }

    /// The key that opens calls of this epoch. Opening takes a while for a
    /// large call, so it happens outside the keyring.
    pub(crate) fn secret(
        &mut self,
        epoch: Epoch,
        now: UnixSeconds,
    ) -> Result<Arc<EpochSecret>, Refusal> {
        self.expire(now);
        self.keys(epoch).map(|keys| Arc::clone(&keys.secret))
    }

    /// Remembers a call that was opened, and refuses one that is remembered
    /// already: of several copies of a call, exactly one gets past this.
    pub(crate) fn remember(&mut self, envelope: &CallEnvelope) -> Result<(), Refusal> {
        let keys = self.keys(envelope.header.epoch)?;
        if keys.seen.len() >= MAX_SEEN {
            return Err(Refusal::Busy);
        }
        let digest = Sha256::digest(envelope.encapsulated_key);
        let mark = *digest.first_chunk::<16>().unwrap_or(&[0; 16]);
        if keys.seen.insert(mark) {
            Ok(())
        } else {
            Err(Refusal::Replayed)
        }
    }

    fn keys(&mut self, epoch: Epoch) -> Result<&mut EpochKeys, Refusal> {
        [Some(&mut self.current), self.previous.as_mut()]
            .into_iter()
            .flatten()
            .find(|keys| keys.secret.epoch() == epoch)
            .ok_or(Refusal::UnknownEpoch)
    }
}

impl EpochKeys {
    fn make(
        offer: &Offer,
        epoch: Epoch,
        now: UnixSeconds,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, ProviderError> {
        let secret = EpochSecret::generate(offer.identity.id(), epoch, rng);
        let advertised_until = now.plus(offer.epoch.as_secs());
        let opens_until = advertised_until.plus(offer.overlap.as_secs());
        let advert = Advert {
            provider: offer.identity.id(),
            epoch,
            validity: Validity {
                from: UnixSeconds(now.0.saturating_sub(CLOCK_TOLERANCE)),
                until: opens_until,
            },
            hpke_key: secret.public_key(),
            endpoints: vec![offer.endpoint],
            specs: offer.specs.clone(),
            plans: offer.plans.clone(),
            functions: offer.functions.clone(),
            max_function_bytes: offer.max_function_bytes,
        };
        let signed = advert.sign(&offer.identity)?;
        let advert = Frame::new(FrameKind::Advert, encode(&signed)).map_err(|_| {
            dlambda_proto::AdvertError::Bound("size: fewer functions fit into one advert")
        })?;
        Ok(Self {
            secret: Arc::new(secret),
            advert,
            made: now,
            advertised_until,
            opens_until,
            seen: HashSet::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use dlambda_privacy::os_rng;
    use dlambda_privacy::seal::SealedCall;
    use dlambda_proto::{
        Cpu, FunctionId, FunctionSource, OnionAddress, Request, SignedAdvert, Verified, decode,
    };

    use super::*;

    const START: UnixSeconds = UnixSeconds(100_000);

    fn here() -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([1; 32]))
    }

    fn keyring() -> Keyring {
        let offer = Offer {
            identity: IdentityKey::from_seed(&[1; 32]),
            endpoint: here(),
            specs: Specs {
                cpu: Cpu {
                    cores: 1,
                    architecture: String::new(),
                },
                memory: 1,
                gpu: vec![],
                tee: None,
            },
            plans: Plan::standard_menu(),
            functions: vec![],
            max_function_bytes: 0,
            epoch: Duration::from_secs(1000),
            overlap: Duration::from_secs(100),
        };
        Keyring::new(offer, Epoch(1), START, &mut os_rng()).expect("a good offer")
    }

    fn advert(keyring: &Keyring, now: UnixSeconds) -> Verified<Advert> {
        let signed: SignedAdvert = decode(keyring.advert().body()).expect("decodes");
        signed.verify(now, &here()).expect("verifies")
    }

    fn call(keyring: &Keyring, now: UnixSeconds) -> CallEnvelope {
        let advert = advert(keyring, now);
        let request = Request {
            function: FunctionSource::Known(FunctionId::of(b"")),
            args: vec![],
            input: vec![],
            seed: [0; 32],
            http: None,
        };
        let plan = &advert.plans[0].name;
        let sealed = SealedCall::seal(&advert, plan, &request, &mut os_rng()).expect("seals");
        decode(sealed.frame().body()).expect("decodes")
    }

    fn accept(
        keyring: &mut Keyring,
        envelope: &CallEnvelope,
        now: UnixSeconds,
    ) -> Result<(), Refusal> {
        let secret = keyring.secret(envelope.header.epoch, now)?;
        secret.open(envelope).map_err(|_| Refusal::CannotOpen)?;
        keyring.remember(envelope)
    }

    #[test]
    fn a_call_is_accepted_once() {
        let mut keyring = keyring();
        let call = call(&keyring, START);
        assert_eq!(accept(&mut keyring, &call, START), Ok(()));
        assert_eq!(accept(&mut keyring, &call, START), Err(Refusal::Replayed));
    }

    #[test]
    fn epochs_overlap_and_then_end() {
        let mut keyring = keyring();
        let (one, late) = (call(&keyring, START), call(&keyring, START));
        assert!(!keyring.rotation_due(START.plus(999)));
        let later = START.plus(1000);
        assert!(keyring.rotation_due(later));
        keyring
            .rotate(Epoch(2), later, &mut os_rng())
            .expect("rotates");
        assert_eq!(advert(&keyring, later).epoch, Epoch(2));
        assert_eq!(accept(&mut keyring, &one, later), Ok(()), "the overlap");
        let replayed = accept(&mut keyring, &one, later);
        assert_eq!(replayed, Err(Refusal::Replayed), "remembered across it");
        let after = accept(&mut keyring, &late, START.plus(1100));
        assert_eq!(after, Err(Refusal::UnknownEpoch));
        assert!(keyring.previous.is_none(), "the old secret is gone");
    }

    #[test]
    fn adverts_of_one_epoch_are_one() {
        let keyring = keyring();
        assert_eq!(keyring.advert(), keyring.advert());
    }
}
