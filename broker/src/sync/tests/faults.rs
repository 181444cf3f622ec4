//! Sources that fail, lie or withhold.

use dlambda_proto::SnapshotId;

use super::*;
use crate::SnapshotError;
use crate::catalogue::tests::EFFORT;

#[test]
fn every_bad_source_is_noted_and_replaced() {
    let all = listings(30);
    type Check = fn(&SourceFault) -> bool;
    let table: [(Conduct, Check); 8] = [
        (Conduct::Silent, |it| matches!(it, SourceFault::NoAnswer(_))),
        (Conduct::Busy, |it| matches!(it, SourceFault::Busy)),
        (Conduct::Gone, |it| matches!(it, SourceFault::Gone)),
        (Conduct::Empty, |it| {
            matches!(it, SourceFault::WrongAnswer | SourceFault::Snapshot(_))
        }),
        (Conduct::Endless, |it| {
            matches!(it, SourceFault::Snapshot(SnapshotError::Order))
        }),
        (Conduct::OtherChunks, |it| {
            matches!(it, SourceFault::Snapshot(SnapshotError::SnapshotId))
        }),
        (Conduct::Huge, |it| {
            matches!(it, SourceFault::Snapshot(SnapshotError::Manifest("bytes")))
        }),
        (Conduct::Forged, |it| matches!(it, SourceFault::Listing(_))),
    ];
    for (conduct, check) in table {
        let mut seen = 0;
        for seed in 0..8 {
            // Another catalogue, so that something is asked of it.
            let mut bad = all[2..].to_vec();
            if conduct == Conduct::Forged {
                bad.clear();
            }
            let mut bad = node(&bad, conduct);
            if conduct == Conduct::Forged {
                bad.state = forging(&all);
            }
            let mut others = nodes(4, &all, Conduct::Honest);
            others.push(bad);
            let mut world = World::new(nodes(2, &all, Conduct::Honest), others);
            let synced = world.sync(seed).unwrap();
            assert_eq!(chosen(&synced).len(), 30, "{conduct:?}");
            assert_eq!(synced.answered, 5, "{conduct:?}");
            for (source, fault) in &synced.faults {
                assert_eq!(world.number(source), 104);
                assert!(check(fault), "{conduct:?}: {fault:?}");
                seen += 1;
            }
        }
        assert!(seen > 0, "{conduct:?} was never asked");
    }
}

/// A node that takes listings without work, as a guest does not.
fn forging(all: &[SignedListing]) -> NodeState {
    let rules = Rules {
        effort: 1,
        ..rules(2_000)
    };
    let mut catalogue = Catalogue::new(rules, Arc::new(Claimed));
    let mut cheap = Provider::new(7_000);
    cheap.effort = EFFORT - 1;
    for listing in all.iter().chain([&cheap.publish(NOON)]) {
        catalogue.insert(listing.clone(), at(NOON)).unwrap();
    }
    NodeState::new(catalogue)
}

#[test]
fn sources_that_withhold_are_replaced() {
    let all = listings(60);
    for seed in 0..4 {
        let mut world = World::new(nodes(2, &all, Conduct::Honest), vec![]);
        let others = (0..9).map(|it| match it {
            0..4 => node(&all[..20], Conduct::Honest),
            _ => node(&all, Conduct::Honest),
        });
        for (number, node) in (100..).zip(others) {
            world.nodes.insert(vec![number], node);
            world.others.push((endpoint(number), 3));
        }
        let synced = world.sync(seed).unwrap();
        assert_eq!((synced.answered, chosen(&synced).len()), (5, 60));
        let withheld = |it: &(Endpoint, SourceFault)| matches!(it.1, SourceFault::Withheld);
        assert!(synced.faults.iter().all(withheld));
    }
}

#[test]
fn with_fewer_than_three_sources_all_must_agree() {
    let all = listings(10);
    let mut world = World::new(
        vec![
            node(&all, Conduct::Honest),
            node(&all[..8], Conduct::Honest),
        ],
        vec![],
    );
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.known.len(), chosen(&synced).len()), (10, 8));
    let mut world = World::new(vec![node(&all, Conduct::Honest)], vec![]);
    assert_eq!(chosen(&world.sync(1).unwrap()).len(), 10);
}

