//! What network to start and what it holds at most.

use std::{fmt, sync::Arc};

use crate::{MixnetError, Tap};

/// How many layers of mix nodes a Nym route has.
pub const LAYERS: u8 = 3;
/// How many mix nodes a layer, and how many gateways a network, may have.
pub const MAX_NODES: usize = 20;

/// What network to start.
///
/// There is no mean delay here: each packet carries the delays that its sender
/// chose, and nodes keep to them.
#[derive(Clone)]
pub struct Options {
    /// Mix nodes in each of the three layers (1 to 20).
    pub layer_nodes: usize,
    /// Gateways, each an entry and an exit (1 to 20).
    pub gateways: usize,
    /// Chance (0 up to 1) that a packet is lost on its way to a node.
    pub loss: f64,
    /// The port of the nym-api on 127.0.0.1; 0 is any free one.
    pub api_port: u16,
    /// Who is shown every byte on every link.
    pub tap: Option<Arc<dyn Tap>>,
    /// What nodes hold at most.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            layer_nodes: 2,
            gateways: 2,
            loss: 0.0,
            api_port: 0,
            tap: None,
            limits: Limits::default(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Options")
            .field("layer_nodes", &self.layer_nodes)
            .field("gateways", &self.gateways)
            .field("loss", &self.loss)
            .field("api_port", &self.api_port)
            .field("tap", &self.tap.is_some())
            .field("limits", &self.limits)
            .finish()
    }
}

impl Options {
    /// Refuses what cannot be built.
    pub(crate) fn check(&self) -> Result<(), MixnetError> {
        check_size("mix nodes in a layer", self.layer_nodes)?;
        check_size("gateways", self.gateways)
    }
}

/// What nodes hold at most, so that no peer can make them grow.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections to one listener.
    pub connections: usize,
    /// Packets that one node delays at a time.
    pub delayed: usize,
    /// Packets that wait for one connection to a next hop.
    pub queued: usize,
    /// Replay tags that one node certainly remembers (twice as many at most).
    pub replay_tags: usize,
    /// Clients registered with one gateway.
    pub clients: usize,
    /// Bytes of messages that a gateway holds for one client.
    pub inbox_bytes: usize,
    /// Bytes of messages that a gateway holds for all its clients.
    pub inboxes_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            delayed: 16_384,
            queued: 2048,
            replay_tags: 100_000,
            clients: 10_000,
            inbox_bytes: 16 << 20,
            inboxes_bytes: 128 << 20,
        }
    }
}

fn check_size(what: &'static str, asked: usize) -> Result<(), MixnetError> {
    if (1..=MAX_NODES).contains(&asked) {
        return Ok(());
    }
    Err(MixnetError::Size {
        what,
        asked,
        max: MAX_NODES,
    })
}
