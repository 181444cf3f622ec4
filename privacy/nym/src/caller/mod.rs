//! The role of the caller: a fresh client for each session.

mod entry;
mod pool;
mod session;
mod surbs;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use dlambda_nym_link::{Command, Event, NymRecipient, Reason, SessionId, VERSION};
use nym_sdk::mixnet::Recipient;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::task::JoinSet;

use crate::error::HelperError;
use crate::link::Events;
use crate::network::Network;
pub(crate) use entry::Entry;
use pool::Pool;
use session::{Outgoing, Session};

/// Sessions at one time.
const SESSIONS: usize = 64;

/// Sessions that the parent has closed, and that linger a little.
const LINGERING: usize = 64;

/// Messages that may wait in one session; more is [`Reason::Busy`].
const MESSAGES_WAITING: usize = 128;

/// Bytes that may wait in all sessions together.
const BYTES_WAITING: usize = 64 << 20;

/// Ends of sessions that the parent may leave unread; then it is obeyed no
/// more until it reads them.
const FAREWELLS: usize = 256;

/// Serves sessions until the commands end, and then for ever: the reader of
/// the commands ends the helper.
pub(crate) async fn run(
    network: Network,
    entry: Entry,
    pool: u8,
    mut commands: mpsc::Receiver<Command>,
    events: Events,
    start_deadline: Duration,
) -> Result<(), HelperError> {
    let pool = Pool::start(network, entry, pool, start_deadline).await?;
    let mut caller = Caller {
        pool,
        events,
        sessions: HashMap::new(),
        tasks: JoinSet::new(),
        farewells: VecDeque::new(),
        memory: Arc::new(Semaphore::new(BYTES_WAITING)),
    };
    let ready = Event::Ready {
        version: VERSION,
        address: None,
    };
    caller.events.send(ready).await;
    loop {
        tokio::select! {
            command = commands.recv(), if caller.farewells.len() < FAREWELLS => match command {
                Some(command) => caller.obey(command),
                None => return std::future::pending().await,
            },
            room = caller.events.wait_for_room(), if !caller.farewells.is_empty() => {
                if let Some((session, reason)) = caller.farewells.pop_front() {
                    room.send(Event::Closed { session, reason });
                }
            }
            Some(ended) = caller.tasks.join_next() => caller.forget(ended.ok()),
        }
    }
}

struct Caller {
    pool: Pool,
    events: Events,
    sessions: HashMap<SessionId, mpsc::Sender<Outgoing>>,
    tasks: JoinSet<SessionId>,
    /// Sessions whose end the parent must still be told.
    farewells: VecDeque<(SessionId, Reason)>,
    /// What may still be queued, in bytes.
    memory: Arc<Semaphore>,
}

impl Caller {
    fn obey(&mut self, command: Command) {
        match command {
            Command::Dial { session, recipient } => self.dial(session, recipient),
            Command::Send {
                session,
                message,
                surbs,
            } => self.send(session, message.into(), surbs),
            Command::Close { session } => {
                self.sessions.remove(&session);
            }
            Command::Start(_) | Command::Reply { .. } => {
                tracing::warn!("a command that a caller's helper does not obey");
            }
        }
    }

    fn dial(&mut self, id: SessionId, recipient: NymRecipient) {
        if self.sessions.contains_key(&id) {
            tracing::warn!("a session was dialed twice");
            return;
        }
        if self.sessions.len() >= SESSIONS || self.tasks.len() >= SESSIONS + LINGERING {
            return self.part(id, Reason::Busy);
        }
        let Ok(recipient) = Recipient::try_from_bytes(recipient.0) else {
            return self.part(id, Reason::NoClient);
        };
        let (sender, outgoing) = mpsc::channel(MESSAGES_WAITING);
        self.sessions.insert(id, sender);
        let session = Session {
            id,
            recipient,
            outgoing,
            events: self.events.clone(),
        };
        let pool = self.pool.clone();
        self.tasks.spawn(async move {
            session.run(pool).await;
            id
        });
    }

    fn send(&mut self, id: SessionId, message: Vec<u8>, surbs: u16) {
        let Some(session) = self.sessions.get(&id) else {
            return;
        };
        let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let queued = match Arc::clone(&self.memory).try_acquire_many_owned(bytes) {
            Err(_) => Err(()),
            Ok(share) => match session.try_send(Outgoing::new(message, surbs, share)) {
                // A session that has ended says so itself.
                Ok(()) | Err(TrySendError::Closed(_)) => Ok(()),
                Err(TrySendError::Full(_)) => Err(()),
            },
        };
        if queued.is_err() {
            self.sessions.remove(&id);
            self.part(id, Reason::Busy);
        }
    }

    /// Forgets a session that has ended by itself. One that was closed from
    /// outside is forgotten already, and its name may be in use again.
    fn forget(&mut self, ended: Option<SessionId>) {
        match ended {
            Some(id) if self.sessions.get(&id).is_some_and(mpsc::Sender::is_closed) => {
                self.sessions.remove(&id);
            }
            Some(_) => {}
            None => self.sessions.retain(|_, session| !session.is_closed()),
        }
    }

    fn part(&mut self, session: SessionId, reason: Reason) {
        self.farewells.push_back((session, reason));
    }
}
