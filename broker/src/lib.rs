//! The virtual broker: a catalogue of providers, its replication to guests, and search in it.
//!
//! The broker is nobody's: every node of the overlay keeps the [`Catalogue`] whole, and callers take
//! it from several of them. No request is caused by a call, and none says what its sender has.
//!
//! # Not in this crate
//!
//! No libp2p (`dlambda-node` has it), and no clock: what depends on time or chance takes both as
//! arguments.

#![forbid(unsafe_code)]

mod catalogue;
mod error;
pub mod frames;
pub mod node_view;
pub mod snapshot;
mod work;

pub use catalogue::{Catalogue, Inserted, Refusal, Refusals, Rules, Standing};
pub use error::{GuestError, SnapshotError, SourceFault, StoreError, SyncError};
pub use frames::GuestSeal;
pub use node_view::{NodeState, Publish};
pub use snapshot::Snapshot;
pub use work::{Equihash, WorkCheck};
