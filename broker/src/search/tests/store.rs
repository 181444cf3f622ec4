//! The market on disk.

use std::os::unix::fs::PermissionsExt as _;

use dlambda_proto::NetworkId;
use proptest::prelude::*;

use super::*;
use crate::catalogue::tests::HOUR;
use crate::{Rules, StoreError};

#[test]
fn a_stored_market_is_what_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("directory");
    let empty = Market::load(&path, rules(100), at(NOON)).unwrap();
    assert_eq!(empty.counts(at(NOON)), (0, 0));
    let mut market = market(20);
    let provider = Provider::new(2);
    let mut other = provider.next(NOON);
    other.plans[0].price += 1;
    market.update(
        synced(vec![
            known(provider.sign(&other), true),
            known(Provider::new(3).publish(NOON), true),
        ]),
        at(NOON + HOUR),
    );
    market.save(&path).unwrap();
    market.save(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let now = at(NOON + 2 * HOUR);
    let read = Market::load(&path, rules(100), now).unwrap();
    assert_eq!(read.counts(now), market.counts(now));
    assert_eq!(read.counts(now), (1, 19));
    assert_eq!(read.last_sync(), Some(at(NOON + HOUR)));
    assert!(read.fork(&provider.id()) == market.fork(&provider.id()));
    let listed = read.get(&Provider::new(3).id(), now).unwrap();
    assert_eq!(listed.since(), at(NOON));
    // What has ended meanwhile is not read.
    let late = Market::load(&path, rules(100), at(NOON + 40 * HOUR)).unwrap();
    assert_eq!(late.counts(at(NOON + 40 * HOUR)), (0, 0));
}

#[test]
fn every_file_that_cannot_be_used_has_its_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("directory");
    market(5).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let elsewhere = Rules::new(NetworkId::from_bytes([8; 16]), 1, 1);
    let error = Market::load(&path, elsewhere, at(NOON)).unwrap_err();
    assert!(matches!(error, StoreError::OtherNetwork { .. }));
    for at_byte in (0..good.len()).step_by(97) {
        let mut bad = good.clone();
        bad[at_byte] ^= 0x10;
        std::fs::write(&path, bad).unwrap();
        let error = Market::load(&path, rules(100), at(NOON)).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "{at_byte}");
    }
    std::fs::write(&path, &good[..good.len() / 2]).unwrap();
    assert!(Market::load(&path, rules(100), at(NOON)).is_err());
    std::fs::write(&path, vec![0; 2 << 20]).unwrap();
    let error = Market::load(&path, rules(100), at(NOON)).unwrap_err();
    assert!(error.to_string().contains("too large"), "{error}");
    let error = Market::load(directory.path(), rules(100), at(NOON)).unwrap_err();
    assert!(matches!(error, StoreError::File { .. }));
    let nowhere = directory.path().join("missing").join("directory");
    assert!(matches!(
        market(1).save(&nowhere),
        Err(StoreError::File { .. })
    ));
    // A process that was killed while it wrote leaves its half; the next goes on.
    std::fs::write(directory.path().join("directory.new"), [1; 100]).unwrap();
    market(5).save(&path).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), good);
    // And one that writes now is waited for by the caller.
    let lock = std::fs::File::open(directory.path().join("directory.lock")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(
        market(5).save(&path),
        Err(StoreError::Busy { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_file_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        prop_assert!(Market::load(file.path(), rules(100), at(NOON)).is_err());
    }
}
