//! libp2p's connections over onion services, and over nothing else.
//!
//! The only addresses are `/onion3/HASH:PORT`. Any other is refused before anything is asked of
//! the network, so an address that a peer makes up cannot make this machine dial or resolve.

mod address;
mod admission;
mod traffic;

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dlambda_privacy::transport::{Incoming, Listener, Service, Transport};
use dlambda_proto::Endpoint;
use futures::future::{BoxFuture, Either, FutureExt as _, Ready, ready};
use futures::stream::{self, BoxStream as EventStream, StreamExt as _};
use libp2p_core::Transport as _;
use libp2p_core::multiaddr::Multiaddr;
use libp2p_core::muxing::StreamMuxerBox;
use libp2p_core::transport::{Boxed, DialOpts, ListenerId, TransportError, TransportEvent};
use libp2p_core::upgrade::Version;
use libp2p_identity::{Keypair, PeerId};
use libp2p_pnet::{PnetConfig, PnetError, PnetOutput, PreSharedKey};
use tokio::time::timeout;

pub(crate) use address::{from_multiaddr, to_multiaddr};
use admission::NewestFirst;
pub(crate) use traffic::{OnionStream, Traffic};

use crate::NodeError;

/// Streams that a peer may have open on one connection at a time.
const MAX_STREAMS: usize = 32;

/// Connections that may be being set up by the other side at a time.
pub(crate) const MAX_INCOMING: usize = 64;

/// How long the set-up of a connection may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    /// Of one that we dial, the circuit included.
    pub(crate) outgoing: Duration,
    /// Of one that arrives.
    pub(crate) incoming: Duration,
}

/// The whole transport: streams of onion services, the network's key if it has one, noise, yamux.
pub(crate) fn build(
    dialer: Arc<dyn Transport>,
    listener: Box<dyn Listener>,
    identity: &Keypair,
    key: Option<[u8; 32]>,
    deadlines: Deadlines,
    traffic: Arc<Traffic>,
) -> Result<Boxed<(PeerId, StreamMuxerBox)>, NodeError> {
    let onion = OnionTransport::new(dialer, listener, deadlines.outgoing, traffic)?;
    let noise = libp2p_noise::Config::new(identity).map_err(|_| NodeError::Identity)?;
    let mut yamux = libp2p_yamux::Config::default();
    yamux.set_max_num_streams(MAX_STREAMS);
    let key = key.map(|key| PnetConfig::new(PreSharedKey::new(key)));
    let upgraded = onion
        .and_then(move |stream, _| guard(key, stream))
        .upgrade(Version::V1)
        .authenticate(noise)
        .multiplex(yamux)
        .outbound_timeout(deadlines.outgoing)
        .inbound_timeout(deadlines.incoming)
        .boxed();
    Ok(NewestFirst::new(upgraded, MAX_INCOMING).boxed())
}

/// Under the network's key, if there is one: without it not even noise's first message is seen.
async fn guard(
    key: Option<PnetConfig>,
    stream: OnionStream,
) -> Result<Either<PnetOutput<OnionStream>, OnionStream>, PnetError> {
    match key {
        Some(key) => Ok(Either::Left(key.handshake(stream).await?)),
        None => Ok(Either::Right(stream)),
    }
}

/// Streams of onion services as libp2p wants them.
pub(crate) struct OnionTransport {
    dialer: Arc<dyn Transport>,
    deadline: Duration,
    traffic: Arc<Traffic>,
    address: Multiaddr,
    /// What has arrived, until somebody listens.
    arrivals: Option<EventStream<'static, Incoming>>,
    listening: Option<Listening>,
}

struct Listening {
    id: ListenerId,
    announced: bool,
    arrivals: EventStream<'static, Incoming>,
}

impl OnionTransport {
    /// Dials with one transport; what arrives comes from a listener of it.
    pub(crate) fn new(
        dialer: Arc<dyn Transport>,
        listener: Box<dyn Listener>,
        deadline: Duration,
        traffic: Arc<Traffic>,
    ) -> Result<Self, NodeError> {
        let endpoint = listener.endpoint();
        let address = to_multiaddr(&endpoint).ok_or(NodeError::NoOnionService)?;
        let arrivals = stream::unfold(listener, |mut listener| async move {
            let incoming = listener.accept().await?;
            Some((incoming, listener))
        });
        Ok(Self {
            dialer,
            deadline,
            traffic,
            address,
            arrivals: Some(arrivals.boxed()),
            listening: None,
        })
    }
}

async fn dial(
    dialer: Arc<dyn Transport>,
    endpoint: Endpoint,
    deadline: Duration,
    traffic: Arc<Traffic>,
) -> io::Result<OnionStream> {
    let dialled = timeout(deadline, dialer.dial(&endpoint, Service::Overlay)).await;
    let connection = dialled
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        .map_err(io::Error::other)?;
    Ok(OnionStream::new(connection.stream, traffic))
}

impl libp2p_core::Transport for OnionTransport {
    type Output = OnionStream;
    type Error = io::Error;
    type ListenerUpgrade = Ready<io::Result<OnionStream>>;
    type Dial = BoxFuture<'static, io::Result<OnionStream>>;

    /// At our own address, once.
    fn listen_on(
        &mut self,
        id: ListenerId,
        address: Multiaddr,
    ) -> Result<(), TransportError<io::Error>> {
        if address != self.address {
            return Err(TransportError::MultiaddrNotSupported(address));
        }
        let Some(arrivals) = self.arrivals.take() else {
            let twice = io::Error::from(io::ErrorKind::AddrInUse);
            return Err(TransportError::Other(twice));
        };
        self.listening = Some(Listening {
            id,
            announced: false,
            arrivals,
        });
        Ok(())
    }

    fn remove_listener(&mut self, id: ListenerId) -> bool {
        self.listening.take_if(|ours| ours.id == id).is_some()
    }

    fn dial(
        &mut self,
        address: Multiaddr,
        _: DialOpts,
    ) -> Result<Self::Dial, TransportError<io::Error>> {
        match from_multiaddr(&address) {
            Some(endpoint) => {
                let (dialer, traffic) = (self.dialer.clone(), self.traffic.clone());
                Ok(dial(dialer, endpoint, self.deadline, traffic).boxed())
            }
            None => Err(TransportError::MultiaddrNotSupported(address)),
        }
    }

    fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<TransportEvent<Self::ListenerUpgrade, io::Error>> {
        let this = self.get_mut();
        let Some(listening) = &mut this.listening else {
            return Poll::Pending;
        };
        let listener_id = listening.id;
        if !listening.announced {
            listening.announced = true;
            return Poll::Ready(TransportEvent::NewAddress {
                listener_id,
                listen_addr: this.address.clone(),
            });
        }
        let Poll::Ready(arrived) = listening.arrivals.poll_next_unpin(cx) else {
            return Poll::Pending;
        };
        Poll::Ready(match arrived {
            Some(incoming) => TransportEvent::Incoming {
                listener_id,
                upgrade: ready(Ok(OnionStream::new(
                    incoming.connection.stream,
                    this.traffic.clone(),
                ))),
                local_addr: this.address.clone(),
                // An onion service does not learn who called.
                send_back_addr: Multiaddr::empty(),
            },
            None => {
                this.listening = None;
                TransportEvent::ListenerClosed {
                    listener_id,
                    reason: Ok(()),
                }
            }
        })
    }
}
