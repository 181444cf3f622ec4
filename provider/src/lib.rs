//! A provider: takes sealed calls from strangers, runs them, answers.
//!
//! [`Provider`] serves whatever a [`Transport`](dlambda_privacy::transport::Transport)
//! lets in, one call per circuit. It keeps an identity, an epoch number,
//! contracts and spent tokens on disk ([`DataDir`]); the keys that open calls
//! live in memory only.
//!
//! # Not in this crate
//!
//! No dialling (that is `dlambda-privacy`), no WebAssembly (that is
//! `dlambda-executor`), no cryptography of tokens and negotiation
//! (`dlambda-crypto`).

#![forbid(unsafe_code)]

pub mod config;
mod epoch;
mod error;
mod overlay;
mod provider;
mod self_test;
mod session;
mod state;
mod status;
mod store;
mod supervisor;

pub use config::{ConfigError, Execution, ProviderConfig};
pub use error::ProviderError;
pub use overlay::OverlayVolunteer;
pub use provider::{Provider, Stop};
pub use session::record::{Observer, OpenedRecord, SessionRecord};
pub use state::directory::DataDir;
pub use status::{
    AbsentLayer, ContractTotals, DemandedFunctionStatus, ExecutionStatus, FunctionUsage,
    ListingState, OverlayStatus, PreloadStatus, PreloadedFunction, ProviderState, Queue,
    RunningStatus, Snapshot, StatusError, query_status,
};
