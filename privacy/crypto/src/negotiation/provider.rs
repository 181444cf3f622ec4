//! The provider's side.

use std::collections::HashMap;
use std::fmt;

use dlambda_proto::{
    Admission, Advert, BatchSize, Contract, ContractAnswer, ContractId, ContractRefusal, Epoch,
    Grant, IdentityKey, PaymentMethod, PlanName, Proposal, ProviderId, SignedContract,
};
use hkdf::Hkdf;
use rand_core::CryptoRng;
use sha2::Sha256;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::TokenError;
use crate::tokens::{CallIssuer, RatingIssuer, call_key_id, rating_key_id};

/// What a provider agrees to, beside what its advert says.
#[derive(Clone)]
pub struct Terms {
    /// Most calls in one contract.
    pub max_calls: BatchSize,
    /// The secrets of invitations.
    pub invitations: Vec<Zeroizing<Vec<u8>>>,
}

/// The keys that issue an epoch's tokens.
#[derive(Debug)]
pub struct Issuers {
    /// By plan.
    pub calls: HashMap<PlanName, CallIssuer>,
    /// For ratings; absent for an epoch that is over, which issues no more.
    pub ratings: Option<RatingIssuer>,
}

/// Proof of an invitation to one contract, worth nothing for another.
#[must_use]
pub fn invitation(secret: &[u8], contract: &ContractId) -> [u8; 32] {
    let mut proof = [0; 32];
    let expanded =
        Hkdf::<Sha256>::new(Some(&contract.0), secret).expand(b"dlambda/invitation/v1", &mut proof);
    if expanded.is_err() {
        unreachable!("32 bytes are within what HKDF gives");
    }
    proof
}

/// Whether to agree. Costs some hashes, whatever was sent.
///
/// # Errors
///
/// The refusal or counter-offer to answer with.
pub fn consider(proposal: &Proposal, advert: &Advert, terms: &Terms) -> Result<(), ContractAnswer> {
    let contract = &proposal.contract;
    check_terms(contract, advert).map_err(ContractAnswer::Refused)?;
    if advert.admission == Admission::Invite {
        let id = contract.id();
        let invited = proposal.invitation.is_some_and(|proof| {
            let ours = terms.invitations.iter();
            ours.fold(false, |found, secret| {
                found | bool::from(invitation(secret, &id).ct_eq(&proof))
            })
        });
        if !invited {
            return Err(ContractAnswer::Refused(ContractRefusal::NotInvited));
        }
    }
    let counter = |reason| {
        Err(ContractAnswer::Counter {
            reason,
            calls: contract.calls.min(terms.max_calls),
            service: advert.service,
        })
    };
    if contract.calls > terms.max_calls {
        return counter(ContractRefusal::TooManyCalls);
    }
    if contract.service.start_within_ms < advert.service.start_within_ms {
        return counter(ContractRefusal::ServiceTooGood);
    }
    Ok(())
}

fn check_terms(contract: &Contract, advert: &Advert) -> Result<(), ContractRefusal> {
    let stale = contract.provider != advert.provider
        || contract.epoch != advert.epoch
        || contract.rating_key != rating_key_id(&advert.rating_key);
    if stale {
        return Err(ContractRefusal::StaleKeys);
    }
    let plan = advert.plan(Some(&contract.plan.name));
    let plan = plan.ok_or(ContractRefusal::OtherTerms)?;
    let key = advert
        .call_key(&plan.name)
        .ok_or(ContractRefusal::OtherTerms)?;
    if contract.call_key != call_key_id(&key.key) {
        return Err(ContractRefusal::StaleKeys);
    }
    if contract.plan != *plan || contract.validity != advert.tokens {
        return Err(ContractRefusal::OtherTerms);
    }
    let technology = &contract.technology;
    if (technology.deterministic && !plan.deterministic)
        || (technology.tee.is_some() && technology.tee != advert.specs.tee)
    {
        return Err(ContractRefusal::NoSuchTechnology);
    }
    let due = plan.price.checked_mul(contract.calls.calls().into());
    let paid = match contract.payment.method {
        PaymentMethod::Gratis => due == Some(0),
        PaymentMethod::Invitation => advert.admission == Admission::Invite,
        _ => false,
    };
    if due != Some(contract.payment.total) || !paid {
        return Err(ContractRefusal::Payment);
    }
    Ok(())
}

/// Signs the contract and evaluates the tokens: some 40 ms of one processor
/// for 128 calls, nearly all of it RSA. Then it must be stored before it is sent.
///
/// # Errors
///
/// The reason to refuse with: the tokens are not what the contract is about.
pub fn grant(
    proposal: &Proposal,
    identity: &IdentityKey,
    issuers: &Issuers,
) -> Result<Grant, ContractRefusal> {
    let contract = &proposal.contract;
    let calls = issuers.calls.get(&contract.plan.name);
    let calls = calls.ok_or(ContractRefusal::StaleKeys)?;
    let ratings = issuers.ratings.as_ref();
    let ratings = ratings.ok_or(ContractRefusal::StaleKeys)?;
    let malformed = |_| ContractRefusal::Malformed;
    let call_response = calls
        .issue(&proposal.call_request, contract.calls)
        .map_err(malformed)?;
    let rating_response = ratings
        .issue(&proposal.rating_request, contract.calls)
        .map_err(malformed)?;
    Ok(Grant {
        signature: contract.sign(identity),
        call_response,
        rating_response,
    })
}

/// Whether this is the client's signature under a contract that was granted.
#[must_use]
pub fn is_confirmed(
    contract: Contract,
    provider_signature: [u8; 64],
    client_signature: [u8; 64],
) -> bool {
    SignedContract {
        contract,
        provider_signature,
        client_signature,
    }
    .verify()
}

impl Issuers {
    /// The issuers that an epoch's seed stands for, with a fresh rating key;
    /// takes a good part of a second.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if a key cannot be made.
    pub fn generate(
        seed: &[u8; 32],
        provider: &ProviderId,
        epoch: Epoch,
        plans: &[PlanName],
        rng: &mut impl CryptoRng,
    ) -> Result<Self, TokenError> {
        let ratings = if plans.is_empty() {
            None
        } else {
            Some(RatingIssuer::generate(rng)?)
        };
        Ok(Self {
            ratings,
            ..Self::restore(seed, provider, epoch, plans)?
        })
    }

    /// The same without a rating key: tokens can be spent, and none issued.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if a key cannot be made.
    pub fn restore(
        seed: &[u8; 32],
        provider: &ProviderId,
        epoch: Epoch,
        plans: &[PlanName],
    ) -> Result<Self, TokenError> {
        let calls = plans.iter().map(|plan| {
            let issuer = CallIssuer::derive(seed, provider, epoch, plan)?;
            Ok((plan.clone(), issuer))
        });
        Ok(Self {
            calls: calls.collect::<Result<_, TokenError>>()?,
            ratings: None,
        })
    }
}

impl Issuers {
    /// The same with the rating key that an earlier run has kept.
    ///
    /// # Errors
    ///
    /// [`TokenError`] if it is no key.
    pub fn with_ratings(self, secret: &[u8]) -> Result<Self, TokenError> {
        Ok(Self {
            ratings: Some(RatingIssuer::from_secret(secret)?),
            ..self
        })
    }
}

impl fmt::Debug for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terms({:?}, [scrubbed])", self.max_calls)
    }
}
