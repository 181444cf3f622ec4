//! Calls over a private mixnet: real Sphinx packets, real Nym clients in the
//! real helper, at both ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, Querier, Wallet};
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::NymTransport;
use dlambda_proto::{BatchSize, Endpoint};
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::mixnet::{Mixnet, MixnetOptions, Traffic, helpers};
use futures::future::join_all;
use rand_core::Rng as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::contracts::market::wish;
use crate::support::{LONG, alias, functions, skip_second_look};
use crate::tor::connections;

/// A mixnet, and a provider on it.
pub(crate) struct NymWorld {
    pub(crate) mixnet: Mixnet,
    pub(crate) endpoint: Endpoint,
    provider: Option<LocalProvider>,
    config: ProviderConfig,
    traffic: Traffic,
    pub(crate) dir: TempDir,
}

impl NymWorld {
    pub(crate) async fn open(config: ProviderConfig, traffic: Traffic) -> Self {
        Self::with(config, traffic, MixnetOptions::default()).await
    }

    pub(crate) async fn with(
        config: ProviderConfig,
        traffic: Traffic,
        options: MixnetOptions,
    ) -> Self {
        let mixnet = Mixnet::up(&options).await.expect("a mixnet");
        let dir = tempfile::tempdir().expect("a directory");
        let provider = serve(&mixnet, &dir, config.clone(), traffic).await;
        Self {
            mixnet,
            endpoint: provider.endpoint,
            provider: Some(provider),
            config,
            traffic,
            dir,
        }
    }

    pub(crate) fn provider(&self) -> &LocalProvider {
        self.provider.as_ref().expect("it runs")
    }

    /// A caller, with a wallet.
    pub(crate) async fn caller(&self, name: &str) -> Querier {
        let nym = self.mixnet.caller(self.traffic, 1).await;
        let wallet = Wallet::open(&self.dir.path().join(name)).expect("a wallet");
        querier(nym.expect("Nym starts")).with_wallet(wallet)
    }

    pub(crate) fn call(&self, input: impl Into<Vec<u8>>) -> Call {
        Call::new(self.endpoint, alias("upper")).input(input)
    }

    pub(crate) async fn stop_provider(&mut self) {
        let provider = self.provider.take().expect("it runs");
        provider.stop().await.expect("stops");
    }

    /// Starts it again from the files that it left.
    pub(crate) async fn start_provider(&mut self) {
        let config = self.config.clone();
        let provider = serve(&self.mixnet, &self.dir, config, self.traffic).await;
        assert_eq!(provider.endpoint, self.endpoint, "it keeps its address");
        self.provider = Some(provider);
    }

    /// Stops everything, in order.
    pub(crate) async fn close(mut self) {
        self.stop_provider().await;
        self.mixnet.down().await.expect("stops");
    }
}

pub(crate) fn querier(nym: Arc<NymTransport>) -> Querier {
    Querier::new(nym, Arc::new(SystemClock::default()))
}

async fn serve(
    mixnet: &Mixnet,
    dir: &TempDir,
    config: ProviderConfig,
    traffic: Traffic,
) -> LocalProvider {
    let keys = dir.path().join("provider-nym");
    let nym = mixnet.provider(traffic, &keys).await.expect("Nym starts");
    let (published, data) = (functions(), dir.path().join("provider"));
    let clock = Arc::new(SystemClock::default());
    let provider = LocalProvider::start(config, &published, &data, nym, clock);
    Box::pin(provider).await.expect("the provider starts")
}

/// Buys so many calls, and makes them.
async fn live(world: &NymWorld, name: &str, inputs: Vec<String>) -> u32 {
    let querier = world.caller(name).await;
    let contract = wish(BatchSize::Calls32);
    let bought = querier.contract(&world.endpoint, &contract, LONG, |_| true, |_| {});
    Box::pin(bought).await.expect("a contract");
    skip_second_look(querier.wallet().expect("a wallet"));
    let mut attempts = 0;
    for input in inputs {
        let expected = input.to_ascii_uppercase();
        let ended = querier.call_outcome(&world.call(input), LONG, |_| {}).await;
        let ended = ended.expect("a reply");
        assert!(ended.receipt.is_some(), "it was verified");
        attempts += ended.attempts;
        let answer = ended.into_output().expect("an answer");
        assert_eq!(answer.stdout, expected.as_bytes());
    }
    querier.flush_acks().await;
    attempts
}

