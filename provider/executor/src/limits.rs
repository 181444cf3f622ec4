//! What one call may use.

use std::time::Duration;

use minicbor::{Decode, Encode};

/// What one call may use.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Limits {
    /// Bytes of all memories and tables together, at any time. Default 64 MiB. No single memory
    /// grows beyond [`ExecutorConfig::max_memory_bytes`](crate::ExecutorConfig::max_memory_bytes).
    #[n(0)]
    pub memory_bytes: u64,
    /// Fuel. Default 1,000,000,000, which is a second or so of a busy loop.
    #[n(1)]
    pub fuel: u64,
    /// Time on this machine's clock, not counting the wait for a free place. Default 10 s.
    #[cbor(n(2), with = "crate::helper::ipc::micros")]
    pub wall_time: Duration,
    /// Bytes of standard output; writing one more ends the call. Default 1 MiB.
    #[n(3)]
    pub output_bytes: usize,
    /// Bytes of standard error that are kept; the rest is dropped and the call goes on. Default 64
    /// KiB.
    #[n(4)]
    pub stderr_bytes: usize,
    /// Whether clocks are virtual and all randomness comes from
    /// [`Invocation::seed`](crate::Invocation::seed), so that every run ends the same. Otherwise
    /// the guest sees this machine's time and real randomness. Default true.
    #[n(5)]
    pub deterministic: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 64 << 20,
            fuel: 1_000_000_000,
            wall_time: Duration::from_secs(10),
            output_bytes: 1 << 20,
            stderr_bytes: 64 << 10,
            deterministic: true,
        }
    }
}
