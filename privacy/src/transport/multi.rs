//! Several transports as one: each endpoint is dialled by the transport of its
//! kind, and streams are accepted from all of them.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use dlambda_proto::Endpoint;
use futures::future::select_all;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{Connection, Incoming, Listener, Service, Transport};
use crate::TransportError;

/// At least one transport.
pub struct MultiTransport(Vec<Arc<dyn Transport>>);

impl MultiTransport {
    /// These transports, the preferred one first.
    #[must_use]
    pub fn new(transports: Vec<Arc<dyn Transport>>) -> Self {
        Self(transports)
    }
}

#[async_trait]
impl Transport for MultiTransport {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        for transport in &self.0 {
            match transport.dial(endpoint, service).await {
                Err(TransportError::WrongEndpoint) => {}
                dialled => return dialled,
            }
        }
        Err(TransportError::WrongEndpoint)
    }

    /// By every transport that carries the service.
    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        let (arrived, incoming) = mpsc::channel(16);
        let mut endpoints = Vec::new();
        let mut tasks = Vec::new();
        for transport in &self.0 {
            let listener = match transport.listen(service).await {
                Err(TransportError::WrongService) => continue,
                listening => listening?,
            };
            endpoints.extend(listener.endpoints());
            let task = tokio::spawn(forward(listener, arrived.clone()));
            tasks.push(AbortOnDropHandle::new(task));
        }
        let first = endpoints.first().copied();
        Ok(Box::new(MultiListener {
            first: first.ok_or(TransportError::WrongService)?,
            endpoints,
            incoming,
            tasks,
        }))
    }
}

struct MultiListener {
    first: Endpoint,
    endpoints: Vec<Endpoint>,
    incoming: mpsc::Receiver<Incoming>,
    tasks: Vec<AbortOnDropHandle<()>>,
}

#[async_trait]
impl Listener for MultiListener {
    fn endpoint(&self) -> Endpoint {
        self.first
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.clone()
    }

    /// `None` as soon as one of the listeners has ended: a provider that is not
    /// where its advert says should end, and be started again.
    async fn accept(&mut self) -> Option<Incoming> {
        let Self {
            incoming, tasks, ..
        } = self;
        tokio::select! {
            arrived = incoming.recv() => arrived,
            _ = select_all(tasks.iter_mut()) => None,
        }
    }
}

async fn forward(mut listener: Box<dyn Listener>, arrived: mpsc::Sender<Incoming>) {
    while let Some(incoming) = listener.accept().await {
        if arrived.send(incoming).await.is_err() {
            return;
        }
    }
}

impl fmt::Debug for MultiTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MultiTransport")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::transport::DangerouslyDirect;
    use crate::transport::memory::MemoryNetwork;

    /// Frames of at most this many bytes, and no overlay, as over a mixnet.
    struct Limited(DangerouslyDirect, usize);

    #[async_trait]
    impl Transport for Limited {
        async fn dial(
            &self,
            endpoint: &Endpoint,
            service: Service,
        ) -> Result<Connection, TransportError> {
            let dialled = self.0.dial(endpoint, service).await?;
            Ok(Connection::limited(dialled.stream, self.1))
        }

        async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
            match service {
                Service::Calls => self.0.listen(service).await,
                Service::Overlay | Service::Guests => Err(TransportError::WrongService),
            }
        }
    }

    fn both() -> MultiTransport {
        let memory = MemoryNetwork::new(Duration::ZERO);
        MultiTransport::new(vec![
            Arc::new(memory.transport([1; 32])),
            Arc::new(Limited(DangerouslyDirect::new(), 1000)),
        ])
    }

    #[tokio::test]
    async fn streams_are_accepted_from_every_transport() {
        let multi = both();
        let mut listener = multi.listen(Service::Calls).await.expect("listens");
        let endpoints = listener.endpoints();
        assert_eq!(endpoints.len(), 2);
        assert_eq!(listener.endpoint(), endpoints[0]);
        for endpoint in endpoints {
            let dialling = multi.dial(&endpoint, Service::Calls);
            let (dialled, arrived) = tokio::join!(dialling, listener.accept());
            let mut near = dialled.expect("is there").stream;
            let mut far = arrived.expect("arrives").connection.stream;
            near.write_all(b"x").await.expect("is open");
            assert_eq!(far.read_u8().await.expect("arrives"), b'x');
        }
    }

    #[tokio::test]
    async fn each_stream_has_the_limit_of_its_own_transport() {
        let multi = both();
        let listener = multi.listen(Service::Calls).await.expect("listens");
        let mut limits = Vec::new();
        for endpoint in listener.endpoints() {
            let dialled = multi.dial(&endpoint, Service::Calls).await;
            limits.push(dialled.expect("is there").max_frame);
        }
        assert_eq!(limits, [usize::MAX, 1000]);
    }

    #[tokio::test]
    async fn a_service_is_listened_for_by_the_transports_that_carry_it() {
        let multi = both();
        let calls = multi.listen(Service::Calls).await.expect("listens");
        let overlay = multi.listen(Service::Overlay).await.expect("listens");
        assert_eq!(overlay.endpoints().len(), 1);
        assert!(!calls.endpoints().contains(&overlay.endpoint()));
        let only_calls = Limited(DangerouslyDirect::new(), 1000);
        let none = MultiTransport::new(vec![Arc::new(only_calls)]);
        let error = none.listen(Service::Overlay).await.err();
        assert!(matches!(error, Some(TransportError::WrongService)));
    }

    #[tokio::test]
    async fn an_endpoint_that_no_transport_dials_is_refused() {
        let multi = MultiTransport::new(vec![Arc::new(DangerouslyDirect::new())]);
        let nowhere = MemoryNetwork::default().transport([1; 32]).endpoint();
        let error = multi.dial(&nowhere, Service::Calls).await.err();
        assert!(matches!(error, Some(TransportError::WrongEndpoint)));
    }
}