#[test]
fn too_few_answers_are_an_error() {
    let all = listings(10);
    let silent = nodes(2, &all, Conduct::Silent);
    let mut world = World::new(silent, nodes(4, &all, Conduct::Honest));
    assert_eq!(world.sync(1).unwrap_err(), SyncError::NoBootstrap);
    let silent = nodes(4, &all, Conduct::Silent);
    let mut world = World::new(nodes(2, &all, Conduct::Honest), silent);
    let error = SyncError::TooFew {
        answered: 2,
        needed: 3,
    };
    assert_eq!(world.sync(1).unwrap_err(), error);
    let mut world = World::new(vec![], vec![]);
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let sources = Sources::draw(&world.bootstrap, &[], &mut rng);
    let sync = Sync::new(rules(9), Arc::new(Claimed), sources, at(NOON), &mut rng);
    assert!(sync.is_done());
    assert_eq!(sync.finish().unwrap_err(), SyncError::NoSource);
    world.asks.clear();
}

#[test]
fn a_sync_that_is_cut_short_counts_what_is_complete() {
    let all = listings(10);
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let bootstrap = [endpoint(1), endpoint(2)];
    let sources = Sources::draw(&bootstrap, &[], &mut rng);
    let mut sync = Sync::new(rules(99), Arc::new(Claimed), sources, at(NOON), &mut rng);
    let mut node = node(&all, Conduct::Honest);
    let request = sync.next().unwrap();
    sync.receive(request.id, node.answer(request.ask));
    // Answers to nothing, and twice to the same, change nothing.
    sync.receive(request.id, Ok(Answer::Busy));
    sync.receive(
        99,
        Ok(Answer::Manifest(
            node.state.snapshot(at(NOON)).manifest().clone(),
        )),
    );
    assert!(!sync.is_done());
    assert_eq!(sync.finish().unwrap_err(), SyncError::NoBootstrap);
}

#[test]
fn a_catalogue_that_changes_meanwhile_is_asked_for_once_more() {
    let all = listings(10);
    let mut rng = ChaCha8Rng::from_seed([1; 32]);
    let sources = Sources::draw(&[endpoint(1)], &[], &mut rng);
    let mut sync = Sync::new(rules(99), Arc::new(Claimed), sources, at(NOON), &mut rng);
    let mut node = node(&all, Conduct::Honest);
    let first = sync.next().unwrap();
    sync.receive(first.id, node.answer(first.ask));
    let chunk = sync.next().unwrap();
    sync.receive(chunk.id, Ok(Answer::Gone));
    while let Some(request) = sync.next() {
        sync.receive(request.id, node.answer(request.ask));
    }
    assert!(sync.is_done());
    let synced = sync.finish().unwrap();
    assert_eq!((chosen(&synced).len(), synced.faults.len()), (10, 0));
}

#[test]
fn no_answer_makes_a_sync_panic_or_go_on_for_ever() {
    let all = listings(5);
    let mut honest = node(&all, Conduct::Honest);
    let manifest = honest.state.snapshot(at(NOON)).manifest().clone();
    let fork = {
        let provider = Provider::new(9);
        let one = provider.next(NOON);
        let mut other = one.clone();
        other.plans[0].price += 1;
        ListingFork {
            one: provider.sign(&one),
            other: provider.sign(&other),
        }
    };
    let answers = [
        Answer::Manifest(manifest.clone()),
        Answer::Manifest(Manifest {
            snapshot: SnapshotId([9; 32]),
            ..manifest
        }),
        Answer::Chunk(vec![0x9f; Manifest::CHUNK_BYTES]),
        Answer::Listings(all.clone()),
        Answer::Listings(vec![all[0].clone(); 300]),
        Answer::Offers(vec![]),
        Answer::Forks(vec![fork; 70]),
        Answer::Accepted,
        Answer::Refused(dlambda_proto::SubmitRefusal::Full),
        Answer::Gone,
        Answer::Busy,
    ];
    let mut random = ChaCha8Rng::from_seed([5; 32]);
    for _ in 0..300 {
        let bootstrap: Vec<_> = (1..5).map(endpoint).collect();
        let sources = Sources::draw(&bootstrap, &[], &mut random);
        let mut sync = Sync::new(rules(99), Arc::new(Claimed), sources, at(NOON), &mut random);
        for _ in 0..200 {
            let Some(request) = sync.next() else { break };
            let drawn = usize::try_from(random.next_u64() % 16).unwrap();
            let answer = match answers.get(drawn) {
                Some(answer) => Ok(answer.clone()),
                None => honest.answer(request.ask),
            };
            sync.receive(request.id, answer);
        }
        assert!(sync.is_done());
        let _ = sync.finish();
    }
}
