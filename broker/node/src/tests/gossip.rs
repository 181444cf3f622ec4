//! What honest nodes do for each other.

use std::time::Duration;

use dlambda_privacy::transport::memory::MemoryNetwork;

use super::support::{Notes, Peer, quick, until, until_all_have};

async fn six(network: &MemoryNetwork) -> Vec<Peer> {
    let mut peers = vec![Peer::start(network, 1, quick(&[])).await];
    for number in 2..=6 {
        let config = quick(&[&peers[0]]);
        peers.push(Peer::start(network, number, config).await);
    }
    peers
}

#[tokio::test(flavor = "multi_thread")]
async fn an_item_reaches_every_node() {
    let network = MemoryNetwork::new(Duration::from_millis(5));
    let peers = six(&network).await;
    // At once: it is published as soon as there is somebody to publish it to.
    peers[3].publish(b"an item").await;
    until_all_have(&peers, b"an item").await;
    peers[0].publish(b"another").await;
    until_all_have(&peers, b"another").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_find_each_other_and_not_only_the_bootstrap_node() {
    let network = MemoryNetwork::new(Duration::from_millis(5));
    let mut peers = six(&network).await;
    until("all know three nodes by dialling them", async || {
        for peer in &peers {
            if peer.status().await.routes < 3 {
                return false;
            }
        }
        true
    })
    .await;
    // The bootstrap node ends, and its listener with it.
    drop(peers.remove(0));
    peers[0].publish(b"without it").await;
    until_all_have(&peers, b"without it").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_comes_late_learns_everything_by_reconciliation() {
    let network = MemoryNetwork::new(Duration::from_millis(5));
    let mut notes = Notes::default();
    for number in 0..1000 {
        notes.keep(format!("item {number}").as_bytes());
    }
    let first = Peer::with(&network, 1, quick(&[]), notes).await;
    let late = Peer::start(&network, 2, quick(&[&first])).await;
    until("it has all of them", async || late.len() == 1000).await;
    let status = late.status().await;
    assert_eq!((status.reconciled, status.accepted), (1000, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_contradiction_becomes_a_proof_that_all_have() {
    let network = MemoryNetwork::new(Duration::from_millis(5));
    let peers = six(&network).await;
    // Two nodes that do not know it yet are shown different items at the same time.
    tokio::join!(
        peers[1].publish(b"one fork"),
        peers[4].publish(b"other fork")
    );
    until_all_have(&peers, b"proof fork").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_alone_reconciles_again() {
    let network = MemoryNetwork::new(Duration::from_millis(5));
    let first = Peer::start(&network, 1, quick(&[])).await;
    let second = Peer::start(&network, 2, quick(&[&first])).await;
    until("it has reconciled enough", async || {
        second.status().await.runs >= 3
    })
    .await;
    drop(first);
    until("it is alone", async || second.status().await.peers == 0).await;
    let mut notes = Notes::default();
    notes.keep(b"published meanwhile");
    let third = Peer::with(&network, 3, quick(&[&second]), notes).await;
    until("it has what it has missed", async || {
        second.has(b"published meanwhile")
    })
    .await;
    drop(third);
}
