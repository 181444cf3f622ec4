//! The caller's side.

use std::fmt;

use dlambda_proto::{
    Admission, Advert, Authentic, BatchSize, CallToken, Contract, ContractAnswer, ContractKey,
    ContractRefusal, ContractRequest, Grant, Payment, PaymentMethod, PlanName, Proposal,
    ServiceTerms, SignedContract, Technology,
};
use zeroize::Zeroizing;

use super::provider::invitation;
use crate::NegotiationError;
use crate::tokens::{
    BlindedCalls, BlindedRatings, BoundRating, call_key_id, contract_key_seed, rating_key_id,
};

/// What a caller wants.
#[derive(Clone, Debug)]
pub struct ContractOptions {
    /// The plan; without one, the provider's first.
    pub plan: Option<PlanName>,
    /// How many calls.
    pub calls: BatchSize,
    /// The promise wanted; without one, the provider's usual, which tells it
    /// the least.
    pub service: Option<ServiceTerms>,
    /// Whether every call must be checkable by running it again.
    pub deterministic: bool,
    /// The secret of an invitation, for a provider that wants one.
    pub invitation: Option<Zeroizing<Vec<u8>>>,
}

/// A contract that is about to be proposed.
pub struct Negotiation {
    advert: Advert,
    contract: Contract,
    seed: Zeroizing<[u8; 32]>,
    invitation: Option<[u8; 32]>,
}

/// A contract that was proposed.
pub struct Proposed {
    contract: Contract,
    key: ContractKey,
    calls: BlindedCalls,
    ratings: BlindedRatings,
}

/// How a negotiation went on.
#[derive(Debug)]
pub enum Step {
    /// The provider has signed, and the tokens are good.
    Agreed(Box<Agreement>),
    /// The provider would agree to something else.
    Countered(Counter),
}

/// What a provider would agree to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counter {
    /// What was in the way.
    pub reason: ContractRefusal,
    /// The number of calls that it would sell.
    pub calls: BatchSize,
    /// The promise that it would make.
    pub service: ServiceTerms,
}

/// A contract signed by both, and what it gives.
pub struct Agreement {
    /// The contract.
    pub contract: SignedContract,
    /// A token for every call.
    pub calls: Vec<CallToken>,
    /// A token for every eighth call, with the seed of the key it is bound to.
    pub ratings: Vec<BoundRating>,
}

impl Negotiation {
    /// Draws up a contract. `seed` must be fresh and secret, and stored before
    /// the proposal is sent: everything else can be made from it again.
    ///
    /// # Errors
    ///
    /// [`NegotiationError::Unavailable`] if the advert rules the wish out.
    pub fn begin(
        advert: &Advert,
        wish: &ContractOptions,
        seed: Zeroizing<[u8; 32]>,
    ) -> Result<Self, NegotiationError> {
        let contract = draw_up(advert, wish, &seed)?;
        let proof = match (advert.admission, &wish.invitation) {
            (Admission::Invite, None) => {
                return Err(NegotiationError::Unavailable(
                    "the provider gives contracts only to those it has invited",
                ));
            }
            (Admission::Invite, Some(secret)) => Some(invitation(secret, &contract.id())),
            _ => None,
        };
        Ok(Self {
            advert: advert.clone(),
            contract,
            seed,
            invitation: proof,
        })
    }

    /// Goes on with a contract that was drawn up before, from what was stored.
    ///
    /// # Errors
    ///
    /// [`NegotiationError::Unavailable`] if these do not belong together.
    pub fn resume(
        advert: Authentic<Advert>,
        contract: Contract,
        seed: Zeroizing<[u8; 32]>,
        invitation: Option<[u8; 32]>,
    ) -> Result<Self, NegotiationError> {
        let key = ContractKey::from_seed(&contract_key_seed(&seed));
        let ours = contract.client == key.id()
            && contract.provider == advert.provider
            && contract.epoch == advert.epoch;
        if !ours {
            return Err(NegotiationError::Unavailable(
                "the stored proposal does not belong to its advert",
            ));
        }
        let (advert, _) = advert.into_parts();
        Ok(Self {
            advert,
            contract,
            seed,
            invitation,
        })
    }

    /// The contract as it would be signed.
    #[must_use]
    pub fn contract(&self) -> &Contract {
        &self.contract
    }

    /// The proof of an invitation, to be stored with the seed.
    #[must_use]
    pub fn invitation(&self) -> Option<[u8; 32]> {
        self.invitation
    }

