//! A node's guests: callers, and providers without a node. Each sends one ask on a stream of its
//! own and gets one answer.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_broker::{GuestSeal, NodeState, Publish};
use dlambda_privacy::clock::Clock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::{Connection, Listener};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{Answer, Ask, FrameKind, encode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::node::lock;
use crate::{Announcement, GossipTopic, NodeError, NodeHandle};

/// Guests at a time. When another comes, one makes room: the oldest that has asked nothing yet;
/// otherwise the oldest that has its answer; otherwise the oldest.
const GUESTS: usize = 64;

/// Answers being made at a time: most take microseconds, a new snapshot a tenth of a second.
const WORKING: usize = 2;

/// How long a guest may take to ask.
const ASKING: Duration = Duration::from_secs(30);

/// How long a guest may take to take the answer.
const ANSWERING: Duration = Duration::from_secs(120);

/// Serves guests until dropped.
pub struct Guests {
    counters: Arc<Counters>,
    task: AbortOnDropHandle<()>,
}

/// How guests fared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GuestsStatus {
    /// Asks that were answered.
    pub answered: u64,
    /// Streams that brought no ask, or not in time, or did not take the answer.
    pub failed: u64,
    /// Guests that had to make room for others.
    pub displaced: u64,
}

#[derive(Default)]
struct Counters {
    answered: AtomicU64,
    failed: AtomicU64,
    displaced: AtomicU64,
}

/// What it takes to answer.
struct Desk {
    state: Arc<Mutex<NodeState>>,
    seal: GuestSeal,
    node: NodeHandle,
    clock: Arc<dyn Clock>,
    working: Semaphore,
    counters: Arc<Counters>,
}

impl Guests {
    /// Serves the guests that come to `listener`, from the state that the node has for its store;
    /// what they submit the node publishes.
    #[must_use]
    pub fn serve(
        listener: Box<dyn Listener>,
        state: Arc<Mutex<NodeState>>,
        seal: GuestSeal,
        node: NodeHandle,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let counters = Arc::<Counters>::default();
        let desk = Desk {
            state,
            seal,
            node,
            clock,
            working: Semaphore::new(WORKING),
            counters: Arc::clone(&counters),
        };
        let task = tokio::spawn(receive(listener, Arc::new(desk)));
        Self {
            counters,
            task: AbortOnDropHandle::new(task),
        }
    }

    /// How guests fared.
    #[must_use]
    pub fn status(&self) -> GuestsStatus {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        GuestsStatus {
            answered: of(&self.counters.answered),
            failed: of(&self.counters.failed),
            displaced: of(&self.counters.displaced),
        }
    }

    /// Waits until no guest can come any more.
    ///
    /// # Errors
    ///
    /// [`NodeError::ListenerEnded`], always: they should be served anew.
    ///
    /// # Cancel safety
    ///
    /// Ends the service if cancelled.
    pub async fn ended(self) -> Result<(), NodeError> {
        // However the task has ended, nobody is served.
        let _ = self.task.await;
        Err(NodeError::ListenerEnded)
    }
}

async fn receive(mut listener: Box<dyn Listener>, desk: Arc<Desk>) {
    let mut guests = JoinSet::new();
    let mut oldest_first: VecDeque<Guest> = VecDeque::new();
    loop {
        tokio::select! {
            Some(_) = guests.join_next() => {
                oldest_first.retain(|guest| !guest.task.is_finished());
            }
            arrived = listener.accept() => {
                let Some(arrived) = arrived else {
                    return;
                };
                if oldest_first.len() >= GUESTS
                    && let Some(guest) = oldest_first.remove(displaced(&oldest_first))
                {
                    guest.task.abort();
                    count(&desk.counters.displaced);
                }
                let (desk, stage) = (Arc::clone(&desk), Arc::<AtomicU8>::default());
                let reached = Arc::clone(&stage);
                let task = guests.spawn(async move {
                    let counters = &desk.counters;
                    match desk.serve(arrived.connection, &reached).await {
                        Some(()) => count(&counters.answered),
                        None => count(&counters.failed),
                    }
                });
                oldest_first.push_back(Guest { task, stage });
            }
        }
    }
}

/// A guest that is being served, and how far that is.
struct Guest {
    task: AbortHandle,
    stage: Arc<AtomicU8>,
}

/// It has asked nothing yet.
const SILENT: u8 = 0;
/// It waits for its answer, or takes it.
const ASKED: u8 = 1;
/// It has been sent all of it.
const ANSWERED: u8 = 2;

/// Who makes room.
fn displaced(oldest_first: &VecDeque<Guest>) -> usize {
    let oldest = |stage: u8| {
        let at = |guest: &Guest| guest.stage.load(Ordering::Relaxed) == stage;
        oldest_first.iter().position(at)
    };
    oldest(SILENT).or_else(|| oldest(ANSWERED)).unwrap_or(0)
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Desk {
    /// Serves one guest. What is wrong with an ask is not told: who asks properly knows.
    async fn serve(&self, connection: Connection, stage: &AtomicU8) -> Option<()> {
        let mut stream = connection.stream;
        // Asks are shorter than what a budget counts.
        let budget = Budget::new(0);
        let asked = read_frame(&mut stream, &[FrameKind::Ask], ASKING, &budget);
        let (frame, _lease) = asked.await.ok()?;
        stage.store(ASKED, Ordering::Relaxed);
        let (ask, binding) = self.seal.unwrap_ask(&frame).ok()?;
        let answer = self.answer(ask).await?;
        let wrapped = self.seal.wrap_answer(binding, &answer, &mut os_rng());
        let frame = wrapped.ok()?;
        if frame.body().len() > connection.max_frame {
            return None;
        }
        write_frame(&mut stream, &frame, ANSWERING).await.ok()?;
        stage.store(ANSWERED, Ordering::Relaxed);
        // A circuit takes what is still on its way with it: the guest closes first, and has nothing
        // more to say.
        let _ = timeout(ANSWERING, stream.read_u8()).await;
        let _ = timeout(ASKING, stream.shutdown()).await;
        Some(())
    }

    async fn answer(&self, ask: Ask) -> Option<Answer> {
        let _turn = self.working.acquire().await.ok()?;
        let (state, now) = (Arc::clone(&self.state), self.clock.now());
        let answering = tokio::task::spawn_blocking(move || lock(&state).answer(ask, now));
        let (answer, publish) = answering.await.ok()?;
        for publish in publish {
            let (topic, item) = match publish {
                Publish::Listing(listing) => (
                    GossipTopic::Listings,
                    Announcement::Listing(listing).to_bytes(),
                ),
                Publish::Fork(fork) => {
                    (GossipTopic::Listings, Announcement::Fork(*fork).to_bytes())
                }
                Publish::Demand(demand) => (GossipTopic::Demands, encode(&demand)),
                // Of a later version of the broker.
                _ => continue,
            };
            // It is in the catalogue, from which other nodes will learn of it.
            let _ = self.node.forward(topic, item).await;
        }
        Some(answer)
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guests")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_has_asked_is_displaced_last_and_the_oldest_first() {
        let displaced_of = |stages: &[u8]| {
            let guests = stages.iter().map(|stage| Guest {
                task: tokio::spawn(async {}).abort_handle(),
                stage: Arc::new(AtomicU8::new(*stage)),
            });
            displaced(&guests.collect())
        };
        assert_eq!(displaced_of(&[ASKED, ANSWERED, SILENT, SILENT]), 2);
        assert_eq!(displaced_of(&[ASKED, ANSWERED, ASKED, ANSWERED]), 1);
        assert_eq!(displaced_of(&[ASKED, ASKED]), 0);
    }
}
