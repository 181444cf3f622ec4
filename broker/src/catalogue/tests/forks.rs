//! Providers that contradict themselves.

use dlambda_proto::{ListingFork, SubmitRefusal};

use super::*;
use crate::{Inserted, Refusal};

/// Two first listings of one provider.
fn fork_of(provider: &Provider, now: u64) -> ListingFork {
    let one = provider.next(now);
    let mut other = one.clone();
    other.plans[0].price += 1;
    let (one, other) = (provider.sign(&one), provider.sign(&other));
    authentic(&one).fork(&authentic(&other)).unwrap()
}

fn refused_fork(refused: Result<Inserted, Refusal>) -> ListingFork {
    match refused {
        Err(Refusal::Fork(fork)) => *fork,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_contradiction_puts_the_provider_out_for_thirty_days() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let mut other = provider.next(NOON);
    other.plans[0].price += 1;
    let first = provider.publish(NOON);
    catalogue.insert(first.clone(), at(NOON)).unwrap();
    let refused = catalogue.insert(provider.sign(&other), at(NOON));
    let fork = refused_fork(refused);
    assert_eq!(fork.verify(NETWORK), Ok(provider.id()));
    assert!(catalogue.is_empty());
    assert!(catalogue.fork(&provider.id()) == Some(&fork));
    let again = catalogue.insert(first, at(NOON));
    assert_eq!(again, Err(Refusal::Convicted));
    assert_eq!(Refusal::Convicted.to_guest(), SubmitRefusal::Fork);
    for days in [1, 29] {
        let now = NOON + days * 86_400;
        catalogue.prune(at(now));
        let renewed = catalogue.insert(provider.publish(now), at(now));
        assert_eq!(renewed, Err(Refusal::Convicted));
    }
    let now = NOON + 30 * 86_400;
    catalogue.prune(at(now));
    let renewed = catalogue.insert(provider.publish(now), at(now));
    assert_eq!(renewed, Ok(Inserted::New));
}

#[test]
fn a_fork_in_the_past_of_a_chain_is_found() {
    let mut provider = Provider::new(1);
    let root = provider.publish(NOON);
    let mut other = provider.clone();
    let mut theirs = other.next(NOON + 1);
    theirs.plans[0].price += 1;
    let hidden = other.sign(&theirs);
    other.last = Some(theirs);
    let later: Vec<_> = (1..5).map(|it| provider.publish(NOON + it)).collect();
    let now = at(NOON + 10);
    // The hidden second listing comes after the fifth.
    let mut one = catalogue(10);
    one.insert(root, now).unwrap();
    for listing in &later {
        one.insert(listing.clone(), now).unwrap();
    }
    refused_fork(one.insert(hidden.clone(), now));
    // The hidden one comes between, where nothing contradicts it yet, and then its rival.
    let mut two = catalogue(10);
    two.insert(later[3].clone(), now).unwrap();
    assert_eq!(two.insert(hidden, now), Err(Refusal::Superseded));
    refused_fork(two.insert(later[0].clone(), now));
}

#[test]
fn a_proof_is_taken_once_and_forwarded_in_one_form() {
    let provider = Provider::new(1);
    let fork = fork_of(&provider, NOON);
    let swapped = ListingFork {
        one: fork.other.clone(),
        other: fork.one.clone(),
    };
    let mut catalogue = catalogue(10);
    catalogue.insert(fork.one.clone(), at(NOON)).unwrap();
    let now = at(NOON + 3 * 86_400);
    assert_eq!(catalogue.insert_fork(swapped, now), Ok(Inserted::New));
    assert_eq!(
        catalogue.insert_fork(fork.clone(), now),
        Ok(Inserted::Known)
    );
    assert!(catalogue.fork(&provider.id()) == Some(&fork));
    assert!(catalogue.is_empty());
    // A later one keeps it out for longer.
    let later = fork_of(&provider, NOON + 86_400);
    assert_eq!(
        catalogue.insert_fork(later.clone(), now),
        Ok(Inserted::Renewed)
    );
    assert_eq!(catalogue.insert_fork(later, now), Ok(Inserted::Known));
}

#[test]
fn every_bad_proof_has_its_refusal() {
    type Spoil = fn(&Provider) -> ListingFork;
    let table: [(Spoil, Refusal); 6] = [
        (
            |it| {
                let mut it = it.clone();
                let (one, other) = (it.publish(NOON), it.publish(NOON + 1));
                ListingFork { one, other }
            },
            Refusal::NoFork,
        ),
        (
            |it| {
                let (one, other) = (it.next(NOON), Provider::new(2).next(NOON));
                let (one, other) = (it.sign(&one), Provider::new(2).sign(&other));
                ListingFork { one, other }
            },
            Refusal::NoFork,
        ),
        (|it| fork_of(it, NOON - 30 * 86_400), Refusal::Expired),
        (|it| fork_of(it, NOON + 86_400), Refusal::Early),
        (
            |it| {
                let mut it = it.clone();
                it.effort = 0;
                fork_of(&it, NOON)
            },
            Refusal::Unworked,
        ),
        (
            |it| {
                let fork = fork_of(it, NOON);
                let mut bytes = dlambda_proto::encode(&fork.one);
                *bytes.last_mut().unwrap() ^= 1;
                let one = SignedListing::from_bytes(&bytes).unwrap();
                ListingFork { one, ..fork }
            },
            Refusal::Forged,
        ),
    ];
    for (spoil, refusal) in table {
        let mut catalogue = catalogue(10);
        let refused = catalogue.insert_fork(spoil(&Provider::new(1)), at(NOON));
        assert_eq!(refused, Err(refusal));
        assert_eq!(catalogue.forks().len(), 0);
    }
}

#[test]
fn throwaway_proofs_do_not_push_out_the_proof_against_a_listed_provider() {
    let mut listed = Provider::new(1);
    let mut catalogue = catalogue(10);
    let fork = {
        let first = listed.publish(NOON);
        catalogue.insert(first, at(NOON)).unwrap();
        fork_of(&Provider::new(1), NOON)
    };
    catalogue.insert_fork(fork, at(NOON)).unwrap();
    for number in 2..100 {
        let mut throwaway = Provider::new(number);
        throwaway.effort = EFFORT + number;
        let fork = fork_of(&throwaway, NOON + HOUR);
        catalogue.insert_fork(fork, at(NOON + HOUR)).unwrap();
    }
    assert_eq!(catalogue.forks().len(), 4, "the most that these rules keep");
    let renewed = catalogue.insert(listed.publish(NOON + HOUR), at(NOON + HOUR));
    assert_eq!(renewed, Err(Refusal::Convicted));
    let weak = fork_of(&Provider::new(100), NOON + HOUR);
    let refused = catalogue.insert_fork(weak, at(NOON + HOUR));
    assert_eq!(refused, Err(Refusal::Full));
}
