//! Messages and answers on a network without faults, or nearly.

use std::time::{Duration, Instant};

use dlambda_mixnet::{Mixnet, Options};

use crate::support::{
    PATIENCE, connect, connect_from, fast, mixnet, receive, receive_all, round_trip, send, until,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_and_its_answer_go_through_every_layer() {
    let mixnet = mixnet().await;
    let mut provider = connect(&mixnet, 0, fast()).await;
    let mut querier = connect(&mixnet, 1, fast()).await;

    round_trip(&mut querier, &mut provider, "what is new?").await;

    let counters = mixnet.counters();
    for layer in counters.layers() {
        assert!(layer.received > 0, "nothing in layer {}", layer.layer);
        assert!(layer.forwarded > 0, "nothing out of layer {}", layer.layer);
        assert!(layer.bytes > 0);
        assert!(layer.delay_ms > 0, "no delay in layer {}", layer.layer);
        assert_eq!((layer.dropped, layer.replayed, layer.malformed), (0, 0, 0));
    }
    for gateway in &counters.gateways {
        assert!(gateway.up);
        assert_eq!(
            (gateway.clients, gateway.registered, gateway.sessions),
            (1, 1, 1)
        );
        assert!(gateway.sent_by_clients > 0);
        assert!(gateway.pushed > 0);
        assert!(gateway.node.r#final > 0);
        assert!(gateway.node.acks > 0);
        assert_eq!(gateway.node.malformed, 0);
    }
    provider.disconnect().await;
    querier.disconnect().await;
    until(&mixnet, "without sessions", |counters| {
        counters
            .gateways
            .iter()
            .all(|gateway| gateway.sessions == 0)
    })
    .await;
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_larger_than_a_packet_go_through() {
    let mixnet = mixnet().await;
    let mut provider = connect(&mixnet, 0, fast()).await;
    let querier = connect(&mixnet, 0, fast()).await;
    let text = "0123456789".repeat(5_000);

    send(&querier, *provider.nym_address(), &text, 0).await;

    assert_eq!(receive(&mut provider).await.message, text.as_bytes());
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_packet_is_delayed_as_its_sender_chose() {
    let mixnet = mixnet().await;
    let mut config = fast();
    config.traffic.average_packet_delay = Duration::from_millis(300);
    // Its delays are added up below: there is to be one packet only.
    config.acknowledgements.ack_wait_addition = PATIENCE;
    let mut client = connect(&mixnet, 0, config).await;

    let sent = Instant::now();
    send(&client, *client.nym_address(), "slowly", 0).await;
    receive(&mut client).await;
    let took = sent.elapsed();

    let asked: u64 = mixnet
        .counters()
        .layers()
        .iter()
        .map(|layer| layer.delay_ms)
        .sum();
    // The ack is under way as well by now, and asks for a millisecond a hop.
    let asked = Duration::from_millis(asked.saturating_sub(100));
    assert!(took >= asked, "took {took:?}, was to take {asked:?}");
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_network_works() {
    let options = Options {
        layer_nodes: 1,
        gateways: 1,
        ..Options::default()
    };
    let mixnet = Mixnet::start(options).await.unwrap();
    let mut provider = connect(&mixnet, 0, fast()).await;
    let mut querier = connect(&mixnet, 0, fast()).await;
    round_trip(&mut querier, &mut provider, "small world").await;
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_tenth_lost_at_each_hop_every_message_arrives() {
    let options = Options {
        loss: 0.1,
        ..Options::default()
    };
    let mixnet = Mixnet::start(options).await.unwrap();
    let mut config = fast();
    // How soon a packet without an ack is sent again.
    config.acknowledgements.ack_wait_addition = Duration::from_millis(250);
    let mut provider = connect(&mixnet, 0, config).await;
    let sender = connect(&mixnet, 1, config).await;

    for number in 0..30 {
        send(
            &sender,
            *provider.nym_address(),
            &format!("message {number}"),
            0,
        )
        .await;
    }

    receive_all(&mut provider, 30).await;
    let dropped: u64 = mixnet
        .counters()
        .layers()
        .iter()
        .map(|layer| layer.dropped)
        .sum();
    assert!(dropped > 0, "nothing was lost on the way");
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_for_a_client_that_is_away_waits_for_it() {
    let mixnet = mixnet().await;
    let dir = tempfile::tempdir().unwrap();
    let provider = connect_from(dir.path(), &mixnet, 0, fast()).await;
    let address = *provider.nym_address();
    provider.disconnect().await;
    until(&mixnet, "without the provider", |counters| {
        counters.gateways[0].sessions == 0
    })
    .await;
    let sender = connect(&mixnet, 1, fast()).await;

    send(&sender, address, "while you were out", 0).await;
    until(&mixnet, "holding the message", |counters| {
        counters.gateways[0].stored > 0
    })
    .await;
    let mut provider = connect_from(dir.path(), &mixnet, 0, fast()).await;

    assert_eq!(*provider.nym_address(), address);
    assert_eq!(receive(&mut provider).await.message, b"while you were out");
    let gateway = &mixnet.counters().gateways[0];
    assert_eq!(
        (gateway.clients, gateway.registered),
        (1, 1),
        "it registered again"
    );
    until(&mixnet, "empty", |counters| {
        counters.gateways[0].stored == 0 && counters.gateways[0].stored_bytes == 0
    })
    .await;
    mixnet.shutdown().await;
}
