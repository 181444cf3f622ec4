//! A market on a private network: real providers that find each other on an overlay of their own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use dlambda_proto::NetworkId;
use rand_core::Rng as _;
use serde_json::Value;

use crate::program::Program;

/// What the listings of a private network cost: nothing to speak of.
pub const EFFORT: u64 = 4;

/// Which providers to start.
#[derive(Clone, Debug)]
pub struct MarketConfig {
    /// How many: at least one.
    pub providers: usize,
    /// The functions that they publish.
    pub functions: PathBuf,
    /// Their data, logs and, if they record, their records.
    pub dir: PathBuf,
    /// Whether each writes down everything that it sees.
    pub record: bool,
    /// For each to be ready.
    pub deadline: Duration,
}

/// Providers that run; they end when dropped.
#[derive(Debug)]
pub struct Market {
    /// In the order of their start; the first two are the network's bootstrap nodes.
    pub providers: Vec<Member>,
}

/// A provider of a market.
#[derive(Debug)]
pub struct Member {
    /// The program.
    pub program: Program,
    /// What it said when it was ready.
    pub ready: Value,
    /// What it writes down, if it does.
    pub record: PathBuf,
}

/// An `[overlay]` for a network file: a fresh id.
#[must_use]
pub fn new_overlay(effort: u64, key: bool) -> String {
    let mut id = [0; 16];
    let mut rng = dlambda_privacy::os_rng();
    rng.fill_bytes(&mut id);
    let mut section = format!(
        "\n[overlay]\nid = \"{}\"\neffort = {effort}\n",
        NetworkId::from_bytes(id)
    );
    if key {
        let mut secret = [0; 32];
        rng.fill_bytes(&mut secret);
        section += &format!("key = \"{}\"\n", hex::encode(secret));
    }
    section
}

/// The line that names these nodes, for the end of an `[overlay]`.
#[must_use]
pub fn bootstrap(nodes: &[String]) -> String {
    let quoted: Vec<_> = nodes.iter().map(|it| format!("\"{it}\"")).collect();
    format!("bootstrap = [{}]\n", quoted.join(", "))
}

impl Market {
    /// Gives the network of this file an overlay, and starts providers on it. The file names the
    /// first two as bootstrap nodes from then on.
    ///
    /// # Errors
    ///
    /// If a provider does not get ready.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every process started so far.
    pub async fn up(network: &Path, config: &MarketConfig) -> Result<Self> {
        let before = std::fs::read_to_string(network)?;
        let before = before + &new_overlay(EFFORT, false);
        let mut market = Self {
            providers: Vec::new(),
        };
        let mut nodes = Vec::new();
        for number in 0..config.providers.min(2) {
            std::fs::write(network, format!("{before}{}", bootstrap(&nodes)))?;
            let member = Member::start(network, config, number).await?;
            let node = member.ready["node"].as_str();
            nodes.push(node.context("the address of a node")?.to_owned());
            market.providers.push(member);
        }
        std::fs::write(network, format!("{before}{}", bootstrap(&nodes)))?;
        let others = (2..config.providers).map(|number| Member::start(network, config, number));
        let others = futures::future::join_all(others).await;
        for member in others {
            market.providers.push(member?);
        }
        Ok(market)
    }

    /// Starts the first provider only, on a network as it is: somebody has to tell its address.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    ///
    /// # Cancel safety
    ///
    /// As for [`Market::up`].
    pub async fn single(network: &Path, config: &MarketConfig) -> Result<Self> {
        Ok(Self {
            providers: vec![Member::start(network, config, 0).await?],
        })
    }

    /// Starts one more provider.
    ///
    /// # Errors
    ///
    /// If it does not get ready.
    ///
    /// # Cancel safety
    ///
    /// As for [`Market::up`].
    pub async fn join(&mut self, network: &Path, config: &MarketConfig) -> Result<()> {
        let member = Member::start(network, config, self.providers.len()).await?;
        self.providers.push(member);
        Ok(())
    }

    /// Kills the last provider with SIGKILL, and starts it again with what it has on disk.
    ///
    /// # Errors
    ///
    /// If there is none, or it does not get ready again.
    ///
    /// # Cancel safety
    ///
    /// As for [`Market::up`].
    pub async fn kill_and_restart(&mut self, network: &Path, config: &MarketConfig) -> Result<()> {
        let last = self.providers.pop().context("a provider")?;
        last.program.kill().await?;
        self.join(network, config).await
    }

    /// Ends every provider.
    ///
    /// # Errors
    ///
    /// If one does not end with success before `deadline`.
    pub async fn down(self, deadline: Duration) -> Result<()> {
        let stops = self.providers.into_iter();
        let stops = stops.map(|member| member.program.stop(deadline));
        let stopped = futures::future::join_all(stops).await;
        stopped.into_iter().collect()
    }
}

impl Member {
    async fn start(network: &Path, config: &MarketConfig, number: usize) -> Result<Self> {
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path in UTF-8");
        let data = text(&config.dir.join(format!("provider-{number}")))?;
        let record = config.dir.join(format!("provider-{number}.jsonl"));
        let (functions, network) = (text(&config.functions)?, text(network)?);
        let recording = text(&record)?;
        let mut args = vec!["run", "--functions", &functions, "--data", &data];
        args.extend(["--network", &network, "--format", "json"]);
        if config.record {
            args.extend(["--dangerously-record-calls", &recording]);
        }
        let log = config.dir.join(format!("provider-{number}.log"));
        let started = Program::start("dlambda-provider", &args, &log, config.deadline);
        let (program, ready) = started.await?;
        Ok(Self {
            program,
            ready,
            record,
        })
    }
}

#[cfg(test)]
mod tests {
    use dlambda_privacy::network::Network;

    use super::*;

    #[test]
    fn our_programs_accept_the_overlay() {
        let node = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
        let file = |key| {
            let head = "name = \"n\"\ntransport = \"tor\"\n";
            let text = format!(
                "{head}{}{}",
                new_overlay(7, key),
                bootstrap(&[node.to_owned()])
            );
            Network::parse(&text).unwrap().overlay.unwrap()
        };
        let (one, other) = (file(false), file(true));
        assert_ne!(one.id, other.id);
        assert_eq!((one.effort, one.bootstrap.len()), (7, 1));
        assert!(one.key.is_none() && other.key.is_some());
    }
}
