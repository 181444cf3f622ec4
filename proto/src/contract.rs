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

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    ContractKey, ContractKeyId, EncapsulatedKey, Epoch, IdentityKey, Plan, ProviderId,
    SignedAdvert, SignedSealingKey, TokenKeyId, Validity, decode, encode,
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

/// Proposal: a contract that lacks only the signatures, and what the tokens
/// are made of.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Proposal {
    /// The contract.
    #[n(0)]
    pub contract: Contract,
    /// An `AmortizedBatchTokenRequest` of the batched-tokens draft, at most 4.5 KiB.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub call_request: Vec<u8>,
    /// `TokenRequest`s of RFC 9578 section 6, of 259 bytes each, one after another.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub rating_request: Vec<u8>,
    /// Proof of an invitation to this very contract, where one is needed.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub invitation: Option<[u8; 32]>,
}

/// What a provider says at once when a stream opens: the body of an `Advert` frame.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Greeting {
    /// The same for everybody in an epoch.
    #[n(0)]
    pub advert: SignedAdvert,
    /// What is sealed on this stream is sealed to this key.
    #[n(1)]
    pub sealing: SignedSealingKey,
    /// The work that a contract takes just now, under [`Admission::Pow`](crate::Admission::Pow):
    /// 0 to [`Greeting::MAX_EFFORT`]. It changes with the load, so it is
    /// outside the advert; a call makes no use of it.
    #[n(2)]
    pub effort: u8,
}

/// A sealed contract request as it travels: the body of a `Contract` frame.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ContractEnvelope {
    /// The epoch of the key that it is sealed to; bound to the sealed bytes as
    /// associated data.
    #[n(0)]
    pub epoch: Epoch,
    /// The sender's one-time key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub encapsulated_key: EncapsulatedKey,
    /// The padded request, sealed.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
    /// Proof of work on the fields above, where it is asked for. In the clear,
    /// so that a provider can throw junk away before it opens anything.
    #[n(3)]
    pub work: Option<ProofOfWork>,
}

/// A proof of work; see `dlambda-crypto` for what it takes.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct ProofOfWork {
    /// Found by memory-hard hashing.
    #[n(0)]
    pub solution: u64,
    /// The memory-hard hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// Found by plain hashing over the others, so that a made-up hash costs
    /// its sender more than looking through it costs the provider.
    #[n(2)]
    pub stamp: u64,
}

