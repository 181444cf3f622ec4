//! The provider on the overlay: its node, which serves other nodes and guests, and its listing,
//! which is kept fresh. Where the transport carries no overlay there is no node, and the listing is
//! submitted as a guest does.

pub(crate) mod chain;
mod listing;
mod offer;
mod preload;
mod preloads;
mod status;
mod stored;
mod submitter;
mod telling;
mod volunteer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlambda_broker::spread::{self, Demanded};
use dlambda_broker::{GuestSeal, NodeState, Rules};
use dlambda_crypto::guest::GuestKey;
use dlambda_node::{Guests, Node, NodeConfig, NodeError, NodeHandle, PublishedFunctions};
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::{Endpoint, FunctionDemand, ProviderId};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

pub use self::preloads::{PreloadStatus, PreloadedFunction};
pub use self::status::{DemandedFunctionStatus, ListingState, OverlayStatus};
pub use self::volunteer::OverlayVolunteer;

use crate::{DataDir, ProviderError};

/// How a provider takes part.
pub(crate) enum Overlay {
    /// By a node of its own.
    Node(OverlayNode),
    /// As a guest of others' nodes.
    Guest(OverlayNetwork, Arc<Submitter>),
}

/// What a provider's services know of its part.
#[derive(Clone)]
pub(crate) enum Presence {
    Node(Shared),
    Guest(Arc<Submitter>),
}

/// A node that runs, and what its owner needs of it.
pub(crate) struct OverlayNode {
    pub(crate) settings: OverlayNetwork,
    node: Node,
    shared: Shared,
    path: PathBuf,
}

/// What the services of an overlay share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) handle: NodeHandle,
    /// Where the node is reached: by other nodes at the first, by guests at all of them.
    pub(crate) endpoints: Arc<[Endpoint]>,
    pub(crate) state: Arc<Mutex<NodeState>>,
    pub(crate) listing: watch::Sender<ListingState>,
    pub(crate) clock: Arc<dyn Clock>,
    guests: Arc<Guests>,
}

impl Overlay {
    /// Joins the overlay by a node, or as a guest if the transport carries no overlay. `own` are
    /// the endpoints at which the provider is called; `functions` is what its node hands on.
    ///
    /// # Errors
    ///
    /// Those of [`OverlayNode::start`].
    ///
    /// # Cancel safety
    ///
    /// As for [`OverlayNode::start`].
    pub(crate) async fn start(
        settings: &OverlayNetwork,
        transport: &Arc<dyn Transport>,
        own: &[Endpoint],
        data: &DataDir,
        clock: &Arc<dyn Clock>,
        functions: Arc<dyn PublishedFunctions>,
    ) -> Result<Self, ProviderError> {
        let functions = Some(functions);
        let node = OverlayNode::start(settings, transport, data, clock, functions);
        if let Some(node) = node.await? {
            return Ok(Self::Node(node));
        }
        let submitter = Submitter::new(settings, Arc::clone(transport), own);
        if !submitter.has_nodes() {
            tracing::warn!(
                "this provider is not listed: it reaches no bootstrap node of the network file"
            );
        }
        Ok(Self::Guest(settings.clone(), Arc::new(submitter)))
    }

    pub(crate) fn settings(&self) -> &OverlayNetwork {
        match self {
            Self::Node(node) => &node.settings,
            Self::Guest(settings, _) => settings,
        }
    }

    pub(crate) fn presence(&self) -> Presence {
        match self {
            Self::Node(node) => Presence::Node(node.shared()),
            Self::Guest(_, submitter) => Presence::Guest(Arc::clone(submitter)),
        }
    }
}

impl Presence {
    /// What became of the listing.
    pub(crate) fn listing(&self) -> &watch::Sender<ListingState> {
        match self {
            Self::Node(shared) => &shared.listing,
            Self::Guest(submitter) => &submitter.listing,
        }
    }

    /// Whether there is a node, or one to submit a listing to.
    pub(crate) fn can_list(&self) -> bool {
        match self {
            Self::Node(_) => true,
            Self::Guest(submitter) => submitter.has_nodes(),
        }
    }

    /// Where the node is reached; nowhere if there is none.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match self {
            Self::Node(shared) => &shared.endpoints,
            Self::Guest(_) => &[],
        }
    }
}

