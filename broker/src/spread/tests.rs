//! The plan, against arbitrary statements.

use dlambda_proto::{Day, IdentityKey, NetworkId};
use proptest::prelude::*;

use super::*;

fn function(number: u8) -> FunctionId {
    FunctionId::from_digest([number; 32])
}

fn provider(number: u8) -> ProviderId {
    IdentityKey::from_seed(&[number; 32]).id()
}

fn statement(by: u8, counts: &[(u8, u64)]) -> FunctionDemand {
    let counts = counts.iter().map(|(id, calls)| (function(*id), *calls));
    let network = NetworkId::from_bytes([1; 16]);
    FunctionDemand::of_counts(network, provider(by), Day(1), counts).expect("64 calls of one")
}

fn order(ranked: &[Demanded]) -> Vec<FunctionId> {
    ranked.iter().map(|it| it.function).collect()
}

#[test]
fn functions_are_ranked_by_votes_then_by_the_median_then_by_id() {
    let statements = [
        statement(1, &[(1, 1 << 30), (2, 64), (4, 64)]),
        statement(2, &[(2, 64), (3, 64), (4, 64)]),
        statement(3, &[(2, 1 << 30), (3, 128), (4, 128)]),
    ];
    let ranked = rank(&statements, Some(&provider(9)));
    let places = [2, 4, 3, 1].map(function);
    assert_eq!(order(&ranked), places);
    let medians: Vec<u64> = ranked.iter().map(|it| it.calls).collect();
    assert_eq!(medians, [64, 64, 64, 1 << 30]);
    let left_out = rank(&statements, Some(&provider(1)));
    assert!(!order(&left_out).contains(&function(1)), "its own words");
}

#[test]
fn what_is_here_or_passed_over_is_not_fetched() {
    let ranked = rank(
        &[statement(1, &[(1, 512), (2, 256), (3, 128)])],
        Some(&provider(9)),
    );
    let mut held = Held {
        budget: 100,
        ..Held::default()
    };
    let first = next_fetch(&ranked, &held).expect("a fetch");
    assert!(first.function == function(1) && first.most_bytes == 100);
    held.fetched.insert(function(1), 70);
    held.passed_over.insert(function(2));
    let next = next_fetch(&ranked, &held).expect("a fetch");
    assert!(next.function == function(3) && next.most_bytes == 30);
    held.fetched.insert(function(1), 100);
    assert!(next_fetch(&ranked, &held).is_none(), "no room is left");
    held.budget = 0;
    held.fetched.clear();
    assert!(next_fetch(&ranked, &held).is_none(), "no budget");
}

#[test]
fn the_least_wanted_makes_room() {
    let ranked = rank(
        &[statement(1, &[(1, 512), (2, 256), (3, 128)])],
        Some(&provider(9)),
    );
    let sizes = [(1, 40), (3, 40), (7, 20)];
    let held = Held {
        fetched: sizes.map(|(id, bytes)| (function(id), bytes)).into(),
        budget: 100,
        ..Held::default()
    };
    let room = |bytes| make_room(&ranked, &held, &function(2), bytes);
    assert_eq!(room(20), Some(vec![function(7)]), "not in demand any more");
    assert_eq!(room(60), Some(vec![function(7), function(3)]));
    assert_eq!(room(61), None, "the more wanted stays");
}

prop_compose! {
    fn statements()(
        all in prop::collection::vec(
            prop::collection::btree_map(0..12_u8, 64..1_u64 << 30, 1..8),
            0..8,
        )
    ) -> Vec<FunctionDemand> {
        let by = 1_u8..;
        by.zip(all)
            .map(|(by, counts)| statement(by, &counts.into_iter().collect::<Vec<_>>()))
            .collect()
    }
}

fn sizes() -> impl Strategy<Value = BTreeMap<FunctionId, u64>> {
    prop::collection::btree_map((0..16_u8).prop_map(function), 1..40_u64, 0..10)
}

