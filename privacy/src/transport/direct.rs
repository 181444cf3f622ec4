//! Plain loopback sockets. No anonymity whatsoever; loopback and tests only.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::time::Duration;

use async_trait::async_trait;
use dlambda_proto::Endpoint;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::{CircuitFacts, Connection, Incoming, Listener, Service, Transport};
use crate::TransportError;

/// How long a loopback connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A transport without anonymity: the other side sees who calls. It refuses
/// every address outside the loopback range.
#[derive(Debug)]
#[non_exhaustive]
pub struct DangerouslyDirect {
    port: Option<NonZeroU16>,
}

impl DangerouslyDirect {
    /// Makes the transport, and warns loudly that it protects nobody.
    #[must_use]
    pub fn new() -> Self {
        tracing::error!(
            "DANGER: direct connections, NO ANONYMITY: everyone can see who calls whom. For tests on one machine only."
        );
        Self { port: None }
    }

    /// Listens on this port of the loopback address; without one, on any that is free.
    #[must_use]
    pub fn listening_on(self, port: Option<NonZeroU16>) -> Self {
        Self { port }
    }
}

impl Default for DangerouslyDirect {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl Transport for DangerouslyDirect {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        only_calls(service)?;
        let Endpoint::DangerouslyDirect(address) = endpoint else {
            return Err(TransportError::WrongEndpoint);
        };
        if !address.ip().is_loopback() {
            return Err(TransportError::WrongEndpoint);
        }
        let stream = timeout(CONNECT, connect(*address))
            .await
            .map_err(|_| TransportError::Deadline("connection"))?
            .map_err(|error| TransportError::Unreachable(error.into()))?;
        Ok(Connection::new(stream))
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        let local = |error: std::io::Error| TransportError::Local(error.into());
        only_calls(service)?;
        let port = self.port.map_or(0, NonZeroU16::get);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .map_err(local)?;
        let endpoint = Endpoint::DangerouslyDirect(socket.local_addr().map_err(local)?);
        Ok(Box::new(DirectListener { socket, endpoint }))
    }
}

/// The addresses of the overlay are public: it never has any but onion addresses.
fn only_calls(service: Service) -> Result<(), TransportError> {
    match service {
        Service::Calls => Ok(()),
        Service::Overlay | Service::Guests => Err(TransportError::WrongService),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the one direct dial; its callers let loopback addresses through only"
)]
async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    TcpStream::connect(address).await
}

struct DirectListener {
    socket: TcpListener,
    endpoint: Endpoint,
}

#[async_trait]
impl Listener for DirectListener {
    fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    async fn accept(&mut self) -> Option<Incoming> {
        loop {
            // A failed accept concerns one connection, not the listener.
            if let Ok((stream, peer)) = self.socket.accept().await {
                return Some(Incoming {
                    connection: Connection::new(stream),
                    circuit: CircuitFacts::new(peer.to_string().into_bytes()),
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}
