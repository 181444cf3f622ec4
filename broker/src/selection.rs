//! Which of the eligible providers is tried, and in which order: drawn at random, by the lower
//! bounds of their success rates.
//!
//! Nothing here depends on a call. The best provider is not always the first: all callers would
//! load it at once, and what failed once would never show that it has recovered.
//!
//! A weight is a lower bound, or [`FLOOR`] if that is greater. The others share by weight, within
//! these limits:
//!
//! 1. While there is a known provider, newcomers have together at most [`NEWCOMERS_SHARE`], and
//!    each at most its weight times what a known one has on average: identities are free.
//! 2. Of [`SPREAD_FROM`] or more, none has more than [`MOST_SHARE`]. What is cut off goes to the
//!    others of its group in proportion.
//! 3. If the known ones are too few for both, the first limit holds: newcomers have their tenth,
//!    and the known ones share the rest evenly.

use rand_core::Rng;

use crate::schedule::fraction;

/// Least weight: a provider that failed until now is drawn too, and can recover.
pub const FLOOR: f64 = 0.05;

/// Most that newcomers have together while there is a known provider.
pub const NEWCOMERS_SHARE: f64 = 0.1;

/// Most that one provider has, of [`SPREAD_FROM`] or more.
pub const MOST_SHARE: f64 = 0.25;

/// Number of eligible providers from which on [`MOST_SHARE`] holds.
pub const SPREAD_FROM: usize = 8;

/// What selection knows of one eligible provider.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Prospect {
    /// Lower bound of its success rate. Below 0, or not a number, it counts as 0; above 1 as 1.
    pub lower_bound: f64,
    /// Whether too little is known of it to tell it from an identity made for this occasion.
    pub is_newcomer: bool,
}

impl Prospect {
    /// A provider with a history.
    #[must_use]
    pub fn known(lower_bound: f64) -> Self {
        Self {
            lower_bound,
            is_newcomer: false,
        }
    }

    /// A provider without.
    #[must_use]
    pub fn newcomer(lower_bound: f64) -> Self {
        Self {
            lower_bound,
            is_newcomer: true,
        }
    }

    fn weight(&self) -> f64 {
        match self.lower_bound.is_nan() {
            true => FLOOR,
            false => self.lower_bound.clamp(FLOOR, 1.0),
        }
    }
}

/// The probability of each to be drawn first: in the same order, all above 0, of sum 1 unless
/// empty. Takes time n log n.
#[must_use]
pub fn probabilities(prospects: &[Prospect]) -> Vec<f64> {
    let groups = Groups::new(prospects);
    let mut probabilities = vec![0.0; prospects.len()];
    for (group, split) in groups.split() {
        for (place, member) in group.iter().enumerate() {
            probabilities[member.index] = split.probability(place, member);
        }
    }
    probabilities
}

/// Draws up to `count` different ones: indices, in the order in which they are to be tried. Each
/// is drawn by the [`probabilities`] of those that are left. Takes time n log n, and n for each
/// that is drawn; and a random number for each.
pub fn draw(prospects: &[Prospect], count: usize, rng: &mut impl Rng) -> Vec<usize> {
    let mut groups = Groups::new(prospects);
    (0..count.min(prospects.len()))
        .filter_map(|_| groups.take(fraction(rng.next_u64())))
        .collect()
}

/// Those that are left, of each group the one with the greatest weight first.
struct Groups {
    known: Vec<Member>,
    newcomers: Vec<Member>,
}

struct Member {
    index: usize,
    weight: f64,
}

/// How a group divides its share: the first so many have `most` each, the others `rate` times
/// their weight.
struct Split {
    cut: usize,
    most: f64,
    rate: f64,
}

impl Groups {
    fn new(prospects: &[Prospect]) -> Self {
        let group = |is_newcomer| {
            let members = prospects.iter().enumerate();
            let members = members.filter(|(_, it)| it.is_newcomer == is_newcomer);
            let members = members.map(|(index, it)| (index, it.weight()));
            let mut members: Vec<_> = members
                .map(|(index, weight)| Member { index, weight })
                .collect();
            members.sort_by(|one, other| other.weight.total_cmp(&one.weight));
            members
        };
        Self {
            known: group(false),
            newcomers: group(true),
        }
    }

    fn split(&self) -> [(&[Member], Split); 2] {
        let is_spread = self.known.len() + self.newcomers.len() >= SPREAD_FROM;
        let of_newcomers = self.newcomers_share(is_spread);
        let of_known = 1.0 - of_newcomers;
        [
            (&self.known, Split::new(&self.known, of_known, is_spread)),
            (
                &self.newcomers,
                Split::new(&self.newcomers, of_newcomers, is_spread),
            ),
        ]
    }

    fn newcomers_share(&self, is_spread: bool) -> f64 {
        let known = self.known.len() as f64;
        let is_crowded = is_spread && known * MOST_SHARE < 1.0 - NEWCOMERS_SHARE;
        if self.newcomers.is_empty() {
            0.0
        } else if self.known.is_empty() {
            1.0
        } else if is_crowded {
            NEWCOMERS_SHARE
        } else {
            // Without the weights of known ones: else one that is cut off would give to the others
            // by becoming better.
            let weight = total(&self.newcomers);
            NEWCOMERS_SHARE.min(weight / (weight + known))
        }
    }

    /// Takes out the one at which the sum of probabilities reaches `sum`.
    fn take(&mut self, sum: f64) -> Option<usize> {
        let (mut left, mut last) = (sum, None);
        'found: for (number, (group, split)) in self.split().iter().enumerate() {
            for (place, member) in group.iter().enumerate() {
                last = Some((number, place));
                left -= split.probability(place, member);
                if left <= 0.0 {
                    break 'found;
                }
            }
        }
        // By rounding, the sum of all may be a little less than 1: then it is the last.
        let (number, place) = last?;
        let group = match number {
            0 => &mut self.known,
            _ => &mut self.newcomers,
        };
        Some(group.remove(place).index)
    }
}

impl Split {
    fn new(group: &[Member], share: f64, is_spread: bool) -> Self {
        let most = match is_spread {
            true => MOST_SHARE.max(share / group.len() as f64),
            false => 1.0,
        };
        let (mut left, mut cut) = (share, 0);
        let rate = loop {
            // At most four are cut, or as many as there are of a group too small.
            let rest = &group[cut..];
            let rate = left / total(rest);
            match rest.first() {
                Some(greatest) if greatest.weight * rate > most => cut += 1,
                _ => break rate,
            }
            left -= most;
        };
        Self { cut, most, rate }
    }

    fn probability(&self, place: usize, member: &Member) -> f64 {
        match place < self.cut {
            true => self.most,
            false => self.rate * member.weight,
        }
    }
}

fn total(group: &[Member]) -> f64 {
    group.iter().map(|it| it.weight).sum()
}

#[cfg(test)]
mod tests;
