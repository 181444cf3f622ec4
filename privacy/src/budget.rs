//! Memory for what streams send and take, which goes to those that make progress.
//!
//! Every stream may hold one step of 64 KiB that is not counted: the number of streams bounds
//! those. What is larger comes out of a [`Budget`], so that a small frame never waits behind large
//! ones. When the budget is used up, frames give up their memory for smaller ones, and for others
//! if they move nothing.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::WireError;

/// Bytes by which memory is counted, and by which frames are received and sent.
pub(crate) const STEP: usize = 64 << 10;

/// A stream that has moved nothing for this long can lose its memory to one that does.
const STALLED: Duration = Duration::from_secs(2);

/// How long memory is waited for that another stream has to give up.
const WAIT: Duration = Duration::from_secs(10);

/// Bytes that may be held at a time, over all streams.
#[derive(Clone, Debug)]
pub struct Budget(Arc<Shared>);

/// A part of a [`Budget`], given back when dropped.
#[derive(Debug)]
pub struct Lease {
    id: u64,
    shared: Arc<Shared>,
    evicted: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    table: Mutex<Table>,
    released: Notify,
}

/// Who holds what; knows no clock.
#[derive(Debug)]
struct Table {
    free: usize,
    next: u64,
    holders: HashMap<u64, Holder>,
}

#[derive(Debug)]
struct Holder {
    steps: usize,
    /// Bytes of the whole frame, as announced; zero once there is nothing more to come.
    whole: usize,
    /// When it last moved a step, while it is being received or sent. What is at work is left
    /// alone.
    moving: Option<Instant>,
    evicted: CancellationToken,
}

/// What came of asking for memory.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Taken,
    /// Another lease has to be given up first; or one that moves may stall, not before this
    /// moment.
    Wait(Option<Instant>),
    /// No lease can be.
    Full,
}

impl Budget {
    /// A budget of `bytes`, rounded up to 64 KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Shared {
            table: Mutex::new(Table {
                free: bytes.div_ceil(STEP),
                next: 0,
                holders: HashMap::new(),
            }),
            released: Notify::new(),
        }))
    }

    /// A lease of `bytes`, rounded up to 64 KiB, for a frame of as many. If there is no other
    /// memory, takes that of larger frames, and of frames that stall.
    ///
    /// # Errors
    ///
    /// [`WireError::NoBudget`] if too much is in use by streams that do not stall.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is held.
    pub async fn reserve(&self, bytes: usize) -> Result<Lease, WireError> {
        let mut lease = self.lease(bytes);
        lease.grow(bytes).await?;
        Ok(lease)
    }

    /// The same, for work on a frame that is here: takes the memory of all frames that are not, if
    /// it must.
    ///
    /// # Errors
    ///
    /// The same.
    ///
    /// # Cancel safety
    ///
    /// The same.
    pub async fn reserve_to_work(&self, bytes: usize) -> Result<Lease, WireError> {
        let mut lease = self.nothing();
        lease.grow(bytes).await?;
        Ok(lease)
    }

    /// A lease of nothing.
    #[must_use]
    pub fn nothing(&self) -> Lease {
        self.lease(0)
    }

    /// A lease of nothing yet, for a frame of so many bytes.
    pub(crate) fn lease(&self, whole: usize) -> Lease {
        let evicted = CancellationToken::new();
        Lease {
            id: self.0.table().enter(whole, evicted.clone()),
            shared: Arc::clone(&self.0),
            evicted,
        }
    }

    #[cfg(test)]
    pub(crate) fn free_bytes(&self) -> usize {
        self.0.table().free * STEP
    }
}

impl Lease {
    /// Takes more: see [`Budget::reserve`].
    pub(crate) async fn grow(&mut self, bytes: usize) -> Result<(), WireError> {
        let steps = bytes.div_ceil(STEP);
        let deadline = Instant::now() + WAIT;
        loop {
            let mut released = std::pin::pin!(self.shared.released.notified());
            // From here on no release is missed.
            released.as_mut().enable();
            // The lock must not be held where others are waited for.
            let answer = self.shared.table().take(self.id, steps, Instant::now());
            match answer {
                Answer::Taken => return Ok(()),
                Answer::Full => return Err(WireError::NoBudget),
                Answer::Wait(_) if Instant::now() >= deadline => return Err(WireError::NoBudget),
                Answer::Wait(until) => {
                    let until = until.map_or(deadline, |until| until.min(deadline));
                    tokio::select! {
                        _ = timeout_at(until, released) => {}
                        // Who waits must not be waited for.
                        () = self.evicted.cancelled() => return Err(WireError::NoBudget),
                    }
                }
            }
        }
    }

    /// The stream moves now, or has moved a step: it does not stall.
    pub(crate) fn moves(&self) {
        self.set_moving(Some(Instant::now()));
    }

    /// All of it has moved; what is done with it does not depend on the peer.
    pub(crate) fn rests(&self) {
        self.set_moving(None);
    }

    /// Returns when the memory is wanted by others, since this stream stalls. Drop the lease then.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    fn set_moving(&self, moving: Option<Instant>) {
        if let Some(holder) = self.shared.table().holders.get_mut(&self.id) {
            holder.moving = moving;
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.shared.table().leave(self.id);
        self.shared.released.notify_waiters();
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        // Whole between any two operations on it.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn enter(&mut self, whole: usize, evicted: CancellationToken) -> u64 {
        let id = self.next;
        self.next += 1;
        let holder = Holder {
            steps: 0,
            whole,
            moving: None,
            evicted,
        };
        self.holders.insert(id, holder);
        id
    }