proptest! {
    #[test]
    fn one_liar_puts_nothing_before_what_two_others_name(
        statements in statements(),
        lies in prop::collection::btree_map(0..12_u8, 64..u64::MAX, 1..8),
    ) {
        let honest = rank(&statements, Some(&provider(99)));
        let lies: Vec<_> = lies.into_iter().collect();
        let liar = statement(50, &lies);
        let all: Vec<_> = statements.iter().chain([&liar]).collect();
        let ranked = rank(all.iter().copied(), Some(&provider(99)));
        let place = |id: &FunctionId| ranked.iter().position(|it| it.function == *id);
        for new in ranked.iter().filter(|it| it.providers.len() == 1) {
            for two in honest.iter().filter(|it| it.providers.len() >= 2) {
                prop_assert!(place(&two.function) < place(&new.function));
            }
        }
        // A number that a liar moves stays within what honest providers have said.
        for it in ranked.iter().filter(|it| it.providers.len() >= 3) {
            let said = statements.iter().flat_map(|it| &it.functions);
            let said = said.filter(|told| told.function == it.function);
            let said: Vec<u64> = said.map(|told| told.calls.at_least()).collect();
            prop_assert!(said.iter().min() <= Some(&it.calls));
            prop_assert!(Some(&it.calls) <= said.iter().max());
        }
    }

    #[test]
    fn the_order_depends_on_nothing_but_what_is_said(statements in statements()) {
        let forward = rank(&statements, Some(&provider(99)));
        let backward = rank(statements.iter().rev(), Some(&provider(99)));
        prop_assert_eq!(order(&forward), order(&backward));
    }

    #[test]
    fn what_is_fetched_fits_and_costs_only_what_is_less_wanted(
        statements in statements(),
        fetched in sizes(),
        passed_over in prop::collection::btree_set((0..12_u8).prop_map(function), 0..4),
        spare in 0..60_u64,
        share in 0..1000_u64,
    ) {
        let ranked = rank(&statements, Some(&provider(99)));
        let budget = fetched.values().sum::<u64>() + spare;
        let mut held = Held { fetched, passed_over, budget };
        let Some(fetch) = next_fetch(&ranked, &held) else { return Ok(()) };
        prop_assert!(!held.fetched.contains_key(&fetch.function));
        prop_assert!(!held.passed_over.contains(&fetch.function));
        let bytes = 1 + (fetch.most_bytes - 1) * share / 1000;
        let evicted = make_room(&ranked, &held, &fetch.function, bytes);
        let evicted = evicted.expect("there was room");
        let place = |id: &FunctionId| {
            ranked.iter().position(|it| it.function == *id).unwrap_or(ranked.len())
        };
        for id in &evicted {
            prop_assert!(place(id) > place(&fetch.function));
            prop_assert!(held.fetched.remove(id).is_some());
        }
        held.fetched.insert(fetch.function, bytes);
        prop_assert!(held.fetched.values().sum::<u64>() <= held.budget);
    }

    /// Fetches and evictions end: what was evicted is not fetched again at once.
    #[test]
    fn with_unchanged_demand_the_plan_comes_to_an_end(
        statements in statements(),
        sizes in prop::collection::vec(1..40_u64, 16),
        budget in 0..200_u64,
    ) {
        let ranked = rank(&statements, Some(&provider(99)));
        let mut held = Held { budget, ..Held::default() };
        let mut steps = 0;
        while let Some(fetch) = next_fetch(&ranked, &held) {
            steps += 1;
            prop_assert!(steps <= 200);
            let bytes = sizes[usize::from(fetch.function.digest()[0])];
            if bytes > fetch.most_bytes {
                held.passed_over.insert(fetch.function);
                continue;
            }
            let evicted = make_room(&ranked, &held, &fetch.function, bytes).expect("room");
            for id in evicted {
                held.fetched.remove(&id);
            }
            held.fetched.insert(fetch.function, bytes);
        }
    }
}
