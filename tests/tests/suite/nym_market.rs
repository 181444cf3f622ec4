//! Guests over Nym: a provider without Tor is listed, and a caller without Tor finds it.

use std::time::{Duration, Instant};

use dlambda_proto::{Endpoint, Endpoints};
use dlambda_tests::market::{EFFORT, bootstrap, new_overlay};
use dlambda_tests::program::{Program, run};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::nym_programs::Networks;
use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// A provider with a node at both networks, one with Nym alone, and a caller with Nym alone.
struct World {
    shell: Shell,
    networks: Networks,
    begun: Instant,
}

/// A provider that runs.
struct Member {
    program: Program,
    ready: Value,
    data: String,
}

impl World {
    /// Both networks, and one file for them with an overlay that nobody is on.
    async fn new() -> (Self, String) {
        let networks = Networks::up(&["--nym", "--nym-traffic", "fast"]).await;
        let file = networks.ready["network"].as_str().expect("a path");
        let text = std::fs::read_to_string(file).expect("a file");
        let text = text + &new_overlay(EFFORT, false);
        let network = networks.dir.path().join("network.toml");
        std::fs::write(&network, &text).expect("written");
        let world = Self {
            shell: Shell::new(&network),
            networks,
            begun: Instant::now(),
        };
        (world, text)
    }

    async fn provider(&self, name: &str, transport: &str) -> Member {
        let (published, data) = (self.shell.path("functions"), self.shell.path(name));
        // One is compiled sooner than all examples are.
        std::fs::create_dir_all(&published).expect("made");
        let upper = std::path::Path::new(&published).join("upper.wasm");
        std::fs::copy(functions().join("upper.wasm"), upper).expect("copied");
        let args = ["run", "--functions", &published, "--data", &data];
        let args = [&args[..], &["--network", self.shell.network()]].concat();
        let args = [&args[..], &["--transport", transport, "--format", "json"]].concat();
        let log = self.shell.dir.path().join(format!("{name}.log"));
        let started = Program::start("dlambda-provider", &args, &log, DEADLINE).await;
        let (program, ready) = started.expect("a provider");
        self.say(&format!("{name} is ready"));
        Member {
            program,
            ready,
            data,
        }
    }

    /// A command of a caller that has Nym alone.
    async fn dlambda(&self, args: &[&str], input: &[u8]) -> Vec<u8> {
        let args = [args, &["--transport", "nym"]].concat();
        let output = self.shell.dlambda(&args, input).await;
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        self.say(args[..args.len().min(5)].join(" ").as_str());
        output.stdout
    }

    /// The providers that a search finds, and where each is called.
    async fn found(&self, mode: &str) -> Vec<(String, String)> {
        let args = ["find", "--mode", mode, "--format", "json"];
        let found = self.dlambda(&args, b"").await;
        let found: Value = serde_json::from_slice(&found).expect("JSON");
        let providers = found["providers"].as_array().expect("a list");
        let text = |it: &Value| it.as_str().expect("text").to_owned();
        let mut found: Vec<_> = providers
            .iter()
            .map(|it| (text(&it["provider"]), text(&it["address"])))
            .collect();
        found.sort();
        found
    }

    fn say(&self, what: &str) {
        println!("{:?}: {what}", self.begun.elapsed());
    }
}

impl Member {
    /// As a search shows it.
    fn found(&self) -> (String, String) {
        let text = |name: &str| self.ready[name].as_str().expect("text").to_owned();
        (text("provider"), text("address"))
    }

    /// Waits for this in what the provider says of the overlay.
    async fn until(&self, is_so: impl Fn(&Value) -> bool) -> Value {
        let args = ["status", "--data", &self.data, "--format", "json"];
        let waiting = timeout(DEADLINE, async {
            loop {
                let said = run("dlambda-provider", &args, b"", DEADLINE).await;
                let said = said.expect("ends").stdout;
                let said: Value = serde_json::from_slice(&said).unwrap_or_default();
                let overlay = &said["status"]["overlay"];
                if is_so(overlay) {
                    return overlay.clone();
                }
                sleep(Duration::from_millis(200)).await;
            }
        });
        waiting.await.expect("it comes about")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_on_nym_finds_and_calls_a_provider_on_nym() {
    let (world, network) = World::new().await;
    let node = world.provider("node", "tor,nym").await;
    let address = node.ready["node"].as_str().expect("a node").to_owned();
    let endpoints: Endpoints = address.parse().expect("addresses");
    let [Endpoint::Onion(_), Endpoint::Nym(guests)] = endpoints.as_slice() else {
        panic!("{address}");
    };
    // Guests are told another address than callers.
    let called = node.ready["address"].as_str().expect("an address");
    assert!(!called.contains(&guests.unredacted()), "{called}");
    let network = network + &bootstrap(&[address]);
    std::fs::write(world.shell.network(), network).expect("written");

    let guest = world.provider("guest", "nym").await;
    assert_eq!(guest.ready["node"], Value::Null);
    let status = guest.until(|it| it["listing"] == "listed").await;
    assert_eq!(status["submitted_to"], 1, "{status}");
    node.until(|it| it["listing"] == "listed" && it["listings"] == 2)
        .await;
    world.say("both are listed");

    let synced = world.dlambda(&["sync", "--format", "json"], b"").await;
    let synced: Value = serde_json::from_slice(&synced).expect("JSON");
    // The node is one source, though it has two addresses.
    assert_eq!(
        (&synced["nodes"], &synced["failed"]),
        (&1.into(), &0.into())
    );
    let mut both = vec![node.found(), guest.found()];
    both.sort();
    for mode in ["passive", "dht"] {
        assert_eq!(world.found(mode).await, both, "{mode}");
    }
    // Demands are heard by nodes.
    assert_eq!(world.found("active").await, [node.found()]);

    let (_, address) = guest.found();
    assert!(matches!(address.parse(), Ok(Endpoint::Nym(_))), "{address}");
    let agree = ["contract", &address, "--calls", "8", "--yes", AT_ONCE];
    world.dlambda(&agree, b"").await;
    let called = world
        .dlambda(&["invoke", &address, "upper"], b"found")
        .await;
    assert_eq!(called, b"FOUND");
    for member in [node, guest] {
        member.program.stop(DEADLINE).await.expect("it stops");
    }
    world.networks.down().await;
}
