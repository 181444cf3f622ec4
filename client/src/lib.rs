//! The querier: calls functions on strangers' machines without saying who calls.
//!
//! ```no_run
//! # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use dlambda_client::{Call, FunctionName, Querier};
//! use dlambda_privacy::clock::SystemClock;
//! use dlambda_privacy::network::{Network, TransportName};
//! use dlambda_privacy::transport::{self, NymRole, StartOptions, TorDirectories};
//! use dlambda_proto::Endpoint;
//!
//! let minute = Duration::from_secs(60);
//! let directories = TorDirectories::new("state".into(), "cache".into());
//! let options = StartOptions::new(directories, NymRole::Caller { pool: 1, entry: None }, minute);
//! let tor = transport::start(&Network::public(), TransportName::Tor, options, |_| {}).await?;
//! let querier = Querier::new(tor, Arc::new(SystemClock::default()));
//!
//! let address = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
//! let provider: Endpoint = address.parse()?;
//! let call = Call::new(provider, FunctionName::Alias("upper".into())).input("hello");
//! let answer = querier.call(&call, minute, |_| {}).await?;
//! println!("{}", String::from_utf8_lossy(&answer.stdout));
//! # Ok(())
//! # }
//! ```
//!
//! # Not in this crate
//!
//! No dialling (that is `dlambda-privacy`), no sealing (`dlambda-crypto`), no judging of evidence
//! (`dlambda-reputation`), and no catalogue (`dlambda-broker`): a [`Guest`] only fetches it.

#![forbid(unsafe_code)]

mod audits;
mod call;
mod consistency;
mod contracts;
mod error;
mod experience;
mod explain;
mod guest;
mod listed;
mod patience;
mod querier;
pub mod wallet;

pub use audits::{Corpus, waits};
pub use call::{
    Agreement, Call, CallOutcome, Candidate, FunctionName, Output, PendingAck, Progress, Replica,
    Replicas, Stages, Target, Traffic,
};
pub use consistency::Looked;
pub use contracts::{ContractProgress, ProposalOutcome, RecoveryReport};
pub use error::{CallError, ContractError};
pub use experience::{CallEnd, Experience};
pub use explain::stop_reason;
pub use guest::{Fetched, FindError, Guest};
pub use listed::ListingMismatch;
pub use patience::WIRE_STEP;
pub use querier::Querier;
pub use wallet::{Wallet, WalletError};
