//! Commands enter the Tor network by one guard, which is on disk before it is used.

use std::collections::HashSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use dlambda_tests::program::{Program, binary};
use dlambda_tests::shared::tor_network;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::shell::{DEADLINE, Shell};
use crate::support::AT_ONCE;
use crate::tor::connections;

/// A provider, and callers who log which relays they enter by.
struct Callers {
    shell: Shell,
    address: String,
    _provider: Program,
}

impl Callers {
    async fn new() -> Self {
        let network = tor_network().await.expect("a network");
        let shell = Shell::new(&network);
        let (provider, address) = shell.provider(&[]).await;
        Self {
            shell,
            address,
            _provider: provider,
        }
    }

    fn start(&self, home: &str, args: &[&str], log: &Path) -> Child {
        Command::new(binary("dlambda").expect("built"))
            .args(["--home", home, "--network", self.shell.network()])
            .args(args)
            .env("DLAMBDA_LOG", "tor_guardmgr=trace")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(log).expect("a log"))
            .kill_on_drop(true)
            .spawn()
            .expect("starts")
    }

    fn contract(&self) -> [&str; 5] {
        ["contract", &self.address, "--calls=8", "--yes", AT_ONCE]
    }

    /// Runs a command to its end; the relays that it entered by.
    async fn run(&self, home: &str, args: &[&str]) -> Vec<String> {
        let log = self.shell.dir.path().join("log");
        let mut running = self.start(home, args, &log);
        let ended = timeout(DEADLINE, running.wait()).await;
        let status = ended.expect("in time").expect("ends");
        let said = std::fs::read_to_string(&log).expect("a log");
        assert!(status.success(), "{args:?}: {status}: {said}");
        guards(&said)
    }

    /// Runs a command and kills it as soon as it is connected to a relay that is no directory known
    /// to everybody, or has ended.
    async fn run_and_kill(&self, home: &str, args: &[&str]) {
        let log = self.shell.dir.path().join("log");
        let mut running = self.start(home, args, &log);
        let directories = ports(&std::fs::read_to_string(self.shell.network()).expect("a file"));
        let process = running.id().expect("it runs").to_string();
        let entered = timeout(DEADLINE, async {
            while connections(&process).is_subset(&directories) {
                if running.try_wait().expect("ours").is_some() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            // SIGKILL.
            running.start_kill().expect("it was running");
        });
        entered.await.expect("it enters the network");
        running.wait().await.expect("killed");
    }

    /// The ports of the guards on this home's disk.
    fn kept(&self, home: &str) -> HashSet<u16> {
        ports(&state(home, "guards.json"))
    }
}

/// A file of Tor's state in this home.
fn state(home: &str, name: &str) -> String {
    let networks = std::fs::read_dir(Path::new(home).join("state")).expect("a directory");
    let files = networks.map(|entry| entry.expect("read").path().join("state").join(name));
    let texts = files.map(|file| std::fs::read_to_string(file).unwrap_or_default());
    texts.collect()
}

/// The relays that this home takes for the hops behind its guard.
fn vanguards(home: &str) -> Value {
    serde_json::from_str(&state(home, "vanguards.json")).expect("they are on disk")
}

/// Every port of a loopback address in a text.
fn ports(text: &str) -> HashSet<u16> {
    let addresses = text.split("127.0.0.1:").skip(1);
    let port = |rest: &str| {
        rest.split(|it: char| !it.is_ascii_digit())
            .next()?
            .parse()
            .ok()
    };
    addresses.filter_map(port).collect()
}

/// The relays that a log says were chosen as first hops of circuits that carry a user's data. (For
/// directories there may be three.)
fn guards(log: &str) -> Vec<String> {
    let chosen = log.lines().filter(|line| {
        line.contains("Guard selected") && line.contains("kind: Data") && line.contains("Default")
    });
    let address = |line: &str| {
        let (_, rest) = line.split_once("addrs: [")?;
        Some(rest.split_once(']')?.0.to_owned())
    };
    chosen.filter_map(address).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_of_one_home_enter_by_one_relay_also_when_the_first_are_killed() {
    let callers = Callers::new().await;
    let home = callers.shell.path("steady");
    for _ in 0..3 {
        callers.run_and_kill(&home, &callers.contract()).await;
    }
    let after_kill = callers.kept(&home);
    assert!(
        !after_kill.is_empty(),
        "they were written before they were used"
    );
    let second_hops = vanguards(&home);
    let mut seen: HashSet<String> = HashSet::new();
    seen.extend(callers.run(&home, &callers.contract()).await);
    for _ in 0..6 {
        let invoke = ["invoke", &callers.address, "upper"];
        seen.extend(callers.run(&home, &invoke).await);
    }
    println!("seven commands entered by {seen:?}");
    // The second guard is used when the first does not answer in time, as on a busy machine; there
    // is no third.
    assert!((1..=2).contains(&seen.len()), "{seen:?}");
    let seen = ports(&seen.into_iter().collect::<String>());
    assert!(seen.is_subset(&after_kill), "{seen:?}, {after_kill:?}");
    assert_eq!(vanguards(&home), second_hops);
    let lists = second_hops.as_object().expect("lists by layer");
    assert!(
        lists
            .values()
            .all(|list| list.as_array().is_some_and(|list| !list.is_empty()))
    );
}

/// At every moment, whatever the process is connected to is on disk, or a directory that everybody
/// knows.
#[tokio::test(flavor = "multi_thread")]
async fn guards_are_on_disk_before_they_are_connected_to() {
    let callers = Callers::new().await;
    let directories = ports(&std::fs::read_to_string(callers.shell.network()).expect("a file"));
    let mut looks = 0;
    for number in 0..4 {
        let home = callers.shell.path(&format!("watched{number}"));
        let log = callers.shell.dir.path().join("log");
        let mut running = callers.start(&home, &callers.contract(), &log);
        let process = running.id().expect("it runs").to_string();
        while running.try_wait().expect("ours").is_none() {
            let mut entered = connections(&process);
            entered.retain(|port| !directories.contains(port));
            if !entered.is_empty() {
                looks += 1;
                let kept = callers.kept(&home);
                let text = || state(&home, "guards.json");
                assert!(entered.is_subset(&kept), "{entered:?} of {}", text());
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    println!("{looks} looks");
    assert!(looks > 0, "there was something to look at");
}

/// What the test above looks for is there to be found where nothing is kept.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_keep_nothing_enter_by_many_relays() {
    let callers = Callers::new().await;
    let mut seen: HashSet<String> = HashSet::new();
    for number in 0..10 {
        let home = callers.shell.path(&format!("home{number}"));
        seen.extend(callers.run(&home, &callers.contract()).await);
    }
    println!("ten commands entered by {seen:?}");
    // One of eight relays each: ten times the same two are three chances in a hundred thousand.
    assert!(seen.len() > 2, "{seen:?}");
}
