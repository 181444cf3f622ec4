//! What a running provider tells its operator, over a socket in its data directory.
//!
//! Totals only: nothing about any one call, and nothing on disk.

mod counters;
mod socket;
mod source;
mod usage;

use std::fmt;

use dlambda_proto::Epoch;
use serde::{Deserialize, Serialize};

pub use crate::overlay::{
    DemandedFunctionStatus, ListingState, OverlayStatus, PreloadStatus, PreloadedFunction,
};

pub(crate) use self::counters::{Counters, SessionOutcome};
pub use self::socket::{StatusError, query_status};
pub(crate) use self::socket::{answer, answer_for_node};
pub(crate) use self::source::StatusSource;
pub(crate) use self::usage::UsageCounters;
pub use self::usage::{AbsentLayer, ExecutionStatus, FunctionUsage, Queue};

/// Totals since the provider started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// How far it is between start and stop.
    pub state: ProviderState,
    /// The current epoch.
    pub epoch: Epoch,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Streams open now.
    pub open_sessions: usize,
    /// Calls running now.
    pub running_calls: usize,
    /// Functions published by the operator.
    pub published_functions: usize,
    /// Functions kept that callers brought.
    pub uploaded_functions: usize,
    /// Calls whose function ended by itself with success.
    pub succeeded: u64,
    /// Calls whose function failed or broke a limit.
    pub failed: u64,
    /// Calls that were turned away, or named a function that is not here.
    pub refused: u64,
    /// Streams whose caller left before there was a reply to send.
    pub disconnected: u64,
    /// Streams that were evicted, or not admitted, since too many came at once.
    pub evicted: u64,
    /// Calls that the provider itself failed.
    pub faults: u64,
    /// Contracts that were granted, since the start.
    pub contracts_granted: u64,
    /// Proposals that were refused or countered, since the start.
    pub contracts_refused: u64,
    /// Contracts and tokens of the epochs whose tokens can still be spent.
    pub contracts: Vec<ContractTotals>,
    /// Call tokens that were redeemed, of those epochs.
    pub tokens_redeemed: u64,
    /// The latest contracts, at most 100. No call can be tied to one.
    pub latest_contracts: Vec<ContractLine>,
    /// Who waits, by plan.
    pub queues: Vec<Queue>,
    /// What each published function did. Those that callers brought have no
    /// line of their own: a function that only one person uses is a name.
    pub functions: Vec<FunctionUsage>,
    /// What the executor did.
    pub execution: ExecutionStatus,
    /// Functions of other providers.
    #[serde(default)]
    pub preload: PreloadStatus,
    /// The node and the listing, if the network has an overlay.
    pub overlay: Option<OverlayStatus>,
}

/// What runs on a data directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum RunningStatus {
    /// A provider.
    Provider(Box<Snapshot>),
    /// A node of the overlay without a provider.
    Node {
        /// How it is doing.
        overlay: OverlayStatus,
    },
}

/// How far a provider is between start and stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProviderState {
    /// It listens, and has not reached itself through the network yet.
    Starting,
    /// It has reached itself through the network.
    Ready,
    /// It was told to stop, and finishes running calls.
    Draining,
}

impl fmt::Display for ProviderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        })
    }
}

/// Contracts and tokens of one plan in one epoch.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContractTotals {
    /// The epoch.
    pub epoch: Epoch,
    /// The plan.
    pub plan: String,
    /// Contracts granted.
    pub granted: u64,
    /// Of them, signed by both.
    pub confirmed: u64,
    /// Call tokens issued.
    pub calls_issued: u64,
    /// Rating tokens issued.
    pub ratings_issued: u64,
}

/// One contract, for the operator's books.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContractLine {
    /// The contract's name between its parties, in hexadecimal.
    pub id: String,
    /// The plan.
    pub plan: String,
    /// Calls sold.
    pub calls: u16,
    /// The epoch whose keys issued the tokens.
    pub epoch: Epoch,
    /// Whether both sides have signed.
    pub confirmed: bool,
}
