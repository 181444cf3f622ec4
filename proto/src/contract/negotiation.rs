//! The messages of a negotiation, and what a provider says before it.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::{
    BatchSize, Contract, ContractId, EncapsulatedKey, Epoch, ServiceTerms, SignedAdvert,
    SignedSealingKey, encode,
};

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
        /// The client's signature of the [`SignedContract`](super::SignedContract).
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
    /// The provider's signature of the [`SignedContract`](super::SignedContract).
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
