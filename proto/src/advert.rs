//! The advert: what a provider says of itself, signed (the paper's Listing 1).
//!
//! A [`SignedAdvert`] is bytes from a stranger. [`SignedAdvert::verify`] turns
//! it into a [`Verified`] advert, or an error; nothing else reads its fields.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::{
    AdvertDigest, AdvertError, CallKey, Endpoint, Epoch, FunctionId, IdentityKey, PastEpoch, Plan,
    PlanName, ProviderId, ReceiptKeyId, ServiceTerms, UnixSeconds, Validity, decode, encode,
    history,
};

const DOMAIN: &[u8] = b"dlambda/advert/v1";

/// What a provider says of itself for one epoch.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Advert {
    /// Whose advert it is.
    #[n(0)]
    pub provider: ProviderId,
    /// The epoch that the keys belong to.
    #[n(1)]
    pub epoch: Epoch,
    /// When the advert, and calls under its keys, are good.
    #[n(2)]
    pub validity: Validity,
    /// When the epoch begins, and until when no other one of this provider is
    /// to begin. Within the validity.
    #[n(3)]
    pub period: Validity,
    /// Where the provider answers: 1 to 8 endpoints.
    #[n(4)]
    pub endpoints: Vec<Endpoint>,
    /// The machine.
    #[n(5)]
    pub specs: Specs,
    /// The menu: 1 to 16 plans, the first being the default.
    #[n(6)]
    pub plans: Vec<Plan>,
    /// Functions that the provider always has: at most 256.
    #[n(7)]
    pub functions: Vec<PublishedFunction>,
    /// Largest function that it takes with a call, in bytes.
    #[n(8)]
    pub max_function_bytes: u32,
    /// Signs the epoch's receipts.
    #[n(9)]
    pub receipt_key: ReceiptKeyId,
    /// A token key for every plan that needs tokens, in the order of the plans.
    #[n(10)]
    pub call_keys: Vec<CallKey>,
    /// The RSA key of the epoch's rating tokens: a `SubjectPublicKeyInfo` as
    /// in RFC 9578 section 6.5, at most 512 bytes; empty if no plan needs tokens.
    #[cbor(n(11), with = "minicbor::bytes")]
    pub rating_key: Vec<u8>,
    /// When the epoch's tokens can be spent.
    #[n(12)]
    pub tokens: Validity,
    /// What a contract takes.
    #[n(13)]
    pub admission: Admission,
    /// The promise that contracts make unless asked for less.
    #[n(14)]
    pub service: ServiceTerms,
    /// The epochs before this one whose tokens are still good when it begins,
    /// the oldest first: at most [`Advert::MAX_HISTORY`].
    #[n(15)]
    pub history: Vec<PastEpoch>,
}

/// What a contract takes, beside its price.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Admission {
    /// Nothing.
    #[n(0)]
    Open,
    /// Work; how much is said when the stream opens, since it changes with the load.
    #[n(1)]
    Pow,
    /// An invitation: a secret that the provider's operator gave out.
    #[n(2)]
    Invite,
}

/// The machine behind a provider, in the fields of the paper's Listing 1.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Specs {
    /// Processors.
    #[n(0)]
    pub cpu: Cpu,
    /// Memory in MiB, rounded to a power of two: finer would be a fingerprint.
    #[n(1)]
    pub memory: u64,
    /// Accelerators by name.
    #[n(2)]
    pub gpu: Vec<String>,
    /// The trusted execution environment, if there is one.
    #[n(3)]
    pub tee: Option<String>,
}

/// Processors of a machine.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Cpu {
    /// Number of cores.
    #[n(0)]
    pub cores: u16,
    /// Architecture, as Rust names it (`x86_64`).
    #[n(1)]
    pub architecture: String,
}

/// A function that the provider always has, under a name of its own choice.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct PublishedFunction {
    /// The function.
    #[n(0)]
    pub id: FunctionId,
    /// A name for people: 1 to 64 of `A-Z a-z 0-9 . _ -`.
    #[n(1)]
    pub alias: String,
    /// Size in bytes.
    #[n(2)]
    pub size: u32,
}

/// An advert's bytes with a signature that nobody has checked yet.
///
/// Equality is *the same advert*: the same signed bytes, whatever the
/// signature. One key makes any number of valid signatures of one message, and
/// another signature says nothing else. Detectors and judges use this one
/// definition, so that nothing is held against a provider that no judge confirms.
#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedAdvert {
    #[cbor(n(0), with = "minicbor::bytes")]
    advert: Vec<u8>,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// A value whose origin and timeliness were checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified<T>(T);

impl Advert {
    /// Longest validity that a reader accepts: 14 days.
    pub const MAX_VALIDITY_SECONDS: u64 = 14 * 24 * 3600;

