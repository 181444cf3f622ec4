//! Nym, in a helper process: real Sphinx packets, and replies by single-use
//! reply blocks only.
//!
//! Every [`Transport::dial`] has a Nym client of its own, used once, so that no
//! sender tag, gateway session or key is seen twice. A provider answers with
//! the reply blocks that it was sent and never learns an address.

mod flow;
mod guests;
mod link;
mod program;
mod segment;
mod stream;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use dlambda_nym_link::{
    Command, NymRecipient, Reason, Role, SessionId, Settings, Traffic, VERSION,
};
use dlambda_proto::{Answer, Endpoint, NymAddress};
use futures::future::BoxFuture;
use rand_core::Rng as _;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio::time::{Instant, timeout};

use self::flow::ReliableStream;
use self::link::{Arrival, HelperProcess, Ready, SessionEvent};
use self::program::{Launch, Program};
use self::stream::{NymStream, Session};
use super::{CircuitFacts, Connection, Incoming, Listener, Service, Transport};
use crate::TransportError;
use crate::network::{Network, NymTraffic};

/// For a client that is connected to the mixnet.
const DIAL: Duration = Duration::from_secs(60);
/// For a helper that died to be back.
const BACK: Duration = Duration::from_secs(30);
/// For what opens a stream to arrive once a later message has.
const OPENS: Duration = Duration::from_secs(2);
/// Messages that are kept until then.
const EARLY: usize = 4;
/// Bytes that may be received and not read, in KiB, over all streams.
const MEMORY_KIB: usize = 128 << 10;
/// Largest frame on a stream, in bytes.
const MAX_FRAME: usize = (4 << 20) + (64 << 10);
/// Guests' answers fit, sealed ones too.
const _: () = assert!(Answer::BUCKETS[Answer::BUCKETS.len() - 1] + 1024 <= MAX_FRAME);

/// A Nym client for each stream, or a provider's own Nym client.
pub struct NymTransport {
    link: Arc<HelperProcess>,
    /// A provider's guests come to a helper of their own, which is started for them.
    guests: Option<guests::Starter>,
    /// A provider calls itself through a helper of its own for each call.
    own_caller: Option<Box<dyn Fn() -> HelperProcess + Send + Sync>>,
    arrivals: Mutex<Option<mpsc::Receiver<Arrival>>>,
    sessions: AtomicU64,
    memory: Arc<Semaphore>,
}

/// What a Nym transport is for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NymRole {
    /// To call.
    Caller {
        /// Clients to keep connected ahead of time: as many as calls come at once.
        pool: u8,
        /// A directory of its own in which to keep the entry gateway, readable
        /// by its owner only. Without one, every start draws another gateway.
        entry: Option<PathBuf>,
    },
    /// To be called, at an address that is kept in a directory of its own,
    /// readable by its owner only. Calling, which a provider does to see
    /// whether it is reached, takes another helper each time. Guests of the
    /// overlay come to one more helper, at an address that is kept in the
    /// directory `guests` in it.
    Provider(PathBuf),
}

/// A directory, as the helper is told of it: it works elsewhere.
fn spoken(directory: &Path) -> Result<String, TransportError> {
    let directory = std::path::absolute(directory);
    let directory = directory.map_err(|error| TransportError::Local(error.into()))?;
    let spoken = directory.into_os_string().into_string();
    spoken.map_err(|_| TransportError::Local("the path is not UTF-8".into()))
}

