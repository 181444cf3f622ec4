//! Nodes with a store that keeps whatever is not marked as bad.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::transport::Service;
use dlambda_privacy::transport::memory::{MemoryNetwork, MemoryTransport};
use dlambda_proto::{Endpoint, NetworkId, UnixSeconds};
use sha2::{Digest as _, Sha256};
use tokio::time::{sleep, timeout};

use crate::node::lock;
use crate::{GossipTopic, Held, Node, NodeConfig, NodeHandle, NodeStatus, Store, Verdict};

/// Far longer than anything takes on a busy machine.
const LONG: Duration = Duration::from_secs(90);

const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

pub(super) const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);

/// Keeps items by their hash.
#[derive(Default)]
pub(super) struct Notes {
    items: BTreeMap<[u8; 32], Vec<u8>>,
    /// Accepts everything.
    is_gullible: bool,
    /// Says what it has after this time.
    hangs: Duration,
}

impl Notes {
    pub(super) fn gullible() -> Self {
        Self {
            is_gullible: true,
            ..Self::default()
        }
    }

    pub(super) fn hanging(hangs: Duration) -> Self {
        Self {
            hangs,
            ..Self::default()
        }
    }

    pub(super) fn has(&self, item: &[u8]) -> bool {
        self.items.values().any(|it| it == item)
    }

    pub(super) fn keep(&mut self, item: &[u8]) {
        self.items
            .insert(Sha256::digest(item).into(), item.to_vec());
    }
}

impl Store for Notes {
    fn offer(&mut self, _: GossipTopic, item: &[u8], _: UnixSeconds) -> Verdict {
        if self.has(item) {
            return Verdict::Ignore("known");
        }
        if self.is_gullible {
            self.keep(item);
            return Verdict::Accept;
        }
        if item.starts_with(b"forged") {
            return Verdict::Reject("forged");
        }
        if item.starts_with(b"stale") {
            return Verdict::Ignore("stale");
        }
        // "one NAME" and "other NAME" contradict each other.
        for (this, that) in [("one ", "other "), ("other ", "one ")] {
            let Some(name) = item.strip_prefix(this.as_bytes()) else {
                continue;
            };
            if self.has(&[that.as_bytes(), name].concat()) {
                let proof = [b"proof ", name].concat();
                self.keep(&proof);
                return Verdict::Publish(proof);
            }
        }
        self.keep(item);
        Verdict::Accept
    }

    fn held(&self) -> Vec<Held> {
        std::thread::sleep(self.hangs);
        let digests = self.items.keys();
        digests
            .map(|digest| Held {
                at: NOW,
                digest: *digest,
            })
            .collect()
    }

    fn item(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        self.items.get(digest).cloned()
    }
}

/// A node, and what it keeps.
pub(super) struct Peer {
    pub(super) node: Node,
    pub(super) notes: Arc<Mutex<Notes>>,
}

/// Settings under which things happen in tenths of a second.
pub(super) fn quick(bootstrap: &[&Peer]) -> NodeConfig {
    quick_at(bootstrap.iter().map(|peer| peer.node.endpoint()))
}

pub(super) fn quick_at(bootstrap: impl Iterator<Item = Endpoint>) -> NodeConfig {
    let mut config = NodeConfig::new(NETWORK, bootstrap.collect());
    config.pace.dial = Duration::from_millis(100);
    config.pace.check = Duration::from_millis(100);
    config.pace.look = Duration::from_millis(500);
    config.pace.dial_deadline = Duration::from_secs(3);
    config.pace.arrival_deadline = Duration::from_secs(3);
    config.pace.request_deadline = Duration::from_secs(1);
    config.pace.heartbeat = Duration::from_millis(200);
    config
}

pub(super) fn transport(network: &MemoryNetwork, number: u8) -> MemoryTransport {
    network.transport([number; 32])
}

pub(super) fn endpoint(network: &MemoryNetwork, number: u8) -> Endpoint {
    transport(network, number).endpoint_of(Service::Overlay)
}

impl Peer {
    pub(super) async fn start(network: &MemoryNetwork, number: u8, config: NodeConfig) -> Self {
        Self::with(network, number, config, Notes::default()).await
    }

    pub(super) async fn with(
        network: &MemoryNetwork,
        number: u8,
        config: NodeConfig,
        notes: Notes,
    ) -> Self {
        let notes = Arc::new(Mutex::new(notes));
        let transport = Arc::new(transport(network, number));
        let clock = Arc::new(FakeClock::at(NOW));
        let node = Node::start(config, transport, notes.clone(), clock).await;
        Self {
            node: node.expect("starts"),
            notes,
        }
    }

    pub(super) fn handle(&self) -> NodeHandle {
        self.node.handle()
    }

    pub(super) async fn publish(&self, item: &[u8]) {
        let handle = self.handle();
        let published = handle.publish(GossipTopic::Listings, item.to_vec());
        published.await.expect("is accepted");
    }

    pub(super) fn has(&self, item: &[u8]) -> bool {
        lock(&self.notes).has(item)
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.notes).items.len()
    }

    pub(super) async fn status(&self) -> NodeStatus {
        self.handle().status().await.expect("is running")
    }

    pub(super) async fn refusals(&self, reason: &str) -> u64 {
        let status = self.status().await;
        status.refusals.get(reason).copied().unwrap_or_default()
    }
}

/// Waits until it is so.
pub(super) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    if timeout(LONG, waiting).await.is_err() {
        panic!("it never comes about that {what}");
    }
}

/// Waits until all have the item.
pub(super) async fn until_all_have(peers: &[Peer], item: &[u8]) {
    until("all have the item", async || {
        peers.iter().all(|peer| peer.has(item))
    })
    .await;
}