    /// Shortest epoch that a reader accepts: 12 hours. A call shows the epoch
    /// of its token, so the callers of an epoch are the crowd that it hides in.
    pub const MIN_EPOCH_SECONDS: u64 = 12 * 3600;

    /// How long before and after its epoch an advert may be valid, at most: 12
    /// hours. With [`Advert::MIN_EPOCH_SECONDS`] it bounds the number of epochs
    /// that can be valid at one time without one of them ending early.
    pub const MAX_MARGIN_SECONDS: u64 = 12 * 3600;

    /// Most earlier epochs in an advert.
    pub const MAX_HISTORY: usize = 16;

    /// The least that can be advertised: keys, an endpoint, and the standard
    /// menu for anybody, without tokens, for an epoch of a day that began at
    /// `began`. Tests start from it.
    #[must_use]
    pub fn minimal(
        provider: ProviderId,
        epoch: Epoch,
        began: UnixSeconds,
        receipt_key: ReceiptKeyId,
        endpoint: Endpoint,
    ) -> Self {
        let period = Validity {
            from: began,
            until: began.plus(24 * 3600),
        };
        let validity = Validity {
            from: UnixSeconds(began.0.saturating_sub(3600)),
            until: period.until.plus(3600),
        };
        let mut plans = Plan::standard_menu();
        for plan in &mut plans {
            plan.needs_token = false;
        }
        Self {
            provider,
            epoch,
            validity,
            period,
            endpoints: vec![endpoint],
            specs: Specs {
                cpu: Cpu {
                    cores: 1,
                    architecture: String::new(),
                },
                memory: 1,
                gpu: Vec::new(),
                tee: None,
            },
            plans,
            functions: Vec::new(),
            max_function_bytes: 1 << 20,
            receipt_key,
            call_keys: Vec::new(),
            rating_key: Vec::new(),
            tokens: validity,
            admission: Admission::Open,
            service: ServiceTerms {
                start_within_ms: 120_000,
            },
            history: Vec::new(),
        }
    }

    /// Signs the advert with the identity it names.
    ///
    /// # Errors
    ///
    /// [`AdvertError::Signature`] if `key` is not the identity named in it, and
    /// [`AdvertError::Bound`] if no reader would accept it.
    pub fn sign(&self, key: &IdentityKey) -> Result<SignedAdvert, AdvertError> {
        if key.id() != self.provider {
            return Err(AdvertError::Signature);
        }
        self.check_bounds()?;
        let advert = encode(self);
        let signature = key.sign(DOMAIN, &advert);
        Ok(SignedAdvert { advert, signature })
    }

    /// The plan of this name; without a name, the default plan.
    #[must_use]
    pub fn plan(&self, name: Option<&PlanName>) -> Option<&Plan> {
        match name {
            None => self.plans.first(),
            Some(name) => self.plans.iter().find(|plan| plan.name == *name),
        }
    }

    /// The published function of this alias.
    #[must_use]
    pub fn function_by_alias(&self, alias: &str) -> Option<&PublishedFunction> {
        self.functions.iter().find(|f| f.alias == alias)
    }

    /// The key of this plan's tokens.
    #[must_use]
    pub fn call_key(&self, plan: &PlanName) -> Option<&CallKey> {
        self.call_keys.iter().find(|key| key.plan == *plan)
    }

    fn has_its_call_keys(&self) -> bool {
        let needing = self.plans.iter().filter(|plan| plan.needs_token);
        needing
            .map(|plan| &plan.name)
            .eq(self.call_keys.iter().map(|key| &key.plan))
    }

    /// Long enough, and valid little longer.
    fn has_a_good_period(&self) -> bool {
        let (period, validity) = (self.period, self.validity);
        let within = |less: UnixSeconds, more: UnixSeconds, most: u64| {
            more.0.checked_sub(less.0).is_some_and(|span| span <= most)
        };
        let length = period.until.0.saturating_sub(period.from.0);
        length >= Self::MIN_EPOCH_SECONDS
            && within(validity.from, period.from, Self::MAX_MARGIN_SECONDS)
            && within(period.until, validity.until, Self::MAX_MARGIN_SECONDS)
    }

    /// Each epoch once, the oldest first.
    fn has_a_good_history(&self) -> bool {
        let epochs = self.history.iter().map(|past| past.epoch);
        let later = epochs.clone().skip(1).chain([self.epoch]);
        self.history.len() <= Self::MAX_HISTORY && epochs.zip(later).all(|(one, two)| one < two)
    }

