//! What nodes count, while they run and as a picture of one moment.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use serde::Serialize;

use crate::LAYERS;

/// Counters of one node, since the start of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NodeCounters {
    /// Such as `mix1-0` or `gateway0`.
    pub name: String,
    /// 1 to 3; a gateway has none.
    pub layer: Option<u8>,
    /// Packets that came from other nodes.
    pub received: u64,
    /// Packets that went out to other nodes, SURB-acks among them.
    pub forwarded: u64,
    /// Packets whose route ended here, SURB-acks among them.
    pub r#final: u64,
    /// SURB-acks taken out of packets that ended here and sent on their way.
    pub acks: u64,
    /// Packets lost on purpose.
    pub dropped: u64,
    /// Packets that had been here before.
    pub replayed: u64,
    /// Packets, frames or requests that made no sense, or led nowhere.
    pub malformed: u64,
    /// Packets given up because a bound was reached.
    pub overflowed: u64,
    /// Packets for a node that cannot be reached or a client that is not known.
    pub undeliverable: u64,
    /// Bytes on the connections that this node accepted, both ways.
    pub bytes: u64,
    /// Delays that packets asked for here, in milliseconds, added up.
    pub delay_ms: u64,
}

/// Counters of one gateway: a node's, and those of its clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayCounters {
    /// What every node counts.
    #[serde(flatten)]
    pub node: NodeCounters,
    /// Whether it runs.
    pub up: bool,
    /// Clients registered now.
    pub clients: usize,
    /// Registrations ever.
    pub registered: u64,
    /// Clients connected now.
    pub sessions: usize,
    /// Sessions that began, ever; registering begins one as well.
    pub logins: u64,
    /// Packets that clients handed in.
    pub sent_by_clients: u64,
    /// Messages and acks handed out to clients.
    pub pushed: u64,
    /// Messages held for clients now.
    pub stored: usize,
    /// Bytes of those.
    pub stored_bytes: usize,
}

/// Counters of one layer, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LayerCounters {
    /// 1 to 3.
    pub layer: u8,
    /// Packets received.
    pub received: u64,
    /// Packets forwarded.
    pub forwarded: u64,
    /// Packets lost on purpose.
    pub dropped: u64,
    /// Packets replayed.
    pub replayed: u64,
    /// Malformed packets.
    pub malformed: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Delays in milliseconds.
    pub delay_ms: u64,
}

/// Counters of the whole network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NetworkCounters {
    /// Mix nodes, by layer.
    pub mixes: Vec<NodeCounters>,
    /// Gateways.
    pub gateways: Vec<GatewayCounters>,
}

impl NetworkCounters {
    /// The mix nodes' counters, added up for each of the three layers.
    #[must_use]
    pub fn layers(&self) -> Vec<LayerCounters> {
        (1..=LAYERS).map(|layer| self.layer(layer)).collect()
    }

    fn layer(&self, layer: u8) -> LayerCounters {
        let empty = LayerCounters {
            layer,
            ..LayerCounters::default()
        };
        self.mixes
            .iter()
            .filter(|mix| mix.layer == Some(layer))
            .fold(empty, |sum, mix| LayerCounters {
                layer,
                received: sum.received + mix.received,
                forwarded: sum.forwarded + mix.forwarded,
                dropped: sum.dropped + mix.dropped,
                replayed: sum.replayed + mix.replayed,
                malformed: sum.malformed + mix.malformed,
                bytes: sum.bytes + mix.bytes,
                delay_ms: sum.delay_ms + mix.delay_ms,
            })
    }
}

/// A counter that goes up.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    pub(crate) fn up(&self) {
        self.add(1);
    }

    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a running node counts; [`NodeCounters`] says what each means.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) received: Count,
    pub(crate) forwarded: Count,
    pub(crate) r#final: Count,
    pub(crate) acks: Count,
    pub(crate) dropped: Count,
    pub(crate) replayed: Count,
    pub(crate) malformed: Count,
    pub(crate) overflowed: Count,
    pub(crate) undeliverable: Count,
    pub(crate) delay_us: Count,
    pub(crate) bytes: Arc<AtomicU64>,
}

impl Tally {
    pub(crate) fn now(&self, name: &str, layer: Option<u8>) -> NodeCounters {
        NodeCounters {
            name: name.to_owned(),
            layer,
            received: self.received.get(),
            forwarded: self.forwarded.get(),
            r#final: self.r#final.get(),
            acks: self.acks.get(),
            dropped: self.dropped.get(),
            replayed: self.replayed.get(),
            malformed: self.malformed.get(),
            overflowed: self.overflowed.get(),
            undeliverable: self.undeliverable.get(),
            bytes: self.bytes.load(Ordering::Relaxed),
            delay_ms: self.delay_us.get() / 1000,
        }
    }
}
