//! What a guest knows and chooses, whatever its sources do.

use std::collections::BTreeMap;

use dlambda_proto::{Manifest, OnionAddress, ProviderId, SignedListing, SnapshotId};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;
use crate::catalogue::tests::{Claimed, EFFORT, HOUR, NOON, Provider, at, rules};
use crate::{Catalogue, NodeState, SnapshotError};

/// How a node treats its guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Conduct {
    Honest,
    Silent,
    Busy,
    Gone,
    /// Answers everything with an empty list.
    Empty,
    /// Answers every page with a full one.
    Endless,
    /// Its chunks are another catalogue's.
    OtherChunks,
    /// Its manifest announces a petabyte.
    Huge,
    /// Its listings are not signed.
    Forged,
}

struct Node {
    state: NodeState,
    conduct: Conduct,
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([number; 32]))
}

fn node(listings: &[SignedListing], conduct: Conduct) -> Node {
    let mut catalogue = Catalogue::new(rules(2_000), Arc::new(Claimed));
    for listing in listings {
        let taken = catalogue.insert(listing.clone(), at(NOON));
        assert!(taken.is_ok(), "{taken:?}");
    }
    Node {
        state: NodeState::new(catalogue),
        conduct,
    }
}

impl Node {
    fn answer(&mut self, ask: Ask) -> Result<Answer, GuestError> {
        let listing = || Provider::new(1).publish(NOON);
        let honest = |it: &mut Self, ask: Ask| it.state.answer(ask, at(NOON)).0;
        Ok(match (self.conduct, ask) {
            (Conduct::Silent, _) => return Err(GuestError::Deadline),
            (Conduct::Busy, _) => Answer::Busy,
            (Conduct::Gone, ask) if ask != Ask::Manifest => Answer::Gone,
            (Conduct::Empty, ask) if ask != Ask::Manifest => Answer::Listings(vec![]),
            (Conduct::Endless, Ask::Bucket(..)) => {
                Answer::Listings(vec![listing(); Answer::MAX_LISTINGS])
            }
            (Conduct::OtherChunks, ask @ Ask::Chunk(..)) => match honest(self, ask) {
                Answer::Chunk(mut bytes) => {
                    bytes[100] ^= 1;
                    Answer::Chunk(bytes)
                }
                other => other,
            },
            (Conduct::Huge, Ask::Manifest) => match honest(self, Ask::Manifest) {
                Answer::Manifest(manifest) => Answer::Manifest(Manifest {
                    bytes: 1 << 50,
                    ..manifest
                }),
                other => other,
            },
            (_, ask) => honest(self, ask),
        })
    }
}

/// Two bootstrap nodes and these others run a sync to its end.
struct World {
    nodes: BTreeMap<Vec<u8>, Node>,
    bootstrap: Vec<Endpoint>,
    others: Vec<(Endpoint, u64)>,
    asks: Vec<(Endpoint, Ask)>,
}

impl World {
    fn new(bootstrap: Vec<Node>, others: Vec<Node>) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            bootstrap: Vec::new(),
            others: Vec::new(),
            asks: Vec::new(),
        };
        for (number, node) in (1..).zip(bootstrap) {
            world.nodes.insert(vec![number], node);
            world.bootstrap.push(endpoint(number));
        }
        for (number, node) in (100..).zip(others) {
            world.nodes.insert(vec![number], node);
            world.others.push((endpoint(number), 3));
        }
        world
    }

    fn number(&self, of: &Endpoint) -> u8 {
        let numbers = self.nodes.keys().map(|it| it[0]);
        numbers.into_iter().find(|it| endpoint(*it) == *of).unwrap()
    }

    fn sync(&mut self, seed: u8) -> Result<Synced, SyncError> {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let sources = Sources::draw(&self.bootstrap, &self.others, &mut rng);
        let mut sync = Sync::new(rules(2_000), Arc::new(Claimed), sources, at(NOON), &mut rng);
        while let Some(request) = sync.next() {
            self.asks.push((request.endpoint, request.ask.clone()));
            let number = self.number(&request.endpoint);
            let node = self.nodes.get_mut(&vec![number]).unwrap();
            let answer = node.answer(request.ask);
            sync.receive(request.id, answer);
            assert!(self.asks.len() < 5_000, "asks without end");
        }
        assert!(sync.is_done());
        sync.finish()
    }
}

fn listings(count: u64) -> Vec<SignedListing> {
    (0..count)
        .map(|it| Provider::new(it).publish(NOON))
        .collect()
}

fn nodes(count: usize, listings: &[SignedListing], conduct: Conduct) -> Vec<Node> {
    (0..count).map(|_| node(listings, conduct)).collect()
}

fn chosen(synced: &Synced) -> Vec<ProviderId> {
    let chosen = synced.known.iter().filter(|it| it.is_chosen);
    chosen.map(|it| it.listing.provider).collect()
}

