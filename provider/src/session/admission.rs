//! Who is served when more come than there is room for: the least proven leaves first.
//!
//! A stream costs its opener next to nothing, so the number of streams says nothing. When all places are taken, a
//! newcomer takes the place of a stream that has shown less than others: one that is over, then one that has sent
//! nothing, then the one whose frame has not moved for longest. A stream whose token was taken keeps its place until its
//! answer is on the way.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How far a stream has come. In this order they lose their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Standing {
    /// It has its answer or refusal; what is left is to close it.
    Over,
    /// It has sent nothing.
    Silent,
    /// A frame of it is on its way, in either direction.
    Moving,
    /// A whole request is here, which nobody has paid for.
    Asked,
    /// It has paid.
    Paid,
}

/// All places.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Mutex<Table>>);

/// The place of one stream, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    id: u64,
    table: Arc<Mutex<Table>>,
    lost: CancellationToken,
}

/// Knows no clock.
#[derive(Debug)]
struct Table {
    most: usize,
    next: u64,
    taken: HashMap<u64, Taken>,
}

#[derive(Debug)]
struct Taken {
    standing: Standing,
    /// When it came to this standing, or last moved.
    since: Instant,
    lost: CancellationToken,
}

impl Places {
    pub(crate) fn new(most: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            most,
            next: 0,
            taken: HashMap::new(),
        })))
    }

    /// A place for a new stream; `None` if all others have more right to theirs.
    pub(crate) fn enter(&self) -> Option<Place> {
        let lost = CancellationToken::new();
        let id = lock(&self.0).enter(Instant::now(), lost.clone())?;
        Some(Place {
            id,
            table: Arc::clone(&self.0),
            lost,
        })
    }
}

impl Place {
    /// The stream has come to this standing, now. Says whether it may: requests that nobody has paid for get three
    /// quarters of the places, so that those who can pay find one.
    pub(crate) fn comes_to(&self, standing: Standing) -> bool {
        lock(&self.table).comes_to(self.id, standing, Instant::now())
    }

    /// A part of a frame has moved.
    pub(crate) fn moves(&self) {
        // There are always enough places for this.
        let _ = self.comes_to(Standing::Moving);
    }

    /// Returns when another stream has got the place.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.table).taken.remove(&self.id);
    }
}

impl Table {
    fn enter(&mut self, now: Instant, lost: CancellationToken) -> Option<u64> {
        if self.taken.len() >= self.most {
            let victim = self.victim()?;
            let taken = self.taken.remove(&victim)?;
            taken.lost.cancel();
        }
        let id = self.next;
        self.next += 1;
        let taken = Taken {
            standing: Standing::Silent,
            since: now,
            lost,
        };
        self.taken.insert(id, taken);
        Some(id)
    }

    fn comes_to(&mut self, id: u64, standing: Standing, now: Instant) -> bool {
        let unpaid = self
            .taken
            .iter()
            .filter(|(other, taken)| **other != id && taken.standing == Standing::Asked);
        let allowed = standing != Standing::Asked || unpaid.count() < self.most.div_ceil(4) * 3;
        if allowed && let Some(taken) = self.taken.get_mut(&id) {
            taken.standing = standing;
            taken.since = now;
        }
        allowed
    }

    /// Who has least right to a place, and has not moved for the longest time.
    fn victim(&self) -> Option<u64> {
        let may_go = self
            .taken
            .iter()
            .filter(|(_, taken)| taken.standing <= Standing::Moving);
        let least = may_go.min_by_key(|(id, taken)| (taken.standing, taken.since, **id));
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

    const ALL: [Standing; 5] = [
        Standing::Over,
        Standing::Silent,
        Standing::Moving,
        Standing::Asked,
        Standing::Paid,
    ];

    fn lost(place: &Place) -> bool {
        place.lost.is_cancelled()
    }

    #[tokio::test(start_paused = true)]
    async fn the_least_proven_leaves_first_and_the_oldest_of_them() {
        let places = Places::new(4);
        let [paid, moving, silent, younger] = [(); 4].map(|()| places.enter().unwrap());
        assert!(paid.comes_to(Standing::Paid));
        moving.moves();
        tokio::time::advance(Duration::from_secs(1)).await;
        let _fifth = places.enter().unwrap();
        assert!(lost(&silent) && !lost(&younger));
        assert!(younger.comes_to(Standing::Over));
        let _sixth = places.enter().unwrap();
        assert!(lost(&younger), "what is over goes before what is new");
        assert!(!lost(&moving) && !lost(&paid));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_not_moved_for_longest_leaves_and_who_has_asked_stays() {
        let places = Places::new(2);
        let [stalled, moving] = [(); 2].map(|()| places.enter().unwrap());
        stalled.moves();
        tokio::time::advance(Duration::from_secs(1)).await;
        moving.moves();
        let newcomer = places.enter().unwrap();
        assert!(lost(&stalled) && !lost(&moving));
        assert!(newcomer.comes_to(Standing::Paid) && moving.comes_to(Standing::Asked));
        assert!(places.enter().is_none(), "both have more right to it");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_nobody_paid_for_leave_room_for_others() {
        let places = Places::new(8);
        let all: Vec<_> = (0..8).map(|_| places.enter().unwrap()).collect();
        let asked = all.iter().filter(|it| it.comes_to(Standing::Asked));
        assert_eq!(asked.count(), 6);
        assert!(places.enter().is_some());
        assert!(all[7].comes_to(Standing::Paid));
    }

    proptest! {
        /// Whatever others do, who has paid is never turned out, and places never exceed their number.
        #[test]
        fn who_has_paid_stays(events in prop::collection::vec((0..12_usize, 0..6_usize), 0..200)) {
            let mut table = Table { most: 4, next: 0, taken: HashMap::new() };
            let mut now = Instant::now();
            let paid = table.enter(now, CancellationToken::new()).unwrap();
            prop_assert!(table.comes_to(paid, Standing::Paid, now));
            for (who, what) in events {
                now += Duration::from_secs(1);
                match ALL.get(what) {
                    Some(standing) if who > 0 => { table.comes_to(who as u64, *standing, now); }
                    _ => { table.enter(now, CancellationToken::new()); }
                }
                prop_assert!(table.taken.contains_key(&paid));
                prop_assert!(table.taken.len() <= 4);
            }
        }
    }
}
