//! Rating tokens: given out once, in the epoch after theirs.

use dlambda_proto::UnixSeconds;

use super::*;
use crate::wallet::ReservedRating;

/// Ratings begin when the epoch is over, and end after as long a time.
const BEGIN: u64 = 1_000 + Advert::MIN_EPOCH_SECONDS;
const END: u64 = BEGIN + Advert::MIN_EPOCH_SECONDS;

fn reserve(wallet: &Wallet, at: u64) -> Option<ReservedRating> {
    let provider = USUAL.identity().id();
    let reserved = wallet.reserve_rating(&provider, UnixSeconds(at));
    reserved.expect("looks")
}

fn left(wallet: &Wallet) -> usize {
    only(wallet).ratings
}

#[test]
fn a_rating_token_is_given_out_in_the_epoch_after_its_own() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    for (at, is_there) in [
        (BEGIN - 1, false),
        (BEGIN, true),
        (END - 1, true),
        (END, false),
    ] {
        let reserved = reserve(&wallet, at);
        assert_eq!(reserved.is_some(), is_there, "{at}");
        if let Some(reserved) = reserved {
            reserved.release().expect("releases");
        }
    }
    let other = Like {
        provider: 2,
        ..USUAL
    };
    let none = wallet.reserve_rating(&other.identity().id(), UnixSeconds(BEGIN));
    assert!(none.expect("looks").is_none(), "another provider");
}

#[test]
fn a_rating_token_is_given_out_once_in_all_processes() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    assert_eq!(left(&wallet), 1);
    let reserved = reserve(&wallet, BEGIN).expect("one");
    let (expected, seed) = USUAL.ratings().remove(0);
    assert!(*reserved.token() == expected && *reserved.seed() == seed);
    assert!(reserve(&wallet, BEGIN).is_none());
    assert!(reserve(&place.open(), BEGIN).is_none());
    reserved.release().expect("releases");
    drop(reserve(&place.open(), BEGIN).expect("it is back"));
    // Nobody knows whether a rating was made with it.
    assert!(reserve(&wallet, BEGIN).is_none());
    assert_eq!(left(&place.open()), 0);
}

#[test]
fn rating_tokens_outlive_their_contract_and_call_tokens_do_not() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let forget = |at| wallet.forget_expired(UnixSeconds(at)).expect("forgets");
    assert_eq!(forget(1_999), 0);
    assert_eq!(counts(&wallet), [8, 0, 0, 0]);
    assert_eq!(forget(2_000), 0);
    assert_eq!(counts(&wallet), [0, 0, 0, 8], "the call tokens are erased");
    let bytes = std::fs::read(place.file(&USUAL.id())).expect("reads");
    let has = |part: &[u8]| bytes.windows(part.len()).any(|it| it == part);
    assert!(!has(&[0xaa; 64]) && has(&[0xbb; 256]));
    drop(reserve(&wallet, END - 1).expect("it is good"));
    assert_eq!(forget(END - 1), 1, "nothing is left to keep");
    assert!(!place.file(&USUAL.id()).exists());
}

#[test]
fn unused_rating_tokens_go_when_their_time_is_over() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let forget = |at| wallet.forget_expired(UnixSeconds(at)).expect("forgets");
    assert_eq!((forget(END - 1), forget(END)), (0, 1));
}

#[test]
fn no_rating_token_is_given_out_before_the_keys_were_seen_twice() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    take(&wallet, 1).release_in_doubt().expect("releases");
    assert!(reserve(&wallet, BEGIN).is_none());
    let shown = USUAL.draft().advert.authenticate().expect("authentic");
    wallet.checked(&USUAL.id(), &shown).expect("checks");
    assert!(reserve(&wallet, BEGIN).is_some());
}
