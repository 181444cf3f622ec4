//! What a call used, as a reply tells it.

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

/// What a call used at the provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Usage {
    /// Fuel consumed.
    #[n(0)]
    pub fuel: u64,
    /// Highest memory of the instance, in bytes.
    #[n(1)]
    pub peak_memory_bytes: u64,
    /// Time from opening the call to starting the function, in microseconds: waiting for a turn,
    /// and compiling if the function was cold. In replies [coarse](Usage::coarse).
    #[n(2)]
    pub queue_us: u64,
    /// Time that the function ran, in microseconds. In replies [coarse](Usage::coarse).
    #[n(3)]
    pub execute_us: u64,
    /// Where the compiled code came from.
    #[n(4)]
    pub start: Start,
    /// Whether the plan promises the same output and fuel for every run of the
    /// call.
    #[n(5)]
    pub deterministic: bool,
}

impl Usage {
    /// Shortest time but none that is told, in microseconds: a quarter of a second.
    pub const LEAST_TIME_US: u64 = 250_000;

    /// The same with its times rounded up to a quarter of a second, a half, one, two, four and so
    /// on: precise ones would show to any caller how busy the provider is with the calls of others.
    #[must_use]
    pub fn coarse(self) -> Self {
        Self {
            queue_us: coarse(self.queue_us),
            execute_us: coarse(self.execute_us),
            ..self
        }
    }
}

/// The next of the times that may be told; none stays none, since nothing was waited for or run
/// then.
pub(super) fn coarse(time_us: u64) -> u64 {
    if time_us == 0 {
        return 0;
    }
    let steps = time_us.div_ceil(Usage::LEAST_TIME_US);
    let step = steps.checked_next_power_of_two();
    step.and_then(|steps| steps.checked_mul(Usage::LEAST_TIME_US))
        .unwrap_or(u64::MAX)
}

/// Where the compiled code of a call came from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Start {
    /// It was in memory.
    #[default]
    #[n(0)]
    Warm,
    /// It was on disk.
    #[n(1)]
    Cached,
    /// It had to be compiled.
    #[n(2)]
    Compiled,
}
