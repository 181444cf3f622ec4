//! Which call gets memory next. No clock, no tasks: [`MemoryBudget`](super::memory::MemoryBudget)
//! has those.
//!
//! What fits passes what waits, so that a small call does not stand behind a large one while there
//! is room for it. A large one would then wait for ever behind a stream of small ones. So the call
//! that came first gets a reservation once it has waited for long enough: from then on others may
//! only have what is left beside it. It runs at the latest when all calls have ended that ran at
//! that moment ("backfill with a reservation for the head of the queue").

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A number of bytes, some of which are given out, and a queue for them.
#[derive(Debug)]
pub(super) struct Admission {
    total: u64,
    free: u64,
    patience: Duration,
    /// Numbers requests and grants in their order.
    next: u64,
    waiting: BTreeMap<u64, Waiter>,
    reserved: Option<Reservation>,
}

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    since: Instant,
}

/// For the call that came first of those that wait.
#[derive(Debug)]
struct Reservation {
    request: u64,
    bytes: u64,
    /// Grants from this number on went past it.
    from: u64,
    /// Bytes of those grants that have not come back.
    passed: u64,
}

/// Bytes that were given out; to be given back.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) struct Grant {
    number: u64,
    bytes: u64,
}

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Entry {
    Granted(Grant),
    /// It will be granted under this number.
    Waits(u64),
}

/// Requests that have waited, and what each gets.
pub(super) type Granted = Vec<(u64, Grant)>;

impl Admission {
    /// `total` bytes. A request that has waited for `patience` is overtaken no further than
    /// described above.
    pub(super) fn new(total: u64, patience: Duration) -> Self {
        Self {
            total,
            free: total,
            patience,
            next: 0,
            waiting: BTreeMap::new(),
            reserved: None,
        }
    }

    /// Asks for bytes. What can never fit gets all there is.
    pub(super) fn enter(&mut self, bytes: u64, now: Instant) -> Entry {
        let bytes = bytes.min(self.total);
        self.reserve(now);
        let request = self.number();
        if self.fits(request, bytes) {
            return Entry::Granted(self.give(request, bytes));
        }
        let waiter = Waiter { bytes, since: now };
        self.waiting.insert(request, waiter);
        Entry::Waits(request)
    }

    /// Takes bytes back, and gives them to those that wait.
    pub(super) fn leave(&mut self, grant: &Grant, now: Instant) -> Granted {
        self.free += grant.bytes;
        if let Some(reserved) = &mut self.reserved
            && grant.number >= reserved.from
        {
            reserved.passed -= grant.bytes;
        }
        self.admit(now)
    }

    /// Forgets a request that waits. One that was granted already is not affected.
    pub(super) fn withdraw(&mut self, request: u64, now: Instant) -> Granted {
        if self.waiting.remove(&request).is_none() {
            return Granted::new();
        }
        self.reserved
            .take_if(|reserved| reserved.request == request);
        self.admit(now)
    }

    fn admit(&mut self, now: Instant) -> Granted {
        let mut granted = Granted::new();
        loop {
            self.reserve(now);
            let mut waiting = self.waiting.iter();
            let next = waiting.find(|(request, waiter)| self.fits(**request, waiter.bytes));
            let Some((&request, &Waiter { bytes, .. })) = next else {
                return granted;
            };
            self.waiting.remove(&request);
            granted.push((request, self.give(request, bytes)));
        }
    }

    /// Sees to it that the first of those that wait has a reservation if it has waited for long.
    fn reserve(&mut self, now: Instant) {
        let Some((&request, waiter)) = self.waiting.first_key_value() else {
            self.reserved = None;
            return;
        };
        let has_one = self.reserved.as_ref();
        if has_one.is_some_and(|reserved| reserved.request == request) {
            return;
        }
        let waited = now.saturating_duration_since(waiter.since);
        self.reserved = (waited >= self.patience).then_some(Reservation {
            request,
            bytes: waiter.bytes,
            from: self.next + 1,
            passed: 0,
        });
    }

    fn fits(&self, request: u64, bytes: u64) -> bool {
        let beside = self.reserved.as_ref().is_none_or(|reserved| {
            let others = reserved.passed.saturating_add(bytes);
            reserved.request == request || reserved.bytes.saturating_add(others) <= self.total
        });
        bytes <= self.free && beside
    }

