//! A provider that wrote down everything, and now wants to know under which
//! contract each call was made.
//!
//! It has every byte, time and circuit fact of every session, opened requests
//! and replies included ([`SessionRecord`]), and tries:
//!
//! * **strings**: every eight bytes of a call in everything that it saw of a
//!   contract, also as text and hashed; and in the other calls;
//! * **order and time**: turns, halves, bursts, pauses, durations;
//! * **sizes, numbers and circuit facts**: whatever splits the calls in two.
//!
//! # What is chance
//!
//! Every guess but those by strings divides the calls between two contracts
//! and says nothing of which is which, so it is counted as the better of its
//! two readings. If calls came in random order and nothing in the record
//! depends on who made them, then of `n` calls, `a` under the first contract,
//! all C(n, a) answers are equally likely whatever was recorded: how many a
//! given guess has right follows a hypergeometric distribution, and
//! [`Score::chance`] is its exact tail. A test that accepts nothing below
//! 10^-6 divided by the number of guesses is wrong once in a million runs.
//!
//! With twenty calls each and some fifty guesses, that limit is between 36 and
//! 38 right of 40. A value that says whose a call is gives all 40. A fainter
//! hint, by which 19 of 20 calls are told, is noticed in two runs of three; one
//! by which three of four are told, hardly ever: one run proves that there is
//! no leash, not that there is no draught.
//!
//! # What it cannot try
//!
//! The issuer's key is no help: for every token and every blinded element
//! there is exactly one blind that makes one of the other, and the blind has
//! left the caller's machine in no form.

mod guesses;
pub mod pairs;
mod seen;

use std::collections::{HashMap, HashSet};

use dlambda_proto::{ContractId, Request};
use dlambda_provider::SessionRecord;

use guesses::partitions;
use seen::{CallSeen, ContractSeen, Window, opened_call, opened_contract};

/// See the [module](self).
pub struct Adversary {
    contracts: Vec<ContractSeen>,
    calls: Vec<CallSeen>,
    /// Strings that say nothing: they are sent to everybody.
    public: HashSet<Window>,
}

/// A string that a call has in common with a contract, or with another call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Shared {
    /// Which call, in order of time.
    pub call: usize,
    /// What it shares the string with, in order of time.
    pub with: usize,
    /// Where in the call.
    pub field: &'static str,
    /// The string.
    pub bytes: [u8; 8],
}

/// How well one way of guessing did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Score {
    /// The way.
    pub strategy: String,
    /// For how many calls it had a guess.
    pub guessed: usize,
    /// How many guesses were right.
    pub right: usize,
    /// The probability of so many or more without any knowledge.
    pub chance: f64,
}

impl Adversary {
    /// Reads the record: any number of sessions, with whatever happened on them.
    #[must_use]
    pub fn new(records: &[SessionRecord]) -> Self {
        let mut contracts: Vec<ContractSeen> = Vec::new();
        let mut calls: Vec<CallSeen> = Vec::new();
        for record in records {
            if let Some(request) = opened_call(record) {
                calls.push(CallSeen::new(record, request));
            } else if let Some((id, strings)) = opened_contract(record) {
                match contracts.iter_mut().find(|known| known.id == id) {
                    Some(known) => known.add(record, strings),
                    None => contracts.push(ContractSeen::new(id, record, strings)),
                }
            }
        }
        contracts.sort_by_key(|contract| contract.signed);
        calls.sort_by_key(|call| call.opened);
        // Attempts of one call are one call.
        let mut tokens = HashSet::new();
        calls.retain(|call| {
            let token = call.request.token;
            token.is_none_or(|token| tokens.insert(token.authenticator))
        });
        Self {
            public: seen::public(records),
            contracts,
            calls,
        }
    }

