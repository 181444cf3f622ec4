//! A whole network: started, told what to do, counted, and shut down.

use std::sync::Arc;

use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    MixnetError, NetworkCounters, Options, api,
    bind::{Bound, BoundGateway, address, bind_gateways, bind_mixes, listen},
    directory::{self, Entry},
    gateway::Gateway,
    node::{Forwarder, Loss, Node, Shared},
    run::Run,
    tap::Wire,
};

/// A running network; it ends when it is dropped.
pub struct Mixnet {
    api_url: String,
    shared: Arc<Shared>,
    mixes: Vec<Arc<Node>>,
    gateways: Vec<Gateway>,
    /// The nym-api and the mix nodes.
    run: Run,
    network: CancellationToken,
}

/// One mix node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MixInfo {
    /// Such as `mix1-0`.
    pub name: String,
    /// 1 to 3.
    pub layer: u8,
    /// Where it listens for packets, on 127.0.0.1.
    pub port: u16,
}

/// One gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GatewayInfo {
    /// Such as `gateway0`.
    pub name: String,
    /// Its ed25519 key in base 58: what comes after the `@` of an address.
    pub identity: String,
    /// Where it listens for packets, on 127.0.0.1.
    pub port: u16,
    /// Where it listens for clients, on 127.0.0.1.
    pub ws_port: u16,
}

impl Mixnet {
    /// Starts a network; clients can use it at once.
    ///
    /// # Errors
    ///
    /// A size or a loss that cannot be, or a port that is taken.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn start(options: Options) -> Result<Self, MixnetError> {
        options.check()?;
        check_loss(options.loss)?;
        let api = listen(options.api_port).await?;
        let mixes = bind_mixes(options.layer_nodes).await?;
        let gateways = bind_gateways(options.layer_nodes, options.gateways).await?;
        let shared = Arc::new(Shared {
            hops: mixes
                .iter()
                .map(|mix| mix.identity.address)
                .chain(
                    gateways
                        .iter()
                        .map(|gateway| gateway.bound.identity.address),
                )
                .collect(),
            limits: options.limits,
            loss: Loss::new(options.loss),
            wire: Arc::new(Wire::new(options.tap)),
        });
        Self::run(api, shared, mixes, gateways)
    }

    /// The nym-api for clients: `http://127.0.0.1:<port>/`.
    #[must_use]
    pub fn api_url(&self) -> &str {
        &self.api_url
    }

    /// The mix nodes, by layer.
    #[must_use]
    pub fn mixes(&self) -> Vec<MixInfo> {
        let info = |node: &Arc<Node>| {
            Some(MixInfo {
                name: node.identity.name.to_string(),
                layer: node.identity.layer?,
                port: node.identity.address.port(),
            })
        };
        self.mixes.iter().filter_map(info).collect()
    }

    /// The gateways; [`kick`](Self::kick) and others count them from 0.
    #[must_use]
    pub fn gateways(&self) -> Vec<GatewayInfo> {
        let info = |gateway: &Gateway| {
            let identity = &gateway.node.identity;
            GatewayInfo {
                name: identity.name.to_string(),
                identity: identity.signing.public_key().to_base58_string(),
                port: identity.address.port(),
                ws_port: gateway.ws_address.port(),
            }
        };
        self.gateways.iter().map(info).collect()
    }

    /// What all nodes counted so far.
    #[must_use]
    pub fn counters(&self) -> NetworkCounters {
        let mix = |node: &Arc<Node>| node.tally.now(&node.identity.name, node.identity.layer);
        NetworkCounters {
            mixes: self.mixes.iter().map(mix).collect(),
            gateways: self.gateways.iter().map(Gateway::counters).collect(),
        }
    }

    /// From now on, each packet that reaches a node is lost with `probability`.
    ///
    /// # Errors
    ///
    /// It is no probability below 1.
    pub fn set_loss(&self, probability: f64) -> Result<(), MixnetError> {
        check_loss(probability)?;
        self.shared.loss.set(probability);
        Ok(())
    }

    /// Closes all client connections of a gateway, without a goodbye.
    ///
    /// # Errors
    ///
    /// There is no such gateway, or it is down.
    pub fn kick(&self, gateway: usize) -> Result<(), MixnetError> {
        self.gateway(gateway)?.kick()
    }

    /// Stops a gateway: all its connections close, and new ones are refused. It
    /// keeps its keys, its ports, its clients and the messages held for them.
    ///
    /// # Errors
    ///
    /// There is no such gateway, or it is down.
    pub async fn stop_gateway(&self, gateway: usize) -> Result<(), MixnetError> {
        self.gateway(gateway)?.stop().await
    }

    /// Starts a gateway that was stopped.
    ///
    /// # Errors
    ///
    /// There is no such gateway, or it is running.
    pub async fn restart_gateway(&self, gateway: usize) -> Result<(), MixnetError> {
        self.gateway(gateway)?.restart().await
    }

    /// Ends the network, and returns when all its sockets are closed.
    pub async fn shutdown(self) {
        self.network.cancel();
        self.run.end().await;
        for gateway in &self.gateways {
            // One that is down has nothing open.
            let _ = gateway.stop().await;
        }
    }

    fn run(
        api: TcpListener,
        shared: Arc<Shared>,
        mixes: Vec<Bound>,
        gateways: Vec<BoundGateway>,
    ) -> Result<Self, MixnetError> {
        let network = CancellationToken::new();
        let run = Run::under(&network);
        let api_url = format!("http://{}/", address(&api)?);
        let mixes: Vec<_> = mixes
            .into_iter()
            .map(|mix| start_mix(mix, &shared, &run))
            .collect();
        let gateways: Vec<_> = gateways
            .into_iter()
            .enumerate()
            .map(|(number, gateway)| gateway.start(number, &shared, &network))
            .collect();
        let mix_entries = mixes.iter().map(|mix| Entry {
            identity: &mix.identity,
            ws: None,
        });
        let gateway_entries = gateways.iter().map(|gateway| Entry {
            identity: &gateway.node.identity,
            ws: Some(gateway.ws_address),
        });
        let pages = directory::pages(&mix_entries.chain(gateway_entries).collect::<Vec<_>>());
        api::serve(api, &run, shared.wire.clone(), pages);
        Ok(Self {
            api_url,
            shared,
            mixes,
            gateways,
            run,
            network,
        })
    }

    fn gateway(&self, number: usize) -> Result<&Gateway, MixnetError> {
        self.gateways.get(number).ok_or(MixnetError::NoSuchGateway {
            asked: number,
            gateways: self.gateways.len(),
        })
    }
}

impl Drop for Mixnet {
    fn drop(&mut self) {
        self.network.cancel();
    }
}

fn start_mix(mix: Bound, shared: &Arc<Shared>, run: &Run) -> Arc<Node> {
    let node = Arc::new(Node::new(mix.identity, shared.clone()));
    let forwarder = Arc::new(Forwarder::new(node.clone(), run.clone()));
    node.serve(mix.listener, run, &forwarder, None);
    node
}

fn check_loss(probability: f64) -> Result<(), MixnetError> {
    if (0.0..1.0).contains(&probability) {
        return Ok(());
    }
    Err(MixnetError::Loss(probability))
}
