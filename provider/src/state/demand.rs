//! How often published functions were called: counts of this day and of the one before, in memory
//! alone. No call has a time here, and functions that callers brought have no place.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlambda_proto::{Day, FunctionId, PublishedFunction, UnixSeconds};

type Counts = BTreeMap<FunctionId, u64>;

/// The counts of two days.
pub(crate) struct DemandCounts {
    days: Mutex<Days>,
}

struct Days {
    day: Day,
    /// Has every published function, and no other.
    counts: Counts,
    before: Option<(Day, Counts)>,
}

impl DemandCounts {
    /// Counts calls to these functions.
    pub(crate) fn new(published: &[PublishedFunction], now: UnixSeconds) -> Self {
        let counts = published.iter().map(|it| (it.id, 0)).collect();
        Self {
            days: Mutex::new(Days {
                day: Day::of(now),
                counts,
                before: None,
            }),
        }
    }

    /// Counts a call, if the function is published.
    pub(crate) fn count(&self, function: &FunctionId, now: UnixSeconds) {
        let mut days = self.lock();
        days.turn(Day::of(now));
        if let Some(count) = days.counts.get_mut(function) {
            *count = count.saturating_add(1);
        }
    }

    /// The day before this one, and its counts; `None` if nothing was counted on it.
    pub(crate) fn of_yesterday(&self, now: UnixSeconds) -> Option<(Day, Counts)> {
        let today = Day::of(now);
        let mut days = self.lock();
        days.turn(today);
        days.before.clone().filter(|(day, _)| day.next() == today)
    }

    /// Forgets what was counted so far: our own call to ourselves.
    pub(crate) fn reset(&self) {
        let mut days = self.lock();
        days.before = None;
        days.counts.values_mut().for_each(|count| *count = 0);
    }

    fn lock(&self) -> MutexGuard<'_, Days> {
        // Whole between any two operations on it.
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Days {
    /// A clock that goes back turns no day.
    fn turn(&mut self, today: Day) {
        if today <= self.day {
            return;
        }
        let none = self.counts.keys().map(|id| (*id, 0)).collect();
        let counts = std::mem::replace(&mut self.counts, none);
        self.before = Some((self.day, counts));
        self.day = today;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: u64) -> UnixSeconds {
        Day(day).begins().plus(4711)
    }

    #[test]
    fn calls_to_published_functions_are_counted_by_day_and_others_are_not() {
        let (published, brought) = (FunctionId::of(b"published"), FunctionId::of(b"brought"));
        let function = PublishedFunction {
            id: published,
            alias: "published".to_owned(),
            size: 9,
        };
        let counts = DemandCounts::new(&[function], at(1));
        for _ in 0..5 {
            counts.count(&published, at(1));
            counts.count(&brought, at(1));
        }
        assert!(counts.of_yesterday(at(1)).is_none(), "the day is not over");
        counts.count(&published, at(2));
        let told = counts.of_yesterday(at(2)).expect("a day is over");
        assert_eq!(told, (Day(1), [(published, 5)].into()));
        // A clock that goes back.
        counts.count(&published, at(1));
        let (day, of_day) = counts.of_yesterday(at(3)).expect("a day is over");
        assert_eq!((day, of_day[&published]), (Day(2), 2));
        assert!(counts.of_yesterday(at(5)).is_none(), "longer ago");
        counts.count(&published, at(5));
        counts.reset();
        assert_eq!(counts.of_yesterday(at(6)).expect("a day").1[&published], 0);
    }
}
