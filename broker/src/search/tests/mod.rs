//! What searches find, and what is kept of a market.

mod store;

use std::sync::Arc;

use dlambda_proto::{
    Answer, Authentic, Capacity, Class, Endpoint, FunctionId, ListingDigest, ListingFork, Offer,
    OnionAddress, Requirement, Requirements, SignedListing, SignedOffer, Topic,
};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;
use crate::catalogue::tests::{Claimed, HOUR, NETWORK, NOON, Provider, at, authentic, nym, rules};
use crate::tally::Known;
use crate::{NoneFits, Plan, SourceFault, Sources, SyncError, Synced};

fn endpoint(number: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([number; 32]))
}

fn synced(known: Vec<Known>) -> Synced {
    Synced {
        known,
        forks: vec![],
        found: vec![],
        answered: 5,
        faults: vec![],
    }
}

fn known(signed: SignedListing, is_chosen: bool) -> Known {
    Known {
        listing: signed.claims(NETWORK).unwrap(),
        signed,
        votes: 3,
        is_chosen,
    }
}

fn market(providers: u64) -> Market {
    let mut market = Market::new(rules(100));
    let listings = (0..providers).map(|it| known(Provider::new(it).publish(NOON), true));
    market.update(synced(listings.collect()), at(NOON));
    market
}

#[test]
fn a_node_at_two_addresses_is_one_source_and_a_bootstrap_node_no_second_one() {
    let (bootstrap, stranger) = (Provider::new(1), Provider::new(2));
    let mut market = Market::new(rules(100));
    let at_both = [(&bootstrap, 1, 1), (&stranger, 2, 2)].map(|(provider, onion, number)| {
        let mut listing = provider.next(NOON);
        listing.node = vec![endpoint(onion), nym(number)];
        known(provider.sign(&listing), true)
    });
    market.update(synced(at_both.to_vec()), at(NOON));
    let over_nym = |it: &Endpoint| matches!(it, Endpoint::Nym(_));
    let of = |bootstrap: &[Endpoint]| market.nodes(at(NOON), over_nym, bootstrap);
    assert!(of(&[]).iter().all(|(it, _)| [nym(1), nym(2)].contains(it)));
    assert_eq!(of(&[]).len(), 2);
    assert_eq!(market.nodes(at(NOON), |_| true, &[]).len(), 2);
    // A second Nym address makes no second source of it.
    assert!(of(&[endpoint(1), nym(9)]) == [(nym(2), 0)]);
}

#[test]
fn only_chosen_and_current_providers_are_found() {
    let mut market = market(5);
    let stranger = Provider::new(77);
    let mut all: Vec<_> = (0..5)
        .map(|it| known(Provider::new(it).publish(NOON), it > 0))
        .collect();
    all.push(known(stranger.clone().publish(NOON), false));
    market.update(synced(all), at(NOON + HOUR));
    let anything = Requirements::default();
    let found = market.find(&anything, at(NOON + HOUR)).unwrap();
    assert_eq!(found.len(), 4);
    assert!(found.iter().all(|it| it.since() == at(NOON)));
    assert_eq!(market.counts(at(NOON + HOUR)), (4, 6));
    assert!(market.knows(&stranger.id()));
    assert!(market.get(&stranger.id(), at(NOON)).is_none());
    assert_eq!(market.nodes(at(NOON + HOUR), |_| true, &[]).len(), 4);
    assert_eq!(market.nodes(at(NOON + HOUR), |_| false, &[]).len(), 0);
    assert_eq!(market.last_sync(), Some(at(NOON + HOUR)));
    let over = market.find(&anything, at(NOON + 30 * HOUR));
    assert_eq!(over.unwrap_err(), NoneFits::NoProvider);
}

