//! How a node is doing.

use std::collections::BTreeMap;

/// What a node tells its operator: numbers, and no address or name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStatus {
    /// Peers that we are connected to.
    pub peers: usize,
    /// Of these, such as we have dialled.
    pub outgoing: usize,
    /// Nodes of which we have an address.
    pub known: usize,
    /// Of these, such as are in the routing table.
    pub routes: usize,
    /// Connections that have come about since the start.
    pub connections: u64,
    /// Items in the store, as far as nodes reconcile them.
    pub items: usize,
    /// Bytes received from all peers, whatever they carry.
    pub bytes_received: u64,
    /// The same sent.
    pub bytes_sent: u64,
    /// Bytes of published functions sent to peers that asked for them.
    pub function_bytes_sent: u64,
    /// Items accepted from gossip.
    pub accepted: u64,
    /// Items that reconciliation has brought.
    pub reconciled: u64,
    /// Runs of reconciliation that came to their end.
    pub runs: u64,
    /// What was refused, by reason: items, requests, connections.
    pub refusals: BTreeMap<&'static str, u64>,
}

impl NodeStatus {
    /// Counts a refusal.
    pub(super) fn refuse(&mut self, reason: &'static str) {
        *self.refusals.entry(reason).or_default() += 1;
    }
}