impl NymTransport {
    /// Starts the helper and waits until the mixnet can be used.
    ///
    /// # Errors
    ///
    /// [`TransportError::NetworkDown`] if the network does not answer within `deadline`,
    /// [`TransportError::Local`] if there is no helper: the program that `DLAMBDA_NYM` names, or
    /// `dlambda-nym` beside this program.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start(
        network: &Network,
        role: NymRole,
        deadline: Duration,
    ) -> Result<Self, TransportError> {
        let program = Program::find().map_err(|error| TransportError::Local(error.into()))?;
        Self::start_boxed(program, network, role, deadline).await
    }

    /// The same with this helper.
    ///
    /// # Errors
    ///
    /// Those of [`NymTransport::start`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start_helper(
        helper: PathBuf,
        network: &Network,
        role: NymRole,
        deadline: Duration,
    ) -> Result<Self, TransportError> {
        let program = Program::at(helper).map_err(|error| TransportError::Local(error.into()))?;
        Self::start_boxed(program, network, role, deadline).await
    }

    /// Boxed, so that it is compiled here, and not again in every crate that starts Nym.
    fn start_boxed(
        program: Program,
        network: &Network,
        role: NymRole,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Self, TransportError>> {
        Box::pin(Self::start_with(program, network, role, deadline))
    }

    async fn start_with(
        launch: impl Launch + Clone,
        network: &Network,
        role: NymRole,
        deadline: Duration,
    ) -> Result<Self, TransportError> {
        let role = match role {
            NymRole::Caller { pool, entry } => Role::Caller {
                pool,
                entry: entry.as_deref().map(spoken).transpose()?,
            },
            NymRole::Provider(directory) => Role::Provider {
                directory: spoken(&directory)?,
            },
        };
        let settings = Settings {
            version: VERSION,
            api_url: network.nym.api_url.clone(),
            traffic: match network.nym.traffic {
                NymTraffic::Standard => Traffic::Standard,
                NymTraffic::Fast => Traffic::Fast,
            },
            role,
            mean_delay_ms: network.nym.mean_delay_ms,
        };
        // A provider that calls itself enters by one gateway, too.
        let own_entry = match &settings.role {
            Role::Provider { directory } => Some(directory.clone()),
            Role::Caller { .. } => None,
        };
        let own_caller = own_entry.is_some().then(|| {
            let launch = launch.clone();
            let settings = Settings {
                role: Role::Caller {
                    pool: 0,
                    entry: own_entry.clone(),
                },
                ..settings.clone()
            };
            let start = move || HelperProcess::start(launch.clone(), settings.clone()).0;
            Box::new(start) as Box<dyn Fn() -> HelperProcess + Send + Sync>
        });
        let guests = guests::Starter::new(&launch, &settings, deadline);
        let (link, arrivals) = HelperProcess::start(launch, settings);
        let ready = link.ready(deadline, true).await;
        ready.map_err(|why| TransportError::NetworkDown(why.into()))?;
        Ok(Self {
            link: Arc::new(link),
            guests,
            own_caller,
            arrivals: Mutex::new(Some(arrivals)),
            sessions: AtomicU64::new(1),
            memory: Arc::new(Semaphore::new(MEMORY_KIB)),
        })
    }

    fn session(
        &self,
        id: SessionId,
        events: mpsc::Receiver<SessionEvent>,
        commands: mpsc::Sender<Command>,
        link: Arc<HelperProcess>,
    ) -> Session {
        Session {
            _link: link,
            id,
            is_caller: true,
            events,
            early: Vec::new(),
            commands,
            memory: Arc::clone(&self.memory),
            started: Instant::now(),
        }
    }
}

#[async_trait]
impl Transport for NymTransport {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        let Endpoint::Nym(address) = endpoint else {
            return Err(TransportError::WrongEndpoint);
        };
        not_overlay(service)?;
        let link = match &self.own_caller {
            None => Arc::clone(&self.link),
            Some(start) => Arc::new(start()),
        };
        let ready = link.ready(BACK, false).await;
        let Ready { commands, .. } =
            ready.map_err(|why| TransportError::NetworkDown(why.into()))?;
        let id = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let mut events = link.register(id);
        let mut unopened = Unopened {
            session: id,
            commands: Some(commands.clone()),
        };
        let dial = Command::Dial {
            session: id,
            recipient: NymRecipient(*address.as_bytes()),
        };
        let dialled = async {
            commands.send(dial).await.ok()?;
            events.recv().await
        };
        let died = || TransportError::NetworkDown("the Nym helper died".into());
        match timeout(DIAL, dialled).await {
            Ok(Some(SessionEvent::Dialed)) => {}
            Ok(Some(SessionEvent::Closed(reason))) => return Err(refused(reason)),
            Ok(Some(SessionEvent::Message(_)) | None) => return Err(died()),
            Err(_) => return Err(TransportError::Deadline("Nym client")),
        }
        unopened.commands = None;
        let mut name = [0; 16];
        crate::os_rng().fill_bytes(&mut name);
        let (flow, opening) = ReliableStream::call(name, Duration::ZERO);
        let session = self.session(id, events, commands, link);
        let stream = NymStream::start(session, flow, vec![opening]);
        Ok(Connection::limited(stream, MAX_FRAME))
    }

    /// For guests, by a helper that is started now.
    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        not_overlay(service)?;
        if service == Service::Guests {
            let starter = self.guests.as_ref().ok_or_else(only_calls)?;
            let (link, arrivals, deadline) = starter.start()?;
            // A flood of guests takes no memory from calls, either.
            let memory = Arc::new(Semaphore::new(MEMORY_KIB));
            return listen_at(Arc::new(link), arrivals, deadline, memory).await;
        }
        let arrivals = self.arrivals.lock().await.take().ok_or_else(only_calls)?;
        listen_at(
            Arc::clone(&self.link),
            arrivals,
            BACK,
            Arc::clone(&self.memory),
        )
        .await
    }
}

