//! A node of the overlay: libp2p over onion services.
//!
//! Nodes gossip what the virtual broker knows (signed listings, demands, offers, and proofs of
//! equivocation), find each other by Kademlia, and reconcile what they hold. Only they speak
//! libp2p: queriers are guests, who send one request a stream (`dlambda-broker`).
//!
//! # Not in this crate
//!
//! No judgement of what is gossiped: a [`Store`] accepts, ignores or rejects each item. No
//! addresses but onion addresses, and nothing that dials but the transport that is handed in.

#![forbid(unsafe_code)]

mod behaviour;
mod bucket;
mod error;
mod functions;
mod guests;
mod node;
mod reconcile;
mod store;
#[cfg(test)]
mod tests;
mod transport;

pub use behaviour::GossipTopic;
pub use error::NodeError;
pub use functions::{FetchError, FunctionPart, PublishedFunctions};
pub use guests::{Guests, GuestsStatus};
pub use node::{Node, NodeConfig, NodeHandle, NodeStatus, Pace};
pub use store::{Announcement, Held, Store, Verdict};
