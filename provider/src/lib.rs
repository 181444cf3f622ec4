//! A provider: takes sealed calls from strangers, runs them, answers.
//!
//! [`Provider`] serves whatever a [`Transport`](dlambda_privacy::transport::Transport)
//! lets in, one call per circuit. It keeps an identity and an epoch number on
//! disk ([`DataDir`]); epoch keys live in memory only.
//!
//! # Not in this crate
//!
//! No dialling (that is `dlambda-privacy`), no WebAssembly (that is
//! `dlambda-executor`). Contracts, tokens and receipts are not there yet.

#![forbid(unsafe_code)]

pub mod config;
mod data;
mod error;
mod execute;
mod keyring;
mod observe;
mod self_test;
mod service;
mod session;
mod status;
mod store;

pub use config::{ConfigError, Execution, ProviderConfig};
pub use data::DataDir;
pub use error::ProviderError;
pub use observe::{Observer, SessionRecord};
pub use service::{Provider, Stop};
pub use status::{ExecutionStatus, FunctionWork, Queue, Snapshot, StatusError, query_status};