#[test]
fn one_catalogue_is_taken_whole_and_of_the_same_others_nothing_but_manifests() {
    let all = listings(40);
    let mut world = World::new(
        nodes(2, &all, Conduct::Honest),
        nodes(6, &all, Conduct::Honest),
    );
    let synced = world.sync(1).unwrap();
    assert_eq!(chosen(&synced).len(), 40);
    assert_eq!((synced.answered, synced.faults.len()), (5, 0));
    assert!(synced.known.iter().all(|it| it.votes == 5));
    let manifests = world.asks.iter().filter(|(_, it)| *it == Ask::Manifest);
    assert_eq!((manifests.count(), world.asks.len()), (5, 6));
}

#[test]
fn sources_that_differ_a_little_are_asked_for_the_difference() {
    let all = listings(60);
    let others = (0..6).map(|it| {
        let mut all = all.clone();
        all.remove(it);
        node(&all, Conduct::Honest)
    });
    let mut world = World::new(nodes(2, &all, Conduct::Honest), others.collect());
    let synced = world.sync(1).unwrap();
    assert_eq!(chosen(&synced).len(), 60);
    let chunks = world.asks.iter();
    let chunks = chunks.filter(|(_, it)| matches!(it, Ask::Chunk(..)));
    assert_eq!(chunks.count(), 1);
    assert!(world.asks.len() < 5 + 1 + 12, "{}", world.asks.len());
}

#[test]
fn a_canary_is_known_and_not_chosen() {
    let all = listings(60);
    let mut canary = Provider::new(7_000);
    let with_canary = [&all[..], &[canary.publish(NOON)]].concat();
    let mut others = nodes(2, &all, Conduct::Honest);
    others.push(node(&with_canary, Conduct::Honest));
    let mut world = World::new(nodes(2, &all, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    let known = synced
        .known
        .iter()
        .find(|it| it.listing.provider == canary.id());
    let known = known.expect("the canary is known");
    assert!(!known.is_chosen && known.votes == 1);
    assert_eq!(chosen(&synced).len(), 60);
    // Nor if all but the bootstrap nodes show it.
    let mut world = World::new(
        nodes(2, &all, Conduct::Honest),
        nodes(3, &with_canary, Conduct::Honest),
    );
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.known.len(), chosen(&synced).len()), (61, 60));
}

#[test]
fn a_successor_that_one_source_shows_is_not_chosen_but_counts_for_its_provider() {
    let all = listings(60);
    let mut marked = Provider::new(7_000);
    let first = marked.publish(NOON - HOUR);
    let second = marked.publish(NOON);
    let before = [&all[..], std::slice::from_ref(&first)].concat();
    let after = [&all[..], std::slice::from_ref(&second)].concat();
    let the_one = |world: &mut World| {
        let synced = world.sync(1).unwrap();
        let mut known = synced.known.into_iter();
        known.find(|it| it.listing.provider == marked.id()).unwrap()
    };
    let mut others = nodes(2, &before, Conduct::Honest);
    others.push(node(&after, Conduct::Honest));
    let mut world = World::new(nodes(2, &before, Conduct::Honest), others);
    let known = the_one(&mut world);
    assert!(known.is_chosen && known.votes == 5);
    assert!(known.signed == first);
    // When most have the successor, it is chosen.
    let mut others = nodes(1, &before, Conduct::Honest);
    others.extend(nodes(2, &after, Conduct::Honest));
    let mut bootstrap = nodes(1, &before, Conduct::Honest);
    bootstrap.extend(nodes(1, &after, Conduct::Honest));
    let known = the_one(&mut World::new(bootstrap, others));
    assert!(known.is_chosen && known.signed == second);
}

#[test]
fn a_provider_that_shows_two_listings_to_two_sources_is_out() {
    let all = listings(60);
    let provider = Provider::new(7_000);
    let one = provider.next(NOON);
    let mut other = one.clone();
    other.plans[0].price += 1;
    let one = [&all[..], &[provider.sign(&one)]].concat();
    let other = [&all[..], &[provider.sign(&other)]].concat();
    let mut others = nodes(2, &one, Conduct::Honest);
    others.push(node(&other, Conduct::Honest));
    let mut world = World::new(nodes(2, &one, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.found.len(), synced.forks.len()), (1, 1));
    assert_eq!(synced.found[0].verify(rules(1).network), Ok(provider.id()));
    assert!(
        synced
            .known
            .iter()
            .all(|it| it.listing.provider != provider.id())
    );
    // A proof that one source has is enough, and is no find.
    let mut others = nodes(2, &one, Conduct::Honest);
    let mut told = node(&one, Conduct::Honest);
    let proof = synced.found[0].clone();
    told.state.catalogue.insert_fork(proof, at(NOON)).unwrap();
    others.push(told);
    let mut world = World::new(nodes(2, &one, Conduct::Honest), others);
    let synced = world.sync(1).unwrap();
    assert_eq!((synced.found.len(), synced.forks.len()), (0, 1));
    assert!(
        synced
            .known
            .iter()
            .all(|it| it.listing.provider != provider.id())
    );
    assert!(synced.faults.is_empty());
}

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
