//! A call and its reply: the envelope in the clear, and what is sealed in it.

mod refusal;
mod usage;

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

pub use self::refusal::Refusal;
pub use self::usage::{Start, Usage};
use crate::{
    CallToken, EngineFingerprint, Epoch, FunctionId, FunctionProblem, HttpRequest, HttpResponse,
    PlanName, SignedReceipt, Status, StopKind, encode,
};

/// All that a call shows in the clear. It names the epoch whose key opens the
/// call, and the plan; both are shared by the anonymity set.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CallHeader {
    /// The epoch of the key that the call is sealed to.
    #[n(0)]
    pub epoch: Epoch,
    /// The plan whose limits it asks for.
    #[n(1)]
    pub plan: PlanName,
}

/// An encapsulated X25519 key (RFC 9180 section 4.1), fresh for every call.
pub type EncapsulatedKey = [u8; 32];

/// A sealed call as it travels: the body of a `Call` frame.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CallEnvelope {
    /// Bound to the sealed bytes as associated data.
    #[n(0)]
    pub header: CallHeader,
    /// The sender's one-time key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub encapsulated_key: EncapsulatedKey,
    /// The padded request, sealed.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub ciphertext: Vec<u8>,
}

/// What the caller asks for.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Request {
    /// The function.
    #[n(0)]
    pub function: FunctionSource,
    /// Its arguments: at most 256, counted into the input limit.
    #[cbor(n(1), decode_with = "bounded_args")]
    pub args: Vec<String>,
    /// Its standard input.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub input: Vec<u8>,
    /// All of the function's randomness comes from this; fresh for every call.
    /// With request and seed the call can be run again.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub seed: [u8; 32],
    /// What a `wasi:http` function is asked; its body is the input. Nothing
    /// for a command; an HTTP function without it gets `POST /`, or `GET /` if
    /// there is no input.
    #[n(4)]
    pub http: Option<HttpRequest>,
    /// What pays for the call, on a plan that needs it. Says that its bearer
    /// has a contract for this plan, and not which.
    #[n(5)]
    pub token: Option<CallToken>,
}