/// Hands out what arrives at a helper, once it is ready.
async fn listen_at(
    link: Arc<HelperProcess>,
    arrivals: mpsc::Receiver<Arrival>,
    deadline: Duration,
    memory: Arc<Semaphore>,
) -> Result<Box<dyn Listener>, TransportError> {
    let ready = link.ready(deadline, false).await;
    let ready = ready.map_err(|why| TransportError::NetworkDown(why.into()))?;
    let address = ready.address.ok_or_else(only_calls)?;
    let address =
        NymAddress::from_bytes(address.0).map_err(|error| TransportError::Local(error.into()))?;
    let (opened, incoming) = mpsc::channel(16);
    let door = receive(Arc::downgrade(&link), arrivals, opened, memory);
    let door = tokio::spawn(door);
    Ok(Box::new(NymListener {
        endpoint: Endpoint::Nym(address),
        incoming,
        _link: link,
        _door: tokio_util::task::AbortOnDropHandle::new(door),
    }))
}

/// A session that has no stream yet. If none comes of it, because nobody waits
/// for it any more, the helper is told: it would keep a client for it.
struct Unopened {
    session: SessionId,
    commands: Option<mpsc::Sender<Command>>,
}

impl Drop for Unopened {
    fn drop(&mut self) {
        let session = self.session;
        if let Some(commands) = self.commands.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(async move { commands.send(Command::Close { session }).await });
        }
    }
}

struct NymListener {
    endpoint: Endpoint,
    incoming: mpsc::Receiver<Incoming>,
    _link: Arc<HelperProcess>,
    _door: tokio_util::task::AbortOnDropHandle<()>,
}

#[async_trait]
impl Listener for NymListener {
    fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    async fn accept(&mut self) -> Option<Incoming> {
        self.incoming.recv().await
    }
}

/// Opens the streams of those who arrive.
async fn receive(
    link: Weak<HelperProcess>,
    mut arrivals: mpsc::Receiver<Arrival>,
    opened: mpsc::Sender<Incoming>,
    memory: Arc<Semaphore>,
) {
    while let Some(arrival) = arrivals.recv().await {
        let (opened, memory) = (opened.clone(), Arc::clone(&memory));
        let Some(link) = link.upgrade() else { return };
        tokio::spawn(async move {
            // The first message comes with the arrival.
            let incoming = timeout(BACK, open(link, arrival, memory)).await;
            if let Ok(Some(incoming)) = incoming {
                let _ = opened.send(incoming).await;
            }
        });
    }
}

async fn open(
    link: Arc<HelperProcess>,
    arrival: Arrival,
    memory: Arc<Semaphore>,
) -> Option<Incoming> {
    let Arrival {
        session: id,
        tag,
        mut events,
        commands,
    } = arrival;
    // A guest asks at once, and the mixnet may deliver what it asks before what opens the stream.
    let mut early = Vec::new();
    let mut reset = None;
    let until = Instant::now() + OPENS;
    let flow = loop {
        let event = match early.len() {
            0 => events.recv().await,
            1..=EARLY => tokio::time::timeout_at(until, events.recv())
                .await
                .ok()
                .flatten(),
            _ => None,
        };
        let Some(SessionEvent::Message(message)) = event else {
            refuse(id, &commands, reset).await;
            return None;
        };
        match ReliableStream::answer(&message, Duration::ZERO) {
            Ok(flow) => break flow,
            Err(Some(answer)) => {
                reset = Some(answer.message);
                early.push(message);
            }
            Err(None) => {
                refuse(id, &commands, None).await;
                return None;
            }
        }
    };
    let session = Session {
        _link: link,
        id,
        is_caller: false,
        events,
        early,
        commands,
        memory,
        started: Instant::now(),
    };
    // All that is known of a caller; the rest of the opening is the same for everybody.
    let known = [&tag[..], &flow.session()].concat();
    Some(Incoming {
        connection: Connection::limited(NymStream::start(session, flow, Vec::new()), MAX_FRAME),
        circuit: CircuitFacts::new(known),
    })
}

/// Ends a session that no stream came of.
async fn refuse(session: SessionId, commands: &mpsc::Sender<Command>, reset: Option<Vec<u8>>) {
    if let Some(message) = reset {
        let message = message.into();
        let _ = commands.send(Command::Reply { session, message }).await;
    }
    let _ = commands.send(Command::Close { session }).await;
}

/// A stream over the mixnet lives on reply blocks, which a caller has to keep sending: too dear for
/// streams that live for hours.
fn not_overlay(service: Service) -> Result<(), TransportError> {
    match service {
        Service::Calls | Service::Guests => Ok(()),
        Service::Overlay => Err(TransportError::WrongService),
    }
}

fn only_calls() -> TransportError {
    TransportError::Local("this Nym client is for calling, or listens already".into())
}

fn refused(reason: Reason) -> TransportError {
    match reason {
        Reason::NoClient | Reason::Lost => {
            TransportError::NetworkDown("no client could be connected".into())
        }
        Reason::Busy | Reason::TooMuch => {
            TransportError::Unreachable("too many calls at once".into())
        }
    }
}

impl fmt::Debug for NymTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NymTransport")
    }
}
