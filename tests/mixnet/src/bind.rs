//! Ports and keys, which all nodes must have before any of them runs.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    LAYERS, MixnetError,
    gateway::Gateway,
    node::{Identity, Node, Shared},
};

/// A node that has its port and waits for the rest of the network.
pub(crate) struct Bound {
    pub(crate) identity: Identity,
    pub(crate) listener: TcpListener,
}

/// The same for a gateway, which listens for clients as well.
pub(crate) struct BoundGateway {
    pub(crate) bound: Bound,
    ws: TcpListener,
    ws_address: SocketAddr,
}

impl BoundGateway {
    /// Starts the gateway, which is called by `number`.
    pub(crate) fn start(
        self,
        number: usize,
        shared: &Arc<Shared>,
        network: &CancellationToken,
    ) -> Gateway {
        let node = Node::new(self.bound.identity, shared.clone());
        let listeners = (self.bound.listener, self.ws);
        Gateway::start(number, node, self.ws_address, listeners, network)
    }
}

/// Ports and keys for all mix nodes, layer by layer.
pub(crate) async fn bind_mixes(layer_nodes: usize) -> Result<Vec<Bound>, MixnetError> {
    let mut mixes = Vec::new();
    for layer in 1..=LAYERS {
        for number in 0..layer_nodes {
            let name = format!("mix{layer}-{number}");
            mixes.push(bind(name, node_id(mixes.len()), Some(layer)).await?);
        }
    }
    Ok(mixes)
}

/// Ports and keys for all gateways; in the nym-api they come after the mix nodes.
pub(crate) async fn bind_gateways(
    layer_nodes: usize,
    gateways: usize,
) -> Result<Vec<BoundGateway>, MixnetError> {
    let mixes = layer_nodes * usize::from(LAYERS);
    let mut bound = Vec::new();
    for number in 0..gateways {
        let ws = listen(0).await?;
        bound.push(BoundGateway {
            bound: bind(format!("gateway{number}"), node_id(mixes + number), None).await?,
            ws_address: address(&ws)?,
            ws,
        });
    }
    Ok(bound)
}

async fn bind(name: String, id: u32, layer: Option<u8>) -> Result<Bound, MixnetError> {
    let listener = listen(0).await?;
    let identity = Identity::new(name, id, layer, address(&listener)?);
    Ok(Bound { identity, listener })
}

/// The nym-api counts nodes from 1.
fn node_id(index: usize) -> u32 {
    u32::try_from(index + 1).unwrap_or(u32::MAX)
}

/// A listener on 127.0.0.1; port 0 is any free one.
pub(crate) async fn listen(port: u16) -> Result<TcpListener, MixnetError> {
    let address = loopback(port);
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| MixnetError::Listen { address, source })
}

/// Where a listener listens.
pub(crate) fn address(listener: &TcpListener) -> Result<SocketAddr, MixnetError> {
    let address = listener.local_addr();
    address.map_err(|source| MixnetError::Listen {
        address: loopback(0),
        source,
    })
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}
