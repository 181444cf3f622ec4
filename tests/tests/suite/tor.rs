//! Calls over a private network of real Tor relays, arti at both ends.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, FunctionName, Progress, Querier};
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::os_rng;
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::shared::tor_network;
use dlambda_tests::testnet::{Testnet, TestnetConfig};
use dlambda_tests::tor::participant;
use rand_core::Rng as _;
use tempfile::TempDir;
use tokio::sync::Notify;

use crate::support::{LONG, alias, functions};
use crate::unlinkable::provider_view;

/// A provider and a caller, both in this process.
struct TorWorld {
    provider: LocalProvider,
    querier: Querier,
    _dir: TempDir,
}

impl TorWorld {
    async fn on(network: &Path) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (published, data) = (functions(), dir.path().join("provider"));
        let mut config = ProviderConfig::without_tokens();
        // The last plan is on real time, where sleeping takes as long as it says.
        config.plans.last_mut().expect("a menu").deterministic = false;
        let provider = LocalProvider::start(
            config,
            &published,
            &data,
            participant(network, &dir.path().join("provider-tor"))
                .await
                .expect("Tor starts"),
            Arc::new(SystemClock::default()),
        );
        let provider = Box::pin(provider).await.expect("the provider starts");
        let tor = participant(network, &dir.path().join("caller"))
            .await
            .expect("Tor starts");
        let querier = Querier::new(tor, Arc::new(SystemClock::default()));
        Self {
            provider,
            querier,
            _dir: dir,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_calls_are_answered_and_share_nothing() {
    let network = tor_network().await.expect("a network");
    let world = TorWorld::on(&network).await;
    for i in 0..20_usize {
        let mut input = vec![0; 100 + 37 * i];
        os_rng().fill_bytes(&mut input);
        let (function, expected) = match i % 2 {
            0 => ("upper", input.to_ascii_uppercase()),
            _ => ("sha256", sha256_line(&input)),
        };
        let call = Call::new(world.provider.endpoint, alias(function)).input(input);
        let answer = world
            .querier
            .call(&call, LONG, |_| {})
            .await
            .expect("an answer");
        assert_eq!(answer.stdout, expected, "call {i} to {function}");
    }
    let records = world.provider.recorder.wait_for(20).await;
    assert_eq!(provider_view(&records, 20), HashSet::new());
    world.provider.stop().await.expect("stops");
}

fn sha256_line(input: &[u8]) -> Vec<u8> {
    // The id of a function is the digest of its bytes: no second library needed.
    let digest = *dlambda_proto::FunctionId::of(input).digest();
    format!("{}\n", data_encoding::HEXLOWER.encode(&digest)).into_bytes()
}

/// Sleeps for six seconds (on real time), then ends with success: `poll_oneoff` with one
/// relative subscription to the monotonic clock.
pub(crate) const SLOW: &str = "(module
    (import \"wasi_snapshot_preview1\" \"poll_oneoff\"
        (func $poll (param i32 i32 i32 i32) (result i32)))
    (memory (export \"memory\") 1)
    (func (export \"_start\")
        (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 6000000000))
        (drop (call $poll (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128)))))";

/// Relays that this process has no connection to: neither side's guard.
fn far_relays(testnet: &Testnet) -> Vec<String> {
    let near = connections("self");
    let relays = testnet
        .nodes()
        .filter(|node| node.name.starts_with("relay"));
    relays
        .filter(|node| !near.contains(&node.or_port))
        .map(|node| node.name.clone())
        .collect()
}

/// Remote ports of a process's TCP connections.
pub(crate) fn connections(process: &str) -> HashSet<u16> {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{process}/fd")) else {
        // It has ended.
        return HashSet::new();
    };
    let inodes: HashSet<String> = descriptors
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .filter_map(|link| {
            Some(
                link.to_str()?
                    .strip_prefix("socket:[")?
                    .strip_suffix(']')?
                    .to_owned(),
            )
        })
        .collect();
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let remote_port = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = inodes.contains(*fields.get(9)?);
        let (_, port) = fields.get(2)?.split_once(':')?;
        ours.then(|| u16::from_str_radix(port, 16).ok())?
    };
    table.lines().skip(1).filter_map(remote_port).collect()
}

/// How often all relays are killed, two after two.
const PASSES: usize = 4;
/// For authorities to vote twice, and for clients to hear of it.
const TWO_VOTES: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_in_mid_call_costs_a_circuit_and_no_answer() {
    let config = TestnetConfig {
        relays: 8,
        ..TestnetConfig::default()
    };
    let mut testnet = Testnet::up(config, |_| {}).await.expect("a network");
    let world = TorWorld::on(testnet.network_toml()).await;
    let slow: Arc<[u8]> = wat::parse_str(SLOW).expect("good WAT").into();
    let call = Call::new(world.provider.endpoint, FunctionName::Wasm(slow));
    let call = call.plan("large".parse().expect("a plan"));
    let minutes = Duration::from_secs(200);
    // The function is there and compiled, so that every call is one circuit.
    world
        .querier
        .call(&call, minutes, |_| {})
        .await
        .expect("an answer");
    // Which relays a circuit uses is not for us to know: kill two after two until one was in use.
    // A third of the pairs is in no circuit, so that all of a pass may be in none.
    let relays = far_relays(&testnet);
    for pass in 0..PASSES {
        if pass > 0 {
            // Who was away is in no circuit until clients read again that it is there.
            tokio::time::sleep(TWO_VOTES).await;
        }
        for pair in relays.chunks(2) {
            let querier = &world.querier;
            let sent = Notify::new();
            let running = querier.call(&call, minutes, |progress| {
                if matches!(progress, Progress::Running { .. }) {
                    sent.notify_one();
                }
            });
            let kill = async {
                // The function sleeps for six seconds.
                sent.notified().await;
                tokio::time::sleep(Duration::from_secs(1)).await;
                for name in pair {
                    testnet.kill_node(name).expect("was running");
                }
            };
            let (answer, ()) = tokio::join!(Box::pin(running), kill);
            let answer = answer.expect("an answer all the same");
            if answer.attempts > 1 {
                testnet.down().await;
                return;
            }
            for name in pair {
                testnet.restart_node(name).await.expect("comes back");
            }
        }
    }
    panic!("no relay that was killed was in use");
}
