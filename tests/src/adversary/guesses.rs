//! Ways of dividing calls in two without any string that ties them.

use std::time::{Duration, SystemTime};

use super::seen::{CallSeen, ContractSeen};

/// For each way its name, and the calls, in order of time, on one side of it.
/// What is the same for all calls divides nothing and is left out.
pub(super) fn partitions(
    calls: &[CallSeen],
    contracts: &[&ContractSeen],
) -> Vec<(String, Vec<bool>)> {
    let mut found = by_order(calls, contracts);
    found.extend(by_pauses(calls));
    found.extend(by_numbers(calls));
    found.extend(by_facts(calls));
    found.retain(|(_, side)| side.contains(&true) && side.contains(&false));
    found
}

fn by_order(calls: &[CallSeen], contracts: &[&ContractSeen]) -> Vec<(String, Vec<bool>)> {
    let turns = [1, 2, 4, 5, 8, 10].map(|turn| {
        let side = (0..calls.len()).map(|call| (call / turn) % 2 == 1);
        (format!("in turns of {turn}"), side.collect())
    });
    let halves = (0..calls.len()).map(|call| call >= calls.len() / 2);
    let latest = calls.iter().map(|call| {
        let before = contracts.iter().filter(|it| it.signed <= call.opened);
        before.count() > 1
    });
    let mut found = Vec::from(turns);
    found.push(("first half, second half".to_owned(), halves.collect()));
    found.push(("the contract signed last".to_owned(), latest.collect()));
    found
}

/// Time since the call before: as if one caller made calls in bursts, or was
/// slower after a call of its own than after another's.
fn by_pauses(calls: &[CallSeen]) -> Vec<(String, Vec<bool>)> {
    let since = |later: SystemTime, earlier: SystemTime| {
        later.duration_since(earlier).unwrap_or(Duration::ZERO)
    };
    let pairs = || calls.windows(2);
    let openings: Vec<Duration> = pairs().map(|w| since(w[1].opened, w[0].opened)).collect();
    let silences: Vec<Duration> = pairs().map(|w| since(w[1].opened, w[0].ended)).collect();
    let mut found = Vec::new();
    for (what, pauses) in [("opening", openings), ("end", silences)] {
        let mut sorted = pauses.clone();
        sorted.sort_unstable();
        let Some(median) = sorted.get(sorted.len() / 2) else {
            continue;
        };
        found.push((
            format!("another caller soon after the last {what}"),
            switching(pauses.iter().map(|pause| pause < median)),
        ));
        found.push((
            format!("another caller long after the last {what}"),
            switching(pauses.iter().map(|pause| pause >= median)),
        ));
        for bursts in [2, 4, 8] {
            let least = sorted.get((sorted.len() + 1).saturating_sub(bursts));
            let ends = |pause| least.is_some_and(|least| pause >= least);
            found.push((
                format!("{bursts} bursts, by {what}"),
                switching(pauses.iter().map(ends)),
            ));
        }
        // The pause before a call says something of the call's own caller.
        let mut own = vec![false];
        own.extend(pauses.iter().map(|pause| pause < median));
        found.push((format!("soon after the last {what}"), own));
    }
    found
}

/// Calls on alternating sides, the side changing before a call where told.
fn switching(changes: impl Iterator<Item = bool>) -> Vec<bool> {
    let mut side = vec![false];
    for change in changes {
        side.push(side.last().is_some_and(|last| *last) != change);
    }
    side
}

/// Small and large: of two equal parts, and at the widest gap.
fn by_numbers(calls: &[CallSeen]) -> Vec<(String, Vec<bool>)> {
    let mut found = Vec::new();
    for name in names(calls.iter().flat_map(|call| &call.numbers)) {
        let of = |call: &CallSeen| {
            let number = call.numbers.iter().find(|(known, _)| *known == name);
            number.map_or(0, |(_, number)| *number)
        };
        let mut sorted: Vec<u64> = calls.iter().map(of).collect();
        sorted.sort_unstable();
        let gaps = sorted.windows(2).max_by_key(|pair| pair[1] - pair[0]);
        let (Some(gap), Some(median)) = (gaps, sorted.get(sorted.len() / 2)) else {
            continue;
        };
        let side = |least: u64| calls.iter().map(|call| of(call) >= least).collect();
        found.push((format!("{name}, in halves"), side(*median)));
        found.push((format!("{name}, at the widest gap"), side(gap[1])));
    }
    found
}

fn by_facts(calls: &[CallSeen]) -> Vec<(String, Vec<bool>)> {
    let mut found = Vec::new();
    for name in names(calls.iter().flat_map(|call| &call.facts)) {
        let of = |call: &CallSeen| {
            let fact = call.facts.iter().find(|(known, _)| *known == name);
            fact.map(|(_, fact)| fact.clone())
        };
        let first = calls.first().and_then(of);
        let side = calls.iter().map(|call| of(call) != first).collect();
        found.push((format!("{name} like the first"), side));
    }
    found
}

fn names<'a, T: 'a>(values: impl Iterator<Item = &'a (&'static str, T)>) -> Vec<&'static str> {
    let mut names: Vec<&'static str> = values.map(|(name, _)| *name).collect();
    names.sort_unstable();
    names.dedup();
    names
}