/// See [`Request::digest`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct RequestDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// Where the function of a call comes from.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub enum FunctionSource {
    /// The provider should have it.
    #[n(0)]
    Known(#[n(0)] FunctionId),
    /// Its bytes travel with the call.
    #[n(1)]
    Attached(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// What the provider answers.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Reply {
    /// How the call ended.
    #[n(0)]
    pub completion: Completion,
    /// What it used; all zero if the function did not run.
    #[n(1)]
    pub usage: Usage,
    /// The engine it ran on.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub engine: EngineFingerprint,
    /// Proof of what the provider claims, if the function ran.
    #[n(3)]
    pub receipt: Option<SignedReceipt>,
}

/// How a call ended. Receipts commit to it, so it holds no text but the function's own: numbers
/// only, from which the client makes sentences for people.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum Completion {
    /// The function ended by itself with this exit status (0 is success).
    #[n(0)]
    Exited {
        /// Exit status, 0 to 255.
        #[n(0)]
        status: u8,
        /// Standard output.
        #[cbor(n(1), with = "minicbor::bytes")]
        stdout: Vec<u8>,
        /// Standard error, cut at the provider's limit.
        #[cbor(n(2), with = "minicbor::bytes")]
        stderr: Vec<u8>,
        /// How an HTTP function answered; the body is in `stdout`.
        #[n(3)]
        http: Option<HttpResponse>,
    },
    /// The function was stopped: a trap, or a limit of the plan.
    #[n(1)]
    Stopped {
        /// Why.
        #[n(0)]
        kind: StopKind,
        /// The plan's limit that was reached: fuel, milliseconds or bytes. None for other kinds.
        #[n(1)]
        limit: Option<u64>,
        /// Standard error until then.
        #[cbor(n(2), with = "minicbor::bytes")]
        stderr: Vec<u8>,
    },
    /// The provider does not have the function: attach it.
    #[n(2)]
    FunctionMissing,
    /// The bytes are no function that this provider runs.
    #[n(3)]
    FunctionUnusable(#[n(0)] FunctionProblem),
    /// The input, or the attached function, is larger than allowed.
    #[n(4)]
    TooLarge,
    /// The provider failed at its own task; it is not the function's fault.
    #[n(5)]
    ProviderFault,
    /// The provider has too much to do.
    #[n(6)]
    Busy {
        /// Seconds after which to try again.
        #[n(0)]
        retry_seconds: u32,
    },
    /// The call's token does not pay for it.
    #[n(7)]
    Unpaid(#[n(0)] TokenProblem),
}

/// What is wrong with a call's token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum TokenProblem {
    /// The plan needs one and there is none.
    #[n(0)]
    Missing,
    /// It is not one of this provider, plan and epoch.
    #[n(1)]
    Invalid,
    /// It paid for another call, or for this one, which is closed.
    #[n(2)]
    Spent,
    /// Its epoch is over.
    #[n(3)]
    Expired,
}

/// How long a provider keeps an answer for a request that comes again, in seconds from when it was
/// given.
///
/// For as long, and no longer, a caller may send a token again without being asked to.
pub const ANSWER_KEPT_SECONDS: u64 = 300;

/// Stops at the bound: an empty string costs its sender one byte and its
/// receiver 24.
fn bounded_args<C>(
    d: &mut minicbor::Decoder<'_>,
    _: &mut C,
) -> Result<Vec<String>, minicbor::decode::Error> {
    let mut args = Vec::new();
    for arg in d.array_iter::<String>()? {
        if args.len() == Request::MAX_ARGS {
            return Err(minicbor::decode::Error::message("too many arguments"));
        }
        args.push(arg?);
    }
    Ok(args)
}

impl Completion {
    /// How the function ended, if it ran.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        match self {
            Self::Exited { status, .. } => Some(Status::Exited(*status)),
            Self::Stopped { kind, .. } => Some(Status::Stopped(*kind)),
            _ => None,
        }
    }
}

impl Request {
    /// Most arguments in a call.
    pub const MAX_ARGS: usize = 256;

    /// What this request asks for, in 32 bytes: the function's id, arguments,
    /// input, seed and HTTP request, but neither the token nor whether the
    /// function travels along. The seed, fresh and secret, keeps anybody from
    /// trying guesses at the rest.
    ///
    /// `function` is the id of the function in [`Request::function`].
    #[must_use]
    pub fn digest(&self, function: &FunctionId) -> RequestDigest {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/request/v1\0");
        // Each is canonical CBOR, which says where it ends.
        hash.update(encode(function));
        hash.update(encode(&self.args));
        hash.update(encode(&self.input.len()));
        hash.update(&self.input);
        hash.update(self.seed);
        hash.update(encode(&self.http));
        RequestDigest(hash.finalize().into())
    }

    /// Bytes that count against the plan's input limit.
    #[must_use]
    pub fn input_len(&self) -> u64 {
        let args: usize = self.args.iter().map(String::len).sum();
        let http = self.http.as_ref().map_or(0, HttpRequest::len);
        (self.input.len() as u64).saturating_add(args as u64 + http as u64)
    }
}

impl fmt::Debug for CallEnvelope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallEnvelope({} bytes)", self.ciphertext.len())
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Request([scrubbed])")
    }
}

impl fmt::Debug for RequestDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RequestDigest([scrubbed])")
    }
}

impl fmt::Debug for FunctionSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionSource([scrubbed])")
    }
}

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exited { .. } => "Exited([scrubbed])",
            Self::Stopped { .. } => "Stopped([scrubbed])",
            Self::FunctionMissing => "FunctionMissing",
            Self::FunctionUnusable(_) => "FunctionUnusable([scrubbed])",
            Self::TooLarge => "TooLarge",
            Self::ProviderFault => "ProviderFault",
            Self::Busy { .. } => "Busy",
            Self::Unpaid(_) => "Unpaid",
        })
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({:?})", self.completion)
    }
}

#[cfg(test)]
mod tests;