    fn give(&mut self, request: u64, bytes: u64) -> Grant {
        self.free -= bytes;
        match &mut self.reserved {
            Some(reserved) if reserved.request == request => self.reserved = None,
            Some(reserved) => reserved.passed += bytes,
            None => {}
        }
        let number = self.number();
        Grant { number, bytes }
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(1);

    /// An admission whose clock is set by hand.
    struct Scene {
        admission: Admission,
        start: Instant,
        now: Instant,
    }

    impl Scene {
        fn new(total: u64) -> Self {
            let start = Instant::now();
            Self {
                admission: Admission::new(total, PATIENCE),
                start,
                now: start,
            }
        }

        fn at(&mut self, milliseconds: u64) -> &mut Self {
            self.now = self.start + Duration::from_millis(milliseconds);
            self
        }

        fn enters(&mut self, bytes: u64) -> Grant {
            match self.admission.enter(bytes, self.now) {
                Entry::Granted(grant) => grant,
                Entry::Waits(_) => panic!("{bytes} bytes wait"),
            }
        }

        fn waits(&mut self, bytes: u64) -> u64 {
            match self.admission.enter(bytes, self.now) {
                Entry::Waits(request) => request,
                Entry::Granted(_) => panic!("{bytes} bytes do not wait"),
            }
        }

        /// The requests that are granted.
        fn leaves(&mut self, grant: &Grant) -> Granted {
            self.admission.leave(grant, self.now)
        }
    }

    fn requests(granted: &Granted) -> Vec<u64> {
        granted.iter().map(|(request, _)| *request).collect()
    }

    #[test]
    fn a_small_call_that_fits_passes_a_large_one_that_waits() {
        let mut scene = Scene::new(1_100);
        let running = scene.enters(1_024);
        let large = scene.waits(1_024);
        let small = scene.at(500).enters(64);
        assert!(scene.leaves(&small).is_empty());
        assert_eq!(requests(&scene.leaves(&running)), [large]);
    }

    #[test]
    fn a_large_call_that_has_waited_for_long_is_not_starved_by_small_ones() {
        let mut scene = Scene::new(100);
        let (mut one, two) = (scene.enters(50), scene.enters(50));
        let large = scene.waits(80);
        // For its first second small ones take the place of what ends.
        for at in [300, 600, 900] {
            assert!(scene.at(at).leaves(&one).is_empty());
            one = scene.enters(50);
        }
        // From then on only beside it.
        scene.at(1_000);
        assert!(scene.leaves(&one).is_empty());
        let small = scene.waits(50);
        let beside = scene.enters(20);
        let another = scene.waits(1);
        let mut granted = scene.leaves(&two);
        assert_eq!(
            requests(&granted),
            [large],
            "all that ran before have ended"
        );
        let (_, large) = granted.remove(0);
        assert_eq!(requests(&scene.leaves(&large)), [small, another]);
        assert!(scene.leaves(&beside).is_empty());
    }

    #[test]
    fn what_would_not_delay_the_large_call_passes_it_however_long_it_waits() {
        let mut scene = Scene::new(1_100);
        let running = scene.enters(1_024);
        let large = scene.waits(1_024);
        for second in 1..9 {
            let small = scene.at(second * 1_000).enters(64);
            assert!(scene.leaves(&small).is_empty());
        }
        let small = scene.enters(64);
        assert_eq!(requests(&scene.leaves(&running)), [large]);
        assert!(scene.leaves(&small).is_empty());
    }

    #[test]
    fn equal_calls_go_in_order() {
        let mut scene = Scene::new(10);
        let running = scene.enters(10);
        let waiting = [scene.waits(5), scene.waits(5), scene.waits(5)];
        let granted = scene.leaves(&running);
        assert_eq!(requests(&granted), waiting[..2]);
        assert_eq!(requests(&scene.leaves(&granted[1].1)), waiting[2..]);
    }

    #[test]
    fn a_reservation_goes_with_the_one_that_gives_up() {
        let mut scene = Scene::new(100);
        let running = scene.enters(60);
        let large = scene.waits(100);
        let small = scene.at(2_000).waits(40);
        let now = scene.now;
        let granted = scene.admission.withdraw(large, now);
        assert_eq!(requests(&granted), [small], "what it kept from others");
        assert!(scene.admission.withdraw(large, now).is_empty());
        assert!(scene.leaves(&running).is_empty());
        let _all = scene.leaves(&granted[0].1);
        assert_eq!(scene.enters(100).bytes, 100);
    }

    #[test]
    fn more_than_there_is_gets_all_there_is() {
        let mut scene = Scene::new(100);
        let all = scene.enters(u64::MAX);
        let waits = scene.waits(u64::MAX);
        assert_eq!(requests(&scene.leaves(&all)), [waits]);
    }

    proptest! {
        /// Calls of up to all the memory come at any time, run for up to two seconds, and may give
        /// up: nothing is given out twice or lost, and a caller that waits is served within its
        /// patience and the runs of all that came before.
        #[test]
        fn nothing_is_given_twice_and_nobody_waits_for_ever(
            calls in proptest::collection::vec((1_u64..120, 1_u64..2_000, 0_u64..400, any::<bool>()), 1..60)
        ) {
            let mut scene = Scene::new(100);
            let mut running: Vec<(u64, Grant)> = Vec::new();
            let (mut clock, mut waiting) = (0, BTreeMap::new());
            let mut calls = calls.into_iter();
            let mut next = calls.next();
            loop {
                let ends = running.iter().map(|(end, _)| *end).min();
                let comes = next.map(|(_, _, gap, _)| clock + gap);
                let Some(event) = [ends, comes].into_iter().flatten().min() else { break };
                clock = event;
                scene.at(clock);
                let mut granted = Granted::new();
                if ends == Some(event) {
                    let first = running.iter().position(|(end, _)| *end == event).unwrap();
                    let (_, grant) = running.remove(first);
                    granted = scene.leaves(&grant);
                } else if let Some((bytes, length, _, gives_up)) = next {
                    match scene.admission.enter(bytes, scene.now) {
                        Entry::Granted(grant) => running.push((clock + length, grant)),
                        Entry::Waits(request) if gives_up => {
                            granted = scene.admission.withdraw(request, scene.now);
                        }
                        Entry::Waits(request) => {
                            let ahead = waiting.len() as u64 + 1;
                            waiting.insert(request, (length, clock + 1_000 + ahead * 2_000));
                        }
                    }
                    next = calls.next();
                }
                for (request, grant) in granted {
                    let (length, latest) = waiting.remove(&request).expect("it waited");
                    prop_assert!(clock <= latest, "{clock} > {latest}");
                    running.push((clock + length, grant));
                }
                let given: u64 = running.iter().map(|(_, grant)| grant.bytes).sum();
                prop_assert_eq!(given + scene.admission.free, 100);
            }
            prop_assert!(waiting.is_empty() && scene.admission.waiting.is_empty());
            prop_assert_eq!(scene.admission.free, 100);
        }
    }
}
