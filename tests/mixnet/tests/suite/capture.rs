//! What somebody who watches every link sees.

use std::{collections::HashSet, sync::Arc};

use dlambda_mixnet::{Capture, Captured, Direction, Mixnet, Options};
use tokio::io::AsyncWriteExt;

use crate::support::{connect, dial, fast, round_trip, until, until_at_rest};

const CANARY: &str = "canary-7c0ffee-1dea-5eed-of-all-links";
/// Two bodies of packets share no string as long as this but by a miracle.
const STRING: usize = 16;

async fn watched() -> (Mixnet, Arc<Capture>) {
    let capture = Arc::new(Capture::new(64 << 20));
    let options = Options {
        tap: Some(capture.clone()),
        ..Options::default()
    };
    (Mixnet::start(options).await.unwrap(), capture)
}

async fn talk(mixnet: &Mixnet) {
    let mut provider = connect(mixnet, 0, fast()).await;
    let mut querier = connect(mixnet, 1, fast()).await;
    round_trip(&mut querier, &mut provider, CANARY).await;
    provider.disconnect().await;
    querier.disconnect().await;
    until_at_rest(mixnet).await;
}

/// Links from node to node.
fn between_nodes(capture: &Capture) -> Vec<Captured> {
    let mut streams = capture.streams();
    streams.retain(|stream| stream.link.to.as_ref() != "api" && !stream.link.to.contains('/'));
    streams
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_is_on_no_link() {
    let (mixnet, capture) = watched().await;
    talk(&mixnet).await;
    mixnet.shutdown().await;

    assert_eq!(capture.lost(), 0, "not all was looked at");
    assert!(capture.find(CANARY.as_bytes()).is_empty());
    // The look-out works: this is what clients ask in plain text.
    let plain = capture.find(b"GET /v1/epoch/key-rotation-info");
    assert!(plain.iter().all(|stream| stream.link.to.as_ref() == "api"));
    assert!(!plain.is_empty());
    let listeners: HashSet<_> = capture
        .streams()
        .into_iter()
        .map(|seen| seen.link.to)
        .collect();
    for kind in [
        "mix1",
        "mix2",
        "mix3",
        "gateway0",
        "gateway0/clients",
        "gateway1/clients",
    ] {
        assert!(
            listeners.iter().any(|to| to.starts_with(kind)),
            "{kind} was not watched"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_bytes_of_a_packet_are_seen_on_two_links() {
    let (mixnet, capture) = watched().await;
    talk(&mixnet).await;
    mixnet.shutdown().await;

    let mut seen = HashSet::new();
    let mut bytes = 0;
    for stream in between_nodes(&capture) {
        let mut here = HashSet::new();
        for string in stream.bytes.windows(STRING) {
            let string: [u8; STRING] = string.try_into().unwrap();
            assert!(here.insert(string), "twice on {:?}", stream.link);
        }
        for string in here {
            assert!(seen.insert(string), "on {:?} and another link", stream.link);
        }
        bytes += stream.bytes.len();
    }
    assert!(bytes > 20_000, "only {bytes} bytes passed between nodes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_come_again_are_counted_and_go_nowhere() {
    let (mixnet, capture) = watched().await;
    talk(&mixnet).await;
    let before = mixnet.counters();

    let mut resent = 0;
    for node in mixnet.mixes().into_iter().filter(|node| node.layer == 2) {
        for stream in between_nodes(&capture) {
            let is_here = stream.link.to.as_ref() == node.name;
            if is_here && stream.direction == Direction::In {
                dial(node.port)
                    .await
                    .write_all(&stream.bytes)
                    .await
                    .unwrap();
                resent += 1;
            }
        }
    }
    assert!(resent > 0, "nothing passed layer 2");
    let packets = before.layers()[1].received;
    until(&mixnet, "replayed", |counters| {
        counters.layers()[1].replayed == packets
    })
    .await;

    let after = mixnet.counters();
    assert_eq!(after.layers()[1].received, 2 * packets);
    assert_eq!(after.layers()[1].forwarded, before.layers()[1].forwarded);
    assert_eq!(after.layers()[2].received, before.layers()[2].received);
    mixnet.shutdown().await;
}
