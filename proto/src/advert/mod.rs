//! The advert: what a provider says of itself, signed (the paper's Listing 1).
//!
//! ```text
//! SignedAdvert         bytes from anywhere
//!   authenticate()  -> Authentic<Advert>   its provider signed it, and it keeps its bounds
//!   at(time)        -> Current<Advert>     it is valid now
//!   served_by(here) -> Verified<Advert>    its provider answers at this endpoint
//! ```
//!
//! Evidence needs an authentic advert, a listing a current one, a call a
//! verified one. Nothing else reads the fields of a [`SignedAdvert`].

mod history;
mod store;
mod verify;

#[cfg(test)]
mod tests;

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

pub use self::history::PastEpoch;
pub use self::store::{AdvertStore, equivocation};
pub(crate) use self::verify::signed_by_its_author;
pub use self::verify::{AdvertDigest, Authentic, Current, Signable, SignedAdvert, Verified};

use crate::{
    AdvertError, CallKey, Endpoint, Epoch, FunctionId, Plan, PlanName, ProviderId, ReceiptKeyId,
    Region, Resources, ServiceTerms, UnixSeconds, Validity,
};

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
    /// Memory of the largest accelerator in MiB; 0 without one.
    #[n(4)]
    pub gpu_vram_mib: u64,
    /// Where the machine is, as its operator says.
    #[n(5)]
    pub region: Option<Region>,
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

impl Advert {
    /// Longest validity that a reader accepts: 14 days.
    pub const MAX_VALIDITY_SECONDS: u64 = 14 * 24 * 3600;

    /// Shortest epoch that a reader accepts: 12 hours. A call shows the epoch
    /// of its token, so the callers of an epoch are its anonymity set.
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
                gpu_vram_mib: 0,
                region: None,
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

    /// When ratings of the epoch's calls are made: in the time after the epoch
    /// that is as long as the epoch. Later ones are refused, so that past epochs are final.
    #[must_use]
    pub fn ratings(&self) -> Validity {
        let length = self.period.until.0.saturating_sub(self.period.from.0);
        Validity {
            from: self.period.until,
            until: self.period.until.plus(length),
        }
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

impl Specs {
    /// What a listing tells of the machine.
    #[must_use]
    pub fn resources(&self) -> Resources {
        Resources {
            cores: self.cpu.cores,
            memory_mib: self.memory,
            // One that does not say how much memory it has, has some.
            gpu_vram_mib: self.gpu_vram_mib.max(u64::from(!self.gpu.is_empty())),
            tee: self.tee.is_some(),
        }
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
