//! Every listing that is refused, and why.

use dlambda_proto::{NetworkId, SubmitRefusal, Topic, encode};
use proptest::prelude::*;

use super::*;
use crate::{Inserted, Refusal};

#[test]
fn a_listing_is_new_then_known_and_its_successor_renews_it() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let first = provider.publish(NOON);
    let second = provider.publish(NOON + HOUR);
    let now = at(NOON + HOUR);
    assert_eq!(catalogue.insert(first.clone(), now), Ok(Inserted::New));
    assert_eq!(catalogue.insert(first.clone(), now), Ok(Inserted::Known));
    assert_eq!(catalogue.insert(second.clone(), now), Ok(Inserted::Renewed));
    assert_eq!(catalogue.insert(first.clone(), now), Ok(Inserted::Known));
    assert!(catalogue.get(&provider.id()).unwrap().signed() == &second);
    assert_eq!(catalogue.len(), 1);
    assert_eq!(catalogue.signed(&first.digest()), None);
    assert!(catalogue.signed(&second.digest()) == Some(&second));
    let digests: Vec<_> = catalogue.digests().collect();
    assert_eq!(digests, [(at(NOON + HOUR), second.digest())]);
}

/// The bytes of a good listing, and a way to spoil them.
type Spoil = fn(&Provider) -> Vec<u8>;

#[test]
fn every_bad_listing_has_its_refusal() {
    let table: [(Spoil, Refusal, SubmitRefusal); 10] = [
        (
            |it| {
                let mut bytes = encode(&it.sign(&it.next(NOON)));
                *bytes.last_mut().unwrap() ^= 1;
                bytes
            },
            Refusal::Forged,
            SubmitRefusal::Invalid,
        ),
        (
            |_| vec![0x82; 1025],
            Refusal::TooLarge,
            SubmitRefusal::Invalid,
        ),
        (
            |_| b"\x82\x41\x00".to_vec(),
            Refusal::Malformed,
            SubmitRefusal::Invalid,
        ),
        (
            |it| {
                let mut bytes = encode(&it.sign(&it.next(NOON)));
                bytes.push(0);
                bytes
            },
            Refusal::NotCanonical,
            SubmitRefusal::Invalid,
        ),
        (
            |it| {
                let mut listing = it.next(NOON);
                listing.network = NetworkId::from_bytes([8; 16]);
                encode(&it.sign(&listing))
            },
            Refusal::OtherNetwork,
            SubmitRefusal::Invalid,
        ),
        (
            |it| encode(&it.sign(&it.next(NOON - 31 * HOUR))),
            Refusal::Expired,
            SubmitRefusal::NotNow,
        ),
        (
            |it| encode(&it.sign(&it.next(NOON + 2 * HOUR))),
            Refusal::Early,
            SubmitRefusal::NotNow,
        ),
        (
            |it| {
                let mut listing = it.next(NOON);
                listing.work = work(listing.work.day, 0);
                encode(&it.sign(&listing))
            },
            Refusal::Unworked,
            SubmitRefusal::TooLittleWork,
        ),
        (
            |it| {
                let mut listing = it.next(NOON);
                listing.work = work(listing.work.day, EFFORT - 1);
                encode(&it.sign(&listing))
            },
            Refusal::TooLittleWork {
                shown: EFFORT - 1,
                required: EFFORT,
            },
            SubmitRefusal::TooLittleWork,
        ),
        (
            |it| {
                // A good listing's signature under other bytes.
                let other = encode(&it.sign(&it.next(NOON + 1)));
                let mut bytes = encode(&it.sign(&it.next(NOON)));
                let signature = bytes.len() - 64;
                bytes[signature..].copy_from_slice(&other[other.len() - 64..]);
                bytes
            },
            Refusal::Forged,
            SubmitRefusal::Invalid,
        ),
    ];
    let provider = Provider::new(1);
    for (spoil, refusal, told) in table {
        let mut catalogue = catalogue(10);
        let refused = catalogue.insert_bytes(&spoil(&provider), at(NOON));
        assert_eq!(refused, Err(refusal.clone()));
        assert_eq!(refusal.to_guest(), told);
        assert_eq!(catalogue.refusals().of(&refusal), 1, "{refusal}");
        let own_clock = matches!(refusal, Refusal::Early | Refusal::Expired);
        assert_eq!(refusal.is_misbehaviour(), !own_clock, "{refusal}");
        assert!(catalogue.is_empty());
    }
}

