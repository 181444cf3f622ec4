//! Links under observation: every byte that crosses an accepted connection.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use serde::Serialize;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// One TCP connection to a listener of the network.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Link {
    /// Counts connections, from 0, over the whole network.
    pub id: u64,
    /// The listener: a mix node or gateway by name, `gateway0/clients` for its
    /// websocket, or `api`.
    pub to: Arc<str>,
    /// The address that the other end connected from.
    pub from: Option<SocketAddr>,
}

/// Which way bytes went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the listener.
    In,
    /// From the listener.
    Out,
}

/// Is shown every byte on every link, as it is on the wire.
///
/// Each link is shown once, from its accepting end. Calls come from the tasks
/// that move the bytes: they must be short.
pub trait Tap: Send + Sync + 'static {
    /// The next bytes of `link` in one direction.
    fn bytes(&self, link: &Link, direction: Direction, bytes: &[u8]);
}

/// Where a network's links are numbered and shown.
pub(crate) struct Wire {
    tap: Option<Arc<dyn Tap>>,
    next: AtomicU64,
}

impl Wire {
    pub(crate) fn new(tap: Option<Arc<dyn Tap>>) -> Self {
        Self {
            tap,
            next: AtomicU64::new(0),
        }
    }

    /// A connection that a listener accepted; its bytes are added to `count`.
    pub(crate) fn watch(
        &self,
        stream: TcpStream,
        to: Arc<str>,
        count: Arc<AtomicU64>,
    ) -> WatchedStream {
        // Small packets are the point here: none waits for the next one.
        let _ = stream.set_nodelay(true);
        WatchedStream {
            link: Link {
                id: self.next.fetch_add(1, Ordering::Relaxed),
                to,
                from: stream.peer_addr().ok(),
            },
            stream,
            tap: self.tap.clone(),
            count,
        }
    }
}

/// A connection whose bytes are counted and shown.
pub(crate) struct WatchedStream {
    stream: TcpStream,
    link: Link,
    tap: Option<Arc<dyn Tap>>,
    count: Arc<AtomicU64>,
}

impl WatchedStream {
    fn show(&self, direction: Direction, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let len = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        self.count.fetch_add(len, Ordering::Relaxed);
        if let Some(tap) = &self.tap {
            tap.bytes(&self.link, direction, bytes);
        }
    }
}

impl AsyncRead for WatchedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(task, buf);
        self.show(
            Direction::In,
            buf.filled().get(before..).unwrap_or_default(),
        );
        polled
    }
}

impl AsyncWrite for WatchedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(task, bytes);
        if let Poll::Ready(Ok(written)) = polled {
            self.show(Direction::Out, bytes.get(..written).unwrap_or_default());
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(task)
    }
}
