//! The private mixnet.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::PATIENCE;

/// A running mixnet; dropping it stops it.
pub(crate) struct Mixnet {
    /// Where its nym-api is.
    pub(crate) api_url: String,
    /// Its gateways.
    pub(crate) gateways: usize,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _child: Child,
}

impl Mixnet {
    /// Starts one with as many gateways.
    pub(crate) async fn start(gateways: usize) -> Self {
        let ours = Path::new(env!("CARGO_BIN_EXE_dlambda-nym"));
        let program = ours.with_file_name("dlambda-mixnet");
        let mut child = Command::new(&program)
            .args(["--gateways", &gateways.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("dlambda-mixnet is built first: cargo build --workspace");
        let commands = child.stdin.take().expect("is piped");
        let answers = child.stdout.take().expect("is piped");
        let mut mixnet = Self {
            api_url: String::new(),
            gateways,
            commands,
            answers: BufReader::new(answers).lines(),
            _child: child,
        };
        let hello = mixnet.answer().await;
        mixnet.api_url = hello["api_url"].as_str().expect("is said").to_owned();
        mixnet
    }

    /// Tells every gateway something.
    pub(crate) async fn tell_gateways(&mut self, what: &str) {
        for gateway in 0..self.gateways {
            let answer = self.tell(&format!("{what} {gateway}")).await;
            assert_eq!(answer["ok"], true, "{answer}");
        }
    }

    /// How many packets clients have sent so far.
    pub(crate) async fn sent_by_clients(&mut self) -> u64 {
        let counters = self.tell("counters").await;
        let gateways = counters["gateways"].as_array().expect("a list");
        let sent = gateways.iter().map(|gateway| &gateway["sent_by_clients"]);
        sent.map(|sent| sent.as_u64().expect("a number")).sum()
    }

    async fn tell(&mut self, command: &str) -> Value {
        let line = format!("{command}\n");
        let told = self.commands.write_all(line.as_bytes()).await;
        told.expect("the mixnet runs");
        self.answer().await
    }

    async fn answer(&mut self) -> Value {
        let line = timeout(PATIENCE, self.answers.next_line()).await;
        let line = line.expect("the mixnet answers").expect("in UTF-8");
        serde_json::from_str(&line.expect("the mixnet runs")).expect("in JSON")
    }
}
