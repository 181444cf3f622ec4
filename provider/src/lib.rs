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
//! (`dlambda-privacy` again).

#![forbid(unsafe_code)]

mod cold;
pub mod config;
mod data;
mod effort;
mod error;
mod execute;
mod keyring;
mod ledger;
mod observe;
mod places;
mod redeem;
mod self_test;
mod service;
mod session;
mod status;
mod store;

pub use config::{ConfigError, Execution, ProviderConfig};
pub use data::DataDir;
pub use error::ProviderError;
pub use observe::{Observer, OpenedRecord, SessionRecord};
pub use service::{Provider, Stop};
pub use status::{
    AbsentLayer, ContractTotals, ExecutionStatus, FunctionWork, Queue, Snapshot, StatusError,
    query_status,
};
