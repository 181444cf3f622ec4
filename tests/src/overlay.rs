//! Nodes of an overlay in this process, and what they see if they write everything down.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use dlambda_broker::{Catalogue, Equihash, GuestSeal, NodeState};
use dlambda_client::Guest;
use dlambda_node::{GossipTopic, Guests, Held, Node, NodeConfig, NodeHandle, Store, Verdict};
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::network::{Network, OverlayNetwork};
use dlambda_privacy::transport::{
    BoxStream, CircuitFacts, Connection, Incoming, Listener, Service, Transport,
};
use dlambda_proto::{Endpoint, Endpoints, NetworkId, ProviderId, SignedListing, UnixSeconds};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The id of every overlay in a test: each has a network of its own.
pub const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);

/// An overlay on which identities cost next to nothing.
///
/// # Errors
///
/// If network files look different from what they do.
pub fn overlay(bootstrap: Vec<Endpoint>) -> Result<OverlayNetwork> {
    let head = "name = \"n\"\ntransport = \"tor\"\n[overlay]\n";
    let network = Network::parse(&format!("{head}id = \"{NETWORK}\"\neffort = 1\n"))?;
    let mut overlay = network.overlay.context("an overlay")?;
    overlay.bootstrap = bootstrap.into_iter().map(Endpoints::from).collect();
    Ok(overlay)
}

/// A node whose catalogue can be looked into.
pub struct Peer {
    node: Node,
    _guests: Guests,
    state: Arc<Mutex<NodeState>>,
    gossip: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Peer {
    /// Starts a node of an overlay, with the pace of real ones.
    ///
    /// # Errors
    ///
    /// If the transport cannot be listened with.
    pub async fn start(
        settings: &OverlayNetwork,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let catalogue = Catalogue::new(Guest::rules(settings), Arc::new(Equihash));
        let state = Arc::new(Mutex::new(NodeState::new(catalogue).with_interval(0)));
        let gossip = Arc::default();
        let store = Watched {
            state: Arc::clone(&state),
            gossip: Arc::clone(&gossip),
        };
        let store = Arc::new(Mutex::new(store));
        let config = NodeConfig::new(settings.id, settings.bootstrap_endpoints().collect());
        let listener = transport.listen(Service::Guests).await?;
        let node = Node::start(config, transport, store, Arc::clone(&clock)).await?;
        let seal = GuestSeal::Public;
        let guests = Guests::serve(listener, Arc::clone(&state), seal, node.handle(), clock);
        Ok(Self {
            node,
            _guests: guests,
            state,
            gossip,
        })
    }

    /// Where it is reached.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.node.endpoint()
    }

    /// What is asked of it.
    #[must_use]
    pub fn handle(&self) -> NodeHandle {
        self.node.handle()
    }

    /// How many providers it lists.
    #[must_use]
    pub fn listings(&self) -> usize {
        lock(&self.state).catalogue.len()
    }

    /// Whether it lists this provider.
    #[must_use]
    pub fn lists(&self, provider: &ProviderId) -> bool {
        lock(&self.state).catalogue.get(provider).is_some()
    }

    /// Whether it has the proof against this provider.
    #[must_use]
    pub fn has_fork(&self, provider: &ProviderId) -> bool {
        lock(&self.state).catalogue.fork(provider).is_some()
    }

    /// Every item that was gossiped to it, or that reconciliation has brought.
    #[must_use]
    pub fn gossip(&self) -> Vec<Vec<u8>> {
        lock(&self.gossip).clone()
    }

    /// What it has, and one listing more.
    ///
    /// # Errors
    ///
    /// If no node takes the listing.
    pub fn state_with(&self, more: SignedListing, now: UnixSeconds) -> Result<NodeState> {
        let state = lock(&self.state);
        let rules = *state.catalogue.rules();
        let mut catalogue = Catalogue::new(rules, Arc::new(Equihash));
        let known = state.catalogue.iter().map(|it| it.signed().clone());
        for listing in known.chain([more]) {
            catalogue
                .insert(listing, now)
                .ok()
                .context("a good listing")?;
        }
        Ok(NodeState::new(catalogue).with_interval(0))
    }

    /// Exchanges what it has for something else: guests are served from that until it is
    /// exchanged again.
    pub fn swap(&self, other: &mut NodeState) {
        std::mem::swap(&mut *lock(&self.state), other);
    }
}

/// A store that writes down what it is offered.
struct Watched {
    state: Arc<Mutex<NodeState>>,
    gossip: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Store for Watched {
    fn offer(&mut self, topic: GossipTopic, item: &[u8], now: UnixSeconds) -> Verdict {
        lock(&self.gossip).push(item.to_vec());
        lock(&self.state).offer(topic, item, now)
    }

    fn held(&self) -> Vec<Held> {
        lock(&self.state).held()
    }

    fn item(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        lock(&self.state).item(digest)
    }

    fn nodes(&self) -> Vec<Endpoint> {
        lock(&self.state).nodes()
    }

    fn prune(&mut self, now: UnixSeconds) {
        lock(&self.state).prune(now);
    }
}

/// A transport whose owner writes down every stream that guests open.
#[derive(Clone)]
pub struct Spy {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    visits: Arc<Mutex<Vec<Arc<Mutex<Visit>>>>>,
}

/// All that a node sees of one guest's request.
#[derive(Clone)]
pub struct Visit {
    /// When the stream was opened.
    pub at: UnixSeconds,
    /// What the transport knows of the circuit.
    pub circuit: CircuitFacts,
    /// Every byte received.
    pub received: Vec<u8>,
    /// Every byte sent.
    pub sent: Vec<u8>,
}

impl Spy {
    /// Writes down what comes by this transport, with the time that this clock shows.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            visits: Arc::default(),
        }
    }

    /// All that was written down until now.
    #[must_use]
    pub fn visits(&self) -> Vec<Visit> {
        let visits = lock(&self.visits);
        visits.iter().map(|visit| lock(visit).clone()).collect()
    }
}

#[async_trait]
impl Transport for Spy {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        self.transport.dial(endpoint, service).await
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        let listener = self.transport.listen(service).await?;
        if service != Service::Guests {
            return Ok(listener);
        }
        Ok(Box::new(SpyListener {
            listener,
            spy: self.clone(),
        }))
    }
}

struct SpyListener {
    listener: Box<dyn Listener>,
    spy: Spy,
}

#[async_trait]
impl Listener for SpyListener {
    fn endpoint(&self) -> Endpoint {
        self.listener.endpoint()
    }

    async fn accept(&mut self) -> Option<Incoming> {
        let Incoming {
            connection,
            circuit,
        } = self.listener.accept().await?;
        let visit = Arc::new(Mutex::new(Visit {
            at: self.spy.clock.now(),
            circuit: circuit.clone(),
            received: Vec::new(),
            sent: Vec::new(),
        }));
        lock(&self.spy.visits).push(Arc::clone(&visit));
        let stream = SpyStream {
            stream: connection.stream,
            visit,
        };
        Some(Incoming {
            connection: Connection::limited(stream, connection.max_frame),
            circuit,
        })
    }
}

struct SpyStream {
    stream: BoxStream,
    visit: Arc<Mutex<Visit>>,
}

impl AsyncRead for SpyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        lock(&self.visit)
            .received
            .extend(&buffer.filled()[before..]);
        read
    }
}

impl AsyncWrite for SpyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &written {
            lock(&self.visit).sent.extend(&bytes[..*written]);
        }
        written
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Peer")
    }
}

impl fmt::Debug for Spy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Spy")
    }
}