    fn check_bounds(&self) -> Result<(), AdvertError> {
        let ordered = self.validity.from < self.validity.until;
        let span = self.validity.until.0.saturating_sub(self.validity.from.0);
        let short = |text: &String| text.len() <= 64;
        let distinct = |i: usize| {
            let name = &self.plans[i].name;
            self.plans[..i].iter().all(|plan| plan.name != *name)
        };
        for (good, what) in [
            (ordered && span <= Self::MAX_VALIDITY_SECONDS, "validity"),
            (self.has_a_good_period(), "beginning and end of the epoch"),
            (self.has_a_good_history(), "earlier epochs"),
            ((1..=8).contains(&self.endpoints.len()), "endpoints"),
            ((1..=16).contains(&self.plans.len()), "plans"),
            ((0..self.plans.len()).all(distinct), "plan names"),
            (self.functions.len() <= 256, "functions"),
            (
                self.functions.iter().all(PublishedFunction::is_sane),
                "function names",
            ),
            (self.has_its_call_keys(), "token keys"),
            (
                self.rating_key.is_empty() == self.call_keys.is_empty()
                    && self.rating_key.len() <= 512,
                "rating key",
            ),
            (
                self.tokens.from < self.tokens.until
                    && self.tokens.until.0 - self.tokens.from.0 <= Self::MAX_VALIDITY_SECONDS,
                "validity of tokens",
            ),
            (short(&self.specs.cpu.architecture), "cpu"),
            (
                self.specs.gpu.len() <= 16 && self.specs.gpu.iter().all(short),
                "gpu",
            ),
            (self.specs.tee.iter().all(short), "tee"),
        ] {
            if !good {
                return Err(AdvertError::Bound(what));
            }
        }
        Ok(())
    }
}

impl PublishedFunction {
    /// Whether `alias` can be a function's name in an advert.
    #[must_use]
    pub fn is_good_alias(alias: &str) -> bool {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
        (1..=64).contains(&alias.len()) && alias.bytes().all(good)
    }

    fn is_sane(&self) -> bool {
        Self::is_good_alias(&self.alias)
    }
}

impl SignedAdvert {
    /// Names the advert, whatever its signature.
    #[must_use]
    pub fn digest(&self) -> AdvertDigest {
        history::digest(&self.advert)
    }

    /// Believes that the identity in the advert signed it and that it keeps its
    /// bounds, whenever and wherever: good enough for evidence, not for a call.
    ///
    /// # Errors
    ///
    /// [`AdvertError`] says which of these does not hold.
    pub fn authenticate(&self) -> Result<Advert, AdvertError> {
        let advert: Advert = decode(&self.advert)?;
        if !advert
            .provider
            .verify(DOMAIN, &self.advert, &self.signature)
        {
            return Err(AdvertError::Signature);
        }
        advert.check_bounds()?;
        Ok(advert)
    }

    /// Believes the advert only if the identity in it signed it, it is valid
    /// at `now`, it names the endpoint that `served_by` it, and it keeps its bounds.
    ///
    /// Whoever does not want to show its clock passes a [blurred](UnixSeconds::blurred) time.
    ///
    /// # Errors
    ///
    /// [`AdvertError`] says which of these does not hold.
    pub fn verify(
        &self,
        now: UnixSeconds,
        served_by: &Endpoint,
    ) -> Result<Verified<Advert>, AdvertError> {
        let advert = self.authenticate()?;
        if !advert.validity.contains(now) {
            return Err(AdvertError::NotValidNow {
                from: advert.validity.from,
                until: advert.validity.until,
            });
        }
        if !advert.endpoints.contains(served_by) {
            return Err(AdvertError::OtherEndpoint);
        }
        Ok(Verified(advert))
    }
}

impl PartialEq for SignedAdvert {
    fn eq(&self, other: &Self) -> bool {
        self.advert == other.advert
    }
}

impl Eq for SignedAdvert {}

impl<T> std::ops::Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl fmt::Debug for Advert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Advert({:?}, [scrubbed])", self.epoch)
    }
}

impl fmt::Debug for PublishedFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublishedFunction([scrubbed])")
    }
}

impl fmt::Debug for SignedAdvert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignedAdvert({} bytes)", self.advert.len())
    }
}

