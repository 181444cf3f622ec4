//! The words both sides of a D-Lambda call speak.
//!
//! Identifiers, the provider's advert and listing, plans, the plaintext of calls and replies, what
//! guests ask the overlay, and the frames that carry them. Everything here is a value or a pure
//! function of values.
//!
//! # Not in this crate
//!
//! No I/O, no clock, no randomness, no encryption (that is `dlambda-crypto`).
//! Whatever depends on the time takes the time as an argument.

#![forbid(unsafe_code)]

mod advert;
#[cfg(test)]
mod allocation;
mod call;
mod codec;
mod contract;
mod demand;
mod endpoint;
mod engine;
mod error;
mod evidence;
mod frame;
mod function_demand;
mod guest;
mod http;
mod ids;
mod keys;
mod kind;
mod listing;
mod nym_address;
mod plan;
mod receipt;
mod report;
mod requirements;
mod sealing;
mod shape;
mod status;
mod time;
mod token;
#[cfg(test)]
mod vectors;

pub use advert::{
    Admission, Advert, AdvertDigest, AdvertStore, Authentic, Cpu, Current, PastEpoch,
    PublishedFunction, Signable, SignedAdvert, Specs, Verified, equivocation,
};
pub use call::{
    ANSWER_KEPT_SECONDS, CallEnvelope, CallHeader, Completion, EncapsulatedKey, FunctionSource,
    Refusal, Reply, Request, RequestDigest, Start, TokenProblem, Usage,
};
pub use codec::{decode, encode};
pub use contract::{
    BatchSize, Contract, ContractAnswer, ContractEnvelope, ContractId, ContractRefusal,
    ContractRequest, Grant, Greeting, Payment, PaymentMethod, ProofOfWork, Proposal, ServiceTerms,
    SignedContract, Technology, read_signed_contract,
};
pub use demand::{Capacity, Demand, Offer, SignedOffer};
pub use endpoint::{Endpoint, Endpoints, ONION_PORT, OVERLAY_PORT, OnionAddress};
pub use engine::{EngineFingerprint, EngineProfile, Fact};
pub use error::{AdvertError, DecodeError, FrameError, IdError, ListingError};
pub use evidence::{
    EquivocationProof, Evidence, EvidenceError, Finding, FraudProof, ReceiptEvidence, SignedVerdict,
};
pub use frame::{
    FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind, MAX_CONTRACT_BODY, MAX_SEALED_BODY, VERSION,
};
pub use function_demand::{CallsStep, DemandedFunction, FunctionDemand, SignedFunctionDemand};
pub use guest::{Answer, Ask, BucketDigest, Manifest, SnapshotId, SubmitRefusal};
pub use http::{HttpError, HttpField, HttpRequest, HttpResponse};
pub use ids::{Epoch, FunctionId, IdentityKey, ProviderId};
pub use keys::{
    ArbiterId, ArbiterKey, ContractKey, ContractKeyId, ForContract, ForRating, ForReceipts,
    ForVerdicts, PublicKey, Purpose, RatingKey, RatingKeyId, ReceiptKey, ReceiptKeyId, SecretKey,
};
pub use kind::{ErrorKind, HasKind, Retry};
pub use listing::{
    Class, Day, FunctionPrefix, ListedPlan, Listing, ListingDigest, ListingFork, NetworkId, Region,
    Resources, SignedListing, Topic, Work,
};
pub use nym_address::NymAddress;
pub use plan::{Plan, PlanName};
pub use receipt::{OutputCommitment, Receipt, ReceiptError, SignedReceipt};
pub use report::{Report, json_is_asked_for, with_causes};
pub use requirements::{Requirement, Requirements};
pub use sealing::{SealingKey, SignedSealingKey};
pub use shape::check_shape;
pub use status::{Cost, FunctionProblem, Measure, Status, StopKind};
pub use time::{CLOCK_BLUR_SECONDS, UnixSeconds, Validity};
pub use token::{CallKey, CallToken, RatingToken, TokenKeyId};
