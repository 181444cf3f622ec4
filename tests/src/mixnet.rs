//! A private mixnet as a process of its own: `dlambda-mixnet`, which `make nym`
//! builds.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use dlambda_privacy::network::Network;
use dlambda_privacy::transport::{NymRole, NymTransport};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::program::binary;

/// For one command, on a loaded machine too.
const PATIENCE: Duration = Duration::from_secs(60);

/// How a mixnet is to be.
#[derive(Clone, Debug)]
pub struct MixnetOptions {
    /// Mixes in each of the three layers: 1 to 20.
    pub layer_nodes: u8,
    /// Gateways, each an entry and an exit: 1 to 20.
    pub gateways: u8,
    /// Chance from 0 to 1 that a packet is lost on its way to a node.
    pub loss: f64,
    /// A file for every byte on every link.
    pub capture: Option<PathBuf>,
    /// Shows the table of counters at the end.
    pub verbose: bool,
}

impl Default for MixnetOptions {
    fn default() -> Self {
        Self {
            layer_nodes: 2,
            gateways: 2,
            loss: 0.0,
            capture: None,
            verbose: false,
        }
    }
}

/// A mixnet that runs; it ends when dropped.
#[derive(Debug)]
pub struct Mixnet {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    /// The line by which it said that it is ready.
    pub ready: Value,
}

/// How the clients of a network file behave.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// `standard` or `fast`.
    pub name: &'static str,
    /// Milliseconds at each mix, if not as usual.
    pub mean_delay_ms: Option<u16>,
}

impl Traffic {
    /// What users get: delays and cover traffic.
    pub const STANDARD: Self = Self {
        name: "standard",
        mean_delay_ms: None,
    };
    /// Neither, for tests of something else.
    pub const FAST: Self = Self {
        name: "fast",
        mean_delay_ms: None,
    };
}

/// Process ids of the Nym helpers that this process has started.
#[must_use]
pub fn helpers() -> Vec<u32> {
    let own = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|it| it.file_name().to_str()?.parse().ok());
    let is_ours = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut parts = stat.split_whitespace();
        // Pid, name, state, parent: a helper that has ended is none.
        parts.nth(1) == Some("(dlambda-nym)")
            && parts.next() != Some("Z")
            && parts.next() == Some(&own)
    };
    pids.filter(is_ours).collect()
}

impl Mixnet {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// If it is not built, or does not start.
    pub async fn up(options: &MixnetOptions) -> Result<Self> {
        let program = binary("dlambda-mixnet").context("`make nym` builds the mixnet")?;
        let mut command = Command::new(program);
        for (name, number) in [
            ("--layer-nodes", options.layer_nodes.to_string()),
            ("--gateways", options.gateways.to_string()),
            ("--loss", options.loss.to_string()),
        ] {
            command.arg(name).arg(number);
        }
        if let Some(capture) = &options.capture {
            command.arg("--capture").arg(capture);
        }
        let stderr = if options.verbose {
            Stdio::inherit()
        } else {
            Stdio::null()
        };
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .kill_on_drop(true)
            .spawn()?;
        let commands = child.stdin.take().context("standard input is piped")?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut mixnet = Self {
            child,
            commands,
            answers: BufReader::new(stdout).lines(),
            ready: Value::Null,
        };
        mixnet.ready = mixnet.answer().await?;
        Ok(mixnet)
    }

    /// The text of a network file: these transports, the first one preferred,
    /// after `rest` of the file.
    #[must_use]
    pub fn network_toml(&self, name: &str, transports: &[&str], traffic: Traffic) -> String {
        let mut text = format!("name = \"{name}\"\ntransport = {transports:?}\n");
        self.append_to(&mut text, traffic);
        text
    }

    /// Adds the mixnet to the text of a network file.
    pub fn append_to(&self, text: &mut String, traffic: Traffic) {
        let api = self.ready["api_url"].as_str().unwrap_or_default();
        let name = traffic.name;
        let _infallible = write!(text, "\n[nym]\napi_url = \"{api}\"\ntraffic = \"{name}\"\n");
        if let Some(delay) = traffic.mean_delay_ms {
            let _infallible = writeln!(text, "mean_delay_ms = {delay}");
        }
    }

    /// The mixnet as a network of Nym alone.
    ///
    /// # Errors
    ///
    /// None, unless the text of a network file has changed its form.
    pub fn network(&self, traffic: Traffic) -> Result<Network> {
        Ok(Network::parse(&self.network_toml(
            "mixnet",
            &["nym"],
            traffic,
        ))?)
    }

    /// A participant that calls.
    ///
    /// # Errors
    ///
    /// If the helper is not built, or cannot use the mixnet.
    pub async fn caller(&self, traffic: Traffic, pool: u8) -> Result<Arc<NymTransport>> {
        let role = NymRole::Caller { pool, entry: None };
        let network = self.network(traffic)?;
        start(&network, role).await
    }

    /// A participant that is called, whose keys are in `directory`.
    ///
    /// # Errors
    ///
    /// If the helper is not built, or cannot use the mixnet.
    pub async fn provider(&self, traffic: Traffic, directory: &Path) -> Result<Arc<NymTransport>> {
        use std::os::unix::fs::DirBuilderExt as _;
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(directory)?;
        let role = NymRole::Provider(directory.to_owned());
        let network = self.network(traffic)?;
        start(&network, role).await
    }

    /// What every node has counted.
    ///
    /// # Errors
    ///
    /// If the mixnet has ended.
    pub async fn counters(&mut self) -> Result<Value> {
        self.command("counters").await
    }

    /// One of the mixnet's commands (`kick 0`, `stop 0`, `restart 0`, `loss 0.1`).
    ///
    /// # Errors
    ///
    /// If it is refused, or the mixnet has ended.
    pub async fn command(&mut self, command: &str) -> Result<Value> {
        let line = format!("{command}\n");
        self.commands.write_all(line.as_bytes()).await?;
        self.commands.flush().await?;
        let answer = self.answer().await?;
        ensure!(answer["ok"] != false, "{command}: {answer}");
        Ok(answer)
    }

    /// Ends it, and returns its last counters.
    ///
    /// # Errors
    ///
    /// If it ended before, or does not end.
    pub async fn down(mut self) -> Result<Value> {
        // A signal to all of us has ended it already; its last words are here.
        let _ended = self.commands.write_all(b"quit\n").await;
        let counters = self.answer().await?;
        timeout(PATIENCE, self.child.wait()).await??;
        Ok(counters)
    }

    async fn answer(&mut self) -> Result<Value> {
        let line = timeout(PATIENCE, self.answers.next_line()).await;
        let Some(line) = line.context("the mixnet does not answer")?? else {
            bail!("the mixnet has ended");
        };
        Ok(serde_json::from_str(&line)?)
    }
}

/// With the helper that was built with the tests: a transport looks beside its own program, and
/// cargo puts tests elsewhere.
async fn start(network: &Network, role: NymRole) -> Result<Arc<NymTransport>> {
    let helper = binary("dlambda-nym").context("`make nym` builds the helper")?;
    let started = NymTransport::start_helper(helper, network, role, PATIENCE);
    Ok(Arc::new(started.await?))
}