impl<T: fmt::Debug> fmt::Debug for Verified<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Verified({:?})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OnionAddress, ReceiptKey};

    const NOW: UnixSeconds = UnixSeconds(1_000);
    /// The first second after the validity.
    const OVER: u64 = 50_000;

    fn onion(byte: u8) -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([byte; 32]))
    }

    fn advert(key: &IdentityKey) -> Advert {
        Advert {
            provider: key.id(),
            epoch: Epoch(3),
            validity: Validity {
                from: UnixSeconds(900),
                until: UnixSeconds(OVER),
            },
            period: Validity {
                from: UnixSeconds(950),
                until: UnixSeconds(950 + Advert::MIN_EPOCH_SECONDS),
            },
            endpoints: vec![onion(1)],
            specs: Specs {
                cpu: Cpu {
                    cores: 2,
                    architecture: "x86_64".into(),
                },
                memory: 1024,
                gpu: vec![],
                tee: None,
            },
            plans: Plan::standard_menu(),
            functions: vec![PublishedFunction {
                id: FunctionId::of(b"f"),
                alias: "f".into(),
                size: 1,
            }],
            max_function_bytes: 1 << 20,
            receipt_key: ReceiptKey::from_seed(&[2; 32]).id(),
            call_keys: Plan::standard_menu()
                .into_iter()
                .map(|plan| CallKey {
                    plan: plan.name,
                    key: [6; 32],
                })
                .collect(),
            rating_key: vec![7; 300],
            tokens: Validity {
                from: UnixSeconds(900),
                until: UnixSeconds(3_000),
            },
            admission: Admission::Open,
            service: ServiceTerms {
                start_within_ms: 1000,
            },
            history: vec![],
        }
    }

    fn key() -> IdentityKey {
        IdentityKey::from_seed(&[1; 32])
    }

    #[test]
    fn a_good_advert_is_believed_after_the_wire() {
        let signed = advert(&key()).sign(&key()).expect("signs");
        let again: SignedAdvert = decode(&encode(&signed)).expect("decodes");
        let verified = again.verify(NOW, &onion(1)).expect("verifies");
        assert_eq!(*verified, advert(&key()));
    }

    #[test]
    fn expired_early_or_elsewhere_is_refused() {
        let signed = advert(&key()).sign(&key()).expect("signs");
        for now in [0, 899, OVER, u64::MAX] {
            assert!(
                matches!(
                    signed.verify(UnixSeconds(now), &onion(1)),
                    Err(AdvertError::NotValidNow { .. })
                ),
                "{now}"
            );
        }
        assert_eq!(
            signed.verify(NOW, &onion(2)),
            Err(AdvertError::OtherEndpoint)
        );
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(&advert(&key()).sign(&key()).expect("signs"));
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            let believed = decode::<SignedAdvert>(&bad)
                .is_ok_and(|signed| signed.verify(NOW, &onion(1)).is_ok());
            assert!(!believed, "bit {i}");
        }
    }

    #[test]
    fn another_identity_cannot_sign_or_be_named() {
        let other = IdentityKey::from_seed(&[2; 32]);
        assert_eq!(advert(&key()).sign(&other), Err(AdvertError::Signature));
        let forged = SignedAdvert {
            advert: encode(&advert(&key())),
            signature: other.sign(DOMAIN, &encode(&advert(&key()))),
        };
        assert_eq!(forged.verify(NOW, &onion(1)), Err(AdvertError::Signature));
    }

    #[test]
    fn bounds_hold_for_signer_and_reader() {
        let mut wide = advert(&key());
        wide.validity.until = UnixSeconds(900 + Advert::MAX_VALIDITY_SECONDS + 1);
        let mut twice = advert(&key());
        twice.plans.push(twice.plans[0].clone());
        let mut nowhere = advert(&key());
        nowhere.endpoints.clear();
        let mut keyless = advert(&key());
        keyless.call_keys.pop();
        let mut short = advert(&key());
        short.period.until.0 -= 1;
        let mut late = advert(&key());
        late.period.until.0 = OVER + 1;
        let mut margin = advert(&key());
        margin.validity.until = margin.period.until.plus(Advert::MAX_MARGIN_SECONDS + 1);
        let past = |epoch| PastEpoch {
            epoch: Epoch(epoch),
            period: advert(&key()).period,
            advert: AdvertDigest([1; 32]),
        };
        let with = |history: Vec<PastEpoch>| Advert {
            epoch: Epoch(100),
            history,
            ..advert(&key())
        };
        let full = with((0..16).map(past).collect());
        assert!(full.sign(&key()).is_ok());
        let disordered = with(vec![past(2), past(1)]);
        let doubled = with(vec![past(2), past(2)]);
        let own = with(vec![past(100)]);
        let long = with((0..17).map(past).collect());
        let pasts = [disordered, doubled, own, long];
        let others = [wide, twice, nowhere, keyless, short, late, margin];
        for bad in others.into_iter().chain(pasts) {
            assert!(matches!(bad.sign(&key()), Err(AdvertError::Bound(_))));
            let bytes = encode(&bad);
            let signed = SignedAdvert {
                signature: key().sign(DOMAIN, &bytes),
                advert: bytes,
            };
            assert!(matches!(
                signed.verify(NOW, &onion(1)),
                Err(AdvertError::Bound(_))
            ));
        }
    }
}
