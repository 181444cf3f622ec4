//! The virtual broker: a catalogue of providers, its replication to guests, and search in it.
//!
//! No machine is the broker: every node of the overlay keeps the [`Catalogue`] whole, and callers
//! take it from several of them. No request is caused by a call, and none says what its sender has.
//!
//! # Not in this crate
//!
//! No libp2p (`dlambda-node` has it), and no clock: what depends on time or chance takes both as
//! arguments.

#![forbid(unsafe_code)]

mod catalogue;
mod error;
mod file;
pub mod frames;
pub mod guest;
#[cfg(test)]
mod model;
pub mod node_view;
mod offload;
pub mod schedule;
mod search;
pub mod selection;
pub mod snapshot;
mod sources;
pub mod spread;
mod sync;
mod tally;
mod work;

pub use catalogue::{Catalogue, Inserted, Refusal, Refusals, Rules, Standing};
pub use error::{GuestError, NoneFits, SnapshotError, SourceFault, StoreError, SyncError};
pub use frames::GuestSeal;
pub use node_view::{NodeState, Publish};
pub use offload::{Stop, offload};
pub use search::{FindOffers, Listed, LookUp, LookedUp, Market};
pub use snapshot::Snapshot;
pub use sources::{Plan, Request, SOURCES, Source, Sources};
pub use sync::{Sync, Synced};
pub use tally::Known;
pub use work::{Equihash, WorkCheck};
