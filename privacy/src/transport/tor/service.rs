//! Our onion services, one for calls and one for the overlay and its guests: one circuit in, one
//! stream in it, no second.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use arti_client::{DataStream, TorClient};
use async_trait::async_trait;
use dlambda_proto::{Endpoint, ONION_PORT, OVERLAY_PORT};
use futures::StreamExt as _;
use safelog::DisplayRedacted as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::config::{OnionServiceConfigBuilder, TokenBucketConfig};
use tor_hsservice::{RendRequest, RunningOnionService, StreamRequest};
use tor_proto::stream::IncomingStreamRequest;

use super::super::{CircuitFacts, Connection, Incoming, Listener, Service};
use super::errors;
use super::guards::Runtime;
use crate::TransportError;

/// Arti's name for a service in its key store: the key, and so the address, goes by it.
fn nickname(service: Service) -> &'static str {
    match service {
        Service::Calls => "dlambda",
        Service::Overlay | Service::Guests => "dlambda-overlay",
    }
}

/// The virtual port of a service.
pub(super) fn port(service: Service) -> u16 {
    match service {
        Service::Calls | Service::Guests => ONION_PORT,
        Service::Overlay => OVERLAY_PORT,
    }
}

/// Longest time to meet a caller at its rendezvous point, and to wait for the
/// first stream on the circuit.
const RENDEZVOUS: Duration = Duration::from_secs(60);

/// Rendezvous of one service being made at a time.
const MAX_PENDING: usize = 256;

/// Introductions to the overlay in a second, and at once: a flood is stopped where it is cheap.
/// Calls have no such limit, since one that is too low would close a provider for everybody.
const OVERLAY_RATE: (u32, u32) = (16, 256);

/// The onion services of one client that are listened to, by nickname.
#[derive(Default)]
pub(super) struct Services(Mutex<HashMap<&'static str, Weak<OnionService>>>);

/// Ends when the last of its listeners does.
struct OnionService {
    endpoint: Endpoint,
    ports: Arc<Ports>,
    _service: Arc<RunningOnionService>,
    _stop: DropGuard,
}

/// Where streams go, by virtual port. A stream to another port is refused.
#[derive(Default)]
struct Ports(Mutex<HashMap<u16, mpsc::Sender<Incoming>>>);

impl Services {
    /// Listens for a service, under the key in arti's key store, made at first use.
    pub(super) fn listen(
        &self,
        client: &Arc<TorClient<Runtime>>,
        service: Service,
    ) -> Result<TorListener, TransportError> {
        let nickname = nickname(service);
        let onion = {
            let mut running = lock(&self.0);
            match running.get(nickname).and_then(Weak::upgrade) {
                Some(onion) => onion,
                None => {
                    let onion = Arc::new(launch(client, service)?);
                    running.insert(nickname, Arc::downgrade(&onion));
                    onion
                }
            }
        };
        let (sender, receiver) = mpsc::channel(MAX_PENDING);
        lock(&onion.ports.0).insert(port(service), sender);
        Ok(TorListener { onion, receiver })
    }
}

impl Ports {
    /// Where streams to this port go, if they are listened for.
    fn get(&self, port: u16) -> Option<mpsc::Sender<Incoming>> {
        let open = lock(&self.0).get(&port).cloned();
        open.filter(|it| !it.is_closed())
    }
}

fn launch(
    client: &Arc<TorClient<Runtime>>,
    service: Service,
) -> Result<OnionService, TransportError> {
    let local = |error: String| TransportError::Local(error.into());
    let nickname = nickname(service)
        .parse()
        .map_err(|error: tor_hsservice::InvalidNickname| local(error.to_string()))?;
    let mut config = OnionServiceConfigBuilder::default();
    config.nickname(nickname);
    if service != Service::Calls {
        let (rate, burst) = OVERLAY_RATE;
        config.rate_limit_at_intro(Some(TokenBucketConfig::new(rate, burst)));
    }
    let config = config.build().map_err(|error| local(error.to_string()))?;
    let (service, requests) = client
        .launch_onion_service(config)
        .map_err(errors::starting)?
        .ok_or_else(|| local("the onion service is disabled".to_owned()))?;
    let endpoint = service
        .onion_address()
        .and_then(|id| id.display_unredacted().to_string().parse().ok())
        .ok_or_else(|| local("the onion service has no key".to_owned()))?;
    let ports = Arc::<Ports>::default();
    let stop = CancellationToken::new();
    tokio::spawn(
        stop.clone()
            .run_until_cancelled_owned(meet_callers(requests, Arc::clone(&ports))),
    );
    Ok(OnionService {
        endpoint,
        ports,
        _service: service,
        _stop: stop.drop_guard(),
    })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // The maps are whole between any two operations on them.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) struct TorListener {
    onion: Arc<OnionService>,
    receiver: mpsc::Receiver<Incoming>,
}

#[async_trait]
impl Listener for TorListener {
    fn endpoint(&self) -> Endpoint {
        self.onion.endpoint
    }

    async fn accept(&mut self) -> Option<Incoming> {
        self.receiver.recv().await
    }
}

/// Meets every caller in a task of its own. Waits for nothing but the next one: when too many are
/// being met, the one that has taken longest makes room, since a caller that never opens its stream
/// costs us more than it costs itself.
async fn meet_callers(
    requests: impl futures::Stream<Item = RendRequest> + Send,
    ports: Arc<Ports>,
) {
    let mut pending = Pending::default();
    let mut requests = std::pin::pin!(requests);
    while let Some(request) = requests.next().await {
        let ports = Arc::clone(&ports);
        pending.spawn(async move {
            // A caller that cannot be met, or asks for something else, is
            // dropped; there is nobody to tell.
            if let Ok(Some((incoming, to))) = timeout(RENDEZVOUS, meet(request, &ports)).await {
                let _ = to.send(incoming).await;
            }
        });
    }
}

/// Tasks, of which the oldest ends when there are too many. All end when it is dropped.
#[derive(Default)]
struct Pending {
    tasks: JoinSet<()>,
    by_age: VecDeque<AbortHandle>,
}

impl Pending {
    fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.by_age.retain(|task| !task.is_finished());
        if self.by_age.len() >= MAX_PENDING
            && let Some(oldest) = self.by_age.pop_front()
        {
            oldest.abort();
        }
        self.by_age.push_back(self.tasks.spawn(task));
    }
}

