//! What hostile peers cannot do.

use std::time::Duration;

use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{Service, Transport as _};
use tokio::io::AsyncWriteExt as _;

use super::support::{Notes, Peer, quick, transport, until, until_all_have};

const FAST: Duration = Duration::from_millis(5);

#[tokio::test(flavor = "multi_thread")]
async fn forged_items_go_no_further_and_their_sender_is_left_alone() {
    let network = MemoryNetwork::new(FAST);
    let first = Peer::start(&network, 1, quick(&[])).await;
    let second = Peer::start(&network, 2, quick(&[&first])).await;
    let forger = Peer::with(&network, 3, quick(&[&first]), Notes::gullible()).await;
    let honest = [first, second];
    honest[0].publish(b"before").await;
    until_all_have(&honest, b"before").await;
    until("the forger has peers", async || {
        forger.status().await.peers > 0
    })
    .await;
    for number in 0..20 {
        forger.publish(format!("forged {number}").as_bytes()).await;
    }
    until("the forger has no peers", async || {
        forger.status().await.peers == 0
    })
    .await;
    let refused = honest[0].refusals("forged").await + honest[1].refusals("forged").await;
    assert!((3..=10).contains(&refused), "{refused}");
    for peer in &honest {
        assert!((0..20).all(|number| !peer.has(format!("forged {number}").as_bytes())));
    }
    honest[1].publish(b"after").await;
    until_all_have(&honest, b"after").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_items_are_not_taken_from_a_reconciliation() {
    let network = MemoryNetwork::new(FAST);
    let mut notes = Notes::default();
    for number in 0..20 {
        notes.keep(format!("forged {number}").as_bytes());
    }
    notes.keep(b"good");
    let forger = Peer::with(&network, 1, quick(&[]), notes).await;
    let peer = Peer::start(&network, 2, quick(&[&forger])).await;
    until("the forger is left alone", async || {
        peer.refusals("forged").await >= 3 && peer.status().await.peers == 0
    })
    .await;
    assert!(peer.has(b"good"));
    assert_eq!(peer.status().await.items, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_hang_or_send_garbage_keep_nobody_out() {
    let network = MemoryNetwork::new(FAST);
    let first = Peer::start(&network, 1, quick(&[])).await;
    let attacker = transport(&network, 9);
    let target = first.node.endpoint();
    let mut hanging = Vec::new();
    for number in 0_usize..300 {
        let dialled = attacker.dial(&target, Service::Overlay);
        let mut stream = dialled.await.expect("is there").stream;
        if number.is_multiple_of(2) {
            let garbage = vec![0x13; 4096];
            // It may have been hung up on already.
            let _ = stream.write_all(&garbage).await;
        }
        hanging.push(stream);
    }
    let second = Peer::start(&network, 2, quick(&[&first])).await;
    let honest = [first, second];
    honest[1].publish(b"all the same").await;
    until_all_have(&honest, b"all the same").await;
    drop(hanging);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_peers_is_bounded_and_lets_others_in() {
    let network = MemoryNetwork::new(FAST);
    let mut config = quick(&[]);
    config.max_connections = 16;
    config.peers = 0;
    let first = Peer::start(&network, 1, config).await;
    let friend = Peer::start(&network, 2, quick(&[&first])).await;
    friend.publish(b"useful").await;
    until("it is there", async || first.has(b"useful")).await;
    let mut crowd = Vec::new();
    for number in 10..40 {
        let mut config = quick(&[&first]);
        // They want this one peer, and no others.
        config.peers = 1;
        config.pace.check = Duration::from_secs(3600);
        crowd.push(Peer::start(&network, number, config).await);
        assert!(first.status().await.peers <= 16);
    }
    until("some had to make room", async || {
        let status = first.status().await;
        assert!(status.peers <= 16);
        status.refusals.contains_key("connection that made room")
    })
    .await;
    let last = Peer::start(&network, 3, quick(&[&first])).await;
    friend.publish(b"later").await;
    until_all_have(&[first, last], b"later").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_does_not_answer_is_replaced_by_another() {
    let network = MemoryNetwork::new(FAST);
    let silent = Notes::hanging(Duration::from_secs(3));
    let silent = Peer::with(&network, 1, quick(&[]), silent).await;
    let late = Peer::start(&network, 2, quick(&[&silent])).await;
    until("the silent one is asked", async || {
        late.status().await.peers == 1
    })
    .await;
    let mut notes = Notes::default();
    (0..100_u8).for_each(|number| notes.keep(&[number]));
    let helpful = Peer::with(&network, 3, quick(&[&late]), notes).await;
    until("it has what the other has", async || late.len() == 100).await;
    drop((silent, helpful));
}
