//! The market as its users meet it: providers that are found on a real overlay over real Tor.

use std::process::Output;
use std::time::{Duration, Instant};

use dlambda_tests::market::{Market, MarketConfig};
use dlambda_tests::program::run;
use dlambda_tests::shared::tor_network;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// A market on an overlay of its own, on the Tor network that the tests share.
struct World {
    shell: Shell,
    market: Market,
    config: MarketConfig,
}

impl World {
    async fn new(providers: usize) -> Self {
        let shared = tor_network().await.expect("a network");
        let dir = tempfile::tempdir().expect("a directory");
        let network = dir.path().join("network.toml");
        std::fs::copy(shared, &network).expect("copied");
        let mut shell = Shell::new(&network);
        // The directory of the network file lives as long.
        shell.dir = dir;
        let config = MarketConfig {
            providers,
            functions: functions(),
            dir: shell.dir.path().to_owned(),
            record: true,
            deadline: DEADLINE,
        };
        let market = Market::up(&network, &config).await.expect("a market");
        Self {
            shell,
            market,
            config,
        }
    }

    fn data(&self, number: usize) -> String {
        let path = self.config.dir.join(format!("provider-{number}"));
        path.to_str().expect("text").to_owned()
    }

    /// What a provider says of the overlay.
    async fn status(&self, number: usize) -> Value {
        let data = self.data(number);
        let args = ["status", "--data", &data, "--format", "json"];
        let said = run("dlambda-provider", &args, b"", DEADLINE).await;
        let said: Value = serde_json::from_slice(&said.expect("ends").stdout).expect("JSON");
        said["status"]["overlay"].clone()
    }

    /// Waits until each of the first nodes knows so many providers.
    async fn all_know(&self, nodes: usize, listings: u64) -> Duration {
        let begun = Instant::now();
        for number in 0..nodes {
            let known = timeout(DEADLINE, async {
                while self.status(number).await["listings"].as_u64() < Some(listings) {
                    sleep(Duration::from_millis(200)).await;
                }
            });
            if known.await.is_err() {
                panic!("node {number}: {}", self.status(number).await);
            }
        }
        begun.elapsed()
    }

    async fn find(&self, args: &[&str]) -> Output {
        let args = [&["find", "--format", "json"], args].concat();
        self.shell.dlambda(&args, b"").await
    }

    /// The providers that a search found.
    async fn found(&self, args: &[&str]) -> Vec<String> {
        let output = self.find(args).await;
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let providers = found["providers"].as_array().expect("a list");
        let id = |it: &Value| it["provider"].as_str().expect("an id").to_owned();
        let mut ids: Vec<_> = providers.iter().map(id).collect();
        ids.sort();
        ids
    }

    fn ids(&self) -> Vec<String> {
        let members = self.market.providers.iter();
        let id =
            |it: &dlambda_tests::market::Member| it.ready["provider"].as_str().map(str::to_owned);
        let mut ids: Vec<_> = members.map(|it| id(it).expect("an id")).collect();
        ids.sort();
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_found_in_each_mode_and_called() {
    let world = World::new(6).await;
    let took = world.all_know(6, 6).await;
    println!("six nodes know six providers after {took:?} more");
    let synced = world.shell.dlambda(&["sync"], b"").await;
    assert_eq!(code(&synced), 0, "{}", stderr(&synced));
    for mode in ["passive", "dht", "active"] {
        let begun = Instant::now();
        assert_eq!(world.found(&["--mode", mode]).await, world.ids(), "{mode}");
        println!("{mode}: {:?}", begun.elapsed());
    }

    // What nobody has: exit 3, and which requirement it was.
    let none = world.find(&["--cpu", "1", "--tee"]).await;
    assert_eq!(code(&none), 3, "{}", stderr(&none));
    let error: Value = serde_json::from_slice(&none.stdout).expect("JSON");
    let message = error["error"]["message"].as_str().expect("a message");
    assert!(
        message.contains("trusted execution environment"),
        "{message}"
    );

    // The one that is found is called.
    let found = world.find(&["--memory", "512MB"]).await;
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let address = found["providers"][0]["address"]
        .as_str()
        .expect("an address");
    let agreed = ["contract", address, "--calls=8", "--yes", AT_ONCE];
    let agreed = world.shell.dlambda(&agreed, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    let called = world
        .shell
        .dlambda(&["invoke", address, "upper"], b"found")
        .await;
    assert_eq!(called.stdout, b"FOUND", "{}", stderr(&called));

    // Restarted, a provider is known by the same listing.
    let mut world = world;
    let before = world.status(5).await;
    assert_eq!(before["listing"], "listed", "{before}");
    let last = world.market.providers.pop().expect("six");
    last.program.kill().await.expect("was running");
    world.market.down(DEADLINE).await.expect("they stop");
}

/// The catalogue that was fetched is used while no node is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_stored_catalogue_outlives_the_overlay() {
    let world = World::new(2).await;
    world.all_know(2, 2).await;
    let none = world.shell.dlambda(&["sync"], b"").await;
    assert_eq!(code(&none), 0, "{}", stderr(&none));
    let ids = world.ids();
    let World {
        shell,
        market,
        config,
    } = world;
    market.down(DEADLINE).await.expect("they stop");
    let market = Market {
        providers: Vec::new(),
    };
    let world = World {
        shell,
        market,
        config,
    };
    let synced = world
        .shell
        .dlambda(&["sync", "--max-time", "60"], b"")
        .await;
    assert_eq!(code(&synced), 5, "{}", stderr(&synced));
    assert!(stderr(&synced).contains("hint:"), "{}", stderr(&synced));
    assert_eq!(world.found(&[]).await, ids);
}
