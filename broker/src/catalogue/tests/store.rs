//! The catalogue on disk.

use std::path::Path;

use dlambda_proto::NetworkId;

use super::*;
use crate::{Inserted, Refusal, StoreError};

fn load(path: &Path, now: u64) -> Result<Catalogue, StoreError> {
    Catalogue::load(path, rules(16), Arc::new(Claimed), at(now))
}

#[test]
fn a_node_that_starts_again_knows_what_it_knew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue");
    assert!(load(&path, NOON).unwrap().is_empty());
    let mut catalogue = catalogue(16);
    let mut senior = Provider::new(1);
    for day in 0..=7 {
        let now = NOON + day * 86_400;
        let listing = senior.publish(now);
        catalogue.insert(listing, at(now)).unwrap();
    }
    let now = NOON + 7 * 86_400;
    let mut newcomer = Provider::new(2);
    let first = newcomer.publish(now - HOUR);
    let second = newcomer.publish(now);
    catalogue.insert(first.clone(), at(now)).unwrap();
    catalogue.insert(second, at(now)).unwrap();
    let liar = Provider::new(3);
    let one = liar.next(now);
    let mut other = one.clone();
    other.plans[0].price += 1;
    catalogue.insert(liar.sign(&one), at(now)).unwrap();
    assert!(catalogue.insert(liar.sign(&other), at(now)).is_err());
    catalogue.save(&path).unwrap();

    let mut read = load(&path, now + HOUR).unwrap();
    let standing = catalogue.standing(&senior.id());
    assert!(standing.unwrap().is_senior);
    assert_eq!(read.standing(&senior.id()), standing);
    assert_eq!((read.len(), read.seniors()), (2, 1));
    let digests = |it: &Catalogue| it.digests().collect::<Vec<_>>();
    assert_eq!(digests(&read), digests(&catalogue));
    let again = read.insert(liar.sign(&one), at(now));
    assert_eq!(again, Err(Refusal::Convicted));
    assert!(read.fork(&liar.id()) == catalogue.fork(&liar.id()));
    // Earlier listings are known, and what contradicts them is a fork.
    assert_eq!(read.insert(first.clone(), at(now)), Ok(Inserted::Known));
    let mut hidden = authentic(&first).into_parts().0;
    hidden.plans[0].price += 1;
    let refused = read.insert(newcomer.sign(&hidden), at(now));
    assert!(matches!(refused, Err(Refusal::Fork(_))));
    // What ended while the node was down is not listed, and seniority is lost with it.
    let late = load(&path, now + 31 * HOUR).unwrap();
    assert_eq!((late.len(), late.seniors()), (0, 0));
}

#[test]
fn every_stored_catalogue_that_cannot_be_used_has_its_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("catalogue");
    let mut catalogue = catalogue(16);
    catalogue
        .insert(Provider::new(1).publish(NOON), at(NOON))
        .unwrap();
    catalogue.save(&path).unwrap();
    let elsewhere = Rules::new(NetworkId::from_bytes([8; 16]), 1, 1);
    let read = Catalogue::load(&path, elsewhere, Arc::new(Claimed), at(NOON));
    assert!(matches!(read, Err(StoreError::OtherNetwork { .. })));
    let good = std::fs::read(&path).unwrap();
    for at_byte in 0..good.len() {
        let mut bad = good.clone();
        bad[at_byte] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let read = load(&path, NOON);
        assert!(matches!(read, Err(StoreError::Damaged { .. })), "{at_byte}");
    }
    // A guest's directory is no catalogue.
    crate::Market::new(rules(16)).save(&path).unwrap();
    assert!(matches!(load(&path, NOON), Err(StoreError::Damaged { .. })));
}
