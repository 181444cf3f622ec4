//! How large is the anonymity set of a call?
//!
//! # The model
//!
//! One provider, one plan, one epoch of 24 hours whose tokens are good for an
//! hour longer. Each customer makes one contract, at any time of the epoch
//! alike, for 8, 32 or 128 calls with equal probability; makes the first call
//! some seconds later (0 to 10: a circuit has to be built) or after a further
//! delay, up to a given longest and any alike; and from then on calls at random
//! (a Poisson process) until the tokens are used up or worthless.
//!
//! The adversary sees when contracts were made, for how many calls, and when
//! calls came; it knows the distributions above. For every contract it keeps
//! the probabilities that so many of its tokens are spent, and brings them up
//! to date at every call, *and by the silence between calls*. At a call it
//! guesses the contract with the highest probability. It is Bayes' rule but for
//! one simplification: what it believes of one contract is independent of what
//! it believes of another.
//!
//! Nothing else than times is in the model: no inputs, no functions, no sizes.

use std::convert::Infallible;

use rand_core::TryRng;

/// Deterministic dice: SplitMix64.
#[derive(Clone, Debug)]
pub struct Dice(u64);

/// What is assumed of the customers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Customers {
    /// How many have a contract in the epoch.
    pub number: usize,
    /// Calls of each, an hour.
    pub calls_per_hour: f64,
    /// Longest time between a contract and its first call, in seconds.
    pub longest_delay: f64,
}

/// What the adversary achieves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Achieved {
    /// The share of first calls that it assigns rightly.
    pub right_first: f64,
    /// The share of all later calls that it assigns rightly.
    pub right_later: f64,
    /// The share of all calls that it believes to assign rightly.
    pub believed: f64,
    /// The share of all calls that it actually assigns rightly.
    pub right: f64,
    /// The same for somebody who only knows which contracts could have paid.
    pub chance: f64,
    /// How many contracts could have paid for a call, on average.
    pub possible: f64,
    /// How many it comes to, likely and unlikely ones together: the
    /// exponential of the average entropy of what the adversary believes.
    pub effective: f64,
}

const EPOCH: f64 = 24.0 * 3600.0;
const OVERLAP: f64 = 3600.0;
/// Longest time that a circuit takes, in seconds.
const CIRCUIT: f64 = 10.0;
const SIZES: [usize; 3] = [8, 32, 128];

/// Lets the adversary guess for `days` independent days.
#[must_use]
pub fn simulate(customers: Customers, days: usize, seed: u64) -> Achieved {
    let mut dice = Dice::new(seed);
    let mut tally = Tally::default();
    for _ in 0..days {
        one_day(customers, &mut dice, &mut tally);
    }
    tally.result()
}

impl Dice {
    /// The same seed gives the same throws.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn throw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 on and below `end`, which is not 0.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.throw() % (end as u64)).unwrap_or(0)
    }

    /// A number from 0 on and below 1.
    pub fn unit(&mut self) -> f64 {
        (self.throw() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Puts things into random order.
    pub fn shuffle<T>(&mut self, things: &mut [T]) {
        for last in (1..things.len()).rev() {
            things.swap(last, self.below(last + 1));
        }
    }
}

/// For code that takes any source of random numbers.
impl TryRng for Dice {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        // The high bits, of which there are 32.
        Ok(u32::try_from(self.throw() >> 32).unwrap_or(u32::MAX))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.throw())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.throw().to_le_bytes()[..part.len()]);
        }
        Ok(())
    }
}

/// A call, and who made it.
struct Event {
    time: f64,
    by: usize,
    first: bool,
}

fn one_day(customers: Customers, dice: &mut Dice, tally: &mut Tally) {
    let rate = customers.calls_per_hour / 3600.0;
    let start = Start {
        // A second instead of none: it keeps the formulas the same.
        delay: customers.longest_delay.max(1.0),
    };
    let mut contracts = Vec::new();
    let mut calls = Vec::new();
    for by in 0..customers.number {
        let made = dice.unit() * EPOCH;
        let size = SIZES[dice.below(SIZES.len())];
        let mut time = made + dice.unit() * CIRCUIT + dice.unit() * start.delay;
        for number in 0..size {
            if time > EPOCH + OVERLAP {
                break;
            }
            let first = number == 0;
            calls.push(Event { time, by, first });
            time -= (1.0 - dice.unit()).ln() / rate;
        }
        contracts.push(Belief::new(made, size));
    }
    calls.sort_by(|one, two| one.time.total_cmp(&two.time));
    for call in calls {
        for contract in contracts.iter_mut().filter(|it| it.made < call.time) {
            contract.hear_nothing_until(call.time, rate, start);
        }
        let weights: Vec<f64> = contracts
            .iter()
            .map(|it| it.intensity(call.time, rate, start))
            .collect();
        let total: f64 = weights.iter().sum();
        tally.count(&call, &weights, total);
        for (contract, weight) in contracts.iter_mut().zip(weights) {
            if weight > 0.0 {
                contract.hear_call(weight, weight / total, call.time, rate, start);
            }
        }
    }
}

