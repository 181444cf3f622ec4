//! The link to the program that started the helper.

use std::time::Duration;

use dlambda_nym_link::{Command, Event, LinkError, read_frame, write_frame};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc::{self, OwnedPermit, error::SendTimeoutError};
use tokio::task::JoinHandle;

/// Commands that may wait to be obeyed; then the pipe fills.
const COMMANDS: usize = 16;

/// Events that may wait to be read.
const EVENTS: usize = 256;

/// Where events go.
#[derive(Clone)]
pub(crate) struct Events(mpsc::Sender<Event>);

/// Nobody takes the event: the program that started us is slow, or gone.
pub(crate) struct NotTaken;

impl Events {
    /// Sends an event, once there is room for it.
    pub(crate) async fn send(&self, event: Event) {
        self.wait_for_room().await.send(event);
    }

    /// Waits for room, but not for ever.
    pub(crate) async fn send_within(&self, event: Event, limit: Duration) -> Result<(), NotTaken> {
        match self.0.send_timeout(event, limit).await {
            Ok(()) => Ok(()),
            Err(SendTimeoutError::Timeout(_) | SendTimeoutError::Closed(_)) => Err(NotTaken),
        }
    }

    /// Waits until there is room for one event; for ever if nobody reads them.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn wait_for_room(&self) -> OwnedPermit<Event> {
        match self.0.clone().reserve_owned().await {
            Ok(room) => room,
            Err(_) => std::future::pending().await,
        }
    }

    /// Room for one event, if there is some now.
    pub(crate) fn room(&self) -> Option<OwnedPermit<Event>> {
        self.0.clone().try_reserve_owned().ok()
    }
}

/// Reads commands in a task of its own, as reading cannot be interrupted.
/// The second value is ready when there will be no more.
pub(crate) fn read<R>(mut input: R) -> (mpsc::Receiver<Command>, JoinHandle<Result<(), LinkError>>)
where
    R: AsyncRead + Unpin + Send + 'static,
{
    let (sender, commands) = mpsc::channel(COMMANDS);
    let reading = tokio::spawn(async move {
        while let Some(command) = read_frame(&mut input).await? {
            if sender.send(command).await.is_err() {
                break;
            }
        }
        Ok(())
    });
    (commands, reading)
}

/// Writes events in a task of its own, which ends when the last [`Events`] is
/// dropped.
pub(crate) fn write<W>(mut output: W) -> (Events, JoinHandle<Result<(), LinkError>>)
where
    W: AsyncWrite + Unpin + Send + 'static,
{
    let (sender, mut events) = mpsc::channel(EVENTS);
    let writing = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            write_frame(&mut output, &event).await?;
        }
        Ok(())
    });
    (Events(sender), writing)
}
