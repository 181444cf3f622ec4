//! The helper, kept alive: what it reports goes to the sessions that it is
//! about, and when it dies another is started.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlambda_nym_link::{
    Command, Event, NymRecipient, Reason, SessionId, Settings, VERSION, read_frame, write_frame,
};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::program::{Launch, Launched};

/// For the helper to reach the network.
const READY: Duration = Duration::from_secs(90);
/// Before a helper that died is started again: at first, and at last.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// Commands that wait for the helper.
const COMMANDS: usize = 64;
/// Events of one session that wait for it. What comes beyond is lost, as if on
/// the way, and comes again.
const EVENTS: usize = 128;
/// Arrivals that wait to be accepted.
const ARRIVALS: usize = 64;

/// The helper, whichever process it is at the time. It ends when this is dropped.
pub(super) struct HelperProcess {
    state: watch::Receiver<State>,
    sessions: Sessions,
    _supervisor: AbortOnDropHandle<()>,
}

/// How the helper is.
#[derive(Clone)]
pub(super) enum State {
    Starting,
    Ready(Ready),
    /// For people.
    Down(String),
}

/// A helper that can be used.
#[derive(Clone)]
pub(super) struct Ready {
    /// For as long as this one lives.
    pub(super) commands: mpsc::Sender<Command>,
    /// Where a provider is reached.
    pub(super) address: Option<NymRecipient>,
}

/// A sender who was not seen before.
pub(super) struct Arrival {
    pub(super) session: SessionId,
    pub(super) tag: Vec<u8>,
    pub(super) events: mpsc::Receiver<SessionEvent>,
    pub(super) commands: mpsc::Sender<Command>,
}

/// What a session is told. When no more can come, its helper has died.
#[derive(Debug)]
pub(super) enum SessionEvent {
    Dialed,
    Message(Vec<u8>),
    Closed(Reason),
}

/// The sessions of the helper that runs.
#[derive(Clone, Default)]
struct Sessions(Arc<Mutex<HashMap<SessionId, mpsc::Sender<SessionEvent>>>>);

impl HelperProcess {
    /// Starts the helper, and keeps it alive. Arrivals come to the receiver.
    pub(super) fn start(
        launch: impl Launch,
        settings: Settings,
    ) -> (Self, mpsc::Receiver<Arrival>) {
        let (state, watched) = watch::channel(State::Starting);
        let (arrivals, arrived) = mpsc::channel(ARRIVALS);
        let sessions = Sessions::default();
        let supervisor = Supervisor {
            launch,
            settings,
            state,
            sessions: sessions.clone(),
            arrivals,
        };
        let link = Self {
            state: watched,
            sessions,
            _supervisor: AbortOnDropHandle::new(tokio::spawn(supervisor.run())),
        };
        (link, arrived)
    }

    /// The helper, as soon as there is one that works.
    ///
    /// # Errors
    ///
    /// The last reason why there was none, after `deadline`; or at once, if
    /// `at_once`.
    pub(super) async fn ready(&self, deadline: Duration, at_once: bool) -> Result<Ready, String> {
        let mut state = self.state.clone();
        let mut why = "it did not start in time".to_owned();
        let wait = async {
            loop {
                match &*state.borrow_and_update() {
                    State::Ready(ready) if !ready.commands.is_closed() => return Ok(ready.clone()),
                    State::Down(reason) => why.clone_from(reason),
                    State::Starting | State::Ready(_) => {}
                }
                let is_down = matches!(&*state.borrow(), State::Down(_));
                if (at_once && is_down) || state.changed().await.is_err() {
                    return Err(());
                }
            }
        };
        match timeout(deadline, wait).await {
            Ok(Ok(ready)) => Ok(ready),
            _ => Err(why),
        }
    }

    /// Sessions that are told of events.
    #[cfg(test)]
    pub(super) fn open_sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// The events of a session of ours.
    pub(super) fn register(&self, session: SessionId) -> mpsc::Receiver<SessionEvent> {
        let (sender, events) = mpsc::channel(EVENTS);
        self.sessions.lock().insert(session, sender);
        events
    }
}

