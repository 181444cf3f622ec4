//! What evidence says of a provider.
//!
//! The [`Arbiter`] judges a piece of evidence by running the call again. The
//! evidence itself (receipts, proofs of fraud and of equivocation, verdicts) is
//! defined in `dlambda-proto`: its bytes travel, and each proves what it says.
//!
//! # Not in this crate
//!
//! No network and no keys: evidence comes in as bytes, and the signer of a
//! finding has the key. The ledger and the scores are not there yet.

#![forbid(unsafe_code)]

mod arbiter;

pub use arbiter::{Arbiter, Judgement};