/// With the delays and the cover traffic that users get.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_calls_of_three_callers_are_answered_and_cross_every_layer() {
    let dir = tempfile::tempdir().expect("a directory");
    let capture = dir.path().join("capture");
    let options = MixnetOptions {
        capture: Some(capture.clone()),
        ..MixnetOptions::default()
    };
    let config = ProviderConfig::default();
    let mut world = Box::pin(NymWorld::with(config, Traffic::STANDARD, options)).await;
    let canary = hex::encode(random::<16>());
    let inputs = |caller: usize| -> Vec<String> {
        let calls = (caller..50).step_by(3);
        calls.map(|call| format!("{canary} {call}")).collect()
    };
    let callers = ["anne", "bob", "cleo"].into_iter().enumerate();
    let living = callers.map(|(at, name)| Box::pin(live(&world, name, inputs(at))));
    let watching = async {
        let mut seen = 0;
        for _ in 0..20 {
            seen += assert_only_gateways_are_dialled(&world.mixnet.ready);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(seen > 0, "there were connections to look at");
    };
    let (attempts, ()) = tokio::join!(join_all(living), watching);
    println!("50 calls, none failed, {attempts:?} attempts");
    assert_every_layer_was_crossed(&world.mixnet.counters().await.expect("counters"));
    world.close().await;
    let links = streams(&std::fs::read(&capture).expect("a capture"));
    let found = |text: &str| links.iter().any(|link| contains(link, text.as_bytes()));
    assert!(found("skimmed"), "what is not sealed is found");
    assert!(!found(&canary) && !found(&canary.to_ascii_uppercase()));
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    os_rng().fill_bytes(&mut bytes);
    bytes
}

/// Every layer has passed packets on, after they waited.
fn assert_every_layer_was_crossed(counters: &Value) {
    let mut layers: HashMap<u64, (u64, u64)> = HashMap::new();
    for node in counters["mixes"].as_array().expect("mixes") {
        let number = |key: &str| node[key].as_u64().expect("a number");
        let layer = layers.entry(number("layer")).or_default();
        layer.0 += number("forwarded");
        layer.1 += number("delay_ms");
    }
    println!("packets and milliseconds by layer: {layers:?}");
    assert_eq!(layers.len(), 3);
    // A packet waits for 15 ms at each.
    assert!(layers.values().all(|it| it.0 > 500 && it.1 > it.0));
}

/// This process dials nothing, and its helpers only gateways and the directory.
/// Returns how many connections helpers have.
fn assert_only_gateways_are_dialled(ready: &Value) -> usize {
    let gateways = ready["gateways"].as_array().expect("gateways").iter();
    let mut allowed: Vec<u16> = gateways
        .map(|it| u16::try_from(it["ws_port"].as_u64().expect("a port")).expect("a port"))
        .collect();
    let api = ready["api_url"].as_str().expect("a URL");
    let api = api.trim_end_matches('/').rsplit(':').next();
    allowed.push(api.and_then(|it| it.parse().ok()).expect("a port"));
    assert_eq!(connections("self").len(), 0, "this process dials nobody");
    let of = |helper: u32| connections(&helper.to_string());
    let theirs: Vec<u16> = helpers().into_iter().flat_map(of).collect();
    assert!(
        theirs.iter().all(|port| allowed.contains(port)),
        "{theirs:?} are not all in {allowed:?}"
    );
    theirs.len()
}

/// The bytes of each link and direction of a capture, joined.
fn streams(capture: &[u8]) -> Vec<Vec<u8>> {
    let mut links: HashMap<String, Vec<u8>> = HashMap::new();
    let mut rest = capture;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let head: Value = serde_json::from_slice(&rest[..end]).expect("a record");
        let Some(len) = head["len"].as_u64() else {
            assert_eq!(head["truncated"], true);
            break;
        };
        let len = usize::try_from(len).expect("small");
        let link = format!("{} {}", head["link"], head["direction"]);
        let data = &rest[end + 1..end + 1 + len];
        links.entry(link).or_default().extend(data);
        // After the bytes there is another newline.
        rest = rest.get(end + 2 + len..).unwrap_or_default();
    }
    links.into_values().collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
