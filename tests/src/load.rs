//! How do callers load providers by the way in which they choose?
//!
//! # The model
//!
//! Time is virtual, and there is no network. A provider has workers, and a queue of bounded length;
//! when both are full it refuses a call. A call takes a worker for an exponentially distributed
//! time. Calls come as a Poisson process, from callers who know nothing of each other and of the
//! queues. An attempt takes a round trip; on refusal the caller goes on to the next of its order.
//! When all have refused it waits, and chooses anew until its deadline.
//!
//! One provider is hot: it has the best score, and a part of the load comes to it from elsewhere.
//! What it refuses of that does not come back.
//!
//! Scores do not change during a run: a refusal says nothing of whether a provider succeeds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use dlambda_broker::selection::{Prospect, draw};

use crate::anonymity_set::Dice;

/// A provider, as it is and as callers see it.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Calls that run at the same time.
    pub workers: usize,
    /// Calls that wait.
    pub queue: usize,
    /// Mean time of a call.
    pub service: Duration,
    /// Lower bound of its success rate.
    pub score: f64,
    /// Share of the whole load that comes to it from elsewhere.
    pub from_elsewhere: f64,
}

/// The providers of the figures. The first is hot.
pub const PROVIDERS: [Provider; 4] = [
    provider(8, 400, 0.97, 0.2),
    provider(8, 500, 0.90, 0.0),
    provider(6, 500, 0.85, 0.0),
    provider(6, 750, 0.80, 0.0),
];

/// Calls that come, as a share of what all providers together can take.
pub const LOAD: f64 = 0.8;

/// What one attempt takes without the call itself: a connection over Tor, about.
const ROUND_TRIP: Duration = Duration::from_millis(400);
/// Least time after which a caller that all have refused tries again; it waits for up to twice as
/// long, at random: otherwise those that were refused together would come back together.
const RETRY: Duration = Duration::from_secs(5);
/// When a caller gives up.
const DEADLINE: Duration = Duration::from_secs(60);

/// How callers choose the order in which they try providers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// [`draw`]: at random, by scores.
    Draw,
    /// By scores, the best first.
    Best,
    /// Each call begins at the next provider. All callers share the turn, which they could not: it
    /// is the best that round-robin can be.
    RoundRobin,
}

/// What a run shows, of the callers' own calls.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Outcome {
    /// Refusals for each call.
    pub refusals: f64,
    /// Time until completion that 95 % do not exceed.
    pub p95: Duration,
    /// Share of those that were answered, of each provider.
    pub shares: Vec<f64>,
    /// Share of those that nothing answered before their deadline.
    pub lost: f64,
}

/// Lets so many calls come from callers. The same seed gives the same outcome.
#[must_use]
pub fn simulate(providers: &[Provider], choice: Choice, calls: usize, seed: u64) -> Outcome {
    let mut world = World::new(providers, choice, seed);
    world.plan(Duration::ZERO, Event::Arrival);
    while let Some(((now, _), event)) = world.agenda.pop_first() {
        world.now = now;
        match event {
            // What was begun is brought to its end.
            Event::Arrival if world.calls == calls => {}
            Event::Arrival => world.arrive(),
            Event::Attempt(call) => world.attempt(call),
            Event::Done(at, call) => world.finish(at, &call),
        }
    }
    world.outcome()
}

const fn provider(workers: usize, millis: u64, score: f64, from_elsewhere: f64) -> Provider {
    Provider {
        workers,
        queue: 16,
        service: Duration::from_millis(millis),
        score,
        from_elsewhere,
    }
}

impl Provider {
    /// Calls a second that it can take.
    #[must_use]
    pub fn capacity(&self) -> f64 {
        self.workers as f64 / self.service.as_secs_f64()
    }
}

struct World<'a> {
    providers: &'a [Provider],
    prospects: Vec<Prospect>,
    choice: Choice,
    dice: Dice,
    now: Duration,
    /// By time; of the same time, in the order in which they were planned.
    agenda: BTreeMap<(Duration, usize), Event>,
    planned: usize,
    machines: Vec<Machine>,
    /// Calls of callers until now.
    calls: usize,
    refusals: usize,
    lost: usize,
    times: Vec<Duration>,
}

#[derive(Clone, Default)]
struct Machine {
    busy: usize,
    waiting: VecDeque<Call>,
    answered: usize,
}

enum Event {
    Arrival,
    /// A call comes to the first provider of its order.
    Attempt(Call),
    Done(usize, Call),
}

#[derive(Clone)]
struct Call {
    since: Duration,
    is_from_elsewhere: bool,
    order: VecDeque<usize>,
}

