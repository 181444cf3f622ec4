//! Which published functions a provider should hold beside its own, without I/O.
//!
//! What is in demand follows from the statements of providers alone, and never from a call. One
//! provider that lies has one vote a function, and the number of calls counts by the median of
//! those who name the function: a single liar puts no function before one that two name.

use std::collections::{BTreeMap, BTreeSet};

use dlambda_proto::{FunctionDemand, FunctionId, ProviderId};

/// Largest function that nodes hand on, in bytes: 16 MiB.
pub const MAX_SPREAD_BYTES: u64 = 16 << 20;

/// A function that is in demand.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Demanded {
    /// The function.
    pub function: FunctionId,
    /// The median of what those who publish it say, each at the lower bound of its step: calls a
    /// day.
    pub calls: u64,
    /// The providers that say so, in the order of their ids: each publishes the function.
    pub providers: Vec<ProviderId>,
}

/// What a provider has fetched before, and the bounds that it fetches within.
#[derive(Clone, Default)]
pub struct Held {
    /// The fetched functions, and their sizes in bytes.
    pub fetched: BTreeMap<FunctionId, u64>,
    /// Functions that are not to be fetched: its own, and those that failed lately.
    pub passed_over: BTreeSet<FunctionId>,
    /// Bytes that the fetched functions may have together.
    pub budget: u64,
}

/// A fetch that is worth while.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetch {
    /// The function.
    pub function: FunctionId,
    /// Most bytes that it may have: the budget but for functions that are more in demand.
    pub most_bytes: u64,
}

/// The functions in demand, the most wanted first: by the number of providers that name it, then by
/// the median of their numbers, then by id. What `own` says is left out.
#[must_use]
pub fn rank<'a>(
    statements: impl IntoIterator<Item = &'a FunctionDemand>,
    own: Option<&ProviderId>,
) -> Vec<Demanded> {
    // By provider, so that each has one vote even if two statements of it were handed in.
    let mut votes: BTreeMap<FunctionId, BTreeMap<ProviderId, u64>> = BTreeMap::new();
    for statement in statements {
        if own == Some(&statement.provider) {
            continue;
        }
        for told in &statement.functions {
            let calls = told.calls.at_least();
            let of_function = votes.entry(told.function).or_default();
            of_function.insert(statement.provider, calls);
        }
    }
    let mut ranked: Vec<_> = votes
        .into_iter()
        .map(|(function, votes)| Demanded {
            function,
            calls: median(votes.values().copied().collect()),
            providers: votes.into_keys().collect(),
        })
        .collect();
    ranked.sort_by_key(|it| {
        let order = (it.providers.len(), it.calls);
        (std::cmp::Reverse(order), it.function)
    });
    ranked
}

/// The function to fetch next: the most wanted that is not here, if the budget has room beside what
/// is more wanted and here.
#[must_use]
pub fn next_fetch(ranked: &[Demanded], held: &Held) -> Option<Fetch> {
    let mut room = held.budget;
    for wanted in ranked {
        let function = wanted.function;
        if let Some(bytes) = held.fetched.get(&function) {
            room = room.saturating_sub(*bytes);
        } else if !held.passed_over.contains(&function) {
            let most_bytes = room.min(MAX_SPREAD_BYTES);
            return (most_bytes > 0).then_some(Fetch {
                function,
                most_bytes,
            });
        }
    }
    None
}

/// What has to go so that a function of `bytes` that was fetched fits into the budget: the least
/// wanted first, and never one that is more wanted than it. `None` if it cannot fit.
#[must_use]
pub fn make_room(
    ranked: &[Demanded],
    held: &Held,
    function: &FunctionId,
    bytes: u64,
) -> Option<Vec<FunctionId>> {
    let place = |id: &FunctionId| {
        let found = ranked.iter().position(|it| it.function == *id);
        found.unwrap_or(ranked.len())
    };
    let own_place = place(function);
    let fetched = held.fetched.iter().filter(|(id, _)| *id != function);
    let mut used: u64 = fetched.clone().map(|(_, bytes)| *bytes).sum();
    let mut spare: Vec<_> = fetched
        .map(|(id, bytes)| (place(id), *id, *bytes))
        .filter(|(place, ..)| *place > own_place)
        .collect();
    spare.sort_unstable();
    let mut evicted = Vec::new();
    while used.saturating_add(bytes) > held.budget {
        let (_, id, freed) = spare.pop()?;
        used -= freed;
        evicted.push(id);
    }
    Some(evicted)
}

/// The lower one of two in the middle.
fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(0)
}

impl std::fmt::Debug for Demanded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Demanded([scrubbed])")
    }
}

impl std::fmt::Debug for Held {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Held([scrubbed])")
    }
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fetch([scrubbed])")
    }
}

#[cfg(test)]
mod tests;
