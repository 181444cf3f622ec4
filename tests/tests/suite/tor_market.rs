//! The market as its users meet it: providers that are found on a real overlay over real Tor.

use std::path::PathBuf;
use std::process::Output;
use std::time::{Duration, Instant};

use dlambda_tests::market::{Market, MarketConfig, bootstrap};
use dlambda_tests::program::{Program, run};
use dlambda_tests::shared::tor_network;
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// A market on an overlay of its own, on the Tor network that the tests share.
pub(crate) struct World {
    pub(crate) shell: Shell,
    pub(crate) market: Market,
    config: MarketConfig,
}

impl World {
    pub(crate) async fn new(providers: usize) -> Self {
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
        status_of(&self.data(number)).await.expect("it runs")
    }

    /// Waits until each of the first nodes knows so many providers.
    pub(crate) async fn all_know(&self, nodes: usize, listings: u64) -> Duration {
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

    /// Fails unless none of these nodes knows of a provider with two listings.
    async fn no_forks(&self, nodes: usize) {
        for number in 0..nodes {
            let status = self.status(number).await;
            assert_eq!(status["forks"], 0, "node {number}: {status}");
        }
    }

    /// The epoch that a provider has listed, as a guest that syncs now sees it.
    async fn epoch_of(&self, provider: &str) -> u64 {
        let synced = self.shell.dlambda(&["sync"], b"").await;
        assert_eq!(code(&synced), 0, "{}", stderr(&synced));
        let found: Value = serde_json::from_slice(&self.find(&[]).await.stdout).expect("JSON");
        let providers = found["providers"].as_array().expect("a list");
        let it = providers.iter().find(|it| it["provider"] == provider);
        it.expect("is listed")["epoch"].as_u64().expect("a number")
    }

    pub(crate) fn id(&self, number: usize) -> String {
        let ready = &self.market.providers[number].ready;
        ready["provider"].as_str().expect("an id").to_owned()
    }

    fn network(&self) -> PathBuf {
        self.shell.network().into()
    }

    pub(crate) fn ids(&self) -> Vec<String> {
        let members = 0..self.market.providers.len();
        let mut ids: Vec<_> = members.map(|number| self.id(number)).collect();
        ids.sort();
        ids
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn providers_are_found_in_each_mode_and_outlive_a_kill() {
    let mut world = Box::pin(World::new(6)).await;
    let took = world.all_know(6, 6).await;
    println!("six nodes know six providers {took:?} after the last was ready");
    let synced = world.shell.dlambda(&["sync"], b"").await;
    assert_eq!(code(&synced), 0, "{}", stderr(&synced));
    for mode in ["passive", "dht", "active"] {
        let begun = Instant::now();
        assert_eq!(world.found(&["--mode", mode]).await, world.ids(), "{mode}");
        println!("{mode}: {:?}", begun.elapsed());
    }
    what_nobody_has_is_named(&world).await;
    what_is_found_is_called(&world).await;
    a_newcomer_is_known_to_all(&mut world).await;
    a_killed_provider_goes_on_with_its_chain(&mut world).await;
    a_volunteer_is_a_bootstrap_node(&mut world).await;
    world.market.down(DEADLINE).await.expect("they stop");
}

/// Exit 3, and which requirement it was.
async fn what_nobody_has_is_named(world: &World) {
    let none = world.find(&["--cpu", "1", "--tee"]).await;
    assert_eq!(code(&none), 3, "{}", stderr(&none));
    let said = stderr(&none);
    assert!(said.contains("trusted execution environment"), "{said}");
}

async fn what_is_found_is_called(world: &World) {
    let found = world.find(&["--memory", "512MB"]).await;
    let found: Value = serde_json::from_slice(&found.stdout).expect("JSON");
    let address = found["providers"][0]["address"].as_str();
    let address = address.expect("an address");
    let agreed = ["contract", address, "--calls=8", "--yes", AT_ONCE];
    let agreed = world.shell.dlambda(&agreed, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    let call = ["invoke", address, "upper"];
    let called = world.shell.dlambda(&call, b"found").await;
    assert_eq!(called.stdout, b"FOUND", "{}", stderr(&called));
}

async fn a_newcomer_is_known_to_all(world: &mut World) {
    let network = world.network();
    let everybody: Vec<_> = (0..6).map(|number| world.data(number)).collect();
    let newcomer = world.data(6);
    let known = async {
        until(&newcomer, |it| it["listing"] == "listed").await;
        let published = Instant::now();
        for data in &everybody {
            until(data, |it| it["listings"] == 7).await;
        }
        published.elapsed()
    };
    let joining = world.market.join(&network, &world.config);
    let (joined, took) = tokio::join!(joining, known);
    joined.expect("it gets ready");
    println!("a seventh listing is known to all six {took:?} after it was published");
}

/// What a provider with this data says of the overlay, if it runs.
async fn status_of(data: &str) -> Option<Value> {
    let args = ["status", "--data", data, "--format", "json"];
    let said = run("dlambda-provider", &args, b"", DEADLINE).await;
    let said: Value = serde_json::from_slice(&said.expect("ends").stdout).ok()?;
    Some(said["status"]["overlay"].clone())
}

async fn until(data: &str, is_so: impl Fn(&Value) -> bool) {
    let waiting = timeout(DEADLINE, async {
        while !status_of(data).await.is_some_and(|it| is_so(&it)) {
            sleep(Duration::from_millis(50)).await;
        }
    });
    waiting.await.expect("it comes about");
}

async fn a_killed_provider_goes_on_with_its_chain(world: &mut World) {
    let id = world.id(6);
    let before = world.epoch_of(&id).await;
    let network = world.network();
    // With the same offer it has the same listing; with another, the next one of the chain.
    let fewer = world.config.dir.join("fewer-functions");
    std::fs::create_dir(&fewer).expect("made");
    std::fs::copy(functions().join("upper.wasm"), fewer.join("upper.wasm")).expect("copied");
    let changed = MarketConfig {
        functions: fewer,
        ..world.config.clone()
    };
    for config in [world.config.clone(), changed] {
        let restarted = world.market.kill_and_restart(&network, &config).await;
        restarted.expect("it gets ready again");
        assert_eq!(world.id(6), id);
        until(&world.data(6), |it| it["listing"] == "listed").await;
    }
    let begun = Instant::now();
    let renewed = timeout(DEADLINE, async {
        while world.epoch_of(&id).await <= before {
            sleep(Duration::from_secs(1)).await;
        }
    });
    renewed.await.expect("guests see the next epoch");
    let took = begun.elapsed();
    println!("a guest sees the changed listing {took:?} after the restart");
    world.all_know(7, 7).await;
    world.no_forks(7).await;
}

async fn a_volunteer_is_a_bootstrap_node(world: &mut World) {
    let network = world.network();
    let data = world.shell.path("volunteer");
    let text = network.to_str().expect("text");
    let args = ["run", "--overlay-only", "--network", text, "--data", &data];
    let args = [&args[..], &["--format", "json"]].concat();
    let log = world.shell.dir.path().join("volunteer.log");
    let started = Program::start("dlambda-provider", &args, &log, DEADLINE).await;
    let (volunteer, ready) = started.expect("a node");
    let node = ready["node"].as_str().expect("an address").to_owned();
    let begun = Instant::now();
    // A network of which it is the only entry.
    let file = std::fs::read_to_string(&network).expect("a file");
    let lines = file.lines().filter(|it| !it.starts_with("bootstrap"));
    let lines: Vec<_> = lines.collect();
    let file = format!("{}\n{}", lines.join("\n"), bootstrap(&[node]));
    let entry = world.shell.write("entry.toml", file.as_bytes());
    let home = world.shell.path("newcomer");
    let search = [
        "--home",
        &home,
        "--network",
        &entry,
        "find",
        "--format",
        "json",
    ];
    let search = search.map(str::to_owned);
    let all = world.ids().len();
    let found = timeout(DEADLINE, async {
        loop {
            let search: Vec<_> = search.iter().map(String::as_str).collect();
            let found = run("dlambda", &search, b"", DEADLINE).await.expect("ends");
            let said: Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
            if said["providers"].as_array().map(Vec::len) == Some(all) {
                return;
            }
            // It is still being told; the guest fetches the catalogue anew.
            let _ = std::fs::remove_dir_all(&home);
            sleep(Duration::from_secs(1)).await;
        }
    });
    found.await.expect("all are found by the volunteer's node");
    println!(
        "a volunteer's node serves all listings after {:?}",
        begun.elapsed()
    );
    volunteer.stop(DEADLINE).await.expect("it stops");
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
