//! Admission control: which streams are served when more come than there is room for.
//!
//! A stream costs its opener next to nothing, so the number of streams says nothing. When all
//! permits are out, a newcomer takes the permit of the stream that has shown least: one that is
//! finished, then one that has sent nothing, then the one whose frame has not moved for longest.
//! A stream whose token was accepted keeps its permit until its reply is on the way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How far a stream has come. Streams are evicted in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamState {
    /// It has its reply or refusal; what is left is to close it.
    Finished,
    /// It has sent nothing.
    Idle,
    /// A frame of it is being transferred, in either direction.
    Transferring,
    /// A whole request is here, which is not paid for.
    Unpaid,
    /// Its token was accepted.
    Paid,
}

/// Hands out permits for streams.
#[derive(Clone, Debug)]
pub(crate) struct StreamLimiter(Arc<Mutex<Table>>);

/// The permit of one stream, given back when dropped.
#[derive(Debug)]
pub(crate) struct StreamPermit {
    id: u64,
    table: Arc<Mutex<Table>>,
    evicted: CancellationToken,
}

/// Sans-I/O: the caller passes the time.
#[derive(Debug)]
struct Table {
    max: usize,
    next: u64,
    slots: HashMap<u64, Slot>,
}

#[derive(Debug)]
struct Slot {
    state: StreamState,
    /// When it entered this state, or last made progress.
    since: Instant,
    evicted: CancellationToken,
}

impl StreamLimiter {
    pub(crate) fn new(max: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            max,
            next: 0,
            slots: HashMap::new(),
        })))
    }

    /// A permit for a new stream; `None` if no other may be evicted for it.
    pub(crate) fn admit(&self) -> Option<StreamPermit> {
        let evicted = CancellationToken::new();
        let id = lock(&self.0).admit(Instant::now(), evicted.clone())?;
        Some(StreamPermit {
            id,
            table: Arc::clone(&self.0),
            evicted,
        })
    }
}

impl StreamPermit {
    /// Enters a state, unless this returns false: unpaid requests get three quarters of the
    /// permits, so that paid ones find room.
    pub(crate) fn enter(&self, state: StreamState) -> bool {
        lock(&self.table).enter(self.id, state, Instant::now())
    }

    /// A part of a frame was transferred.
    pub(crate) fn progressed(&self) {
        // Refused for `StreamState::Unpaid` only.
        let _ = self.enter(StreamState::Transferring);
    }

    /// Returns when the permit was given to another stream.
    pub(crate) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        lock(&self.table).slots.remove(&self.id);
    }
}

impl Table {
    fn admit(&mut self, now: Instant, evicted: CancellationToken) -> Option<u64> {
        if self.slots.len() >= self.max {
            let victim = self.victim()?;
            let slot = self.slots.remove(&victim)?;
            slot.evicted.cancel();
        }
        let id = self.next;
        self.next += 1;
        let slot = Slot {
            state: StreamState::Idle,
            since: now,
            evicted,
        };
        self.slots.insert(id, slot);
        Some(id)
    }

    fn enter(&mut self, id: u64, state: StreamState, now: Instant) -> bool {
        let unpaid = self
            .slots
            .iter()
            .filter(|(other, slot)| **other != id && slot.state == StreamState::Unpaid);
        let allowed = state != StreamState::Unpaid || unpaid.count() < self.max.div_ceil(4) * 3;
        if allowed && let Some(slot) = self.slots.get_mut(&id) {
            slot.state = state;
            slot.since = now;
        }
        allowed
    }

    /// The stream to evict: in the lowest state, and without progress for longest.
    fn victim(&self) -> Option<u64> {
        let may_go = self
            .slots
            .iter()
            .filter(|(_, slot)| slot.state <= StreamState::Transferring);
        let least = may_go.min_by_key(|(id, slot)| (slot.state, slot.since, **id));
        least.map(|(id, _)| *id)
    }
}

fn lock(table: &Mutex<Table>) -> MutexGuard<'_, Table> {
    // Whole between any two operations on it.
    table.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const ALL: [StreamState; 5] = [
        StreamState::Finished,
        StreamState::Idle,
        StreamState::Transferring,
        StreamState::Unpaid,
        StreamState::Paid,
    ];

    fn evicted(permit: &StreamPermit) -> bool {
        permit.evicted.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_stream_that_has_shown_least_is_evicted_first() {
        let limiter = StreamLimiter::new(4);
        let [paid, moving, silent, younger] = [(); 4].map(|()| limiter.admit().unwrap());
        assert!(paid.enter(StreamState::Paid));
        moving.progressed();
        tokio::time::advance(Duration::from_secs(1)).await;
        let _fifth = limiter.admit().unwrap();
        assert!(evicted(&silent) && !evicted(&younger));
        assert!(younger.enter(StreamState::Finished));
        let _sixth = limiter.admit().unwrap();
        assert!(evicted(&younger), "a finished stream goes before a new one");
        assert!(!evicted(&moving) && !evicted(&paid));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_stream_is_evicted_and_a_whole_request_is_not() {
        let limiter = StreamLimiter::new(2);
        let [stalled, moving] = [(); 2].map(|()| limiter.admit().unwrap());
        stalled.progressed();
        tokio::time::advance(Duration::from_secs(1)).await;
        moving.progressed();
        let newcomer = limiter.admit().unwrap();
        assert!(evicted(&stalled) && !evicted(&moving));
        assert!(newcomer.enter(StreamState::Paid) && moving.enter(StreamState::Unpaid));
        assert!(limiter.admit().is_none(), "neither may be evicted");
    }

    #[tokio::test(start_paused = true)]
    async fn unpaid_requests_leave_room_for_others() {
        let limiter = StreamLimiter::new(8);
        let all: Vec<_> = (0..8).map(|_| limiter.admit().unwrap()).collect();
        let unpaid = all.iter().filter(|it| it.enter(StreamState::Unpaid));
        assert_eq!(unpaid.count(), 6);
        assert!(limiter.admit().is_some());
        assert!(all[7].enter(StreamState::Paid));
    }

    proptest! {
        /// Whatever others do, a paid stream is never evicted, and permits never exceed their
        /// number.
        #[test]
        fn a_paid_stream_is_never_evicted(
            events in prop::collection::vec((0..12_usize, 0..6_usize), 0..200)
        ) {
            let mut table = Table { max: 4, next: 0, slots: HashMap::new() };
            let mut now = Instant::now();
            let paid = table.admit(now, CancellationToken::new()).unwrap();
            prop_assert!(table.enter(paid, StreamState::Paid, now));
            for (who, what) in events {
                now += Duration::from_secs(1);
                match ALL.get(what) {
                    Some(state) if who > 0 => { table.enter(who as u64, *state, now); }
                    _ => { table.admit(now, CancellationToken::new()); }
                }
                prop_assert!(table.slots.contains_key(&paid));
                prop_assert!(table.slots.len() <= 4);
            }
        }
    }
}
