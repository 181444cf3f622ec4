//! A network in memory, for fast tests: streams are buffers and, under tokio's
//! paused clock, waiting takes no time.

mod delayed;

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dlambda_proto::{Endpoint, OnionAddress};
use tokio::sync::mpsc;

use super::{CircuitFacts, Connection, Incoming, Listener, Service, Transport};
use crate::TransportError;

/// Bytes that a stream holds before the writer has to wait.
const BUFFER: usize = 64 << 10;

/// By endpoint, since every endpoint is somebody's, and by service.
type Services = HashMap<(Endpoint, Service), mpsc::Sender<Incoming>>;

/// The network: a set of services, and a latency.
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    services: Arc<Mutex<Services>>,
    latency: Duration,
    delay: Option<RangeInclusive<Duration>>,
}

/// One participant's way into a [`MemoryNetwork`].
#[derive(Clone)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    key: [u8; 32],
}

impl MemoryNetwork {
    /// A network in which every dial takes `latency`.
    #[must_use]
    pub fn new(latency: Duration) -> Self {
        Self {
            services: Arc::default(),
            latency,
            delay: None,
        }
    }

    /// The same, and each message on a stream takes one of these times, at random.
    #[must_use]
    pub fn with_message_delay(self, delay: RangeInclusive<Duration>) -> Self {
        Self {
            delay: Some(delay),
            ..self
        }
    }

    /// A participant; the endpoint at which it listens follows from `key`.
    #[must_use]
    pub fn transport(&self, key: [u8; 32]) -> MemoryTransport {
        MemoryTransport {
            network: self.clone(),
            key,
        }
    }
}

impl MemoryNetwork {
    fn streams(&self) -> (Connection, Connection) {
        if let Some(delay) = &self.delay {
            let (near, far) = delayed::delayed(delay, BUFFER);
            return (Connection::new(near), Connection::new(far));
        }
        let (near, far) = tokio::io::duplex(BUFFER);
        (Connection::new(near), Connection::new(far))
    }
}

impl MemoryTransport {
    /// Where this participant listens for calls, if it does.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint_of(Service::Calls)
    }

    /// Where this participant listens for a service, if it does.
    #[must_use]
    pub fn endpoint_of(&self, service: Service) -> Endpoint {
        let key = match service {
            Service::Calls => self.key,
            // Any other key.
            Service::Overlay | Service::Guests => self.key.map(|byte| !byte),
        };
        Endpoint::Onion(OnionAddress::from_public_key(key))
    }
}

#[async_trait]
impl Transport for MemoryTransport {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        if !matches!(endpoint, Endpoint::Onion(_)) {
            return Err(TransportError::WrongEndpoint);
        }
        tokio::time::sleep(self.network.latency).await;
        let service = lock(&self.network.services)
            .get(&(*endpoint, service))
            .cloned();
        let unreachable = || TransportError::Unreachable("no such service".into());
        let service = service.ok_or_else(unreachable)?;
        let (near, far) = self.network.streams();
        let incoming = Incoming {
            connection: far,
            circuit: CircuitFacts::new(Vec::new()),
        };
        service.send(incoming).await.map_err(|_| unreachable())?;
        Ok(near)
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        let (sender, receiver) = mpsc::channel(16);
        lock(&self.network.services).insert((self.endpoint_of(service), service), sender);
        Ok(Box::new(MemoryListener {
            endpoint: self.endpoint_of(service),
            receiver,
        }))
    }
}

struct MemoryListener {
    endpoint: Endpoint,
    receiver: mpsc::Receiver<Incoming>,
}

#[async_trait]
impl Listener for MemoryListener {
    fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    async fn accept(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }
}

fn lock(services: &Mutex<Services>) -> std::sync::MutexGuard<'_, Services> {
    // The map is whole between any two operations on it.
    services.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryNetwork")
    }
}

impl fmt::Debug for MemoryTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryTransport")
    }
}