/// When the first call comes, after the contract: the sum of two uniform times.
#[derive(Clone, Copy)]
struct Start {
    delay: f64,
}

impl Start {
    fn density(self, since: f64) -> f64 {
        self.corners(since, |x| x) / (CIRCUIT * self.delay)
    }

    /// The probability that it has not come yet.
    fn outstanding(self, since: f64) -> f64 {
        if since >= CIRCUIT + self.delay {
            return 0.0;
        }
        1.0 - self.corners(since, |x| x * x / 2.0) / (CIRCUIT * self.delay)
    }

    fn corners(self, since: f64, shape: impl Fn(f64) -> f64) -> f64 {
        let at = |corner: f64| shape((since - corner).max(0.0));
        at(0.0) - at(CIRCUIT) - at(self.delay) + at(CIRCUIT + self.delay)
    }
}

/// What the adversary believes of one contract.
struct Belief {
    made: f64,
    size: usize,
    known_until: f64,
    /// The probability that so many tokens are spent, as far as it is not 0.
    spent: Vec<f64>,
}

impl Belief {
    fn new(made: f64, size: usize) -> Self {
        Self {
            made,
            size,
            known_until: made,
            spent: vec![1.0],
        }
    }

    /// The expected rate of calls at this time.
    fn intensity(&self, now: f64, rate: f64, start: Start) -> f64 {
        if self.made >= now {
            return 0.0;
        }
        let active = self.spent.iter().take(self.size).skip(1).sum::<f64>();
        self.spent[0] * self.hazard(now, start) + rate * active
    }

    /// The rate of the first call, if it has not come yet.
    fn hazard(&self, now: f64, start: Start) -> f64 {
        let outstanding = start.outstanding(now - self.made);
        if outstanding > 0.0 {
            (start.density(now - self.made) / outstanding).max(0.0)
        } else {
            0.0
        }
    }

    fn hear_nothing_until(&mut self, now: f64, rate: f64, start: Start) {
        let before = start.outstanding(self.known_until - self.made);
        let silent = (-rate * (now - self.known_until)).exp();
        self.known_until = now;
        self.spent[0] *= if before > 0.0 {
            start.outstanding(now - self.made) / before
        } else {
            0.0
        };
        for active in self.spent.iter_mut().take(self.size).skip(1) {
            *active *= silent;
        }
        self.normalise();
    }

    /// A call came that was under this contract with probability `ours`.
    fn hear_call(&mut self, intensity: f64, ours: f64, now: f64, rate: f64, start: Start) {
        let hazard = self.hazard(now, start);
        if self.spent.len() <= self.size && self.spent.last().is_some_and(|last| *last > 1e-9) {
            self.spent.push(0.0);
        }
        let (stays, moves) = (1.0 - ours, ours * rate / intensity);
        for count in (2..self.spent.len()).rev() {
            self.spent[count] = stays * self.spent[count] + moves * self.spent[count - 1];
        }
        let first = ours * hazard / intensity * self.spent[0];
        if let Some(one) = self.spent.get_mut(1) {
            *one = stays * *one + first;
        }
        self.spent[0] *= stays;
    }

    fn normalise(&mut self) {
        let total: f64 = self.spent.iter().sum();
        if total > 0.0 {
            let factor = total.recip();
            for probability in &mut self.spent {
                *probability *= factor;
            }
        } else {
            // The first call must have come and was taken for another's.
            self.spent = vec![0.0, 1.0];
        }
    }
}

#[derive(Default)]
struct Tally {
    first: f64,
    right_first: f64,
    later: f64,
    right_later: f64,
    believed: f64,
    chance: f64,
    possible: f64,
    entropy: f64,
}

impl Tally {
    fn count(&mut self, call: &Event, weights: &[f64], total: f64) {
        let guess = weights.iter().enumerate();
        let guess = guess.max_by(|(_, one), (_, two)| one.total_cmp(two));
        let Some((guess, weight)) = guess else {
            return;
        };
        let right = f64::from(u8::from(guess == call.by));
        if call.first {
            self.first += 1.0;
            self.right_first += right;
        } else {
            self.later += 1.0;
            self.right_later += right;
        }
        let possible = weights.iter().filter(|weight| **weight > 0.0).count() as f64;
        self.believed += weight / total;
        self.possible += possible;
        self.chance += 1.0 / possible;
        let shares = weights.iter().map(|weight| weight / total);
        let surprise = shares.filter(|share| *share > 0.0);
        self.entropy -= surprise.map(|share| share * share.ln()).sum::<f64>();
    }

    fn result(&self) -> Achieved {
        let calls = (self.first + self.later).max(1.0);
        Achieved {
            right_first: self.right_first / self.first.max(1.0),
            right_later: self.right_later / self.later.max(1.0),
            believed: self.believed / calls,
            right: (self.right_first + self.right_later) / calls,
            chance: self.chance / calls,
            possible: self.possible / calls,
            effective: (self.entropy / calls).exp(),
        }
    }
}
