//! Whether two things that were seen are of one caller: a sync and a call, or two syncs.
//!
//! A way of telling gives each pair a score. What counts is the *AUC*: the probability that a pair
//! of one caller scores higher than a pair of two, which is a half where the score knows nothing.
//! Whether it is more than that is told by exchanging the callers at random: what happens as often
//! then is chance.

use crate::anonymity_set::Dice;

/// How often callers are exchanged. The least probability that can be found is one in so many.
const EXCHANGES: u32 = 100_000;

/// A thing that was seen, and whose it was, which the adversary does not know.
#[derive(Clone, Debug)]
pub struct Thing {
    /// When, in seconds.
    pub at: u64,
    /// Whose, of two.
    pub is_second: bool,
    /// Where: the numbers of the nodes that saw it.
    pub places: Vec<usize>,
}

/// How well one way of telling did.
#[derive(Clone, Debug)]
pub struct Told {
    /// The way.
    pub way: &'static str,
    /// The AUC, for pairs; the share of right answers, for neighbours.
    pub value: f64,
    /// The probability of a value so far from what it is by chance.
    pub chance: f64,
}

/// Every way of telling which sync and which call are of one caller.
#[must_use]
pub fn syncs_and_calls(syncs: &[Thing], calls: &[Thing]) -> Vec<Told> {
    let far = -1e12;
    let gap = |sync: &Thing, call: &Thing| float(call.at) - float(sync.at);
    let after = |sync: &Thing, call: &Thing| match gap(sync, call) {
        gap if gap >= 0.0 => -gap,
        _ => far,
    };
    let before = |sync: &Thing, call: &Thing| match gap(sync, call) {
        gap if gap <= 0.0 => gap,
        _ => far,
    };
    let near = |sync: &Thing, call: &Thing| -gap(sync, call).abs();
    vec![
        by_auc("a call soon after a sync", syncs, calls, after),
        by_auc("a call soon before a sync", syncs, calls, before),
        by_auc("a call near a sync", syncs, calls, near),
        by_neighbour("the last sync before a call", syncs, calls, after),
        by_neighbour("the first sync after a call", syncs, calls, before),
        by_neighbour("the sync nearest to a call", syncs, calls, near),
    ]
}

/// Every way of telling which syncs are of one caller.
#[must_use]
pub fn syncs(syncs: &[Thing]) -> Vec<Told> {
    let near = |one: &Thing, other: &Thing| -(float(one.at) - float(other.at)).abs();
    let alike = |one: &Thing, other: &Thing| {
        let both = one.places.iter().filter(|it| other.places.contains(it));
        small(both.count()) - 1e-3 * small(one.places.len().abs_diff(other.places.len()))
    };
    vec![
        by_auc("syncs near each other", syncs, syncs, near),
        by_auc("syncs at the same nodes", syncs, syncs, alike),
    ]
}

fn by_auc(
    way: &'static str,
    rows: &[Thing],
    columns: &[Thing],
    score: impl Fn(&Thing, &Thing) -> f64,
) -> Told {
    let same = std::ptr::eq(rows, columns);
    let mut pairs = Vec::new();
    for (i, row) in rows.iter().enumerate() {
        for (j, column) in columns.iter().enumerate() {
            if !same || i < j {
                pairs.push((i, j, score(row, column)));
            }
        }
    }
    let ranks = ranks(&pairs.iter().map(|it| it.2).collect::<Vec<_>>());
    let owners: Vec<bool> = columns.iter().map(|it| it.is_second).collect();
    let value = |owners: &[bool]| {
        let (mut sum, mut ones) = (0.0, 0.0);
        for ((i, j, _), rank) in pairs.iter().zip(&ranks) {
            let row = if same { owners[*i] } else { rows[*i].is_second };
            if row == owners[*j] {
                sum += rank;
                ones += 1.0;
            }
        }
        let others = small(pairs.len()) - ones;
        match ones * others {
            0.0 => 0.5,
            all => (sum - ones * (ones + 1.0) / 2.0) / all,
        }
    };
    told(way, owners, value)
}