struct Supervisor<L> {
    launch: L,
    settings: Settings,
    state: watch::Sender<State>,
    sessions: Sessions,
    arrivals: mpsc::Sender<Arrival>,
}

impl<L: Launch> Supervisor<L> {
    async fn run(mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let ran = self.run_once().await;
            // Who waits for events of this helper waits in vain.
            self.sessions.lock().clear();
            let (was_ready, why) = ran;
            tracing::warn!(why, "the Nym helper has ended; another one is started");
            self.state.send_replace(State::Down(why));
            backoff = if was_ready {
                BACKOFF.0
            } else {
                BACKOFF.1.min(2 * backoff)
            };
            tokio::time::sleep(backoff).await;
            self.state.send_replace(State::Starting);
        }
    }

    /// Whether the helper was ready, and why it ended.
    async fn run_once(&mut self) -> (bool, String) {
        let Launched {
            mut input,
            mut output,
            _child,
        } = match self.launch.launch().await {
            Ok(launched) => launched,
            Err(error) => return (false, format!("it cannot be started: {error}")),
        };
        let start = Command::Start(self.settings.clone());
        if let Err(error) = write_frame(&mut input, &start).await {
            return (false, error.to_string());
        }
        let first = timeout(READY, read_frame::<Event, _>(&mut output)).await;
        let address = match first {
            Ok(Ok(Some(Event::Ready {
                version: VERSION,
                address,
            }))) => address,
            Ok(Ok(Some(Event::Failed { why }))) => return (false, why),
            Ok(Ok(Some(_))) => return (false, "it is of another version".to_owned()),
            Ok(Ok(None)) => return (false, "it ended at once".to_owned()),
            Ok(Err(error)) => return (false, error.to_string()),
            Err(_) => return (false, "the network did not answer in time".to_owned()),
        };
        let (commands, mut waiting) = mpsc::channel(COMMANDS);
        let ready = Ready { commands, address };
        self.state.send_replace(State::Ready(ready.clone()));
        let write = async {
            while let Some(command) = waiting.recv().await {
                if let Command::Close { session } = &command {
                    self.sessions.lock().remove(session);
                }
                if write_frame(&mut input, &command).await.is_err() {
                    break;
                }
            }
            "it reads no more".to_owned()
        };
        let read = async {
            loop {
                match read_frame::<Event, _>(&mut output).await {
                    Ok(Some(Event::Failed { why })) => return why,
                    Ok(Some(event)) => self.route(event, &ready),
                    Ok(None) => return "it ended".to_owned(),
                    Err(error) => return error.to_string(),
                }
            }
        };
        let why = tokio::select! {
            why = write => why,
            why = read => why,
        };
        (true, why)
    }

    fn route(&self, event: Event, ready: &Ready) {
        let mut sessions = self.sessions.lock();
        let (session, event) = match event {
            Event::Dialed { session } => (session, SessionEvent::Dialed),
            Event::Message { session, message } => (session, SessionEvent::Message(message.into())),
            Event::Closed { session, reason } => (session, SessionEvent::Closed(reason)),
            Event::Arrived { session, tag } => {
                let (sender, events) = mpsc::channel(EVENTS);
                let arrival = Arrival {
                    session,
                    tag: tag.into(),
                    events,
                    commands: ready.commands.clone(),
                };
                if self.arrivals.try_send(arrival).is_ok() {
                    sessions.insert(session, sender);
                } else {
                    // Too many at once. The helper forgets it in time.
                    let _ = ready.commands.try_send(Command::Close { session });
                }
                return;
            }
            Event::Ready { .. } | Event::Failed { .. } => return,
        };
        let is_closed = matches!(event, SessionEvent::Closed(_));
        if let Some(to) = sessions.get(&session) {
            let _ = to.try_send(event);
        }
        if is_closed {
            sessions.remove(&session);
        }
    }
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<SessionId, mpsc::Sender<SessionEvent>>> {
        // Whole between any two operations on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
