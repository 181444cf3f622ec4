//! Whether nodes and providers that pool what they saw can tell whose syncs and calls they were.
//!
//! Three of six nodes and two of four providers write everything down, and one of the nodes shows
//! one guest a provider that no other node has. What they find in the record of honest callers is
//! chance; what they find in the records of callers that are built to leak is everything.

mod providers;
mod script;
mod seen;
mod world;

use std::collections::HashSet;

use dlambda_tests::adversary::chance;
use dlambda_tests::adversary::pairs::{self, Told};
use dlambda_tests::anonymity_set::Dice;
use dlambda_tests::view::Link;

use script::{Canary, HOUR, Habit, schedule};
use world::World;

/// What happens as often by chance in a run of honest callers is nothing that the adversary knows.
/// Ten ways are tried: all together fail in one of five thousand runs.
const LIMIT: f64 = 2e-5;

fn report(title: &str, told: &[Told]) {
    println!("{title}:");
    for Told {
        way, value, chance, ..
    } in told
    {
        println!("  {value:.2}  p = {chance:.1e}  {way}");
    }
}

/// The worst that the pairs tell.
fn least(told: &[Told]) -> f64 {
    told.iter().map(|it| it.chance).fold(1.0, f64::min)
}

fn in_asks(found: &HashSet<Link>) -> usize {
    let asks = found.iter().filter(|link| {
        matches!(
            link,
            Link::SharedString {
                first: "bytes asked",
                second: "bytes asked",
                ..
            }
        )
    });
    asks.count()
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_tell_whose_syncs_and_calls_they_were() {
    let mut world = Box::pin(World::new()).await;
    let mut dice = Dice::new(1);
    let events = schedule(&mut dice, 20, 2 * HOUR);
    let canary = Canary::ShownTo(0);
    let seen = Box::pin(world.run(&events, Habit::Honest, canary, &mut dice)).await;
    println!(
        "{} syncs and {} calls; {} requests of guests and {} calls were seen",
        seen.all_syncs,
        seen.all_calls,
        seen.visits.len(),
        seen.calls()
    );
    assert_eq!(seen.all_calls, 40);
    assert!(
        seen.visits.len() >= 3 * seen.all_syncs,
        "each sync was seen"
    );
    assert!(
        (6..=34).contains(&seen.calls()),
        "half of the calls were seen"
    );

    let found = seen.links();
    assert_eq!(found, HashSet::new());

    let (syncs, calls) = (seen.sync_things(), seen.call_things());
    let told = [pairs::syncs_and_calls(&syncs, &calls), pairs::syncs(&syncs)].concat();
    report("syncs and calls", &told);
    assert!(least(&told) > LIMIT, "{told:?}");
    let divisions = seen.divisions();
    let most = divisions.iter().map(|it| it.chance).fold(1.0, f64::min);
    println!("{} divisions of the calls; p = {most:.1e}", divisions.len());
    assert!(divisions.len() > 20, "{divisions:?}");
    for score in &divisions {
        assert!(score.chance > 1e-6 / divisions.len() as f64, "{score:?}");
    }

    // It was shown a provider of its own, and does not take it for one.
    assert!(world.callers[0].market.knows(&world.canary_id));
    assert!(!world.callers[1].market.knows(&world.canary_id));
    let now = world.now();
    assert!(world.callers[0].market.get(&world.canary_id, now).is_none());
    assert_eq!(seen.at_canary, 0);
}

/// What set reconciliation would tell: a digest of what the guest has, in each sync.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_says_what_it_has_is_found() {
    let mut world = Box::pin(World::new()).await;
    let mut dice = Dice::new(2);
    let events = schedule(&mut dice, 2, 6 * HOUR);
    let canary = Canary::ShownTo(0);
    let seen = Box::pin(world.run(&events, Habit::SaysWhatItHas, canary, &mut dice)).await;
    let found = seen.links();
    assert!(in_asks(&found) > 0, "{found:?}");
    // Each string says whose the request was.
    let mut told = 0;
    for link in &found {
        let Link::SharedString { bytes, .. } = link else {
            panic!("{link:?}");
        };
        // The ends of two digests may be alike by chance.
        if bytes.iter().filter(|it| **it != 0).count() < 6 {
            continue;
        }
        let holders = seen.visits.iter().filter(|it| {
            let windows = it.visit.received.windows(bytes.len());
            windows.into_iter().any(|window| window == bytes)
        });
        let owners: HashSet<_> = holders.map(|it| it.is_second).collect();
        assert_eq!(owners.len(), 1);
        told += 1;
    }
    assert!(told > 0);
    println!("{told} strings that two requests of one guest have in common");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_before_each_call_is_found() {
    let mut world = Box::pin(World::new()).await;
    let mut dice = Dice::new(3);
    let events = schedule(&mut dice, 40, 3 * HOUR);
    let habit = Habit::SyncsBeforeCalls;
    let seen = Box::pin(world.run(&events, habit, Canary::None, &mut dice)).await;
    let (syncs, calls) = (seen.sync_things(), seen.call_things());
    let told = pairs::syncs_and_calls(&syncs, &calls);
    report("a sync before each call", &told);
    let last = told
        .iter()
        .find(|it| it.way == "the last sync before a call");
    let last = last.expect("it is tried");
    assert!(last.value > 0.999, "{last:?}");
    assert!(last.chance < LIMIT, "{last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_shown_to_one_guest_finds_who_chooses_from_all_that_it_knows() {
    let mut world = Box::pin(World::new()).await;
    let mut dice = Dice::new(4);
    let events = schedule(&mut dice, 40, 3 * HOUR);
    let (habit, canary) = (Habit::ChoosesFromAll, Canary::ShownTo(0));
    let seen = Box::pin(world.run(&events, habit, canary, &mut dice)).await;
    let calls = seen.calls();
    assert_eq!(seen.at_canary, 40);
    // Calls at the canary are of one caller, calls elsewhere of the other.
    let seconds = seen.call_things().iter().filter(|it| it.is_second).count();
    let right = seen.canary_right();
    let chance = chance(calls, seconds, calls - seen.at_canary, right);
    println!("{right} of {calls} calls are told by the canary; p = {chance:.1e}");
    assert_eq!(right, calls);
    assert!(chance < LIMIT);
}
