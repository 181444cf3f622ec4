//! The helper.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use dlambda_nym_link::{
    Command, Event, NymRecipient, Reason, SessionId, Settings, VERSION, read_frame, write_frame,
};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use super::PATIENCE;

/// A running helper; dropping it kills it.
pub(crate) struct Helper {
    child: Child,
    commands: Option<ChildStdin>,
    events: ChildStdout,
}

impl Helper {
    /// Starts one, and tells it to start.
    pub(crate) async fn start(settings: Settings) -> Self {
        let mut helper = Self::spawn(None);
        helper.tell(Command::Start(settings)).await;
        helper
    }

    /// Starts one that must reach the network within so many seconds.
    pub(crate) fn spawn(start_seconds: Option<u64>) -> Self {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_dlambda-nym"));
        if let Some(seconds) = start_seconds {
            command.env("DLAMBDA_NYM_START_SECONDS", seconds.to_string());
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the helper starts");
        Self {
            commands: child.stdin.take(),
            events: child.stdout.take().expect("is piped"),
            child,
        }
    }

    /// Gives it a command.
    pub(crate) async fn tell(&mut self, command: Command) {
        let commands = self.commands.as_mut().expect("is open");
        let told = timeout(PATIENCE, write_frame(commands, &command)).await;
        told.expect("the helper reads").expect("the helper runs");
    }

    /// Gives it bytes that may be no command.
    pub(crate) async fn tell_bytes(&mut self, bytes: &[u8]) {
        let commands = self.commands.as_mut().expect("is open");
        commands.write_all(bytes).await.expect("the helper runs");
    }

    /// Closes its input.
    pub(crate) fn hang_up(&mut self) {
        self.commands = None;
    }

    /// Waits for its end.
    pub(crate) async fn end(&mut self, limit: Duration) -> ExitStatus {
        let ended = timeout(limit, self.child.wait()).await;
        ended.expect("the helper ends").expect("is our child")
    }

    /// Its next event; `None` at the end.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        let event = timeout(PATIENCE, read_frame(&mut self.events)).await;
        event.expect("the helper says something").expect("a frame")
    }

    /// Its next event, if it comes in time. Nothing may be read afterwards if
    /// it does not.
    pub(crate) async fn event_within(&mut self, limit: Duration) -> Option<Event> {
        let event = timeout(limit, read_frame(&mut self.events)).await.ok()?;
        event.expect("a frame")
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&mut self) -> Option<NymRecipient> {
        match self.event().await {
            Some(Event::Ready { version, address }) => {
                assert_eq!(version, VERSION);
                address
            }
            Some(Event::Failed { why }) => panic!("the helper has failed: {why}"),
            other => panic!("not ready, but {other:?}"),
        }
    }

    /// Waits until it fails, and says why.
    pub(crate) async fn failure(&mut self) -> String {
        match self.event().await {
            Some(Event::Failed { why }) => why,
            other => panic!("not failed, but {other:?}"),
        }
    }

    /// Dials.
    pub(crate) async fn dial(&mut self, session: u64, recipient: NymRecipient) {
        let session = SessionId(session);
        self.tell(Command::Dial { session, recipient }).await;
        let dialed = self.event().await;
        assert_eq!(dialed, Some(Event::Dialed { session }));
    }

    /// Sends a message of a dialed session.
    pub(crate) async fn send(&mut self, session: u64, message: &[u8], surbs: u16) {
        self.tell(Command::Send {
            session: SessionId(session),
            message: message.to_vec().into(),
            surbs,
        })
        .await;
    }

    /// Answers in a session that arrived.
    pub(crate) async fn reply(&mut self, session: SessionId, message: &[u8]) {
        let message = message.to_vec().into();
        self.tell(Command::Reply { session, message }).await;
    }

    /// Waits for a new sender and its first message.
    pub(crate) async fn arrival(&mut self) -> (SessionId, Vec<u8>, Vec<u8>) {
        let Some(Event::Arrived { session, tag }) = self.event().await else {
            panic!("nobody has arrived");
        };
        let (from, message) = self.message().await;
        assert_eq!(from, session);
        (session, tag.into(), message)
    }

    /// Waits for a message.
    pub(crate) async fn message(&mut self) -> (SessionId, Vec<u8>) {
        match self.event().await {
            Some(Event::Message { session, message }) => (session, message.into()),
            other => panic!("not a message, but {other:?}"),
        }
    }

    /// Waits for the end of a session, whatever comes before.
    pub(crate) async fn closed(&mut self) -> (SessionId, Reason) {
        loop {
            match self.event().await {
                Some(Event::Closed { session, reason }) => return (session, reason),
                Some(Event::Message { .. } | Event::Arrived { .. }) => {}
                other => panic!("not closed, but {other:?}"),
            }
        }
    }
}
