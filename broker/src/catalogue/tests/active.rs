//! Demands and offers.

use dlambda_proto::{Capacity, Class, Demand, Listing, NetworkId, Offer, SignedOffer};

use super::*;
use crate::{Inserted, Refusal};

const MINUTE: u64 = NOON / 60;

fn offer(provider: &Provider, minute: u64, change: impl FnOnce(&mut Offer)) -> SignedOffer {
    let mut offer = Offer {
        network: NETWORK,
        provider: provider.id(),
        listing: provider.last.as_ref().unwrap().digest(),
        class: Class::floor(&provider.last.as_ref().unwrap().resources),
        capacity: Capacity::Some,
        minute,
    };
    change(&mut offer);
    offer.sign(provider.key()).unwrap()
}

#[test]
fn a_listed_provider_has_one_offer_in_ten_minutes() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let first = provider.publish(NOON);
    catalogue.insert(first, at(NOON)).unwrap();
    let mut put = |minute: u64, capacity: Capacity| {
        let it = offer(&provider, minute, |it| it.capacity = capacity);
        catalogue.insert_offer(it, at(NOON + 1200))
    };
    assert_eq!(put(MINUTE, Capacity::Some), Ok(Inserted::New));
    assert_eq!(put(MINUTE, Capacity::Some), Ok(Inserted::Known));
    assert_eq!(put(MINUTE, Capacity::None), Err(Refusal::OverQuota));
    assert_eq!(put(MINUTE + 9, Capacity::None), Err(Refusal::OverQuota));
    assert_eq!(put(MINUTE - 1, Capacity::None), Err(Refusal::Superseded));
    assert_eq!(put(MINUTE + 10, Capacity::None), Ok(Inserted::Renewed));
    let class = Class::floor(&provider.last.as_ref().unwrap().resources);
    assert_eq!(catalogue.offers(class, at(NOON + 1200), 9).len(), 1);
    assert!(catalogue.offers(class, at(NOON + 1200), 0).is_empty());
    catalogue.prune(at(NOON + 41 * 60));
    assert_eq!(catalogue.offer_count(), 0);
}

#[test]
fn every_bad_offer_has_its_refusal() {
    let mut listed = Provider::new(1);
    let mut catalogue = catalogue(10);
    let first = listed.publish(NOON);
    catalogue.insert(first, at(NOON)).unwrap();
    let mut stranger = Provider::new(2);
    stranger.publish(NOON);
    let mut forged = dlambda_proto::encode(&offer(&listed, MINUTE, |_| {}));
    *forged.last_mut().unwrap() ^= 1;
    let table = [
        (offer(&stranger, MINUTE, |_| {}), Refusal::Unlisted),
        (
            offer(&listed, MINUTE, |it| it.listing.0[0] ^= 1),
            Refusal::Unlisted,
        ),
        (
            offer(&listed, MINUTE, |it| {
                it.class = Class::from_number(63).unwrap()
            }),
            Refusal::Unlisted,
        ),
        (offer(&listed, MINUTE + 61, |_| {}), Refusal::Early),
        (offer(&listed, MINUTE - 31, |_| {}), Refusal::Expired),
        (
            offer(&listed, MINUTE, |it| {
                it.network = NetworkId::from_bytes([8; 16]);
            }),
            Refusal::OtherNetwork,
        ),
        (dlambda_proto::decode(&forged).unwrap(), Refusal::Forged),
    ];
    for (offer, refusal) in table {
        assert_eq!(catalogue.insert_offer(offer, at(NOON)), Err(refusal));
    }
    assert_eq!(catalogue.offer_count(), 0);
}

#[test]
fn the_offer_of_a_provider_that_is_out_goes_with_it() {
    let mut provider = Provider::new(1);
    let mut catalogue = catalogue(10);
    let mut other: Listing = provider.next(NOON);
    other.plans[0].price += 1;
    catalogue.insert(provider.publish(NOON), at(NOON)).unwrap();
    let it = offer(&provider, MINUTE, |_| {});
    catalogue.insert_offer(it, at(NOON)).unwrap();
    assert!(catalogue.insert(provider.sign(&other), at(NOON)).is_err());
    assert_eq!(catalogue.offer_count(), 0);
}

#[test]
fn a_demand_brings_the_work_of_its_day_and_is_taken_once() {
    let mut catalogue = catalogue(10);
    let demand = |day: u64, effort: u64| Demand {
        network: NETWORK,
        class: Class::from_number(3).unwrap(),
        work: work(Day(day), effort),
    };
    let mut put = |it: &Demand| catalogue.insert_demand(it, at(NOON));
    assert_eq!(put(&demand(DAY, EFFORT)), Ok(Inserted::New));
    assert_eq!(put(&demand(DAY, EFFORT)), Ok(Inserted::Known));
    assert_eq!(put(&demand(DAY + 1, EFFORT)), Err(Refusal::Early));
    assert_eq!(put(&demand(DAY - 1, EFFORT)), Err(Refusal::Expired));
    assert_eq!(put(&demand(DAY, 0)), Err(Refusal::Unworked));
    let required = EFFORT;
    let shown = EFFORT - 1;
    let little = Refusal::TooLittleWork { shown, required };
    assert_eq!(put(&demand(DAY, shown)), Err(little));
    let mut elsewhere = demand(DAY, EFFORT);
    elsewhere.network = NetworkId::from_bytes([8; 16]);
    assert_eq!(put(&elsewhere), Err(Refusal::OtherNetwork));
}
