//! What a node asks its catalogue.

mod catalogue;

use dlambda_proto::{Endpoint, UnixSeconds};

pub use catalogue::Announcement;

use crate::GossipTopic;

/// Keeps what nodes gossip, and judges it.
///
/// Called under a lock and from the task that all of a node's connections share: an answer should
/// take microseconds.
pub trait Store: Send + 'static {
    /// Judges an item that a peer, or this node itself, has to say on a topic, and keeps it if it
    /// is accepted. The item is hostile, and at most 16 KiB long.
    fn offer(&mut self, topic: GossipTopic, item: &[u8], now: UnixSeconds) -> Verdict;

    /// Everything that nodes reconcile: what is offered on [`GossipTopic::Listings`].
    fn held(&self) -> Vec<Held>;

    /// An item by its digest.
    fn item(&self, digest: &[u8; 32]) -> Option<Vec<u8>>;

    /// How many items are held.
    fn count(&self) -> usize {
        self.held().len()
    }

    /// Where other nodes are reached, as far as items say. Asked for when there are too few peers.
    fn nodes(&self) -> Vec<Endpoint> {
        Vec::new()
    }

    /// Drops what is over. Called once a minute.
    fn prune(&mut self, _: UnixSeconds) {}
}

/// One thing that a store holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// When it was made, as coarsely as one likes, but the same for all nodes: new items are
    /// found faster if they are together.
    pub at: UnixSeconds,
    /// Names it for all nodes.
    pub digest: [u8; 32],
}

/// What becomes of an item.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is new and good: forwarded.
    Accept,
    /// It is not forwarded, and its sender could not know better: stale, known, over a quota.
    Ignore(&'static str),
    /// It is not forwarded, and its sender should have known: forged, without work, not
    /// canonical, of another network.
    Reject(&'static str),
    /// It is not forwarded itself, but proves what all nodes should know: published instead.
    Publish(Vec<u8>),
}
