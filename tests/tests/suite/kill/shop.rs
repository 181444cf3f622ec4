//! A provider that can be killed and started again at the same address.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dlambda_privacy::os_rng;
use dlambda_tests::program::{Program, run};
use rand_core::Rng as _;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::sleep;

use super::DEADLINE;
use super::client::Client;
use crate::support::functions;

/// Tokens for everybody, and a function that is there at once.
const CONFIG: &str = "
    [contracts]
    admission = 'open'

    [execution]
    workers = 1

    [[plan]]
    name = 'quick'
    memory_mib = 16
    fuel = 100_000_000
    wall_ms = 10_000
    input_kib = 16
    output_kib = 16
    token = true
";

/// A provider, its store on disk, and the directory of everybody's files.
pub(crate) struct Shop {
    dir: TempDir,
    pub(crate) address: String,
    provider: Option<Program>,
    /// Each start spends one token of the provider's own, to call itself.
    starts: u64,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("functions")).expect("new");
        let upper = path("functions").join("upper.wasm");
        std::fs::copy(functions().join("upper.wasm"), upper).expect("copied");
        std::fs::write(path("provider.toml"), CONFIG).expect("written");
        let port = free_port();
        let network =
            format!("name = 'shop'\ntransport = 'dangerously-direct'\n[direct]\nport = {port}\n");
        std::fs::write(path("network.toml"), network).expect("written");
        let mut shop = Self {
            dir,
            address: format!("{}:{port}", Ipv4Addr::LOCALHOST),
            provider: None,
            starts: 0,
        };
        shop.start().await;
        shop
    }

    /// A client that has nothing yet.
    pub(crate) fn client(&self) -> Client {
        Client::new(self.path("home"), self.path("network.toml"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn provider_pid(&self) -> u32 {
        let provider = self.provider.as_ref().expect("it runs");
        provider.pid().expect("it has not ended")
    }

    /// Kills the provider after so much time, and starts it again.
    pub(super) async fn crash_after(&mut self, moment: Duration) {
        sleep(moment).await;
        let provider = self.provider.take().expect("it runs");
        provider.kill().await.expect("it was alive");
        self.start().await;
    }

    pub(super) async fn status(&self) -> Value {
        let data = self.path("provider");
        let args = ["status", "--format", "json", "--data", text(&data)];
        let output = run("dlambda-provider", &args, b"", DEADLINE).await;
        let status: Value =
            serde_json::from_slice(&output.expect("a status").stdout).expect("JSON");
        status["status"].clone()
    }

    /// Tokens that callers have redeemed, as its store has it.
    pub(super) async fn redeemed(&self) -> u64 {
        let all = self.status().await["tokens_redeemed"].as_u64();
        all.expect("a number") - self.starts
    }

    async fn start(&mut self) {
        let path = |name: &str| self.dir.path().join(name);
        let (functions, config) = (path("functions"), path("provider.toml"));
        let (data, network) = (path("provider"), path("network.toml"));
        let args = [
            "run",
            "--format",
            "json",
            "--functions",
            text(&functions),
            "--config",
            text(&config),
            "--data",
            text(&data),
            "--network",
            text(&network),
        ];
        let log = path("provider.log");
        let started = Program::start("dlambda-provider", &args, &log, DEADLINE).await;
        let (provider, ready) = started.expect("a provider");
        assert_eq!(ready["address"], *self.address);
        self.provider = Some(provider);
        self.starts += 1;
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// Below the ports that systems give to whoever connects, so that nobody gets
/// ours while the provider is dead.
fn free_port() -> u16 {
    let random = || u16::try_from(20_000 + os_rng().next_u32() % 12_000).expect("small");
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut ports = std::iter::repeat_with(random);
    ports.find(is_free).expect("an endless supply")
}
