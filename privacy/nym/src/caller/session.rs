//! One session: one client, one recipient, and then never again.

use std::time::Duration;

use dlambda_nym_link::{Event, Reason, SessionId, Traffic};
use nym_sdk::mixnet::{Recipient, ReconstructedMessage};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::pool::Pool;
use super::surbs::SurbAudit;
use crate::chance;
use crate::client::{self, Client};
use crate::link::Events;

/// How long an event may wait for the parent before the session is dropped.
const SLOW_PARENT: Duration = Duration::from_secs(10);

/// How often a client's queue and its reply blocks are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// How long a closed session's last messages may take to leave.
const LAST_MESSAGES: Duration = Duration::from_secs(10);

/// A client has sent everything if nothing waits for so long: the SDK does not
/// count what is on its way from one of its queues to the next.
const QUIET: Duration = Duration::from_secs(1);

/// The mean time that a client stays connected after its session.
const LINGER: Duration = Duration::from_secs(2);

/// A message to send.
pub(super) struct Outgoing {
    message: Vec<u8>,
    surbs: u16,
    _share: OwnedSemaphorePermit,
}

/// A session that was dialed.
pub(super) struct Session {
    /// Its name on the link.
    pub(super) id: SessionId,
    /// To whom everything goes.
    pub(super) recipient: Recipient,
    /// What to send. Its end closes the session.
    pub(super) outgoing: mpsc::Receiver<Outgoing>,
    /// Where to report.
    pub(super) events: Events,
}

/// How a session ends.
enum End {
    /// The parent has closed it.
    Asked,
    /// By itself; the parent must be told.
    Told(Reason),
}

impl Outgoing {
    /// A message, the reply blocks to send along, and its share of what may
    /// be queued.
    pub(super) fn new(message: Vec<u8>, surbs: u16, share: OwnedSemaphorePermit) -> Self {
        Self {
            message,
            surbs,
            _share: share,
        }
    }
}

impl Session {
    /// Runs it to its end.
    pub(super) async fn run(mut self, pool: Pool) {
        let session = self.id;
        let reason = match pool.take().await {
            Err(trouble) => {
                tracing::info!(%trouble, "no client for a session");
                Reason::NoClient
            }
            // It was closed while it waited.
            Ok(client) if self.outgoing.is_closed() && self.outgoing.is_empty() => {
                return linger(client, pool.traffic()).await;
            }
            Ok(mut client) => {
                let ended = self.serve(&mut client).await;
                let End::Told(reason) = ended else {
                    return linger(client, pool.traffic()).await;
                };
                // A provider must not be able to say when a client of ours
                // leaves its gateway.
                tokio::spawn(linger(client, pool.traffic()));
                reason
            }
        };
        // Nothing more is taken: the parent must not be told twice.
        let closed_by_parent = self.outgoing.is_closed();
        self.outgoing.close();
        if !closed_by_parent {
            self.events.send(Event::Closed { session, reason }).await;
        }
    }

    async fn serve(&mut self, client: &mut Client) -> End {
        let dialed = Event::Dialed { session: self.id };
        if self.emit(dialed).await.is_err() {
            return End::Told(Reason::Busy);
        }
        let mut audit = SurbAudit::new(client.replies());
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                outgoing = self.outgoing.recv(), if client.has_room() => {
                    let Some(outgoing) = outgoing else { return End::Asked };
                    audit.sending(outgoing.surbs);
                    let sent = client.send(self.recipient, &outgoing.message, outgoing.surbs);
                    if sent.await.is_err() {
                        return End::Told(Reason::Lost);
                    }
                }
                messages = client.next() => {
                    let Some(messages) = messages else { return End::Told(Reason::Lost) };
                    messages.iter().for_each(|message| audit.received(message.message.len()));
                    if self.report(messages).await.is_err() {
                        return End::Told(Reason::Busy);
                    }
                }
                _ = look.tick() => if audit.is_too_much() {
                    return End::Told(Reason::TooMuch);
                },
            }
        }
    }

    async fn report(&self, messages: Vec<ReconstructedMessage>) -> Result<(), ()> {
        for message in messages {
            // What comes with a sender's tag is no answer.
            if message.sender_tag.is_none() && client::is_acceptable(&message) {
                let session = self.id;
                let message = message.message.into();
                self.emit(Event::Message { session, message }).await?;
            }
        }
        Ok(())
    }

    async fn emit(&self, event: Event) -> Result<(), ()> {
        let sent = self.events.send_within(event, SLOW_PARENT).await;
        sent.map_err(|_| ())
    }
}

/// Lets the last messages leave, and ends the client at a time that says little
/// of when the session ended. A provider that goes on asking for reply blocks
/// gets no more of them than before.
async fn linger(client: Client, traffic: Traffic) {
    let now = Instant::now();
    let (until, mut quiet_since) = (now + LAST_MESSAGES, now);
    let mut audit = SurbAudit::new(client.replies());
    while client.is_alive() && Instant::now() < until && quiet_since.elapsed() < QUIET {
        sleep(LOOK).await;
        if audit.is_too_much() {
            break;
        }
        if !client.is_idle() {
            quiet_since = Instant::now();
        }
    }
    if traffic == Traffic::Standard {
        sleep(chance::exponential(LINGER)).await;
    }
    client.end().await;
}