    fn leave(&mut self, id: u64) {
        self.free += self.holders.remove(&id).map_or(0, |holder| holder.steps);
    }

    fn take(&mut self, id: u64, steps: usize, now: Instant) -> Answer {
        if steps <= self.free
            && let Some(holder) = self.holders.get_mut(&id)
        {
            holder.steps += steps;
            self.free -= steps;
            return Answer::Taken;
        }
        let evicted = self.holders.values().filter(|it| it.evicted.is_cancelled());
        let mut coming = self.free + evicted.map(|it| it.steps).sum::<usize>();
        let asking = self.holders.get(&id).map_or(0, |it| it.whole);
        let (mut victims, mut may_stall) = (Vec::new(), None::<Instant>);
        for (moved, holder) in self.moving(id) {
            if coming >= steps {
                break;
            }
            if holder.whole > asking || now >= moved + STALLED {
                coming += holder.steps;
                victims.push(holder);
            } else {
                let then = moved + STALLED;
                may_stall = Some(may_stall.map_or(then, |it| it.min(then)));
            }
        }
        if coming >= steps {
            victims.iter().for_each(|holder| holder.evicted.cancel());
            Answer::Wait(None)
        } else if may_stall.is_some() {
            Answer::Wait(may_stall)
        } else {
            Answer::Full
        }
    }

    /// The others that are being received or sent: the largest first, and of these who has moved
    /// nothing for longest.
    fn moving(&self, asking: u64) -> Vec<(Instant, &Holder)> {
        let holders = self.holders.iter();
        let moving = holders.filter_map(|(id, holder)| {
            let holds = holder.steps > 0 && !holder.evicted.is_cancelled();
            (*id != asking && holds).then_some((holder.moving?, holder))
        });
        let mut moving: Vec<_> = moving.collect();
        moving.sort_by_key(|(moved, holder)| (Reverse(holder.whole), *moved));
        moving
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn who_stalls_longest_makes_room() {
        let budget = Budget::new(2 * MIB);
        let first = budget.reserve(MIB).await.unwrap();
        first.moves();
        tokio::time::advance(STALLED / 2).await;
        let second = budget.reserve(MIB).await.unwrap();
        second.moves();
        tokio::time::advance(STALLED).await;
        let (third, ()) = tokio::join!(budget.reserve(MIB / 2), async {
            first.evicted().await;
            drop(first);
        });
        assert!(third.is_ok());
        assert!(!second.evicted.is_cancelled(), "one is enough");
    }

    #[tokio::test(start_paused = true)]
    async fn who_moves_or_works_keeps_its_memory() {
        let budget = Budget::new(2 * MIB);
        let moving = budget.reserve(MIB).await.unwrap();
        let working = budget.reserve(MIB).await.unwrap();
        working.moves();
        working.rests();
        let moves = async {
            loop {
                moving.moves();
                tokio::time::sleep(STALLED / 2).await;
            }
        };
        let refused = tokio::select! {
            refused = budget.reserve(MIB) => refused,
            () = moves => unreachable!(),
        };
        assert!(matches!(refused, Err(WireError::NoBudget)));
        assert!(!working.evicted.is_cancelled() && !moving.evicted.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn the_larger_frame_makes_room_for_the_smaller_and_all_for_one_that_is_here() {
        let budget = Budget::new(2 * MIB);
        let mut large = budget.lease(64 * MIB);
        large.grow(MIB).await.unwrap();
        let mut equal = budget.lease(MIB);
        equal.grow(MIB).await.unwrap();
        large.moves();
        equal.moves();
        let (small, ()) = tokio::join!(budget.reserve(MIB), async {
            large.evicted().await;
            drop(large);
        });
        assert!(small.is_ok() && !equal.evicted.is_cancelled());
        let (work, ()) = tokio::join!(budget.reserve_to_work(MIB), async {
            equal.evicted().await;
            drop(equal);
        });
        assert!(work.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_memory_gives_up_its_own() {
        let budget = Budget::new(MIB);
        let mut large = budget.lease(64 * MIB);
        large.grow(MIB).await.unwrap();
        large.moves();
        let started = Instant::now();
        let waits = async {
            let refused = large.grow(MIB).await;
            drop(large);
            refused
        };
        let (waits, small) = tokio::join!(waits, budget.reserve(MIB));
        assert!(waits.is_err() && small.is_ok());
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_that_nobody_gives_up_is_waited_for_only_so_long() {
        let budget = Budget::new(MIB);
        let stalled = budget.reserve(MIB).await.unwrap();
        stalled.moves();
        tokio::time::advance(STALLED).await;
        assert!(budget.reserve(MIB).await.is_err());
        drop(stalled);
        assert!(budget.reserve(MIB).await.is_ok());
        assert_eq!(budget.free_bytes(), MIB);
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_there_ever_is_evicts_nobody_in_vain() {
        let budget = Budget::new(MIB);
        let stalled = budget.reserve(MIB).await.unwrap();
        stalled.moves();
        tokio::time::advance(STALLED).await;
        assert!(budget.reserve(2 * MIB).await.is_err());
        assert!(!stalled.evicted.is_cancelled());
    }
}
