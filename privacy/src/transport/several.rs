//! Several transports as one: each address is dialled by the one that knows
//! its sort, and who arrives by any of them is let in.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use dlambda_proto::Endpoint;
use futures::future::select_all;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::{BoxStream, Incoming, Listener, Transport};
use crate::TransportError;

/// At least one transport.
pub struct Several(Vec<Arc<dyn Transport>>);

impl Several {
    /// These transports, the preferred one first.
    #[must_use]
    pub fn new(transports: Vec<Arc<dyn Transport>>) -> Self {
        Self(transports)
    }
}

#[async_trait]
impl Transport for Several {
    async fn dial(&self, endpoint: &Endpoint) -> Result<BoxStream, TransportError> {
        for transport in &self.0 {
            match transport.dial(endpoint).await {
                Err(TransportError::WrongEndpoint) => {}
                dialled => return dialled,
            }
        }
        Err(TransportError::WrongEndpoint)
    }

    fn largest_frame(&self) -> usize {
        let sizes = self.0.iter().map(|transport| transport.largest_frame());
        sizes.min().unwrap_or(usize::MAX)
    }

    async fn listen(&self) -> Result<Box<dyn Listener>, TransportError> {
        let (arrived, incoming) = mpsc::channel(16);
        let mut endpoints = Vec::new();
        let mut doors = Vec::new();
        for transport in &self.0 {
            let listener = transport.listen().await?;
            endpoints.extend(listener.endpoints());
            let door = tokio::spawn(pass_on(listener, arrived.clone()));
            doors.push(AbortOnDropHandle::new(door));
        }
        let first = endpoints.first().copied();
        Ok(Box::new(SeveralDoors {
            first: first.ok_or(TransportError::WrongEndpoint)?,
            endpoints,
            incoming,
            doors,
        }))
    }
}

struct SeveralDoors {
    first: Endpoint,
    endpoints: Vec<Endpoint>,
    incoming: mpsc::Receiver<Incoming>,
    doors: Vec<AbortOnDropHandle<()>>,
}

#[async_trait]
impl Listener for SeveralDoors {
    fn endpoint(&self) -> Endpoint {
        self.first
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.endpoints.clone()
    }

    /// `None` as soon as one of them lets nobody in any more: a provider that
    /// is not where its advert says should end, and be started again.
    async fn accept(&mut self) -> Option<Incoming> {
        let Self {
            incoming, doors, ..
        } = self;
        tokio::select! {
            arrived = incoming.recv() => arrived,
            _ = select_all(doors.iter_mut()) => None,
        }
    }
}

async fn pass_on(mut listener: Box<dyn Listener>, arrived: mpsc::Sender<Incoming>) {
    while let Some(incoming) = listener.accept().await {
        if arrived.send(incoming).await.is_err() {
            return;
        }
    }
}

impl fmt::Debug for Several {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Several")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::transport::DangerouslyDirect;
    use crate::transport::memory::MemoryNetwork;

    #[tokio::test]
    async fn callers_come_in_by_every_door() {
        let memory = MemoryNetwork::new(Duration::ZERO);
        let several = Several::new(vec![
            Arc::new(memory.transport([1; 32])),
            Arc::new(DangerouslyDirect::new()),
        ]);
        let mut listener = several.listen().await.expect("listens");
        let endpoints = listener.endpoints();
        assert_eq!(endpoints.len(), 2);
        assert_eq!(listener.endpoint(), endpoints[0]);
        for endpoint in endpoints {
            let (dialled, arrived) = tokio::join!(several.dial(&endpoint), listener.accept());
            let mut near = dialled.expect("is there");
            let mut far = arrived.expect("arrives").stream;
            near.write_all(b"x").await.expect("is open");
            assert_eq!(far.read_u8().await.expect("arrives"), b'x');
        }
    }

    #[tokio::test]
    async fn an_address_that_nobody_knows_is_refused() {
        let several = Several::new(vec![Arc::new(DangerouslyDirect::new())]);
        let nowhere = MemoryNetwork::default().transport([1; 32]).endpoint();
        let error = several.dial(&nowhere).await.err();
        assert!(matches!(error, Some(TransportError::WrongEndpoint)));
    }
}
