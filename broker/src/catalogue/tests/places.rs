//! Who keeps a place, and who gets one.

use super::*;
use crate::{Inserted, Refusal};

/// Lists these providers daily until they are senior, and says when that is.
fn age(catalogue: &mut Catalogue, providers: &mut [Provider], from: u64) -> u64 {
    for day in 0..=7 {
        let now = from + day * 86_400;
        catalogue.prune(at(now));
        for provider in &mut *providers {
            let listing = provider.publish(now);
            catalogue.insert(listing, at(now)).unwrap();
        }
    }
    from + 7 * 86_400
}

#[test]
fn newcomers_displace_each_other_by_work_and_never_a_senior_provider() {
    let mut catalogue = catalogue(16);
    let mut seniors: Vec<_> = (0..12).map(Provider::new).collect();
    let now = age(&mut catalogue, &mut seniors, NOON);
    assert_eq!(catalogue.seniors(), 12);
    for number in 0..200 {
        let mut fake = Provider::new(1_000 + number);
        fake.effort = EFFORT + number;
        assert_eq!(
            catalogue.insert(fake.publish(now), at(now)),
            Ok(Inserted::New)
        );
    }
    assert_eq!(catalogue.len(), 16);
    for senior in &seniors {
        assert!(catalogue.get(&senior.id()).is_some());
    }
    for number in 196..200 {
        assert!(catalogue.get(&Provider::new(1_000 + number).id()).is_some());
    }
    let mut weak = Provider::new(5_000);
    let refused = catalogue.insert(weak.publish(now), at(now));
    assert_eq!(refused, Err(Refusal::Full));
    assert!(!Refusal::Full.is_misbehaviour());
}

#[test]
fn three_quarters_of_the_places_are_senior_at_most() {
    let mut catalogue = catalogue(16);
    let mut providers: Vec<_> = (0..16).map(Provider::new).collect();
    let now = age(&mut catalogue, &mut providers, NOON);
    assert_eq!(catalogue.seniors(), 12);
    let mut strong = Provider::new(100);
    strong.effort = 10 * EFFORT;
    assert_eq!(
        catalogue.insert(strong.publish(now), at(now)),
        Ok(Inserted::New)
    );
    assert_eq!((catalogue.len(), catalogue.seniors()), (16, 12));
}

#[test]
fn a_gap_or_a_day_without_work_makes_a_newcomer() {
    // A listing ends before the next begins.
    let mut catalogue = catalogue(16);
    let mut provider = [Provider::new(1)];
    let now = age(&mut catalogue, &mut provider, NOON);
    assert!(catalogue.standing(&provider[0].id()).unwrap().is_senior);
    let later = now + 30 * HOUR;
    catalogue
        .insert(provider[0].publish(later), at(later))
        .unwrap();
    let standing = catalogue.standing(&provider[0].id()).unwrap();
    assert_eq!((standing.days, standing.is_senior), (1, false));
    assert_eq!(catalogue.seniors(), 0);
}

#[test]
fn days_are_those_of_the_reader_and_not_of_the_listing() {
    let mut catalogue = catalogue(16);
    // The listing of the day before comes with that of today.
    let mut provider = Provider::new(1);
    for day in 0..2 {
        let listing = provider.publish(NOON + day * 86_400 - 29 * HOUR);
        catalogue.insert(listing, at(NOON)).unwrap();
    }
    let standing = catalogue.standing(&provider.id()).unwrap();
    assert_eq!(standing.since, at(NOON));
    // And seven days pass with the work of every second day.
    let mut lazy = Provider::new(2);
    for day in [0, 2, 4, 6, 8] {
        let now = NOON + day * 86_400;
        let mut listing = lazy.next(now);
        listing.validity.until = at(now + 48 * HOUR);
        lazy.last = Some(listing.clone());
        let overlap = at(now.saturating_sub(1800));
        catalogue.insert(lazy.sign(&listing), overlap).unwrap();
    }
    let standing = catalogue.standing(&lazy.id()).unwrap();
    assert_eq!(standing.since, at(NOON - 1800));
    assert_eq!((standing.days, standing.is_senior), (5, false));
}

#[test]
fn who_is_not_listed_any_more_makes_room_first() {
    let mut catalogue = catalogue(2);
    let mut strong = Provider::new(1);
    strong.effort = 9 * EFFORT;
    catalogue.insert(strong.publish(NOON), at(NOON)).unwrap();
    let now = NOON + 31 * HOUR;
    catalogue
        .insert(Provider::new(2).publish(now), at(now))
        .unwrap();
    catalogue.prune(at(now));
    let third = Provider::new(3).publish(now);
    assert_eq!(catalogue.insert(third, at(now)), Ok(Inserted::New));
    assert!(catalogue.get(&Provider::new(2).id()).is_some());
    assert_eq!(catalogue.entries.len(), 2);
}

#[test]
fn a_catalogue_without_room_takes_nothing() {
    let mut catalogue = catalogue(0);
    let refused = catalogue.insert(Provider::new(1).publish(NOON), at(NOON));
    assert_eq!(refused, Err(Refusal::Full));
}
