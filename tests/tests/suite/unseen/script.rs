//! What callers do, and when.

use dlambda_broker::schedule;
use dlambda_tests::anonymity_set::Dice;

pub(super) const HOUR: u64 = 3600;

/// What a caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Habit {
    /// As it should.
    Honest,
    /// It tells a node a digest of all that it has, after each sync.
    SaysWhatItHas,
    /// It syncs before each call.
    SyncsBeforeCalls,
    /// It calls the largest of all providers that it knows, not only of those that most nodes list.
    ChoosesFromAll,
}

/// Which caller is shown a provider that no other node lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Canary {
    None,
    ShownTo(usize),
}

/// What a caller does at a time, in seconds from the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Sync(usize),
    Call(usize),
}

/// So many calls of each of two callers within so many seconds, and their syncs. Each first sync
/// is within the first hour, and no call is. Syncs come six times as often as they do really, so
/// that there are some; at times that depend on nothing all the same.
pub(super) fn schedule(dice: &mut Dice, calls: usize, seconds: u64) -> Vec<(u64, Event)> {
    let mut events = Vec::new();
    for caller in 0..2 {
        let mut at = random(dice, HOUR);
        while at < HOUR + seconds {
            events.push((at, Event::Sync(caller)));
            at += schedule::until_next_sync(dice.throw()).as_secs() / 6;
        }
        for _ in 0..calls {
            events.push((HOUR + random(dice, seconds), Event::Call(caller)));
        }
    }
    events.sort_unstable();
    // Each has a second of its own, by which the truth is known.
    let mut last = 0;
    for (at, _) in &mut events {
        *at = (*at).max(last + 2);
        last = *at;
    }
    events
}

fn random(dice: &mut Dice, end: u64) -> u64 {
    dice.throw() % end
}
