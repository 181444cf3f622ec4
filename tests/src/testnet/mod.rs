//! A private Tor network on loopback, for tests, demos and benches.
//!
//! [`Testnet::up`] starts directory authorities and relays as `tor` processes
//! that listen on 127.0.0.1 only, and returns once a client has built circuits
//! over them. The network is complete from its first consensus on: every node
//! is listed with the `Guard` and `HSDir` flags, and the shared random values
//! are there, so onion services work at once.
//!
//! Every process ends with its owner: by [`Testnet::down`], by drop (also on
//! panic), and, should the owner be killed outright, by tor's own watch on the
//! owner's process id (within about 15 s).
//!
//! Not here: arti. Its clients read [`Testnet::network_toml`].

mod bootstrap;
mod ctor;
mod dir;
mod documents;
mod error;
mod keys;
pub(crate) mod network_toml;
mod node;
mod ports;
mod process;
mod seed;
#[cfg(test)]
mod smoke;
mod torrc;
mod wait;

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicU32,
    time::{Duration, Instant},
};

pub use ctor::{CTorClient, CTorOnion};
pub use error::TestnetError;
pub use node::{Node, Role};

pub(crate) use dir::NetworkDir;
use process::Process;
use torrc::Authority;
use wait::Deadline;

/// How many directory authorities a network may have.
pub const AUTHORITIES: std::ops::RangeInclusive<usize> = 1..=9;
/// How many plain relays a network may have.
pub const RELAYS: std::ops::RangeInclusive<usize> = 3..=50;

/// How long a stopped or killed process may take to end.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long one restarted node or one C tor client may take to be ready.
const START_GRACE: Duration = Duration::from_secs(60);

/// What network to start.
#[derive(Clone, Debug)]
pub struct TestnetConfig {
    /// Where everything is kept; `None` is a fresh temporary directory that
    /// goes away with the network.
    pub dir: Option<PathBuf>,
    /// Directory authorities (1 to 9); they are relays as well.
    pub authorities: usize,
    /// Plain relays (3 to 50), all of them exits to loopback.
    pub relays: usize,
    /// How long [`Testnet::up`] may take altogether.
    pub ready_timeout: Duration,
}

impl Default for TestnetConfig {
    fn default() -> Self {
        Self {
            dir: None,
            authorities: 3,
            relays: 5,
            ready_timeout: Duration::from_secs(60),
        }
    }
}

/// A running network; its processes end when it is dropped.
#[derive(Debug)]
pub struct Testnet {
    // Before `dir`: processes end first, then a temporary directory goes.
    nodes: Vec<Node>,
    authorities: Vec<Authority>,
    clients: AtomicU32,
    network_toml: PathBuf,
    dir: NetworkDir,
}

impl Testnet {
    /// Starts a network and returns when clients can build circuits.
    ///
    /// `progress` hears one human line per stage. A port that somebody else
    /// took meanwhile, or a first consensus with a node missing, leads to one
    /// more try from scratch.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends every process started so far.
    pub async fn up(
        config: TestnetConfig,
        mut progress: impl FnMut(&str),
    ) -> Result<Self, TestnetError> {
        check_size("authorities", config.authorities, AUTHORITIES)?;
        check_size("relays", config.relays, RELAYS)?;
        process::require_programs()?;
        let deadline = Deadline::after(config.ready_timeout);
        let mut dir = NetworkDir::claim(config.dir.as_deref(), deadline).await?;
        match bootstrap::start(&config, &dir, deadline, &mut progress).await {
            Err(err) if err.is_worth_another_try() => {
                progress(&format!("starting over: {err}"));
                dir.wipe(deadline).await?;
                let started = bootstrap::start(&config, &dir, deadline, &mut progress).await?;
                Ok(Self::assemble(started, dir))
            }
            started => Ok(Self::assemble(started?, dir)),
        }
    }

    /// The file that tells programs how to use this network.
    #[must_use]
    pub fn network_toml(&self) -> &Path {
        &self.network_toml
    }

    /// The directory that holds the network's files.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Every node, authorities first; killed ones too (their `pid` is `None`).
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// Kills a node with SIGKILL, as a crash would; nothing happens when it is
    /// down already.
    pub fn kill_node(&mut self, name: &str) -> Result<(), TestnetError> {
        self.node_mut(name)?.kill();
        Ok(())
    }

    /// Starts a node again with the keys, ports and caches it had, and waits
    /// until it has rejoined the network. A running node is killed first.
    pub async fn restart_node(&mut self, name: &str) -> Result<(), TestnetError> {
        let deadline = Deadline::after(START_GRACE);
        let node = self.node_mut(name)?;
        node.kill();
        node.start()?;
        wait::until(deadline, "waiting for a restarted node", || {
            node.check_alive()?;
            Ok(node.is_bootstrapped())
        })
        .await
    }

    /// Starts a C tor client and returns when it has built a circuit.
    pub async fn c_tor_client(&self) -> Result<CTorClient, TestnetError> {
        CTorClient::start(self, Deadline::after(START_GRACE)).await
    }

    /// Starts a C tor onion service that forwards `virtual_port` to `target`,
    /// and returns when all directories asked to hold its descriptor have it.
    pub async fn c_tor_onion(
        &self,
        virtual_port: u16,
        target: std::net::SocketAddr,
    ) -> Result<CTorOnion, TestnetError> {
        CTorOnion::start(self, virtual_port, target, Deadline::after(START_GRACE)).await
    }

    /// Ends every node: SIGTERM, a few seconds of patience, then SIGKILL.
    pub async fn down(mut self) {
        for node in &self.nodes {
            node.terminate();
        }
        let patience = Instant::now() + STOP_GRACE;
        while self.nodes.iter_mut().any(|node| node.check_alive().is_ok())
            && Instant::now() < patience
        {
            tokio::time::sleep(wait::POLL).await;
        }
        // Dropping the nodes kills and reaps whatever is left.
    }

    fn assemble(started: bootstrap::Started, dir: NetworkDir) -> Self {
        Self {
            nodes: started.nodes,
            authorities: started.authorities,
            clients: AtomicU32::new(0),
            network_toml: started.network_toml,
            dir,
        }
    }

    fn node_mut(&mut self, name: &str) -> Result<&mut Node, TestnetError> {
        self.nodes
            .iter_mut()
            .find(|node| node.name == name)
            .ok_or_else(|| TestnetError::UnknownNode(name.to_owned()))
    }
}

fn check_size(
    what: &'static str,
    value: usize,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<(), TestnetError> {
    if allowed.contains(&value) {
        return Ok(());
    }
    Err(TestnetError::Size {
        what,
        value,
        min: *allowed.start(),
        max: *allowed.end(),
    })
}