/// For each call the sync that scores highest: the share of those that are of one caller, or of
/// two if that is more.
fn by_neighbour(
    way: &'static str,
    syncs: &[Thing],
    calls: &[Thing],
    score: impl Fn(&Thing, &Thing) -> f64,
) -> Told {
    let best = |call: &Thing| {
        let syncs = syncs.iter().map(|sync| (score(sync, call), sync.is_second));
        syncs.max_by(|one, other| one.0.total_cmp(&other.0))
    };
    let guesses: Vec<Option<bool>> = calls.iter().map(|it| Some(best(it)?.1)).collect();
    let owners: Vec<bool> = calls.iter().map(|it| it.is_second).collect();
    let value = |owners: &[bool]| {
        let right = guesses.iter().zip(owners);
        let right = right.filter(|(guess, owner)| **guess == Some(**owner));
        small(right.count()) / small(owners.len().max(1))
    };
    told(way, owners, value)
}

fn told(way: &'static str, owners: Vec<bool>, value: impl Fn(&[bool]) -> f64) -> Told {
    let found = value(&owners);
    let far = |it: f64| (it - 0.5).abs() + 1e-9;
    let mut dice = Dice::new(0x5eed);
    let mut shuffled = owners;
    let mut as_far = 1_u32;
    for _ in 0..EXCHANGES {
        dice.shuffle(&mut shuffled);
        as_far += u32::from(far(value(&shuffled)) >= (found - 0.5).abs());
    }
    Told {
        way,
        value: found,
        chance: f64::from(as_far) / f64::from(EXCHANGES + 1),
    }
}

/// Of equal scores each has the mean of their ranks, which begin at one.
fn ranks(scores: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|one, other| scores[*one].total_cmp(&scores[*other]));
    let mut ranks = vec![0.0; scores.len()];
    let mut start = 0;
    while start < order.len() {
        let equal = |at: &&usize| scores[**at].total_cmp(&scores[order[start]]).is_eq();
        let count = order[start..].iter().take_while(equal).count();
        let rank = small(2 * start + count + 1) / 2.0;
        for at in &order[start..start + count] {
            ranks[*at] = rank;
        }
        start += count;
    }
    ranks
}

fn small(number: usize) -> f64 {
    float(number as u64)
}

fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thing(at: u64, is_second: bool) -> Thing {
        Thing {
            at,
            is_second,
            places: vec![usize::from(is_second)],
        }
    }

    #[test]
    fn scores_that_know_everything_and_nothing_have_the_right_auc() {
        let owners = [
            false, true, true, false, true, false, false, true, true, false,
        ];
        let things: Vec<_> = (0..)
            .zip(owners)
            .map(|(at, it)| thing(100 * at, it))
            .collect();
        let ways = syncs(&things);
        let by_places = ways.iter().find(|it| it.way.contains("nodes")).unwrap();
        assert!((by_places.value - 1.0).abs() < 1e-9, "{by_places:?}");
        assert!(by_places.chance < 0.02, "{by_places:?}");
        let by_time = ways.iter().find(|it| it.way.contains("near")).unwrap();
        assert!(by_time.chance > 0.02, "{by_time:?}");
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
    }

    #[test]
    fn a_sync_before_each_call_is_found() {
        let mut dice = Dice::new(1);
        let mut owners: Vec<bool> = (0..40).map(|it| it % 2 == 0).collect();
        dice.shuffle(&mut owners);
        let calls = (1..).zip(&owners).map(|(at, it)| thing(1000 * at, *it));
        let syncs = (1..)
            .zip(&owners)
            .map(|(at, it)| thing(1000 * at - 10, *it));
        let told = syncs_and_calls(&syncs.collect::<Vec<_>>(), &calls.collect::<Vec<_>>());
        let last = told.iter().find(|it| it.way.contains("last")).unwrap();
        assert!(
            (last.value - 1.0).abs() < 1e-9 && last.chance < 2e-5,
            "{last:?}"
        );
    }
}
