//! The provider on the overlay: its node, which serves other nodes and guests, and its listing,
//! which is kept fresh.

pub(crate) mod chain;
mod listing;
mod offer;
mod status;
mod stored;
mod volunteer;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlambda_broker::{GuestSeal, NodeState, Rules};
use dlambda_crypto::guest::GuestKey;
use dlambda_node::{Guests, Node, NodeConfig, NodeError, NodeHandle};
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::Endpoint;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::status::{ListingState, OverlayStatus};
pub use self::volunteer::OverlayVolunteer;

use crate::{DataDir, ProviderError};

/// Shortest time between two snapshots for guests, in seconds.
const SNAPSHOT_SECONDS: u64 = 10;

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
    pub(crate) endpoint: Endpoint,
    pub(crate) state: Arc<Mutex<NodeState>>,
    pub(crate) listing: watch::Sender<ListingState>,
    guests: Arc<Guests>,
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
    ) -> Result<Option<Self>, ProviderError> {
        let rules = Rules::new(settings.id, settings.effort, settings.demand_effort());
        let path = data.catalogue(settings.id)?;
        let catalogue = stored::load(path.clone(), rules, clock.now()).await?;
        let state = NodeState::new(catalogue).with_interval(SNAPSHOT_SECONDS);
        let state = Arc::new(Mutex::new(state));
        let mut config = NodeConfig::new(settings.id, settings.bootstrap.clone());
        config.key = settings.key.as_ref().map(|key| *key.as_bytes());
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
        let seal = match &settings.key {
            Some(key) => GuestSeal::Keyed(GuestKey::derive(key.as_bytes(), settings.id)),
            None => GuestSeal::Public,
        };
        let guests = Guests::serve(listener, Arc::clone(&state), seal, node.handle(), clock);
        Ok(Some(Self {
            settings: settings.clone(),
            shared: Shared {
                handle: node.handle(),
                endpoint: node.endpoint(),
                state,
                listing: watch::channel(ListingState::None).0,
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
}

impl Shared {
    pub(crate) fn state(&self) -> MutexGuard<'_, NodeState> {
        // Whole between any two operations on it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(crate) use self::listing::{Lister, keep_listed};
pub(crate) use self::offer::answer_demands;