    /// Makes the proposal: the same one every time.
    ///
    /// # Errors
    ///
    /// [`NegotiationError::Tokens`] if a key in the advert is none.
    pub fn propose(self) -> Result<(Proposal, Proposed), NegotiationError> {
        let Self {
            advert,
            contract,
            seed,
            invitation,
        } = self;
        let key = advert.call_key(&contract.plan.name);
        let key = key.ok_or(NegotiationError::Unavailable("the plan has no token key"))?;
        let (provider, epoch, batch) = (&advert.provider, advert.epoch, contract.calls);
        let calls = BlindedCalls::blind(key, provider, epoch, batch, &seed)?;
        let ratings = BlindedRatings::blind(&advert.rating_key, provider, epoch, batch, &seed)?;
        let proposal = Proposal {
            contract: contract.clone(),
            call_request: calls.request().to_vec(),
            rating_request: ratings.request().to_vec(),
            invitation,
        };
        let proposed = Proposed {
            contract,
            key: ContractKey::from_seed(&contract_key_seed(&seed)),
            calls,
            ratings,
        };
        Ok((proposal, proposed))
    }
}

impl Proposed {
    /// Takes the provider's answer. Nothing of it is believed unchecked: the
    /// signature must be the identity's, and every token issued with the
    /// advertised key.
    ///
    /// # Errors
    ///
    /// [`NegotiationError::Refused`] with the provider's reason;
    /// [`NegotiationError::Signature`] or [`NegotiationError::Tokens`] if the
    /// provider cheats.
    pub fn receive(self, answer: ContractAnswer) -> Result<Step, NegotiationError> {
        match answer {
            ContractAnswer::Granted(grant) => self.accept(&grant),
            ContractAnswer::Counter {
                reason,
                calls,
                service,
            } => Ok(Step::Countered(Counter {
                reason,
                calls,
                service,
            })),
            ContractAnswer::Refused(reason) => Err(NegotiationError::Refused(reason)),
            _ => Err(NegotiationError::Unexpected),
        }
    }

    fn accept(self, grant: &Grant) -> Result<Step, NegotiationError> {
        if !self.contract.is_signed_by_provider(&grant.signature) {
            return Err(NegotiationError::Signature);
        }
        let calls = self.calls.unblind(&grant.call_response)?;
        let ratings = self.ratings.unblind(&grant.rating_response)?;
        let client_signature = self.contract.countersign(&grant.signature, &self.key);
        Ok(Step::Agreed(Box::new(Agreement {
            contract: SignedContract {
                contract: self.contract,
                provider_signature: grant.signature,
                client_signature,
            },
            calls,
            ratings,
        })))
    }
}

impl Agreement {
    /// What tells the provider that the contract is signed by both.
    #[must_use]
    pub fn confirmation(&self) -> ContractRequest {
        confirmation(&self.contract)
    }
}

/// The confirmation of a stored contract.
#[must_use]
pub fn confirmation(contract: &SignedContract) -> ContractRequest {
    ContractRequest::Confirm {
        contract: contract.contract.id(),
        signature: contract.client_signature,
    }
}

fn draw_up(
    advert: &Advert,
    wish: &ContractOptions,
    seed: &Zeroizing<[u8; 32]>,
) -> Result<Contract, NegotiationError> {
    let unavailable = |why| Err(NegotiationError::Unavailable(why));
    let Some(plan) = advert.plan(wish.plan.as_ref()) else {
        return unavailable("the provider offers no such plan");
    };
    let Some(key) = advert.call_key(&plan.name) else {
        return unavailable("calls of this plan need no contract");
    };
    if wish.deterministic && !plan.deterministic {
        return unavailable("calls of this plan cannot be checked by running them again");
    }
    let total = plan.price.checked_mul(wish.calls.calls().into());
    let Some(total) = total else {
        return unavailable("the price is beyond counting");
    };
    let method = match (total, advert.admission) {
        (0, _) => PaymentMethod::Gratis,
        (_, Admission::Invite) => PaymentMethod::Invitation,
        _ => return unavailable("there is no way yet to pay this provider"),
    };
    Ok(Contract {
        provider: advert.provider,
        client: ContractKey::from_seed(&contract_key_seed(seed)).id(),
        epoch: advert.epoch,
        plan: plan.clone(),
        calls: wish.calls,
        payment: Payment { total, method },
        service: wish.service.unwrap_or(advert.service),
        technology: Technology {
            deterministic: plan.deterministic,
            tee: advert.specs.tee.clone(),
        },
        validity: advert.tokens,
        call_key: call_key_id(&key.key),
        rating_key: rating_key_id(&advert.rating_key),
    })
}

macro_rules! scrubbed {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "([scrubbed])"))
            }
        }
    )*};
}

scrubbed!(Agreement, Negotiation, Proposed);