#[test]
fn an_older_listing_of_the_chain_is_superseded_and_no_fork() {
    let mut provider = Provider::new(1);
    let first = provider.publish(NOON);
    let second = provider.publish(NOON + 1);
    let mut catalogue = catalogue(10);
    let now = at(NOON + 1);
    catalogue.insert(second.clone(), now).unwrap();
    let refused = catalogue.insert(first.clone(), now);
    assert_eq!(refused, Err(Refusal::Superseded));
    assert_eq!(catalogue.insert(first, now), Ok(Inserted::Known));
    assert!(catalogue.get(&provider.id()).unwrap().signed() == &second);
}

#[test]
fn a_provider_has_eight_listings_a_day() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    for number in 0..8 {
        let listing = provider.publish(NOON + number);
        assert!(catalogue.insert(listing, at(NOON + 60)).is_ok());
    }
    let before = provider.clone();
    let ninth = provider.publish(NOON + 8);
    let refused = catalogue.insert(ninth, at(NOON + 60));
    assert_eq!(refused, Err(Refusal::OverQuota));
    // One that contradicts is a proof all the same.
    let mut other = before.last.clone().unwrap();
    other.plans[0].price += 1;
    let refused = catalogue.insert(before.sign(&other), at(NOON + 60));
    assert!(matches!(refused, Err(Refusal::Fork(_))));
}

#[test]
fn the_quota_holds_for_listings_that_ended_long_ago() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    for number in 0..8 {
        let now = NOON + number * 10;
        let mut listing = provider.next(now);
        listing.validity.from = at(NOON - 12 * HOUR);
        listing.validity.until = at(now + 1);
        catalogue.insert(provider.sign(&listing), at(now)).unwrap();
        provider.last = Some(listing);
        catalogue.prune(at(now + 1));
        assert!(catalogue.is_empty() && catalogue.get(&provider.id()).is_none());
    }
    let ninth = provider.publish(NOON + 100);
    let refused = catalogue.insert(ninth, at(NOON + 100));
    assert_eq!(refused, Err(Refusal::OverQuota));
    let tomorrow = NOON + 86_400;
    let next = provider.publish(tomorrow);
    assert_eq!(catalogue.insert(next, at(tomorrow)), Ok(Inserted::Renewed));
}

#[test]
fn what_is_over_is_pruned_and_forgotten_after_two_days() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let signed = provider.publish(NOON);
    catalogue.insert(signed, at(NOON)).unwrap();
    catalogue.prune(at(NOON + 30 * HOUR - 1));
    assert_eq!(catalogue.len(), 1);
    catalogue.prune(at(NOON + 30 * HOUR));
    assert_eq!(catalogue.len(), 0);
    assert_eq!(catalogue.entries.len(), 1);
    catalogue.prune(at(NOON + 61 * HOUR));
    assert_eq!(catalogue.entries.len(), 0);
    assert_eq!(catalogue.digests().count(), 0);
}

#[test]
fn nodes_choose_the_same_listings_of_a_crowded_topic() {
    let mut one = catalogue(100);
    let mut other = catalogue(100);
    let listings: Vec<_> = (0..40).map(|it| Provider::new(it).publish(NOON)).collect();
    for listing in &listings {
        one.insert(listing.clone(), at(NOON)).unwrap();
    }
    for listing in listings.iter().rev() {
        other.insert(listing.clone(), at(NOON + HOUR)).unwrap();
    }
    let first = FunctionId::of(b"f").digest()[0];
    let topic = Topic::Function(first);
    let chosen = one.topic(topic, at(NOON), 8);
    assert_eq!(chosen.len(), 8);
    assert!(chosen == other.topic(topic, at(NOON), 8));
    let tomorrow = one.topic(topic, at(NOON + 86_400), 8);
    assert!(chosen != tomorrow);
    assert_eq!(one.topic(topic, at(NOON), 100).len(), 40);
    assert!(one.topic(Topic::Function(!first), at(NOON), 8).is_empty());
}

proptest! {
    #[test]
    fn anything_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..1200)) {
        let refused = catalogue(10).insert_bytes(&bytes, at(NOON));
        prop_assert!(refused.is_err());
    }

    #[test]
    fn one_flipped_bit_is_refused(bit in 0_usize..3200) {
        let mut bytes = encode(&Provider::new(1).publish(NOON));
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(catalogue(10).insert_bytes(&bytes, at(NOON)).is_err());
    }
}
