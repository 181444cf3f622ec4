//! How a contract comes about, without I/O: the caller's side and the provider's.
//!
//! ```text
//! caller                                        provider
//! Negotiation::begin(advert, wish, seed)
//!   .propose() -> Proposal  ------------------> consider(proposal, advert, terms)
//!                                               grant(proposal, identity, issuers)
//! Proposed::receive(answer) <------------------ ContractAnswer
//!   -> Agreed(Agreement)                          or Countered, or an error
//! Agreement::confirmation() ------------------> is_confirmed(contract, ...)
//! ```
//!
//! The code that runs these stores what matters between the steps: the caller the
//! seed before it proposes and the tokens before it confirms, the provider the
//! grant before it answers. Then any message may be lost, and either side may
//! die, and the same message is simply sent again.
//!
//! The contract key is made from the seed, used for this contract only, and
//! nothing here is ever part of a call.

mod client;
mod provider;
#[cfg(test)]
mod tests;

pub use client::{Agreement, ContractOptions, Counter, Negotiation, Proposed, Step, confirmation};
pub use provider::{Issuers, Terms, consider, grant, invitation, is_confirmed};
