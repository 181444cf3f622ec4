//! How well two calls are told to be of one caller, by which providers saw them.

use std::collections::BTreeSet;

use dlambda_tests::anonymity_set::Dice;

use super::colluding::Seen;

/// A way of telling that two calls are of one caller, and how well it tells.
pub(super) struct Told {
    pub(super) way: &'static str,
    pub(super) auc: f64,
    /// Of nine in ten, and of half of those that are left, resamplings of the calls.
    pub(super) interval: [f64; 2],
    /// Where it lies, as often, if callers are exchanged at random.
    pub(super) chance: [f64; 2],
}

pub(super) type Alike = fn(&Seen, &Seen) -> bool;

const WAYS: [(&str, Alike); 3] = [
    ("the same of the two saw both", |one, other| {
        set(one) == set(other)
    }),
    ("the same one saw both first", |one, other| {
        one.at[0] == other.at[0]
    }),
    ("as many records of both", |one, other| {
        one.at.len() == other.at.len()
    }),
];

pub(super) fn set(seen: &Seen) -> BTreeSet<usize> {
    seen.at.iter().copied().collect()
}

/// The probability that a pair of one caller looks more alike than a pair of two; a tie is a half.
fn auc(alike: &[Vec<bool>], owners: &[usize], chosen: &[usize]) -> f64 {
    let (mut counts, mut hits) = ([0.0_f64; 2], [0.0_f64; 2]);
    for (i, one) in chosen.iter().enumerate() {
        for other in &chosen[..i] {
            // A call that was drawn twice is no pair.
            if one != other {
                let same = usize::from(owners[*one] == owners[*other]);
                counts[same] += 1.0;
                hits[same] += f64::from(u8::from(alike[*one][*other]));
            }
        }
    }
    let share = |same: usize| hits[same] / counts[same].max(1.0);
    0.5 + (share(1) - share(0)) / 2.0
}

fn middle(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |share: usize| values[(values.len() - 1) * share / 1_000];
    [at(25), at(975)]
}

pub(super) fn tell(seen: &[Seen]) -> Vec<Told> {
    let mut dice = Dice::new(0x5eed);
    let owners: Vec<usize> = seen.iter().map(|it| it.owner).collect();
    let every: Vec<usize> = (0..seen.len()).collect();
    let told = WAYS.iter().map(|(way, is_alike)| {
        let row = |one: &Seen| seen.iter().map(|other| is_alike(one, other)).collect();
        let alike: Vec<Vec<bool>> = seen.iter().map(row).collect();
        let drawn = (0..400).map(|_| {
            let chosen: Vec<usize> = every.iter().map(|_| dice.below(seen.len())).collect();
            auc(&alike, &owners, &chosen)
        });
        let interval = middle(drawn.collect());
        let mut shuffled = owners.clone();
        let exchanged = (0..1_000).map(|_| {
            dice.shuffle(&mut shuffled);
            auc(&alike, &shuffled, &every)
        });
        Told {
            way,
            auc: auc(&alike, &owners, &every),
            interval,
            chance: middle(exchanged.collect()),
        }
    });
    told.collect()
}