/// What a caller sends sealed for issuance.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum ContractRequest {
    /// Asks for a contract.
    #[n(0)]
    Propose(#[n(0)] Box<Proposal>),
    /// Signs the contract that was granted.
    #[n(1)]
    Confirm {
        /// Which.
        #[n(0)]
        contract: ContractId,
        /// The client's signature of the [`SignedContract`].
        #[cbor(n(1), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
}

/// What a provider answers to a [`ContractRequest`].
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum ContractAnswer {
    /// The contract holds as soon as it is confirmed; here are the tokens.
    #[n(0)]
    Granted(#[n(0)] Grant),
    /// Not so, but so. The caller may propose that, or go.
    #[n(1)]
    Counter {
        /// What is in the way.
        #[n(0)]
        reason: ContractRefusal,
        /// The number of calls that would be granted.
        #[n(1)]
        calls: BatchSize,
        /// The promise that would be made.
        #[n(2)]
        service: ServiceTerms,
    },
    /// No.
    #[n(2)]
    Refused(#[n(0)] ContractRefusal),
    /// The confirmation is kept: the contract is signed by both.
    #[n(3)]
    Confirmed,
}

/// The provider's signature and the tokens, still blind.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Grant {
    /// The provider's signature of the [`SignedContract`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub signature: [u8; 64],
    /// An `AmortizedBatchTokenResponse`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub call_response: Vec<u8>,
    /// `TokenResponse`s of RFC 9578 section 6, of 256 bytes each, one after another.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub rating_response: Vec<u8>,
}

/// Why there is no contract, or not this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum ContractRefusal {
    /// The proposal cannot be read or contradicts itself.
    #[n(0)]
    Malformed,
    /// The keys in it are not those of the advert: it may have changed meanwhile.
    #[n(1)]
    StaleKeys,
    /// Another plan, price or validity than the advert has.
    #[n(2)]
    OtherTerms,
    /// The provider gives contracts to those it invited.
    #[n(3)]
    NotInvited,
    /// Too many calls for one contract.
    #[n(4)]
    TooManyCalls,
    /// The service asked for cannot be promised.
    #[n(5)]
    ServiceTooGood,
    /// The machine does not have the technology asked for.
    #[n(6)]
    NoSuchTechnology,
    /// The way of paying is not accepted.
    #[n(7)]
    Payment,
    /// The provider does not know the contract that was confirmed.
    #[n(8)]
    UnknownContract,
    /// The signature is not the contract key's.
    #[n(9)]
    BadSignature,
    /// The provider issues no more contracts in this epoch, or not just now.
    #[n(10)]
    Exhausted,
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

impl Greeting {
    /// Most effort that a provider may ask for, and a caller will spend.
    pub const MAX_EFFORT: u8 = 16;
}

impl Proposal {
    /// Longest [`Proposal::call_request`], in bytes: 128 elements of 32 bytes and a head.
    pub const MAX_CALL_REQUEST: usize = 128 * 32 + 16;
    /// Longest [`Proposal::rating_request`], in bytes.
    pub const MAX_RATING_REQUEST: usize = 16 * 259;

    /// Names everything proposed, blinded tokens included: a repeated
    /// proposal is known by it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/proposal/v1\0");
        hash.update(encode(self));
        hash.finalize().into()
    }
}

fn countersigned(contract: &Contract, provider_signature: &[u8; 64]) -> Vec<u8> {
    let mut message = encode(contract);
    message.extend(provider_signature);
    message
}

impl fmt::Display for ContractRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the provider could not read the proposal",
            Self::StaleKeys => "the provider's keys have changed meanwhile",
            Self::OtherTerms => "the plan, price or validity is not what the provider offers",
            Self::NotInvited => "the provider gives contracts only to those it has invited",
            Self::TooManyCalls => "the provider does not sell so many calls at once",
            Self::ServiceTooGood => "the provider does not promise to start calls so soon",
            Self::NoSuchTechnology => "the provider does not have the technology asked for",
            Self::Payment => "the provider does not accept this way of paying",
            Self::UnknownContract => "the provider does not know this contract",
            Self::BadSignature => "the provider did not accept the signature",
            Self::Exhausted => "the provider gives no further contracts for now",
        })
    }
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
mod tests {
    use super::*;
    use crate::UnixSeconds;

    fn contract(provider: &IdentityKey, client: &ContractKey) -> Contract {
        Contract {
            provider: provider.id(),
            client: client.id(),
            epoch: Epoch(3),
            plan: Plan::standard_menu().remove(0),
            calls: BatchSize::Calls32,
            payment: Payment {
                total: 0,
                method: PaymentMethod::Gratis,
            },
            service: ServiceTerms {
                start_within_ms: 120_000,
            },
            technology: Technology {
                deterministic: true,
                tee: None,
            },
            validity: Validity {
                from: UnixSeconds(1),
                until: UnixSeconds(2),
            },
            call_key: TokenKeyId([1; 32]),
            rating_key: TokenKeyId([2; 32]),
        }
    }

    #[test]
    fn both_signatures_are_needed_and_cover_everything() {
        let provider = IdentityKey::from_seed(&[1; 32]);
        let client = ContractKey::from_seed(&[2; 32]);
        let contract = contract(&provider, &client);
        let provider_signature = contract.sign(&provider);
        let client_signature = contract.countersign(&provider_signature, &client);
        let signed = SignedContract {
            contract,
            provider_signature,
            client_signature,
        };
        assert!(signed.verify());
        let bytes = encode(&signed);
        assert_eq!(read_signed_contract(&bytes), Some(signed));
        for i in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[i / 8] ^= 1 << (i % 8);
            assert!(read_signed_contract(&bad).is_none(), "bit {i}");
        }
    }

    #[test]
    fn sizes_are_the_standard_ones() {
        assert_eq!(BatchSize::of_calls(32), Some(BatchSize::Calls32));
        assert_eq!(BatchSize::of_calls(33), None);
        let ratings = BatchSize::ALL.map(BatchSize::ratings);
        assert_eq!(ratings, [1, 4, 16]);
    }
}
