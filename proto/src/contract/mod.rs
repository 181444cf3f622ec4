//! The contract: what both sides agree on before the first call.
//!
//! ```text
//! caller -> provider   Proposal       the contract, and blinded tokens
//! provider -> caller   Answer         Granted (signature, evaluated tokens), Counter or Refused
//! caller -> provider   Confirmation   the caller's signature; now both have signed
//! ```
//!
//! Each message is sealed by itself and may come again on another circuit: the
//! same proposal gets the same grant. No call ever mentions a contract.

mod negotiation;

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub use self::negotiation::{
    ContractAnswer, ContractEnvelope, ContractRefusal, ContractRequest, Grant, Greeting,
    ProofOfWork, Proposal,
};
use crate::{
    ContractKey, ContractKeyId, Epoch, IdentityKey, Plan, ProviderId, TokenKeyId, Validity, decode,
    encode,
};

const PROVIDER_DOMAIN: &[u8] = b"dlambda/contract-provider/v1";
const CLIENT_DOMAIN: &[u8] = b"dlambda/contract-client/v1";
const ID_DOMAIN: &[u8] = b"dlambda/contract-id/v1\0";

/// How many calls a contract is for. Few sizes make large anonymity sets.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen, Serialize,
)]
#[cbor(index_only)]
pub enum BatchSize {
    /// 8 calls and 1 rating.
    #[n(0)]
    Calls8,
    /// 32 calls and 4 ratings.
    #[n(1)]
    Calls32,
    /// 128 calls and 16 ratings.
    #[n(2)]
    Calls128,
}

/// What both sides sign.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Contract {
    /// Who serves.
    #[n(0)]
    pub provider: ProviderId,
    /// Who calls: a key made for this contract and never used again.
    #[n(1)]
    pub client: ContractKeyId,
    /// The epoch whose keys issue the tokens.
    #[n(2)]
    pub epoch: Epoch,
    /// The plan, limits and price of a call included, as the advert has it.
    #[n(3)]
    pub plan: Plan,
    /// How many calls.
    #[n(4)]
    pub calls: BatchSize,
    /// How it is paid.
    #[n(5)]
    pub payment: Payment,
    /// What the provider promises of its service. Not provable; it is what a
    /// rating is measured against.
    #[n(6)]
    pub service: ServiceTerms,
    /// What the machine must have.
    #[n(7)]
    pub technology: Technology,
    /// When the tokens are good: the same for all contracts of an epoch.
    #[n(8)]
    pub validity: Validity,
    /// The key of the call tokens.
    #[n(9)]
    pub call_key: TokenKeyId,
    /// The key of the rating tokens.
    #[n(10)]
    pub rating_key: TokenKeyId,
}

/// How a contract is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Payment {
    /// For all calls together, in the provider's smallest unit of account.
    #[n(0)]
    pub total: u64,
    /// By what means.
    #[n(1)]
    pub method: PaymentMethod,
}

/// By what means a contract is paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum PaymentMethod {
    /// Nothing is paid, or only work.
    #[n(0)]
    Gratis,
    /// Settled between people; the invitation stands for it.
    #[n(1)]
    Invitation,
}

/// What the provider promises of its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct ServiceTerms {
    /// A call gets its turn within so many milliseconds, or a "busy".
    #[n(0)]
    pub start_within_ms: u32,
}

/// What the machine must have.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Technology {
    /// Every call can be checked by running it again.
    #[n(0)]
    pub deterministic: bool,
    /// A trusted execution environment of this name, as in the advert's specs.
    #[n(1)]
    pub tee: Option<String>,
}

/// Names a contract between its two parties; never part of a call.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct ContractId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// A contract that both sides have signed. [`SignedContract::verify`] checks it.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedContract {
    /// What was signed.
    #[n(0)]
    pub contract: Contract,
    /// By the provider's identity.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub provider_signature: [u8; 64],
    /// By the contract's key, over the contract and the provider's signature.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub client_signature: [u8; 64],
}

impl BatchSize {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 3] = [Self::Calls8, Self::Calls32, Self::Calls128];

    /// The size for so many calls, if there is one.
    #[must_use]
    pub fn of_calls(calls: u32) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|size| u32::from(size.calls()) == calls)
    }

    /// Call tokens.
    #[must_use]
    pub fn calls(self) -> u16 {
        match self {
            Self::Calls8 => 8,
            Self::Calls32 => 32,
            Self::Calls128 => 128,
        }
    }

    /// Rating tokens: one for eight calls, since each costs the provider an
    /// RSA signature.
    #[must_use]
    pub fn ratings(self) -> u16 {
        self.calls() / 8
    }
}

impl Contract {
    /// The contract's name between its parties.
    #[must_use]
    pub fn id(&self) -> ContractId {
        let mut hash = Sha256::new();
        hash.update(ID_DOMAIN);
        hash.update(encode(self));
        ContractId(hash.finalize().into())
    }

    /// The provider's signature.
    #[must_use]
    pub fn sign(&self, key: &IdentityKey) -> [u8; 64] {
        key.sign(PROVIDER_DOMAIN, &encode(self))
    }

    /// Whether this is the provider's signature.
    #[must_use]
    pub fn is_signed_by_provider(&self, signature: &[u8; 64]) -> bool {
        self.provider
            .verify(PROVIDER_DOMAIN, &encode(self), signature)
    }

    /// The client's signature, which covers the provider's.
    #[must_use]
    pub fn countersign(&self, provider_signature: &[u8; 64], key: &ContractKey) -> [u8; 64] {
        key.sign(CLIENT_DOMAIN, &countersigned(self, provider_signature))
    }
}

impl SignedContract {
    /// Whether both parties have signed.
    #[must_use]
    pub fn verify(&self) -> bool {
        let Self {
            contract,
            provider_signature,
            client_signature,
        } = self;
        let message = countersigned(contract, provider_signature);
        contract.is_signed_by_provider(provider_signature)
            && contract
                .client
                .verify(CLIENT_DOMAIN, &message, client_signature)
    }
}

fn countersigned(contract: &Contract, provider_signature: &[u8; 64]) -> Vec<u8> {
    let mut message = encode(contract);
    message.extend(provider_signature);
    message
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

scrubbed!(
    Contract,
    ContractAnswer,
    ContractEnvelope,
    ContractId,
    ContractRequest,
    Grant,
    Greeting,
    Proposal,
    SignedContract,
    ProofOfWork
);

/// A stored contract's bytes, for files and databases.
///
/// # Errors
///
/// `None` unless the bytes are a contract that both sides have signed.
#[must_use]
pub fn read_signed_contract(bytes: &[u8]) -> Option<SignedContract> {
    decode::<SignedContract>(bytes)
        .ok()
        .filter(SignedContract::verify)
}

#[cfg(test)]
mod tests;
