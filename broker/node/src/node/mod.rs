//! A node: its settings, what can be asked of it while it runs.

mod answering;
mod chance;
mod connecting;
mod download;
mod fetching;
mod gossiping;
mod peers;
mod run;
mod serving;
mod status;
mod syncing;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::{Endpoint, FunctionId, NetworkId};
use libp2p_identity::Keypair;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

pub(crate) use run::lock;
pub use status::NodeStatus;

use self::fetching::Fetched;
use self::run::Running;
use crate::behaviour::MAX_MESSAGE;
use crate::{FetchError, GossipTopic, NodeError, PublishedFunctions, Store};

/// Commands that wait for the node.
const COMMANDS: usize = 64;

/// How long the node may take for a command.
const ANSWER: Duration = Duration::from_secs(30);

/// What kind of a node.
#[derive(Clone)]
#[non_exhaustive]
pub struct NodeConfig {
    /// The network.
    pub network: NetworkId,
    /// The network's pre-shared key, if it has one: without it no connection comes about.
    pub key: Option<[u8; 32]>,
    /// Secret of the node's name in the overlay; a fresh one if there is none.
    pub identity: Option<[u8; 32]>,
    /// Where a node is found that knows others.
    pub bootstrap: Vec<Endpoint>,
    /// Peers to have, at least: 8 unless set.
    pub peers: usize,
    /// Connections to have, at most: 128 unless set.
    pub max_connections: u32,
    /// Functions that the node hands on; none unless set.
    pub functions: Option<Arc<dyn PublishedFunctions>>,
    /// How often things are done.
    pub pace: Pace,
}

/// How often things are done: each at random times that depend on nothing, this far apart on
/// average.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Pace {
    /// Dialling, while there are too few peers: 5 s, and less with very few. Who could not be
    /// reached is left alone for four times as long, and then twice as long after each failure. A
    /// peer may begin to reconcile with us each two of these.
    pub dial: Duration,
    /// Checking an address by dialling it, while there are any to check: 3 s, and thirty times as
    /// long once many were good.
    pub check: Duration,
    /// Looking for more nodes in the routing table: 5 minutes, and sooner with few peers.
    pub look: Duration,
    /// Reconciling with a peer: an hour, but for the first three times.
    pub reconcile: Duration,
    /// Housekeeping of gossip, a fixed time: 1 s.
    pub heartbeat: Duration,
    /// How long the set-up of a connection may take that we dial: 60 s.
    pub dial_deadline: Duration,
    /// The same of a connection that arrives: 30 s.
    pub arrival_deadline: Duration,
    /// How long a request to a peer may take, its answer included: 30 s.
    pub request_deadline: Duration,
}

/// A running node. Ends when dropped.
pub struct Node {
    handle: NodeHandle,
    endpoint: Endpoint,
    task: AbortOnDropHandle<Result<(), NodeError>>,
}

/// What is asked of a running node. Cheap to clone.
#[derive(Clone)]
pub struct NodeHandle(mpsc::Sender<Command>);

pub(crate) enum Command {
    Publish(GossipTopic, Vec<u8>, oneshot::Sender<Result<(), NodeError>>),
    /// What the store has accepted elsewhere.
    Forward(GossipTopic, Vec<u8>),
    Learn(Vec<Endpoint>),
    Fetch(Endpoint, FunctionId, u32, oneshot::Sender<Fetched>),
    Status(oneshot::Sender<NodeStatus>),
    Shutdown,
}

impl NodeConfig {
    /// A node of this network that knows these bootstrap nodes; everything else as usual.
    #[must_use]
    pub fn new(network: NetworkId, bootstrap: Vec<Endpoint>) -> Self {
        Self {
            network,
            key: None,
            identity: None,
            bootstrap,
            peers: 8,
            max_connections: 128,
            functions: None,
            pace: Pace::default(),
        }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(5),
            check: Duration::from_secs(3),
            look: Duration::from_secs(300),
            reconcile: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(1),
            dial_deadline: Duration::from_secs(60),
            arrival_deadline: Duration::from_secs(30),
            request_deadline: Duration::from_secs(30),
        }
    }
}

