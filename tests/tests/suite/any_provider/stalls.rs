//! A way into the network on which circuits fail on purpose.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_trait::async_trait;
use dlambda_privacy::TransportError;
use dlambda_privacy::transport::memory::MemoryTransport;
use dlambda_privacy::transport::{BoxStream, Connection, Listener, Service, Transport};
use dlambda_proto::{Endpoint, FRAME_HEADER_LEN};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is wrong with a circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It is never there.
    NoCircuit,
    /// It is there, and nothing comes.
    NoGreeting,
    /// Nothing comes after the greeting.
    NoAnswer,
    /// It breaks when the answer comes.
    LostAnswer,
}

/// Asked once for each circuit.
pub(super) type Choose = Box<dyn Fn(&Endpoint) -> Fault + Send + Sync>;

pub(super) struct Faulty {
    inner: MemoryTransport,
    choose: Choose,
}

impl Faulty {
    pub(super) fn new(inner: MemoryTransport, choose: Choose) -> Self {
        Self { inner, choose }
    }
}

#[async_trait]
impl Transport for Faulty {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        let fault = (self.choose)(endpoint);
        if fault == Fault::NoCircuit {
            std::future::pending::<()>().await;
        }
        let connection = self.inner.dial(endpoint, service).await?;
        Ok(Connection::new(FaultyStream {
            inner: connection.stream,
            fault,
            header: Vec::new(),
            read: 0,
        }))
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        self.inner.listen(service).await
    }
}

struct FaultyStream {
    inner: BoxStream,
    fault: Fault,
    /// Of the greeting.
    header: Vec<u8>,
    read: usize,
}

impl FaultyStream {
    fn is_greeted(&self) -> bool {
        let length = self.header.get(2..FRAME_HEADER_LEN);
        let length = length.and_then(|it| it.try_into().ok());
        length.is_some_and(|it| self.read >= FRAME_HEADER_LEN + u32::from_be_bytes(it) as usize)
    }
}

impl AsyncRead for FaultyStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let is_greeted = this.is_greeted();
        match this.fault {
            Fault::NoGreeting => return Poll::Pending,
            Fault::NoAnswer if is_greeted => return Poll::Pending,
            _ => {}
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
        if is_greeted && this.fault == Fault::LostAnswer {
            buffer.set_filled(before);
            return Poll::Ready(Ok(()));
        }
        let fresh = &buffer.filled()[before..];
        this.read += fresh.len();
        let missing = FRAME_HEADER_LEN.saturating_sub(this.header.len());
        this.header.extend(fresh.iter().take(missing));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for FaultyStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}