/// Completes one rendezvous and takes the first stream of its circuit.
async fn meet(request: RendRequest, ports: &Ports) -> Option<(Incoming, mpsc::Sender<Incoming>)> {
    let mut streams = request.accept().await.ok()?;
    let first = streams.next().await?;
    let asked = match first.request() {
        IncomingStreamRequest::Begin(begin) => ports.get(begin.port()).map(|to| (begin, to)),
        _ => None,
    };
    let (opening, to) = match asked {
        Some((begin, to)) => {
            // Address and flags are the caller's to choose: they belong to
            // what a provider could tell callers apart by.
            let flags = begin.flags().bits().to_be_bytes();
            let opening = [begin.addr(), &begin.port().to_be_bytes(), &flags].concat();
            (opening, to)
        }
        None => {
            let _ = first.shutdown_circuit();
            return None;
        }
    };
    let stream = first.accept(Connected::new_empty()).await.ok()?;
    let alive = CancellationToken::new();
    tokio::spawn(refuse_second_stream(streams, alive.clone()));
    let incoming = Incoming {
        connection: Connection::new(OnlyStream {
            stream,
            _alive: alive.drop_guard(),
        }),
        circuit: CircuitFacts::new(opening),
    };
    Some((incoming, to))
}

/// Keeps the circuit alive while its one stream lives, and ends it if a second
/// one is asked for: one circuit, one call, whatever the caller's software does.
async fn refuse_second_stream(
    mut streams: impl futures::Stream<Item = StreamRequest> + Unpin,
    gone: CancellationToken,
) {
    if let Some(Some(second)) = gone.run_until_cancelled(streams.next()).await {
        tracing::debug!("a second stream on one circuit: circuit closed");
        let _ = second.shutdown_circuit();
    }
}

/// The one stream of a circuit; the circuit closes after it.
struct OnlyStream {
    stream: DataStream,
    _alive: DropGuard,
}

impl AsyncRead for OnlyStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.stream), cx, buf)
    }
}

impl AsyncWrite for OnlyStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.stream), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        AsyncWrite::poll_shutdown(Pin::new(&mut self.stream), cx)
    }
}

impl fmt::Debug for TorListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TorListener")
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_caller_is_met_however_many_never_come() {
        let mut pending = Pending::default();
        for _ in 0..10 * MAX_PENDING {
            pending.spawn(std::future::pending());
        }
        let (sender, met) = oneshot::channel();
        pending.spawn(async move {
            let _ = sender.send(());
        });
        met.await.expect("it was met");
        assert!(pending.by_age.len() <= MAX_PENDING);
    }

    #[tokio::test]
    async fn the_oldest_makes_room() {
        let mut pending = Pending::default();
        let (alive, mut oldest_is_gone) = mpsc::channel::<()>(1);
        pending.spawn(async move {
            let _alive = alive;
            std::future::pending().await
        });
        for _ in 1..MAX_PENDING {
            pending.spawn(std::future::pending());
        }
        assert!(
            oldest_is_gone
                .try_recv()
                .is_err_and(|it| it == mpsc::error::TryRecvError::Empty)
        );
        pending.spawn(std::future::pending());
        assert_eq!(oldest_is_gone.recv().await, None);
    }
}
