//! What a provider advertises, and what each epoch's advert says.
//!
//! Sans-I/O: the caller passes the time.

use std::time::Duration;

use dlambda_crypto::negotiation::Issuers;
use dlambda_proto::{
    Admission, Advert, CLOCK_BLUR_SECONDS, Endpoints, Epoch, IdentityKey, PastEpoch, Plan,
    PlanName, PublishedFunction, ReceiptKeyId, ServiceTerms, Specs, UnixSeconds, Validity,
};

use crate::store::EpochRecord;

/// Callers' clocks may be off by an hour, in seconds.
pub(super) const CLOCK_TOLERANCE: u64 = 3600;

/// An advert is valid from so long before it was made, in seconds: callers compare it with a
/// clock that they have blurred.
const VALID_BEFORE: u64 = CLOCK_TOLERANCE + CLOCK_BLUR_SECONDS;

/// And for so long at least after it was last shown, in seconds.
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

/// What the advert of the next epoch says of the epochs before it: all whose
/// tokens are good, the latest of them if there are too many.
pub(crate) fn history(earlier: &[(Epoch, EpochRecord)], now: UnixSeconds) -> Vec<PastEpoch> {
    let good = earlier
        .iter()
        .filter(|(_, record)| now < record.validity.until);
    let seen = good.filter_map(|(_, record)| record.advert.clone().authenticate().ok());
    let mut history: Vec<PastEpoch> = seen.map(|it| it.as_past()).collect();
    history.drain(..history.len().saturating_sub(Advert::MAX_HISTORY));
    history
}

impl AdvertTemplate {
    /// The plans that calls need a token on.
    pub(super) fn paid_plans(&self) -> Vec<PlanName> {
        let paid = self.plans.iter().filter(|plan| plan.needs_token);
        paid.map(|plan| plan.name.clone()).collect()
    }

    /// The advert of an epoch that began at `made`: the same for the same arguments.
    pub(super) fn advert(
        &self,
        epoch: Epoch,
        receipt_key: ReceiptKeyId,
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
        let call_keys = paid
            .iter()
            .filter_map(|plan| Some(issuers.calls.get(plan)?.key()));
        let rating_key = issuers.ratings.as_ref().map(|issuer| issuer.key().to_vec());
        Advert {
            provider: self.identity.id(),
            epoch,
            validity: Validity {
                from,
                until: advertised.plus(self.overlap.as_secs().max(VALID_AFTER)),
            },
            period: Validity {
                from: made,
                until: advertised,
            },
            endpoints: self.endpoints.as_slice().to_vec(),
            specs: self.specs.clone(),
            plans: self.plans.clone(),
            functions: self.functions.clone(),
            max_function_bytes: self.max_function_bytes,
            receipt_key,
            call_keys: call_keys.collect(),
            rating_key: rating_key.unwrap_or_default(),
            tokens: Validity {
                from,
                until: spendable.min(longest),
            },
            admission: self.admission,
            service: self.service,
            history,
        }
    }
}

#[cfg(test)]
impl AdvertTemplate {
    /// One with the standard plans, no functions, and the shortest epoch.
    pub(crate) fn for_tests() -> Self {
        use dlambda_proto::{Cpu, Endpoint, OnionAddress};
        let here = Endpoint::Onion(OnionAddress::from_public_key([1; 32]));
        Self {
            identity: IdentityKey::from_seed(&[1; 32]),
            endpoints: vec![here].try_into().expect("one"),
            specs: Specs {
                cpu: Cpu {
                    cores: 1,
                    architecture: String::new(),
                },
                memory: 1,
                gpu: vec![],
                tee: None,
                gpu_vram_mib: 0,
                region: None,
            },
            plans: Plan::standard_menu(),
            functions: vec![],
            max_function_bytes: 0,
            epoch: Duration::from_secs(Advert::MIN_EPOCH_SECONDS),
            overlap: Duration::from_secs(100),
            admission: Admission::Open,
            service: ServiceTerms {
                start_within_ms: 1000,
            },
        }
    }
}