impl Node {
    /// Starts a node: listens for the overlay, and goes on in a task of its own.
    ///
    /// `store` is asked under its lock, for microseconds; others may share it.
    ///
    /// # Errors
    ///
    /// [`NodeError::Listen`] and [`NodeError::NoOnionService`] if the transport cannot be listened
    /// with, others if a setting cannot be used.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; but the transport listens at most once.
    pub async fn start<S: Store>(
        config: NodeConfig,
        transport: Arc<dyn Transport>,
        store: Arc<Mutex<S>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NodeError> {
        let listener = transport.listen(Service::Overlay).await;
        let listener = listener.map_err(NodeError::Listen)?;
        let endpoint = listener.endpoint();
        let identity = match config.identity {
            Some(secret) => Keypair::ed25519_from_bytes(secret).map_err(|_| NodeError::Identity)?,
            None => Keypair::generate_ed25519(),
        };
        let (sender, commands) = mpsc::channel(COMMANDS);
        let running = Running::new(&config, &identity, transport, listener, store, clock)?;
        let task = tokio::spawn(running.run(commands));
        Ok(Self {
            handle: NodeHandle(sender),
            endpoint,
            task: AbortOnDropHandle::new(task),
        })
    }

    /// Where the node is reached.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// What is asked of it.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.handle.clone()
    }

    /// Waits until the node has ended.
    ///
    /// # Errors
    ///
    /// [`NodeError::ListenerEnded`] if nothing can reach it any more; it should be started anew.
    ///
    /// # Cancel safety
    ///
    /// Ends the node if cancelled.
    pub async fn ended(self) -> Result<(), NodeError> {
        drop(self.handle);
        self.task.await.unwrap_or(Err(NodeError::Ended))
    }
}

impl NodeHandle {
    /// Offers an item to the node's own store, and publishes it if the store accepts it.
    ///
    /// # Errors
    ///
    /// [`NodeError::Refused`] if the store does not accept it, [`NodeError::TooLong`],
    /// [`NodeError::Ended`] or [`NodeError::Deadline`] if the node does not answer.
    ///
    /// # Cancel safety
    ///
    /// It may be published all the same.
    pub async fn publish(&self, topic: GossipTopic, item: Vec<u8>) -> Result<(), NodeError> {
        // gossipsub counts what is around it, too.
        let limit = MAX_MESSAGE - 512;
        if item.len() > limit {
            let bytes = item.len();
            return Err(NodeError::TooLong { bytes, limit });
        }
        self.ask(|answer| Command::Publish(topic, item, answer))
            .await?
    }

    /// Publishes what the node's store has accepted already.
    pub(crate) async fn forward(&self, topic: GossipTopic, item: Vec<u8>) -> Result<(), NodeError> {
        self.send(Command::Forward(topic, item)).await
    }

    /// Tells the node of others, which it may dial when it has few peers: at most 512 are kept.
    ///
    /// # Errors
    ///
    /// [`NodeError::Ended`] or [`NodeError::Deadline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn learn(&self, nodes: Vec<Endpoint>) -> Result<(), NodeError> {
        self.send(Command::Learn(nodes)).await
    }

    /// Fetches a function whole from the node at this address, and checks its bytes. One fetch goes
    /// on at a time, of at most `most` bytes and for at most `within`. A node that has sent wrong
    /// bytes is not asked again for an hour.
    ///
    /// # Errors
    ///
    /// [`FetchError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the fetch ends with the part that is under way.
    pub async fn fetch_function(
        &self,
        at: Endpoint,
        function: FunctionId,
        most: u32,
        within: Duration,
    ) -> Result<Vec<u8>, FetchError> {
        let fetching = async {
            let (sender, answer) = oneshot::channel();
            let command = Command::Fetch(at, function, most, sender);
            self.send(command).await.map_err(|error| match error {
                NodeError::Deadline => FetchError::Deadline,
                _ => FetchError::Ended,
            })?;
            answer.await.unwrap_or(Err(FetchError::Ended))
        };
        let fetched = timeout(within, fetching).await;
        fetched.unwrap_or(Err(FetchError::Deadline))
    }

    /// How the node is doing.
    ///
    /// # Errors
    ///
    /// [`NodeError::Ended`] or [`NodeError::Deadline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn status(&self) -> Result<NodeStatus, NodeError> {
        self.ask(Command::Status).await
    }

    /// Ends the node. [`Node::ended`] tells when it has.
    ///
    /// # Errors
    ///
    /// [`NodeError::Deadline`] if it cannot be told.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn shutdown(&self) -> Result<(), NodeError> {
        match self.send(Command::Shutdown).await {
            Err(NodeError::Ended) => Ok(()),
            told => told,
        }
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NodeError> {
        let (sender, answer) = oneshot::channel();
        self.send(command(sender)).await?;
        let answer = timeout(ANSWER, answer).await;
        answer
            .map_err(|_| NodeError::Deadline)?
            .map_err(|_| NodeError::Ended)
    }

    async fn send(&self, command: Command) -> Result<(), NodeError> {
        let sent = timeout(ANSWER, self.0.send(command)).await;
        sent.map_err(|_| NodeError::Deadline)?
            .map_err(|_| NodeError::Ended)
    }
}

impl fmt::Debug for NodeConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeConfig([scrubbed])")
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Node")
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeHandle")
    }
}