impl<'a> World<'a> {
    fn new(providers: &'a [Provider], choice: Choice, seed: u64) -> Self {
        let prospects = providers.iter().map(|it| Prospect::known(it.score));
        Self {
            providers,
            prospects: prospects.collect(),
            choice,
            dice: Dice::new(seed),
            now: Duration::ZERO,
            agenda: BTreeMap::new(),
            planned: 0,
            machines: vec![Machine::default(); providers.len()],
            calls: 0,
            refusals: 0,
            lost: 0,
            times: Vec::new(),
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.planned += 1;
        self.agenda.insert((self.now + after, self.planned), event);
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.dice.unit()).ln())
    }

    /// A call comes, and the next is planned.
    fn arrive(&mut self) {
        let capacity: f64 = self.providers.iter().map(Provider::capacity).sum();
        let mean = Duration::from_secs_f64(1.0 / (capacity * LOAD));
        let next = self.exponential(mean);
        self.plan(next, Event::Arrival);
        let mut left = self.dice.unit();
        let elsewhere = self.providers.iter().position(|it| {
            left -= it.from_elsewhere;
            left < 0.0
        });
        let order = match elsewhere {
            Some(at) => [at].into(),
            None => {
                self.calls += 1;
                self.choose()
            }
        };
        let call = Call {
            since: self.now,
            is_from_elsewhere: elsewhere.is_some(),
            order,
        };
        self.plan(ROUND_TRIP, Event::Attempt(call));
    }

    fn choose(&mut self) -> VecDeque<usize> {
        let count = self.providers.len();
        let mut order: Vec<_> = (0..count).collect();
        match self.choice {
            Choice::Draw => order = draw(&self.prospects, count, &mut self.dice),
            Choice::Best => {
                let score = |it: &usize| self.providers[*it].score;
                order.sort_by(|one, other| score(other).total_cmp(&score(one)));
            }
            Choice::RoundRobin => order.rotate_left(self.calls % count),
        }
        order.into()
    }

    fn attempt(&mut self, mut call: Call) {
        let Some(at) = call.order.pop_front() else {
            return;
        };
        let (provider, machine) = (&self.providers[at], &mut self.machines[at]);
        if machine.busy < provider.workers {
            machine.busy += 1;
            self.serve(at, call);
        } else if machine.waiting.len() < provider.queue {
            machine.waiting.push_back(call);
        } else if !call.is_from_elsewhere {
            self.refusals += 1;
            self.go_on(call);
        }
    }

    fn go_on(&mut self, mut call: Call) {
        let mut after = ROUND_TRIP;
        if call.order.is_empty() {
            after += RETRY.mul_f64(1.0 + self.dice.unit());
            call.order = self.choose();
        }
        match self.now + after - call.since <= DEADLINE {
            true => self.plan(after, Event::Attempt(call)),
            false => self.lost += 1,
        }
    }

    fn serve(&mut self, at: usize, call: Call) {
        let takes = self.exponential(self.providers[at].service);
        self.plan(takes, Event::Done(at, call));
    }

    fn finish(&mut self, at: usize, call: &Call) {
        let machine = &mut self.machines[at];
        if !call.is_from_elsewhere {
            machine.answered += 1;
            self.times.push(self.now - call.since);
        }
        match machine.waiting.pop_front() {
            Some(next) => self.serve(at, next),
            None => machine.busy -= 1,
        }
    }

    fn outcome(mut self) -> Outcome {
        self.times.sort();
        let answered = self.times.len().max(1) as f64;
        let calls = self.calls.max(1) as f64;
        let p95 = self.times.get(self.times.len() * 95 / 100);
        let shares = self.machines.iter().map(|it| it.answered as f64 / answered);
        Outcome {
            refusals: self.refusals as f64 / calls,
            p95: p95.copied().unwrap_or_default(),
            shares: shares.collect(),
            lost: self.lost as f64 / calls,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALLS: usize = 20_000;

    fn run(choice: Choice) -> Outcome {
        let outcome = simulate(&PROVIDERS, choice, CALLS, 1);
        println!("{choice:?}: {outcome:?}");
        outcome
    }

    fn greatest(shares: &[f64]) -> f64 {
        shares.iter().copied().fold(0.0, f64::max)
    }

    #[test]
    fn drawing_is_refused_less_than_the_best_and_spreads_load() {
        let (drawn, best) = (run(Choice::Draw), run(Choice::Best));
        assert!(drawn.refusals * 2.0 < best.refusals);
        // Though it uses slower providers, it does not take noticeably longer.
        assert!(drawn.p95 < best.p95.mul_f64(1.1));
        // The last one of four is hardly reached by those who always try the best first.
        let least = |it: &Outcome| it.shares.iter().copied().fold(1.0, f64::min);
        assert!(least(&drawn) > 0.1);
        assert!(least(&best) < 0.1);
        assert!(greatest(&drawn.shares) < greatest(&best.shares));
    }

    #[test]
    fn every_call_is_answered_or_lost() {
        for choice in [Choice::Draw, Choice::Best, Choice::RoundRobin] {
            let outcome = run(choice);
            assert!(outcome.lost < 0.001);
            assert!((outcome.shares.iter().sum::<f64>() - 1.0).abs() < 1e-9);
            assert_eq!(simulate(&PROVIDERS, choice, CALLS, 1), outcome);
            assert_ne!(simulate(&PROVIDERS, choice, CALLS, 2), outcome);
        }
    }

    #[test]
    fn what_comes_from_elsewhere_is_not_counted() {
        let flooded = Provider {
            workers: 1,
            queue: 0,
            from_elsewhere: 0.9,
            score: 0.1,
            ..PROVIDERS[0]
        };
        let free = Provider {
            workers: 20,
            from_elsewhere: 0.0,
            score: 1.0,
            ..PROVIDERS[1]
        };
        let outcome = simulate(&[flooded, free], Choice::Best, CALLS, 1);
        assert_eq!(outcome.refusals, 0.0);
        assert_eq!(outcome.shares, [0.0, 1.0]);
    }

    #[test]
    fn a_single_provider_is_as_queueing_theory_says() {
        // A system M/M/1/4 to which as many calls come as it can take refuses one of five. So that
        // is where 0.8 of them and the attempts after refusals, long after, come to rest.
        let only = Provider {
            workers: 1,
            queue: 3,
            service: Duration::from_millis(100),
            score: 1.0,
            from_elsewhere: 0.0,
        };
        let outcome = simulate(&[only], Choice::Best, 100_000, 1);
        assert!((outcome.refusals - 0.25).abs() < 0.01, "{outcome:?}");
    }
}