impl OverlayNode {
    /// Joins the overlay: listens for nodes and guests, and dials the bootstrap nodes. None if the
    /// transport carries no overlay.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Overlay`] if the node cannot be started.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; but a transport listens at most once.
    pub(crate) async fn start(
        settings: &OverlayNetwork,
        transport: &Arc<dyn Transport>,
        data: &DataDir,
        clock: &Arc<dyn Clock>,
        functions: Option<Arc<dyn PublishedFunctions>>,
    ) -> Result<Option<Self>, ProviderError> {
        let rules = Rules::new(settings.id, settings.effort, settings.demand_effort());
        let path = data.catalogue(settings.id)?;
        let catalogue = stored::load(path.clone(), rules, clock.now()).await?;
        let state = NodeState::new(catalogue);
        let state = Arc::new(Mutex::new(state));
        let mut config = NodeConfig::new(settings.id, settings.bootstrap_endpoints().collect());
        config.key = settings.key.as_ref().map(|key| *key.as_bytes());
        config.functions = functions;
        config.identity = Some(*data.node_secret(settings.id)?);
        let (transport, clock) = (Arc::clone(transport), Arc::clone(clock));
        let node = Node::start(
            config,
            Arc::clone(&transport),
            Arc::clone(&state),
            Arc::clone(&clock),
        );
        let node = match node.await {
            Err(NodeError::Listen(TransportError::WrongService)) => return Ok(None),
            started => started?,
        };
        let listener = transport.listen(Service::Guests).await?;
        let mut endpoints = vec![node.endpoint()];
        let others = listener.endpoints().into_iter();
        endpoints.extend(others.filter(|it| *it != node.endpoint()));
        let seal = seal(settings);
        let guests = Guests::serve(
            listener,
            Arc::clone(&state),
            seal,
            node.handle(),
            Arc::clone(&clock),
        );
        Ok(Some(Self {
            settings: settings.clone(),
            shared: Shared {
                handle: node.handle(),
                endpoints: endpoints.into(),
                state,
                listing: watch::channel(ListingState::None).0,
                clock,
                guests: Arc::new(guests),
            },
            node,
            path,
        }))
    }

    pub(crate) fn shared(&self) -> Shared {
        self.shared.clone()
    }

    /// Writes the catalogue down once in a while, and at the stop.
    pub(crate) fn keep_stored(
        &self,
        stop: CancellationToken,
    ) -> impl Future<Output = Result<(), ProviderError>> + Send + use<> {
        stored::keep(self.path.clone(), self.shared(), stop)
    }

    /// Goes on until the node ends, and with it the onion service that it shares with its guests.
    pub(crate) async fn run(self) -> Result<(), ProviderError> {
        Ok(self.node.ended().await?)
    }

    /// The same for a provider, whose calls go on without an overlay: a fault that strangers can
    /// reach in the overlay's libraries must not end them. Never returns.
    pub(crate) async fn run_beside_calls(self) -> Result<(), ProviderError> {
        let listing = self.shared.listing.clone();
        if let Err(error) = self.run().await {
            tracing::error!(
                %error,
                "the overlay has ended: this provider serves calls, and is found no more until a restart"
            );
            listing.send_replace(ListingState::Ended);
        }
        std::future::pending().await
    }
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, NodeState> {
        // Whole between any two operations on it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The published functions in demand, as others say than `but`; the most wanted first.
    pub(crate) async fn in_demand(&self, but: Option<ProviderId>) -> Vec<Demanded> {
        // A copy, so that the node does not wait until it is ranked.
        let statements: Vec<FunctionDemand> = {
            let now = self.clock.now();
            let state = self.state();
            state.catalogue.function_demands(now).cloned().collect()
        };
        let ranking = spawn_blocking(move || spread::rank(&statements, but.as_ref()));
        ranking.await.unwrap_or_default()
    }
}

/// How guests' frames are sealed.
fn seal(settings: &OverlayNetwork) -> GuestSeal {
    match &settings.key {
        Some(key) => GuestSeal::Keyed(GuestKey::derive(key.as_bytes(), settings.id)),
        None => GuestSeal::Public,
    }
}

pub(crate) use self::listing::{Lister, keep_listed};
pub(crate) use self::offer::answer_demands;
pub(crate) use self::preload::{Preloader, keep_preloaded};
pub(crate) use self::preloads::PreloadCounters;
pub(crate) use self::submitter::Submitter;
pub(crate) use self::telling::tell_demand;
