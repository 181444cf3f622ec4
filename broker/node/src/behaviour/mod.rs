//! What a node speaks with its peers: gossip, routing, and requests with answers.
//!
//! There is no identify, autonat, relay, mDNS, DNS or TCP: nothing that would tell a peer, or ask
//! it for, an address other than onion addresses.

mod codec;
pub(crate) mod exchange;
pub(crate) mod functions;
mod gossip;
mod routing;
mod topic;

use dlambda_proto::NetworkId;
use libp2p_connection_limits::ConnectionLimits;
use libp2p_identity::PeerId;
use libp2p_swarm::{NetworkBehaviour, StreamProtocol};

pub(crate) use gossip::{GRAYLIST, Gossip, MAX_MESSAGE};
pub(crate) use routing::{Heard, Routing};
pub use topic::GossipTopic;
pub(crate) use topic::Topics;

use crate::transport::MAX_INCOMING;
use crate::{NodeError, Pace};

/// Connections to one peer: one each way, if both dial at once.
const PER_PEER: u32 = 2;

/// Connections being dialled at a time.
const MAX_DIALLING: u32 = 16;

/// How many connections a node has at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Capacity {
    /// All of them.
    pub(crate) total: u32,
    /// Of these, such as others have opened: the rest is left for those that we open, which an
    /// attacker cannot take up.
    pub(crate) incoming: u32,
}

impl Capacity {
    /// A quarter is left for those that we open.
    pub(crate) fn of(total: u32) -> Self {
        let total = total.max(8);
        Self {
            total,
            incoming: total - total / 4,
        }
    }
}

/// All protocols of a node.
#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub(crate) struct Overlay {
    // First: what it denies does not reach the others.
    limits: libp2p_connection_limits::Behaviour,
    pub(crate) gossip: Gossip,
    pub(crate) routing: Routing,
    pub(crate) exchange: exchange::Behaviour,
    pub(crate) functions: functions::Behaviour,
}

impl Overlay {
    /// The protocols of a node of this network.
    pub(crate) fn new(
        network: NetworkId,
        local: PeerId,
        capacity: Capacity,
        pace: &Pace,
    ) -> Result<Self, NodeError> {
        // Those that are being set up are bounded by the transport, which gives up the oldest.
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(2 * u32::try_from(MAX_INCOMING).unwrap_or(64)))
            .with_max_pending_outgoing(Some(MAX_DIALLING))
            .with_max_established_incoming(Some(capacity.incoming))
            .with_max_established(Some(capacity.total))
            .with_max_established_per_peer(Some(PER_PEER));
        Ok(Self {
            limits: libp2p_connection_limits::Behaviour::new(limits),
            gossip: gossip::new(network, pace.heartbeat)?,
            routing: Routing::new(local, protocol(network, "kad/1")?),
            exchange: exchange::new(protocol(network, "nodes/1")?, pace.request_deadline),
            functions: functions::new(protocol(network, "functions/1")?, pace.request_deadline),
        })
    }
}

/// A protocol's name, which nodes of other networks do not have.
fn protocol(network: NetworkId, name: &str) -> Result<StreamProtocol, NodeError> {
    StreamProtocol::try_from_owned(format!("/dlambda/{network}/{name}"))
        .map_err(|_| NodeError::Settings("the name of a protocol"))
}
