//! Providers, their nodes and a guest send nothing but to Tor's relays and directories.
//!
//! The test starts itself again in a network namespace of its own, in which every address, near or
//! far, is reached by the loopback interface: what is sent anywhere is a packet there, and an
//! observer sees all of them.

use std::collections::HashSet;
use std::process::Stdio;
use std::time::{Duration, Instant};

use dlambda_tests::market::{Market, MarketConfig};
use dlambda_tests::packets::{Flow, Observed, Observer};
use dlambda_tests::testnet::{Testnet, TestnetConfig};
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// Says that the test is in its namespace already.
const INSIDE: &str = "DLAMBDA_TEST_INSIDE_NAMESPACE";
/// Everything is local, and every other address is sent to itself.
const LOOPBACK_ONLY: &str = "ip link set lo up && ip route add default dev lo && \
    { ip -6 route add default dev lo || true; } && exec \"$@\"";
const SETTLE: Duration = Duration::from_millis(300);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_sent_but_to_relays() {
    if std::env::var_os(INSIDE).is_some() {
        return Box::pin(inside()).await;
    }
    let Some(unshare) = how_to_unshare().await else {
        println!("SKIPPED, NOTHING WAS TESTED: this machine gives no network namespace");
        return;
    };
    let itself = std::env::current_exe().expect("a test");
    let name = "tor_leaks::nothing_is_sent_but_to_relays";
    let mut running = Command::new("unshare")
        .args(unshare)
        .args([
            "--net",
            "--fork",
            "--kill-child",
            "sh",
            "-ec",
            LOOPBACK_ONLY,
            "sh",
        ])
        .arg(itself)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it can be started");
    let ended = timeout(DEADLINE, running.wait()).await.expect("in time");
    assert!(ended.expect("it ends").success());
}

/// What it takes beside `--net`: nothing for root, a user namespace for others.
async fn how_to_unshare() -> Option<&'static [&'static str]> {
    let ways: [&[&str]; 2] = [&[], &["--user", "--map-current-user", "--keep-caps"]];
    for way in ways {
        let mut tried = Command::new("unshare");
        tried
            .args(way)
            .args(["--net", "sh", "-ec", LOOPBACK_ONLY, "sh", "true"]);
        let tried = tried.stderr(Stdio::null()).status().await;
        if tried.is_ok_and(|it| it.success()) {
            return Some(way);
        }
    }
    None
}

async fn inside() {
    let observer = Observer::start("dlambda").expect("packets can be seen");
    let config = TestnetConfig {
        ready_timeout: Duration::from_secs(150),
        ..TestnetConfig::default()
    };
    let testnet = Testnet::up(config, |_| {}).await.expect("a network");
    let nodes = testnet.nodes();
    let relays: HashSet<u16> = nodes
        .flat_map(|it| [Some(it.or_port), it.dir_port])
        .flatten()
        .collect();
    let market = Box::pin(find_and_call(&testnet)).await;
    market.down(DEADLINE).await.expect("they stop");
    let observed = observer.stop().expect("it has observed");
    testnet.down().await;
    let programs: HashSet<_> = observed
        .sockets
        .iter()
        .map(|it| it.program.as_str())
        .collect();
    println!(
        "{} packets, {} flows, {} sockets of {programs:?}",
        observed.packets,
        observed.flows.len(),
        observed.sockets.len()
    );
    assert!(observed.packets > 1000);
    if rustix::process::geteuid().is_root() {
        assert_eq!(programs, HashSet::from(["dlambda", "dlambda-provider"]));
    } else {
        // The programs keep their memory private, and with it what is in /proc.
        println!(
            "NOT TESTED: only root sees the programs' sockets; packets were seen all the same"
        );
    }
    let (flows, sockets) = observed.but_to(&relays);
    assert!(flows.is_empty(), "{flows:?}");
    assert!(sockets.is_empty(), "{sockets:?}");
    Box::pin(what_is_planted_is_found(&relays)).await;
}

async fn find_and_call(testnet: &Testnet) -> Market {
    let files = tempfile::tempdir().expect("a directory");
    let network = files.path().join("network.toml");
    std::fs::copy(testnet.network_toml(), &network).expect("copied");
    let mut shell = Shell::new(&network);
    shell.dir = files;
    let config = MarketConfig {
        providers: 2,
        functions: functions(),
        dir: shell.dir.path().to_owned(),
        record: false,
        deadline: DEADLINE,
    };
    let market = Market::up(&network, &config).await.expect("a market");
    let begun = Instant::now();
    let address = loop {
        assert!(begun.elapsed() < DEADLINE, "two providers are never found");
        let found = shell.dlambda(&["find", "--format", "json"], b"").await;
        let said: serde_json::Value = serde_json::from_slice(&found.stdout).unwrap_or_default();
        match said["providers"].as_array().map(Vec::as_slice) {
            Some([first, _]) => break first["address"].as_str().expect("an address").to_owned(),
            // The second is still being listed.
            _ => {
                sleep(Duration::from_secs(1)).await;
                let synced = shell.dlambda(&["sync"], b"").await;
                assert_eq!(code(&synced), 0, "{}", stderr(&synced));
            }
        }
    };
    for mode in ["dht", "active"] {
        let found = shell.dlambda(&["find", "--mode", mode], b"").await;
        assert_eq!(code(&found), 0, "{mode}: {}", stderr(&found));
    }
    let agreed = ["contract", &address, "--calls=8", "--yes", AT_ONCE];
    let agreed = shell.dlambda(&agreed, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    let called = shell
        .dlambda(&["invoke", &address, "upper"], b"quiet")
        .await;
    assert_eq!(called.stdout, b"QUIET", "{}", stderr(&called));
    market
}

/// The same observer sees a program that dials, near and far, and one that asks for a name.
async fn what_is_planted_is_found(relays: &HashSet<u16>) {
    let dialled = |flow: &Flow, to: &str| match flow {
        Flow::Tcp(_, there) | Flow::Udp(_, there) => there.to_string() == to,
        _ => false,
    };
    for (what, to) in [
        ("exec 3<>/dev/tcp/127.0.0.1/9", "127.0.0.1:9"),
        ("exec 3<>/dev/tcp/192.0.2.1/443", "192.0.2.1:443"),
        ("exec 3<>/dev/tcp/::1/9", "[::1]:9"),
        ("echo query >/dev/udp/127.0.0.1/53", "127.0.0.1:53"),
    ] {
        let (flows, _) = planted(what).await.but_to(relays);
        assert!(flows.iter().any(|it| dialled(it, to)), "{what}: {flows:?}");
    }
    let name = "exec getent ahosts no-such-name.example";
    let (flows, _) = planted(name).await.but_to(relays);
    let is_query = |it: &Flow| matches!(it, Flow::Udp(_, to) if to.port() == 53);
    assert!(flows.iter().any(is_query), "{flows:?}");
}

async fn planted(what: &str) -> Observed {
    let observer = Observer::start("bash").expect("packets can be seen");
    let helper = Command::new("timeout")
        .args(["1", "bash", "-c", what])
        .stderr(Stdio::null())
        .status();
    // It fails or not: there is nobody to answer.
    let _ = helper.await.expect("it can be started");
    sleep(SETTLE).await;
    observer.stop().expect("it has observed")
}
