//! The words both sides of a D-Lambda call speak.
//!
//! Identifiers, the provider's advert, plans, the plaintext of calls and
//! replies, and the frames that carry them. Everything here is a value or a
//! pure function of values.
//!
//! # Not in this crate
//!
//! No I/O, no clock, no randomness, no encryption (that is `dlambda-privacy`).
//! Whatever depends on the time takes the time as an argument.

#![forbid(unsafe_code)]

mod advert;
mod call;
mod codec;
mod endpoint;
mod error;
mod frame;
mod http;
mod ids;
mod kind;
mod plan;
mod report;
mod time;

pub use advert::{Advert, Cpu, PublishedFunction, SignedAdvert, Specs, Verified};
pub use call::{
    CallEnvelope, CallHeader, Completion, EncapsulatedKey, EngineFingerprint, FunctionSource,
    Refusal, Reply, Request, Start, Usage,
};
pub use codec::{decode, encode};
pub use endpoint::{Endpoint, ONION_PORT, OnionAddress};
pub use error::{AdvertError, DecodeError, FrameError, IdError};
pub use frame::{FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind, MAX_SEALED_BODY, VERSION};
pub use http::{HttpError, HttpField, HttpRequest, HttpResponse};
pub use ids::{Epoch, FunctionId, IdentityKey, ProviderId};
pub use kind::{ErrorKind, HasKind, Retry};
pub use plan::{Plan, PlanName};
pub use report::Report;
pub use time::{UnixSeconds, Validity};
