//! One node of the network: its keys, its name and what it counts.

mod forward;
mod relay;
mod replay;

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use nym_crypto::asymmetric::{ed25519, x25519};
use rand::{Rng, rngs::OsRng};
use tokio::{net::TcpListener, sync::Semaphore};

pub(crate) use forward::Forwarder;
pub(crate) use relay::{Delivery, Exit, Relay};

use crate::{counters::Tally, options::Limits, run::Run, tap::Wire};
use replay::Replay;

/// What the nodes of one network have in common.
pub(crate) struct Shared {
    /// Where nodes listen for each other; packets go nowhere else.
    pub(crate) hops: HashSet<SocketAddr>,
    pub(crate) limits: Limits,
    pub(crate) loss: Loss,
    pub(crate) wire: Arc<Wire>,
}

/// Chance that a packet is lost on its way to a node.
pub(crate) struct Loss(AtomicU64);

impl Loss {
    /// `probability` is from 0 up to 1: the caller checks.
    pub(crate) fn new(probability: f64) -> Self {
        Self(AtomicU64::new(probability.to_bits()))
    }

    pub(crate) fn set(&self, probability: f64) {
        self.0.store(probability.to_bits(), Ordering::Relaxed);
    }

    /// Whether this packet is lost.
    fn strikes(&self) -> bool {
        let probability = f64::from_bits(self.0.load(Ordering::Relaxed));
        probability > 0.0 && rand::thread_rng().gen_bool(probability)
    }
}

/// Who a node is, known before the network runs.
pub(crate) struct Identity {
    pub(crate) name: Arc<str>,
    /// Its number in the nym-api.
    pub(crate) id: u32,
    /// 1 to 3; a gateway has none.
    pub(crate) layer: Option<u8>,
    pub(crate) signing: ed25519::KeyPair,
    pub(crate) sphinx: x25519::KeyPair,
    /// Where it listens for other nodes.
    pub(crate) address: SocketAddr,
}

impl Identity {
    /// A node with fresh keys.
    pub(crate) fn new(name: String, id: u32, layer: Option<u8>, address: SocketAddr) -> Self {
        Self {
            name: name.into(),
            id,
            layer,
            signing: ed25519::KeyPair::new(&mut OsRng),
            sphinx: x25519::KeyPair::new(&mut OsRng),
            address,
        }
    }
}

/// A node, whether it runs or not.
pub(crate) struct Node {
    pub(crate) identity: Identity,
    pub(crate) tally: Tally,
    pub(crate) shared: Arc<Shared>,
    replay: Mutex<Replay>,
    /// A place for each packet that may be delayed at a time.
    delayed: Arc<Semaphore>,
}

impl Node {
    pub(crate) fn new(identity: Identity, shared: Arc<Shared>) -> Self {
        Self {
            identity,
            tally: Tally::default(),
            replay: Mutex::new(Replay::new(shared.limits.replay_tags)),
            delayed: Arc::new(Semaphore::new(shared.limits.delayed)),
            shared,
        }
    }

    /// Serves other nodes on `listener` until `run` ends; packets whose route
    /// ends here go to `exit`, if this node is one.
    pub(crate) fn serve(
        self: &Arc<Self>,
        listener: TcpListener,
        run: &Run,
        forwarder: &Arc<Forwarder>,
        exit: Option<Arc<dyn Exit>>,
    ) {
        let relay = Arc::new(Relay::new(
            self.clone(),
            run.clone(),
            forwarder.clone(),
            exit,
        ));
        let node = self.clone();
        run.accept(listener, self.shared.limits.connections, move |stream| {
            let stream = node.shared.wire.watch(
                stream,
                node.identity.name.clone(),
                node.tally.bytes.clone(),
            );
            relay.clone().read(stream)
        });
    }
}
