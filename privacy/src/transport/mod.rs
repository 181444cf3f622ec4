//! The one seam to the outside: dial an endpoint, listen at one.
//!
//! Isolation is not an option of this trait, it is its contract: **every
//! [`Transport::dial`] makes a circuit that no other stream has used or will
//! use**. There is no way to ask for less, so no caller can forget to ask.
//!
//! What is listened for is a [`Service`]. Each has endpoints of its own, so that
//! a flood of one takes no circuit, rendezvous or queue from the other, and
//! nobody can tell from its address which provider a node of the overlay is.

mod direct;
pub mod memory;
mod multi;
mod nym;
mod tor;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dlambda_proto::Endpoint;
use tokio::io::{AsyncRead, AsyncWrite};

pub use direct::DangerouslyDirect;
pub use multi::MultiTransport;
pub use nym::{NymRole, NymTransport};
pub use tor::{BootstrapProgress, TorDirectories, TorTransport};

use crate::TransportError;
use crate::network::{Network, TransportName};

/// What starting a transport takes, beside the network.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StartOptions {
    /// Where Tor keeps its files.
    pub tor: TorDirectories,
    /// What a Nym transport is for.
    pub nym: NymRole,
    /// Time to get ready in.
    pub deadline: Duration,
}

impl StartOptions {
    /// These options.
    #[must_use]
    pub fn new(tor: TorDirectories, nym: NymRole, deadline: Duration) -> Self {
        Self { tor, nym, deadline }
    }
}

/// Starts one of a network's transports.
///
/// # Errors
///
/// [`TransportError`] if the network cannot be used from here in time.
///
/// # Cancel safety
///
/// Cancel safe.
pub async fn start(
    network: &Network,
    name: TransportName,
    options: StartOptions,
    progress: impl FnMut(BootstrapProgress) + Send,
) -> Result<Arc<dyn Transport>, TransportError> {
    let StartOptions { tor, nym, deadline } = options;
    Ok(match name {
        TransportName::DangerouslyDirect => {
            Arc::new(DangerouslyDirect::new().listening_on(network.direct.port))
        }
        TransportName::Nym => Arc::new(NymTransport::start(network, nym, deadline).await?),
        TransportName::Tor => {
            Arc::new(TorTransport::bootstrap(network, &tor, deadline, progress).await?)
        }
    })
}

/// What streams are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Service {
    /// Calls and contracts: streams live as long as one of them.
    Calls,
    /// The overlay of providers and volunteers: streams live for hours.
    Overlay,
    /// Guests of the overlay: one question a stream. At the endpoint of the overlay, since who
    /// serves guests is in the overlay; over a transport without an overlay, at one of their own.
    Guests,
}

/// An ordered, reliable stream of bytes in both directions.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Any stream.
pub type BoxStream = Box<dyn Stream>;

/// A stream, and what it can carry.
#[non_exhaustive]
pub struct Connection {
    /// The stream.
    pub stream: BoxStream,
    /// Bytes of the largest frame body that the stream carries.
    pub max_frame: usize,
}

impl Connection {
    /// A stream that carries frames of every size.
    #[must_use]
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self::limited(stream, usize::MAX)
    }

    /// A stream that carries frame bodies of at most `max_frame` bytes.
    #[must_use]
    pub fn limited(stream: impl Stream + 'static, max_frame: usize) -> Self {
        Self {
            stream: Box::new(stream),
            max_frame,
        }
    }
}

/// Makes and accepts anonymous streams.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Opens a stream to a service at `endpoint`, on a circuit of its own.
    ///
    /// # Errors
    ///
    /// [`TransportError`]; among them [`TransportError::Deadline`] after the
    /// transport's own limit, and [`TransportError::WrongService`] if this
    /// transport does not carry the service.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a circuit being built is abandoned.
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError>;

    /// Makes a service reachable and hands out what arrives. The overlay and its guests share
    /// endpoints if a transport carries both; calls have endpoints of their own. At most once for
    /// each service of a transport.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if this transport cannot listen; it is
    /// [`TransportError::WrongService`] if it does not carry the service.
    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError>;
}

/// What arrives at an endpoint of ours. Stops listening when dropped.
#[async_trait]
pub trait Listener: Send {
    /// Where we can be reached; the first of several places.
    fn endpoint(&self) -> Endpoint;

    /// Everywhere that we can be reached.
    fn endpoints(&self) -> Vec<Endpoint> {
        vec![self.endpoint()]
    }

    /// The next stream, the first and only one of its circuit; `None` when no
    /// more can come.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no stream is lost.
    async fn accept(&mut self) -> Option<Incoming>;
}

/// A stream that a stranger opened.
pub struct Incoming {
    /// The stream, and what it can carry.
    pub connection: Connection,
    /// All that the transport knows of the circuit it came by.
    pub circuit: CircuitFacts,
}

/// All that a transport lets a listener know of a circuit. Kept so that tests
/// can play a provider that writes down everything.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CircuitFacts {
    /// A random label, given to the circuit here: two streams with one label
    /// came by one circuit.
    pub label: [u8; 16],
    /// The request that opened the stream, as the transport received it.
    pub opening: Vec<u8>,
}

impl CircuitFacts {
    fn new(opening: Vec<u8>) -> Self {
        let mut label = [0; 16];
        rand_core::Rng::fill_bytes(&mut crate::os_rng(), &mut label);
        Self { label, opening }
    }
}

impl fmt::Debug for CircuitFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CircuitFacts([scrubbed])")
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Incoming([scrubbed])")
    }
}