#[test]
fn the_requirement_that_excludes_most_is_named() {
    let market = market(20);
    let mut wanted = Requirements::default();
    wanted.cores = 6;
    wanted.tee = true;
    let error = market.find(&wanted, at(NOON)).unwrap_err();
    let NoneFits::Lacking {
        providers,
        most,
        lacking,
        counts,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!((providers, most, lacking), (20, Requirement::Tee, 20));
    assert!(counts[&Requirement::Cores] < 20);
}

#[test]
fn a_listing_that_contradicts_what_was_chosen_before_puts_its_provider_out_in_silence() {
    let mut market = market(5);
    let provider = Provider::new(2);
    let mut other = provider.next(NOON);
    other.plans[0].price += 1;
    let other = known(provider.sign(&other), true);
    let found = market.update(synced(vec![other]), at(NOON));
    // Submitted, the proof would name the guest that was shown the first of the two.
    assert!(found.is_empty());
    let proof = market.fork(&provider.id()).expect("a proof");
    assert_eq!(proof.verify(NETWORK), Ok(provider.id()));
    assert!(market.fork(&provider.id()).is_some() && !market.knows(&provider.id()));
    // It stays out, for 30 days.
    let back = || synced(vec![known(Provider::new(2).publish(NOON), true)]);
    market.update(back(), at(NOON));
    assert!(!market.knows(&provider.id()));
    market.prune(at(NOON + 29 * 86_400));
    assert!(market.fork(&provider.id()).is_some());
    market.prune(at(NOON + 30 * 86_400));
    assert!(market.fork(&provider.id()).is_none());
}

/// A listing that one source alone has shown is no measure: it may be this guest's alone.
#[test]
fn what_was_only_known_is_not_compared_with() {
    let mut market = market(5);
    let provider = Provider::new(77);
    let one = provider.next(NOON);
    let mut other = one.clone();
    other.plans[0].price += 1;
    market.update(synced(vec![known(provider.sign(&one), false)]), at(NOON));
    assert!(market.knows(&provider.id()));
    let found = market.update(synced(vec![known(provider.sign(&other), true)]), at(NOON));
    assert!(found.is_empty() && market.fork(&provider.id()).is_none());
    assert!(market.get(&provider.id(), at(NOON)).is_some());
}

#[test]
fn a_market_keeps_chosen_providers_first_and_has_a_bound() {
    let mut market = Market::new(rules(10));
    let all = (0..40).map(|it| known(Provider::new(it).publish(NOON), it % 4 == 0));
    market.update(synced(all.collect()), at(NOON));
    assert_eq!(market.counts(at(NOON)), (10, 20));
}

/// Asks each node of these; they answer by their number.
fn run(plan: &mut impl Plan, answer: impl Fn(usize) -> Answer) -> usize {
    let (mut asked, mut others) = (0, 1);
    while let Some(request) = plan.next() {
        let bootstrap = (1..3).map(endpoint).position(|it| it == request.endpoint);
        let number = match bootstrap {
            Some(number) => number,
            None => {
                others += 1;
                others
            }
        };
        asked += 1;
        plan.receive(request.id, Ok(answer(number)));
        assert!(asked < 100);
    }
    assert!(plan.is_done());
    asked
}

fn sources() -> Sources {
    let others: Vec<_> = (100..120).map(|it| (endpoint(it), 1)).collect();
    let bootstrap = [endpoint(1), endpoint(2)];
    Sources::draw(&bootstrap, &others, &mut ChaCha8Rng::from_seed([1; 32]))
}

fn look_up() -> (LookUp, Topic) {
    let topic = Topic::Function(FunctionId::of(b"f").digest()[0]);
    let look_up = LookUp::new(rules(100), Arc::new(Claimed), topic, sources(), at(NOON));
    (look_up, topic)
}

fn listings(range: std::ops::Range<u64>) -> Vec<SignedListing> {
    range.map(|it| Provider::new(it).publish(NOON)).collect()
}

#[test]
fn a_look_up_knows_the_union_and_chooses_what_most_nodes_list() {
    let (mut plan, _) = look_up();
    let asked = run(&mut plan, |node| {
        // One shows a provider of its own.
        let last = if node == 4 { 11 } else { 10 };
        Answer::Listings(listings(0..last))
    });
    let looked_up = plan.finish().unwrap();
    assert_eq!((asked, looked_up.answered), (5, 5));
    assert_eq!(looked_up.known.len(), 11);
    let mut market = Market::new(rules(100));
    assert!(market.absorb(looked_up, at(NOON)).is_empty());
    assert_eq!(market.counts(at(NOON)), (10, 11));
    assert_eq!(market.last_sync(), None);
}

#[test]
fn every_bad_answer_to_a_look_up_is_a_fault() {
    let elsewhere = {
        let mut listing = Provider::new(50).next(NOON);
        listing.functions.clear();
        Provider::new(50).sign(&listing)
    };
    let mut cheap = Provider::new(51);
    cheap.effort = 1;
    let cheap = cheap.publish(NOON);
    type Check = fn(&SourceFault) -> bool;
    let wrong: Check = |it| matches!(it, SourceFault::WrongAnswer);
    let table: [(Answer, Check); 8] = [
        (Answer::Accepted, wrong),
        (Answer::Gone, wrong),
        (Answer::Busy, |it| matches!(it, SourceFault::Busy)),
        (Answer::Listings(listings(0..257)), wrong),
        (
            Answer::Listings([listings(0..9), listings(0..1)].concat()),
            wrong,
        ),
        (Answer::Listings(vec![elsewhere]), wrong),
        (Answer::Listings(vec![cheap]), |it| {
            matches!(it, SourceFault::Listing(_))
        }),
        (Answer::Listings(vec![]), |it| {
            matches!(it, SourceFault::Withheld)
        }),
    ];
    for (answer, check) in table {
        let (mut plan, _) = look_up();
        let asked = run(&mut plan, |node| match node {
            3 => answer.clone(),
            _ => Answer::Listings(listings(0..10)),
        });
        let looked_up = plan.finish().unwrap();
        assert_eq!(looked_up.faults.len(), 1, "{asked}");
        assert!(check(&looked_up.faults[0].1), "{:?}", looked_up.faults[0].1);
        assert_eq!(looked_up.answered, 5, "another node took its place");
    }
    let (mut plan, _) = look_up();
    run(&mut plan, |_| Answer::Busy);
    assert_eq!(plan.finish().unwrap_err(), SyncError::NoBootstrap);
}

fn offer(provider: u64, minute: u64, capacity: Capacity) -> SignedOffer {
    let provider = Provider::new(provider);
    let offer = Offer {
        network: NETWORK,
        provider: provider.id(),
        listing: ListingDigest([1; 32]),
        class: Class::from_number(4).unwrap(),
        capacity,
        minute,
    };
    offer.sign(provider.key()).unwrap()
}

#[test]
fn an_offer_counts_if_most_nodes_have_one_of_its_provider() {
    let minute = NOON / 60;
    let class = Class::from_number(4).unwrap();
    let mut plan = FindOffers::new(rules(100), class, sources(), at(NOON));
    run(&mut plan, |node| {
        let mut offers = vec![offer(1, minute, Capacity::Some)];
        // Two nodes have the next already, and one shows one of its own.
        if node < 2 {
            offers = vec![offer(1, minute + 10, Capacity::None)];
        }
        if node == 3 {
            offers.push(offer(2, minute, Capacity::Ample));
        }
        Answer::Offers(offers)
    });
    let offers: Vec<Authentic<Offer>> = plan.finish();
    assert_eq!(offers.len(), 1);
    assert_eq!(offers[0].capacity, Capacity::Some);
    let mut market = market(5);
    market.put_offers(offers);
    let anything = Requirements::default();
    let offering = market.find_offering(&anything, at(NOON)).unwrap();
    assert_eq!(offering.len(), 1);
    assert_eq!(offering[0].capacity(), Some(Capacity::Some));
    let later = market.find_offering(&anything, at(NOON + 31 * 60));
    assert_eq!(later.unwrap_err(), NoneFits::NoOffer);
}

#[test]
fn every_bad_answer_about_offers_is_a_fault() {
    let minute = NOON / 60;
    let class = Class::from_number(4).unwrap();
    let mut forged = dlambda_proto::encode(&offer(3, minute, Capacity::Some));
    *forged.last_mut().unwrap() ^= 1;
    let forged: SignedOffer = dlambda_proto::decode(&forged).unwrap();
    let twice = vec![
        offer(3, minute, Capacity::Some),
        offer(3, minute, Capacity::None),
    ];
    let many = vec![offer(3, minute, Capacity::Some); 257];
    for bad in [
        Answer::Offers(vec![forged]),
        Answer::Offers(twice),
        Answer::Offers(many),
        Answer::Manifest(
            crate::Snapshot::of(&crate::catalogue::tests::catalogue(1))
                .manifest()
                .clone(),
        ),
    ] {
        let mut plan = FindOffers::new(rules(100), class, sources(), at(NOON));
        let asked = run(&mut plan, |node| match node {
            3 => bad.clone(),
            _ => Answer::Offers(vec![offer(1, minute, Capacity::Some)]),
        });
        assert_eq!(asked, 6, "another node took its place");
        assert_eq!(plan.finish().len(), 1);
    }
}

#[test]
fn a_proof_reaches_the_market_from_a_sync() {
    let mut market = market(5);
    let provider = Provider::new(4);
    let one = provider.next(NOON);
    let mut other = one.clone();
    other.plans[0].price += 1;
    let (one, other) = (provider.sign(&one), provider.sign(&other));
    let fork: ListingFork = authentic(&one).fork(&authentic(&other)).unwrap();
    let mut brought = synced(vec![known(one, true)]);
    brought.forks.push(fork);
    assert!(
        market.update(brought, at(NOON)).is_empty(),
        "no find of ours"
    );
    assert!(!market.knows(&provider.id()));
}
