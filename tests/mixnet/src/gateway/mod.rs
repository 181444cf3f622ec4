//! A gateway: a node with clients, which can be stopped and started again.

mod clients;
mod login;
mod session;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;

use crate::{
    GatewayCounters, MixnetError,
    node::{Forwarder, Node},
    run::Run,
};
use clients::Clients;

/// How many connections wait to be accepted.
const BACKLOG: u32 = 1024;

/// A gateway, whether it runs or not.
pub(crate) struct Gateway {
    pub(crate) node: Arc<Node>,
    /// Where it listens for clients.
    pub(crate) ws_address: SocketAddr,
    number: usize,
    clients: Arc<Clients>,
    state: tokio::sync::Mutex<State>,
    /// Cancelled to close all clients' connections; none when it is down.
    up: Arc<Mutex<Option<CancellationToken>>>,
    network: CancellationToken,
}

/// A running gateway's front to its clients.
struct Desk {
    node: Arc<Node>,
    clients: Arc<Clients>,
    forwarder: Arc<Forwarder>,
}

enum State {
    Up(Run),
    /// The sockets hold the ports, so that nobody else gets them meanwhile.
    Down {
        mix: TcpSocket,
        ws: TcpSocket,
    },
    /// The ports are lost.
    Lost,
}

impl Gateway {
    /// Starts a gateway on two listeners, for nodes and for clients.
    pub(crate) fn start(
        number: usize,
        node: Node,
        ws_address: SocketAddr,
        (mix, ws): (TcpListener, TcpListener),
        network: &CancellationToken,
    ) -> Self {
        let mut gateway = Self {
            clients: Arc::new(Clients::new(node.shared.limits.clone())),
            node: Arc::new(node),
            ws_address,
            number,
            state: tokio::sync::Mutex::new(State::Lost),
            up: Arc::default(),
            network: network.clone(),
        };
        *gateway.state.get_mut() = State::Up(gateway.run(mix, ws));
        gateway
    }

    pub(crate) fn counters(&self) -> GatewayCounters {
        let identity = &self.node.identity;
        let (clients, sessions, stored, stored_bytes) = self.clients.census();
        GatewayCounters {
            node: self.node.tally.now(&identity.name, identity.layer),
            up: lock(&self.up).is_some(),
            clients,
            registered: self.clients.registered.get(),
            sessions,
            logins: self.clients.logins.get(),
            sent_by_clients: self.clients.sent.get(),
            pushed: self.clients.pushed.get(),
            stored,
            stored_bytes,
        }
    }

    /// Closes all connections of clients, as an outage would: without goodbye.
    pub(crate) fn kick(&self) -> Result<(), MixnetError> {
        let mut up = lock(&self.up);
        let kicked = up.as_mut().ok_or(MixnetError::GatewayDown(self.number))?;
        std::mem::replace(kicked, self.network.child_token()).cancel();
        Ok(())
    }

    /// Stops listening and closes all connections; keys, clients and messages stay.
    pub(crate) async fn stop(&self) -> Result<(), MixnetError> {
        let mut state = self.state.lock().await;
        let State::Up(run) = &*state else {
            return Err(MixnetError::GatewayDown(self.number));
        };
        // In this order: a session that is kicked is not counted any more.
        if let Some(kicked) = lock(&self.up).take() {
            kicked.cancel();
        }
        run.end().await;
        *state = State::Lost;
        *state = State::Down {
            mix: hold(self.node.identity.address)?,
            ws: hold(self.ws_address)?,
        };
        Ok(())
    }

    /// Starts again where it was.
    pub(crate) async fn restart(&self) -> Result<(), MixnetError> {
        let mut state = self.state.lock().await;
        let (mix, ws) = match std::mem::replace(&mut *state, State::Lost) {
            State::Up(run) => {
                *state = State::Up(run);
                return Err(MixnetError::GatewayUp(self.number));
            }
            State::Down { mix, ws } => (mix, ws),
            State::Lost => (hold(self.node.identity.address)?, hold(self.ws_address)?),
        };
        let mix = listen(mix, self.node.identity.address)?;
        let ws = listen(ws, self.ws_address)?;
        *state = State::Up(self.run(mix, ws));
        Ok(())
    }

    fn run(&self, mix: TcpListener, ws: TcpListener) -> Run {
        let run = Run::under(&self.network);
        *lock(&self.up) = Some(self.network.child_token());
        let forwarder = Arc::new(Forwarder::new(self.node.clone(), run.clone()));
        self.node
            .serve(mix, &run, &forwarder, Some(self.clients.clone()));
        let desk = Arc::new(Desk {
            node: self.node.clone(),
            clients: self.clients.clone(),
            forwarder,
        });
        let up = self.up.clone();
        let label: Arc<str> = format!("{}/clients", self.node.identity.name).into();
        let most = self.node.shared.limits.connections;
        run.accept(ws, most, move |stream| {
            let count = desk.node.tally.bytes.clone();
            let stream = desk.node.shared.wire.watch(stream, label.clone(), count);
            let kicked = lock(&up).clone();
            let desk = desk.clone();
            async move {
                if let Some(kicked) = kicked {
                    session::serve(desk, stream, kicked).await;
                }
            }
        });
        run
    }
}

/// Takes an address without listening on it: connections are refused.
fn hold(address: SocketAddr) -> Result<TcpSocket, MixnetError> {
    let take = || {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(socket)
    };
    take().map_err(|source| MixnetError::Listen { address, source })
}

fn listen(socket: TcpSocket, address: SocketAddr) -> Result<TcpListener, MixnetError> {
    let listening = socket.listen(BACKLOG);
    listening.map_err(|source| MixnetError::Listen { address, source })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
