//! What a call brought back, and what it took.

use std::fmt;
use std::time::Duration;

use dlambda_proto::{
    EngineFingerprint, Epoch, FunctionId, HttpResponse, PlanName, ProviderId, Usage,
};
use serde::Serialize;

/// The answer to a call whose function ended by itself with success.
#[derive(Clone)]
#[non_exhaustive]
pub struct Output {
    /// The function's standard output; the response's body for an HTTP function.
    pub stdout: Vec<u8>,
    /// The function's standard error.
    pub stderr: Vec<u8>,
    /// How an HTTP function answered, whatever its status; nothing for a command.
    pub http: Option<HttpResponse>,
    /// The function that ran.
    pub function: FunctionId,
    /// Where all its randomness came from: with it the call can be run again.
    pub seed: [u8; 32],
    /// Who ran it.
    pub provider: ProviderId,
    /// The provider's epoch.
    pub epoch: Epoch,
    /// How many of the provider's latest epochs ended before their time.
    pub early_ends: usize,
    /// The plan.
    pub plan: PlanName,
    /// What the provider says the call used.
    pub usage: Usage,
    /// The engine that the provider says it ran on.
    pub engine: EngineFingerprint,
    /// Where the time went.
    pub stages: Stages,
    /// What crossed the wire.
    pub traffic: Traffic,
    /// Circuits tried, this one included.
    pub attempts: u32,
    /// Whether the function travelled with the call.
    pub attached: bool,
}

/// Where the time of a call went, on the circuit that brought the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Stages {
    /// Building the circuit and opening the stream.
    #[serde(rename = "connect_ms", serialize_with = "as_ms")]
    pub connect: Duration,
    /// Until the advert was here and verified.
    #[serde(rename = "advert_ms", serialize_with = "as_ms")]
    pub advert: Duration,
    /// From sending the call to opening the reply, the provider's work included.
    #[serde(rename = "round_trip_ms", serialize_with = "as_ms")]
    pub round_trip: Duration,
    /// Everything, failed attempts included.
    #[serde(rename = "total_ms", serialize_with = "as_ms")]
    pub total: Duration,
}

/// What crossed the wire for a call, on the circuit that brought the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Traffic {
    /// Bytes of input and arguments.
    pub input_bytes: u64,
    /// Bytes of standard output.
    pub output_bytes: u64,
    /// Bytes sent, padded and sealed.
    pub sent_bytes: u64,
    /// Bytes received after the advert, padded and sealed.
    pub received_bytes: u64,
}

fn as_ms<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e3)
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Output([scrubbed])")
    }
}
