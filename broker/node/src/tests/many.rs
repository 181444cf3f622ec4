//! Two hundred real nodes in one process, in real time: libp2p's timers know no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{Endpoint, UnixSeconds};
use sha2::{Digest as _, Sha256};
use tokio::time::sleep;

use super::support::{NETWORK, endpoint};
use crate::node::lock;
use crate::{GossipTopic, Held, Node, NodeConfig, Store, Verdict};

const NODES: u8 = 200;
const BOOTSTRAP: u8 = 5;
const ITEMS: usize = 20;
const ITEM_BYTES: usize = 400;
const MS: Duration = Duration::from_millis(1);
/// As long as it takes to publish all items.
const PAUSE: Duration = Duration::from_secs(40);

/// Remembers when it heard of what.
struct Heard {
    items: BTreeMap<[u8; 32], (Vec<u8>, Instant)>,
    withholds: bool,
}

impl Store for Heard {
    fn offer(&mut self, _: GossipTopic, item: &[u8], _: UnixSeconds) -> Verdict {
        let heard = || (item.to_vec(), Instant::now());
        self.items
            .entry(Sha256::digest(item).into())
            .or_insert_with(heard);
        match self.withholds {
            true => Verdict::Ignore("withheld"),
            false => Verdict::Accept,
        }
    }

    fn held(&self) -> Vec<Held> {
        let digests = self.items.keys().filter(|_| !self.withholds);
        let held = |digest: &[u8; 32]| Held {
            at: UnixSeconds(0),
            digest: *digest,
        };
        digests.map(held).collect()
    }

    fn item(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        self.items.get(digest).map(|(item, _)| item.clone())
    }
}

struct Crowd {
    nodes: Vec<(Node, Arc<Mutex<Heard>>)>,
}

impl Crowd {
    async fn start(withholding: u8) -> Self {
        let network = MemoryNetwork::new(300 * MS).with_message_delay(150 * MS..=400 * MS);
        let bootstrap: Vec<Endpoint> = (0..BOOTSTRAP).map(|it| endpoint(&network, it)).collect();
        let mut nodes = Vec::new();
        for number in 0..NODES {
            let store = Arc::new(Mutex::new(Heard {
                items: BTreeMap::new(),
                // Spread over all, and bootstrap nodes among them.
                withholds: u16::from(number) * 7 % 100 < u16::from(withholding),
            }));
            let transport = Arc::new(network.transport([number; 32]));
            let config = NodeConfig::new(NETWORK, bootstrap.clone());
            let node = Node::start(
                config,
                transport,
                store.clone(),
                Arc::new(SystemClock::default()),
            )
            .await;
            nodes.push((node.expect("starts"), store));
            sleep(50 * MS).await;
        }
        Self { nodes }
    }

    fn honest(&self) -> Vec<usize> {
        let all = 0..self.nodes.len();
        all.filter(|at| !lock(&self.nodes[*at].1).withholds)
            .collect()
    }

    /// Bytes that all have sent, and connections that they have made.
    async fn bytes(&self) -> (u64, u64) {
        let (mut bytes, mut connections) = (0, 0);
        for (node, _) in &self.nodes {
            let status = node.handle().status().await.expect("is running");
            bytes += status.bytes_sent;
            connections += status.connections;
        }
        (bytes, connections / 2)
    }

    async fn peers(&self) -> (usize, usize) {
        let mut peers = Vec::new();
        for (node, _) in &self.nodes {
            peers.push(node.handle().status().await.expect("is running").peers);
        }
        peers.sort_unstable();
        (peers[0], peers[peers.len() / 2])
    }

    /// Publishes items and prints what share of the honest nodes knew them how soon.
    async fn measure(&self, what: &str) -> [f64; 2] {
        let (least, median) = self.peers().await;
        println!("{what}: {least} peers at least, {median} in the middle");
        for (node, _) in &self.nodes {
            let status = node.handle().status().await.expect("is running");
            if status.peers < 4 {
                println!("{what}: a node with few peers: {status:?}");
            }
        }
        let quiet = self.bytes().await;
        sleep(PAUSE).await;
        let before = self.bytes().await;
        let seconds = PAUSE.as_secs() * u64::from(NODES);
        println!(
            "{what}: idle, {} bytes a node and second, {} connections in all",
            (before.0 - quiet.0) / seconds,
            before.1 - quiet.1
        );
        let honest = self.honest();
        let mut published = Vec::new();
        for number in 0..ITEMS {
            let by = honest[number * 37 % honest.len()];
            let mut item = format!("{what} {number} ").into_bytes();
            item.resize(ITEM_BYTES, 0);
            let handle = self.nodes[by].0.handle();
            let digest: [u8; 32] = Sha256::digest(&item).into();
            published.push((digest, Instant::now()));
            let accepted = handle.publish(GossipTopic::Listings, item).await;
            accepted.expect("is accepted");
            sleep(2000 * MS).await;
        }
        let after = self.bytes().await;
        let idle = (before.0 - quiet.0).min(after.0 - before.0);
        println!(
            "{what}: {} bytes a node and item beyond that, {} connections",
            (after.0 - before.0 - idle) / (ITEMS as u64 * u64::from(NODES)),
            after.1 - before.1
        );
        sleep(10_000 * MS).await;
        let mut delays = Vec::new();
        for (digest, moment) in &published {
            for at in &honest {
                let heard = lock(&self.nodes[*at].1);
                let heard = heard.items.get(digest);
                delays.push(heard.map(|(_, heard)| heard.saturating_duration_since(*moment)));
            }
        }
        let share = |limit: Duration| {
            let soon = delays
                .iter()
                .flatten()
                .filter(|delay| **delay <= limit)
                .count();
            soon as f64 / delays.len() as f64
        };
        for seconds in [1, 2, 3, 5, 10] {
            let share = share(1000 * MS * seconds);
            println!("{what}: {:.2} % within {seconds} s", 100.0 * share);
        }
        [share(5000 * MS), share(10_000 * MS)]
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes three minutes and two processors"]
async fn two_hundred_nodes_know_an_item_within_seconds() {
    let crowd = Crowd::start(0).await;
    sleep(60_000 * MS).await;
    let [soon, _] = crowd.measure("honest").await;
    assert!(soon >= 0.95, "{soon}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes three minutes and two processors"]
async fn two_hundred_nodes_of_which_some_withhold_know_an_item_within_ten_seconds() {
    let crowd = Crowd::start(30).await;
    sleep(60_000 * MS).await;
    let [_, later] = crowd.measure("30 % withhold").await;
    assert!(later >= 0.95, "{later}");
}
