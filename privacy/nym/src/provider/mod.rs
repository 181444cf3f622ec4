//! The role of the provider: one client with a lasting address, and a session
//! for each sender that writes to it.

mod answers;
mod connect;
mod directory;
mod table;
mod watchdog;
mod window;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use dlambda_nym_link::{Command, Event, Reason, SessionId, VERSION};
use nym_sdk::mixnet::ReconstructedMessage;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::client::{self, Client};
use crate::error::HelperError;
use crate::link::Events;
use crate::network::Network;
use crate::storage::Replies;
use connect::Plan;
use directory::Directory;
use table::{Sender, Table};
use watchdog::Watchdog;

/// How often waiting answers are looked at.
const PUMP: Duration = Duration::from_millis(20);

/// How often old things are swept.
const SWEEP: Duration = Duration::from_secs(5);

/// Serves all senders until the commands end, and then for ever: the reader of
/// the commands ends the helper.
pub(crate) async fn run(
    network: Network,
    directory: &Path,
    mut commands: mpsc::Receiver<Command>,
    events: Events,
    start_deadline: Duration,
) -> Result<(), HelperError> {
    let directory = Directory::inherit(directory).await?;
    let plan = Plan {
        network,
        path: directory.path().to_owned(),
        replies: Replies::new(),
    };
    let client = plan.first(start_deadline).await?;
    let ready = Event::Ready {
        version: VERSION,
        address: Some(client.address()),
    };
    events.send(ready).await;
    let mut provider = Provider {
        plan,
        events,
        client: Some(client),
        connecting: JoinSet::new(),
        table: Table::default(),
        farewells: VecDeque::new(),
        watchdog: Watchdog::new(Instant::now()),
    };
    let mut pump = interval(PUMP);
    pump.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweep = interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => provider.obey(command),
                None => return std::future::pending().await,
            },
            messages = next(&mut provider.client) => provider.arrived(messages),
            Some(client) = provider.connecting.join_next() => provider.connected(client),
            room = provider.events.wait_for_room(), if !provider.farewells.is_empty() => {
                provider.take_leave(room);
            }
            _ = pump.tick(), if provider.table.is_waiting() => {}
            _ = sweep.tick() => {
                provider.sweep();
                provider.check_watchdog().await?;
            }
        }
        provider.pump().await;
    }
}

struct Provider {
    plan: Plan,
    events: Events,
    client: Option<Client>,
    connecting: JoinSet<Client>,
    table: Table,
    /// Sessions whose end the parent must still be told.
    farewells: VecDeque<(SessionId, Reason)>,
    watchdog: Watchdog,
}

async fn next(client: &mut Option<Client>) -> Option<Vec<ReconstructedMessage>> {
    match client {
        Some(client) => client.next().await,
        None => std::future::pending().await,
    }
}

impl Provider {
    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Reply { session, message } => {
                if let Err(reason) = self.table.queue(session, message.into(), now) {
                    self.farewells.push_back((session, reason));
                }
                for heaviest in self.table.relieve(now) {
                    self.farewells.push_back((heaviest, Reason::Busy));
                }
            }
            Command::Close { session } => self.table.end(session, now),
            Command::Start(_) | Command::Dial { .. } | Command::Send { .. } => {
                tracing::warn!("a command that a provider's helper does not obey");
            }
        }
    }

    /// Takes messages, or the news that the client has ended.
    fn arrived(&mut self, messages: Option<Vec<ReconstructedMessage>>) {
        match messages {
            Some(messages) => messages.into_iter().for_each(|message| self.take(message)),
            None => {
                if let Some(client) = self.client.take() {
                    tracing::warn!("the provider has lost the network");
                    self.connecting.spawn(self.plan.clone().again(client));
                }
            }
        }
    }

    /// Writes to itself when it is time, and finds out whether it is deaf.
    async fn check_watchdog(&mut self) -> Result<(), HelperError> {
        let now = Instant::now();
        let Some(client) = &self.client else {
            self.watchdog.begin_again(now);
            return Ok(());
        };
        if client.has_room()
            && let Some(note) = self.watchdog.note(now)
            && client.send_to_itself(&note).await.is_err()
        {
            tracing::warn!("a note to ourselves was not taken");
        }
        self.watchdog.check(now)
    }

    fn connected(&mut self, client: Result<Client, JoinError>) {
        self.watchdog.begin_again(Instant::now());
        match client {
            Ok(client) => {
                tracing::info!("the provider is connected again");
                self.client = Some(client);
            }
            Err(_) => {
                let plan = self.plan.clone();
                self.connecting.spawn(plan.afresh());
            }
        }
    }

    fn take(&mut self, message: ReconstructedMessage) {
        if self.watchdog.hear(&message.message, Instant::now()) {
            return;
        }
        // Without a tag, it cannot be answered.
        let Some(tag) = message.sender_tag else {
            return;
        };
        if !client::is_acceptable(&message) {
            return;
        }
        let now = Instant::now();
        let session = match self.table.sender(&tag, now) {
            Sender::Ended => return,
            Sender::Known(session) => session,
            Sender::New => {
                let Some(room) = self.events.room() else {
                    return;
                };
                let (session, evicted) = self.table.add(tag, now);
                if let Some(evicted) = evicted {
                    self.farewells.push_back((evicted, Reason::Busy));
                }
                let tag = tag.to_bytes().to_vec().into();
                room.send(Event::Arrived { session, tag });
                session
            }
        };
        let message = message.message.into();
        match self.events.room() {
            Some(room) => {
                room.send(Event::Message { session, message });
            }
            None => self.part(session, Reason::Busy),
        }
    }

    /// Ends a session from this side.
    fn part(&mut self, session: SessionId, reason: Reason) {
        if self.table.is_live(session) {
            self.table.end(session, Instant::now());
            self.farewells.push_back((session, reason));
        }
        self.table.discard(session);
    }

    /// Tells the parent of one session that has ended.
    fn take_leave(&mut self, room: OwnedPermit<Event>) {
        if let Some((session, reason)) = self.farewells.pop_front() {
            room.send(Event::Closed { session, reason });
        }
    }
}
