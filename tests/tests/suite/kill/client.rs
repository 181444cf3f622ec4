//! `dlambda` with a home of its own, to be killed or not.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Output, Stdio};
use std::time::Duration;

use dlambda_tests::program::{binary, run};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use super::DEADLINE;

/// A caller: its home, and the network that it is on.
pub(crate) struct Client {
    home: PathBuf,
    network: PathBuf,
}

/// All contracts of a wallet, added up.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tokens {
    pub(super) bought: u64,
    pub(super) fresh: u64,
    pub(super) in_flight: u64,
    pub(super) spent: u64,
}

impl Client {
    pub(super) fn new(home: PathBuf, network: PathBuf) -> Self {
        Self { home, network }
    }

    /// Another client, with a copy of this one's wallet as it is now.
    pub(super) fn copy(&self, home: PathBuf) -> Self {
        copy_directory(&self.home, &home);
        Self::new(home, self.network.clone())
    }

    /// Runs a command to its end.
    pub(crate) async fn run(&self, args: &[&str], input: &[u8]) -> Output {
        let args = self.args(args);
        let args: Vec<_> = args.iter().map(String::as_str).collect();
        run("dlambda", &args, input, DEADLINE).await.expect("ends")
    }

    /// Runs a command that must succeed and prints JSON.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        let output = self.run(args, b"").await;
        assert!(output.status.success(), "{args:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Runs a command, and kills it after so much time unless it has ended.
    pub(super) async fn run_until(&self, args: &[&str], input: &[u8], moment: Duration) -> Output {
        let mut child = self.spawn(args);
        let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.expect("it was just started");
        let mut stdin = child.stdin.take().expect("piped");
        let mut ending = pin!(child.wait_with_output());
        let living = async {
            let _ = stdin.write_all(input).await;
            drop(stdin);
            sleep(moment).await;
        };
        tokio::select! {
            output = &mut ending => return output.expect("ends"),
            () = living => {}
        }
        // It may end just now.
        let _ = kill_process(pid, Signal::KILL);
        let output = timeout(DEADLINE, ending).await;
        output.expect("it was killed").expect("ends")
    }

    /// The contracts in the wallet.
    pub(super) async fn contracts(&self) -> Vec<Value> {
        let mut wallet = self.json(&["wallet"]).await;
        assert_eq!(wallet["damaged"], Value::Array(Vec::new()));
        match wallet["contracts"].take() {
            Value::Array(contracts) => contracts,
            other => panic!("no contracts: {other}"),
        }
    }

    /// The tokens in the wallet.
    pub(super) async fn tokens(&self) -> Tokens {
        let contracts = self.contracts().await;
        let sum = |key: &str| {
            let counts = contracts.iter().map(|it| it[key].as_u64());
            counts.map(|count| count.expect("a number")).sum::<u64>()
        };
        Tokens {
            bought: sum("calls"),
            fresh: sum("fresh"),
            in_flight: sum("in_use") + sum("interrupted"),
            spent: sum("spent"),
        }
    }

    /// Finishes what was interrupted, as the user would.
    pub(super) async fn settle(&self) {
        for _ in 0..5 {
            let settled = self.json(&["wallet", "settle"]).await;
            if settled["left"] == 0 {
                return;
            }
        }
        panic!("contracts stay interrupted");
    }

    fn spawn(&self, args: &[&str]) -> Child {
        Command::new(binary("dlambda").expect("built"))
            .args(self.args(args))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts")
    }

    pub(crate) fn args(&self, args: &[&str]) -> Vec<String> {
        let text = |path: &Path| path.to_str().expect("text").to_owned();
        let (home, network) = (text(&self.home), text(&self.network));
        let ours = ["--format", "json", "--home", &home, "--network", &network];
        let all = ours.iter().chain(args);
        all.map(|it| (*it).to_owned()).collect()
    }
}

/// Whether it was killed before it could end by itself.
pub(super) fn was_killed(output: &Output) -> bool {
    output.status.signal() == Some(Signal::KILL.as_raw())
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn copy_directory(from: &Path, to: &Path) {
    let mode = std::fs::metadata(from).expect("there").permissions();
    std::fs::create_dir(to).expect("new");
    std::fs::set_permissions(to, mode).expect("ours");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_directory(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}
