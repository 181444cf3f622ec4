//! Networks and clients for the tests.

use std::{collections::BTreeSet, path::Path, time::Duration};

use dlambda_mixnet::{Mixnet, NetworkCounters, NodeCounters, Options};
use nym_network_defaults::{ApiUrl, NymNetworkDetails, ValidatorDetails};
use nym_sdk::{
    DebugConfig, ShutdownToken, ShutdownTracker,
    mixnet::{
        IncludedSurbs, MixnetClient, MixnetClientBuilder, MixnetClientStorage, MixnetMessageSender,
        Recipient, ReconstructedMessage, StoragePaths,
    },
};
use tokio::net::TcpStream;

/// How long anything may take, on the slowest machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A network of the usual size.
pub(crate) async fn mixnet() -> Mixnet {
    Mixnet::start(Options::default()).await.unwrap()
}

/// Clients that take a millisecond a hop and send nothing of their own accord.
pub(crate) fn fast() -> DebugConfig {
    let mut config = DebugConfig::default();
    config.traffic.average_packet_delay = Duration::from_millis(1);
    config.traffic.disable_main_poisson_packet_distribution = true;
    config.acknowledgements.average_ack_delay = Duration::from_millis(1);
    config.cover_traffic.disable_loop_cover_traffic_stream = true;
    config
}

/// Such clients, which also notice that their gateway left them: they send a
/// cover packet a few times a second.
pub(crate) fn watchful() -> DebugConfig {
    let mut config = fast();
    config.cover_traffic.disable_loop_cover_traffic_stream = false;
    config.cover_traffic.loop_cover_traffic_average_delay = Duration::from_millis(300);
    config
}

/// A client that keeps nothing.
pub(crate) async fn connect(mixnet: &Mixnet, gateway: usize, config: DebugConfig) -> MixnetClient {
    let builder = MixnetClientBuilder::new_ephemeral();
    let identity = mixnet.gateways()[gateway].identity.clone();
    build(builder, mixnet.api_url(), identity, config).await
}

/// A client that is the same again when it comes back with the same directory.
pub(crate) async fn connect_from(
    dir: &Path,
    mixnet: &Mixnet,
    gateway: usize,
    config: DebugConfig,
) -> MixnetClient {
    let paths = StoragePaths::new_from_dir(dir).unwrap();
    let storage = paths.initialise_persistent_storage(&config).await.unwrap();
    let builder = MixnetClientBuilder::new_with_storage(storage);
    let identity = mixnet.gateways()[gateway].identity.clone();
    build(builder, mixnet.api_url(), identity, config).await
}

/// A client of the network behind `api_url`.
pub(crate) async fn build<S: MixnetClientStorage + Clone + 'static>(
    builder: MixnetClientBuilder<S>,
    api_url: &str,
    gateway: String,
    config: DebugConfig,
) -> MixnetClient {
    // Else each client would end at any panic in this process.
    let shutdown = ShutdownTracker::new_from_external_shutdown_token(ShutdownToken::new());
    let client = builder
        .network_details(network_details(api_url))
        .debug_config(config)
        .request_gateway(gateway)
        .custom_shutdown(shutdown)
        .build()
        .unwrap();
    let connected = tokio::time::timeout(PATIENCE, Box::pin(client.connect_to_mixnet()));
    connected.await.expect("no connection in time").unwrap()
}

/// Sends `text` with `surbs` for the answer.
pub(crate) async fn send(client: &MixnetClient, to: Recipient, text: &str, surbs: u32) {
    client
        .send_message(to, text.as_bytes(), IncludedSurbs::Amount(surbs))
        .await
        .unwrap();
}

/// The next message that carries something.
pub(crate) async fn receive(client: &mut MixnetClient) -> ReconstructedMessage {
    let next = async {
        loop {
            let messages = client.wait_for_messages().await.expect("the client ended");
            // Tests that call this have one message under way at a time.
            if let Some(message) = messages.into_iter().next_back() {
                return message;
            }
        }
    };
    tokio::time::timeout(PATIENCE, next)
        .await
        .expect("no message in time")
}

/// Receives until `count` different messages are there.
pub(crate) async fn receive_all(client: &mut MixnetClient, count: usize) -> BTreeSet<Vec<u8>> {
    let mut texts = BTreeSet::new();
    let collect = async {
        while texts.len() < count {
            let messages = client.wait_for_messages().await.expect("the client ended");
            texts.extend(messages.into_iter().map(|message| message.message));
        }
    };
    let _ = tokio::time::timeout(PATIENCE, collect).await;
    assert_eq!(texts.len(), count, "the others did not come in time");
    texts
}

/// One question with SURBs and its answer.
pub(crate) async fn round_trip(from: &mut MixnetClient, to: &mut MixnetClient, text: &str) {
    send(from, *to.nym_address(), text, 30).await;
    let question = receive(to).await;
    assert_eq!(question.message, text.as_bytes());
    let tag = question.sender_tag.expect("a question brings a tag");
    let answer = format!("answer to {text}");
    to.send_reply(tag, answer.as_bytes()).await.unwrap();
    assert_eq!(receive(from).await.message, answer.as_bytes());
}

/// Waits until the network's counters are as told.
pub(crate) async fn until(
    mixnet: &Mixnet,
    what: &str,
    mut is_so: impl FnMut(&NetworkCounters) -> bool,
) {
    let wait = async {
        while !is_so(&mixnet.counters()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(PATIENCE, wait).await.is_err() {
        panic!("never {what}: {:#?}", mixnet.counters());
    }
}

/// Waits until no client is connected and no packet is under way, on a network
/// that loses none.
pub(crate) async fn until_at_rest(mixnet: &Mixnet) {
    until(mixnet, "at rest", |counters| {
        let entered: u64 = counters
            .gateways
            .iter()
            .map(|gateway| gateway.sent_by_clients)
            .sum();
        let mixes = counters.mixes.iter();
        let nodes = || {
            mixes
                .clone()
                .chain(counters.gateways.iter().map(|gateway| &gateway.node))
        };
        let of = |count: fn(&NodeCounters) -> u64| nodes().map(count).sum::<u64>();
        let forwarded = of(|node| node.forwarded);
        counters
            .gateways
            .iter()
            .all(|gateway| gateway.sessions == 0)
            && of(|node| node.received) == forwarded
            && forwarded + of(|node| node.r#final) == entered + of(|node| node.received + node.acks)
    })
    .await;
}

/// A bare connection to a listener of the network.
#[expect(
    clippy::disallowed_methods,
    reason = "to the test network, on loopback"
)]
pub(crate) async fn dial(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

fn network_details(api_url: &str) -> NymNetworkDetails {
    let mut details = NymNetworkDetails::new_empty();
    details.network_name = "loopback".to_owned();
    // No chain is asked for anything: nothing listens there.
    details.endpoints = vec![ValidatorDetails::new(
        "http://127.0.0.1:1/",
        Some(api_url),
        None,
    )];
    details.set_nym_api_urls(vec![ApiUrl {
        url: api_url.to_owned(),
        front_hosts: None,
    }]);
    details
}