    /// How many calls it knows of.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.len()
    }

    /// The contracts that it knows of, in order of time.
    #[must_use]
    pub fn contracts(&self) -> Vec<ContractId> {
        self.contracts.iter().map(|contract| contract.id).collect()
    }

    /// Every string that a call has in common with everything about a contract.
    #[must_use]
    pub fn shared_with_contracts(&self) -> HashSet<Shared> {
        let mut found = HashSet::new();
        for (call, seen) in self.calls.iter().enumerate() {
            for (window, field) in seen.marks(&self.public) {
                let holds = |contract: &ContractSeen| contract.strings.contains(&window);
                let holders = self.contracts.iter().enumerate();
                found.extend(
                    holders
                        .filter(|(_, contract)| holds(contract))
                        .map(|(with, _)| Shared {
                            call,
                            with,
                            field,
                            bytes: window,
                        }),
                );
            }
        }
        found
    }

    /// Every string that some calls have in common, and others do not have.
    #[must_use]
    pub fn shared_by_calls(&self) -> HashSet<Shared> {
        let mut holders: HashMap<Window, Vec<(usize, &'static str)>> = HashMap::new();
        for (call, seen) in self.calls.iter().enumerate() {
            for (window, field) in seen.marks(&self.public) {
                holders.entry(window).or_default().push((call, field));
            }
        }
        let telling = holders
            .into_iter()
            .filter(|(_, calls)| calls.len() > 1 && calls.len() < self.calls.len());
        let pairs = telling.flat_map(|(bytes, calls)| {
            let (with, _) = calls[0];
            let others = calls.into_iter().skip(1);
            others.map(move |(call, field)| Shared {
                call,
                with,
                field,
                bytes,
            })
        });
        pairs.collect()
    }

    /// How many calls each strategy assigns rightly; `owner` tells the truth.
    /// Nothing unless there are just two contracts.
    #[must_use]
    pub fn best_guesses(&self, owner: impl Fn(&Request) -> ContractId) -> Vec<Score> {
        let [first, second] = &self.contracts[..] else {
            return Vec::new();
        };
        let truth: Vec<bool> = self
            .calls
            .iter()
            .map(|call| owner(&call.request) != first.id)
            .collect();
        let by_contract = self.by_shared_strings();
        let mut scores = vec![Score::named("a string of a contract", &by_contract, &truth)];
        let by_calls = clusters(self.calls.len(), &self.shared_by_calls());
        let alike = "a string of another call";
        scores.push(Score::unnamed(alike, &by_calls, &truth));
        for (strategy, guess) in partitions(&self.calls, &[first, second]) {
            let guess: Vec<Option<bool>> = guess.into_iter().map(Some).collect();
            scores.push(Score::unnamed(&strategy, &guess, &truth));
        }
        scores
    }

    /// How well the calls, whatever they were paid with, are divided between two callers: by the
    /// strings that they have in common, and by all that takes no string. `is_second` tells whose
    /// they are.
    #[must_use]
    pub fn best_divisions(&self, is_second: impl Fn(&Request) -> bool) -> Vec<Score> {
        let calls = self.calls.iter();
        let truth: Vec<bool> = calls.map(|call| is_second(&call.request)).collect();
        let by_calls = clusters(self.calls.len(), &self.shared_by_calls());
        let alike = "a string of another call";
        let mut scores = vec![Score::unnamed(alike, &by_calls, &truth)];
        for (strategy, guess) in partitions(&self.calls, &[]) {
            let guess: Vec<Option<bool>> = guess.into_iter().map(Some).collect();
            scores.push(Score::unnamed(&strategy, &guess, &truth));
        }
        scores
    }

    /// For each call the contract that it shares most strings with.
    fn by_shared_strings(&self) -> Vec<Option<bool>> {
        let mut shared = vec![[0_usize; 2]; self.calls.len()];
        for Shared { call, with, .. } in self.shared_with_contracts() {
            shared[call][with] += 1;
        }
        let choose = |[first, second]: [usize; 2]| (first != second).then_some(second > first);
        shared.into_iter().map(choose).collect()
    }
}

impl Score {
    /// For a guess that says which contract is which.
    fn named(strategy: &str, guess: &[Option<bool>], truth: &[bool]) -> Self {
        let guesses = guess.iter().zip(truth);
        let right = guesses.filter(|(guess, truth)| **guess == Some(**truth));
        let right = right.count();
        Self {
            right,
            ..Self::unnamed(strategy, guess, truth)
        }
    }

    /// For a guess that only divides the calls in two.
    fn unnamed(strategy: &str, guess: &[Option<bool>], truth: &[bool]) -> Self {
        let guesses = guess.iter().zip(truth);
        let made: Vec<(bool, bool)> = guesses
            .filter_map(|(guess, truth)| Some(((*guess)?, *truth)))
            .collect();
        let right = made.iter().filter(|(guess, truth)| guess == truth).count();
        let right = right.max(made.len() - right);
        let seconds = made.iter().filter(|(_, truth)| *truth).count();
        let guessed_second = made.iter().filter(|(guess, _)| *guess).count();
        Self {
            strategy: strategy.to_owned(),
            guessed: made.len(),
            right,
            chance: chance(made.len(), seconds, guessed_second, right),
        }
    }
}

/// The probability that a division of `calls` calls, `guessed` of them on one
/// side, agrees with a random one, `actual` of them on one side, in `right`
/// calls or more, or as much with its sides exchanged.
#[must_use]
pub fn chance(calls: usize, actual: usize, guessed: usize, right: usize) -> f64 {
    let overlaps = (actual + guessed).saturating_sub(calls)..=actual.min(guessed);
    let likely = overlaps.filter(|both| {
        let agreed = 2 * both + calls - actual - guessed;
        agreed.max(calls - agreed) >= right
    });
    let ways = likely.map(|both| binomial(actual, both) * binomial(calls - actual, guessed - both));
    ways.sum::<f64>() / binomial(calls, guessed)
}

fn binomial(n: usize, k: usize) -> f64 {
    (0..k).fold(1.0, |ways, i| ways * (n - i) as f64 / (i + 1) as f64)
}

/// The calls that hang together by what they share, the two largest sets of
/// them; nothing of the others.
fn clusters(calls: usize, shared: &HashSet<Shared>) -> Vec<Option<bool>> {
    let mut label: Vec<usize> = (0..calls).collect();
    for Shared { call, with, .. } in shared {
        let (from, to) = (label[*call], label[*with]);
        for label in &mut label {
            if *label == from {
                *label = to;
            }
        }
    }
    let size = |wanted: usize| label.iter().filter(|label| **label == wanted).count();
    let mut sets: Vec<usize> = label.clone();
    sets.sort_unstable();
    sets.dedup();
    sets.sort_by_key(|set| std::cmp::Reverse(size(*set)));
    sets.retain(|set| size(*set) > 1);
    let which = |label: &usize| sets.iter().take(2).position(|set| set == label);
    label.iter().map(|label| Some(which(label)? == 1)).collect()
}
