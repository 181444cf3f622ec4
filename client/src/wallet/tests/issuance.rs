//! Contracts, from the proposal until they expire.

use dlambda_proto::{Advert, Authentic, ErrorKind, HasKind as _, IdentityKey, SignedAdvert};

use super::super::{ContractStage, WalletError};
use super::*;

fn inconsistent<T>(result: Result<T, WalletError>) -> bool {
    matches!(result, Err(error @ WalletError::Inconsistent(_)) if error.kind() == ErrorKind::Bug)
}

#[test]
fn a_draft_survives_until_the_answer_is_known() {
    let place = Place::new();
    let draft = USUAL.draft();
    place.open().begin(&draft).expect("begins");
    let wallet = place.open();
    assert!(wallet.drafts().expect("lists") == [draft.clone()]);
    assert_eq!(only(&wallet).stage, ContractStage::Draft);
    assert!(wallet.reserve(&call(1)).expect("looks").is_none());
    wallet.begin(&draft).expect("begins again");
    wallet.abandon(&USUAL.id()).expect("abandons");
    wallet.abandon(&USUAL.id()).expect("is gone already");
    assert!(place.open().drafts().expect("lists").is_empty());
}

#[test]
fn a_contract_replaces_its_draft_and_is_confirmed_later() {
    let place = Place::new();
    let wallet = place.open();
    wallet.begin(&USUAL.draft()).expect("begins");
    let complete = || wallet.complete(&USUAL.id(), USUAL.signed(), USUAL.tokens(), USUAL.ratings());
    complete().expect("completes");
    let again = place.open();
    assert!(again.drafts().expect("lists").is_empty());
    let unconfirmed = again.unconfirmed(NOW).expect("lists");
    assert_eq!(unconfirmed.len(), 1);
    assert!(unconfirmed[0].signed == USUAL.signed() && unconfirmed[0].signed.verify());
    assert!(unconfirmed[0].endpoint == endpoint(1));
    assert!(unconfirmed[0].advert == USUAL.draft().advert);
    assert_eq!(only(&again).stage, ContractStage::Unconfirmed);

    let shown = authentic(&USUAL.draft().advert);
    wallet.checked(&USUAL.id(), &shown).expect("checks");
    take(&wallet, 1).commit().expect("spends");
    complete().expect("another process was late");
    assert_eq!(counts(&wallet), [7, 0, 0, 1], "no spent token comes back");

    wallet.confirmed(&USUAL.id()).expect("confirms");
    wallet.confirmed(&USUAL.id()).expect("confirms again");
    assert!(again.unconfirmed(NOW).expect("lists").is_empty());
    assert_eq!(only(&again).stage, ContractStage::Confirmed);
    assert!(inconsistent(wallet.abandon(&USUAL.id())));
    assert!(inconsistent(wallet.begin(&USUAL.draft())));
    assert_eq!(counts(&again), [7, 0, 0, 1]);
}

#[test]
fn a_summary_says_what_was_bought() {
    let place = Place::new();
    let wallet = place.open();
    let like = Like {
        calls: BatchSize::Calls32,
        plan: 2,
        ..USUAL
    };
    like.buy(&wallet);
    let summary = only(&wallet);
    assert!(summary.id == like.id());
    assert!(summary.endpoint == endpoint(1) && summary.provider == like.identity().id());
    assert_eq!((summary.plan, summary.epoch), (plan(2), Epoch(3)));
    assert_eq!((summary.calls, summary.fresh, summary.ratings), (32, 32, 4));
    assert_eq!(summary.validity, like.validity());
    assert!(!summary.expired);
    let expired = |now| wallet.contracts(UnixSeconds(now)).expect("lists").contracts[0].expired;
    assert_eq!([1_999, 2_000].map(expired), [false, true]);
}

#[test]
fn drafts_that_contradict_their_advert_are_refused() {
    let place = Place::new();
    let wallet = place.open();
    let changed = |change: fn(&mut Draft)| {
        let mut draft = USUAL.draft();
        change(&mut draft);
        draft
    };
    for (what, draft) in [
        ("endpoint", changed(|it| it.endpoint = endpoint(2))),
        ("epoch", changed(|it| it.contract.epoch = Epoch(4))),
        ("plan", changed(|it| it.contract.plan.price = 1)),
        (
            "validity",
            changed(|it| it.contract.validity.until = UnixSeconds(3_000)),
        ),
        (
            "provider",
            changed(|it| it.contract.provider = IdentityKey::from_seed(&[2; 32]).id()),
        ),
    ] {
        assert!(inconsistent(wallet.begin(&draft)), "{what}");
    }
    assert!(wallet.drafts().expect("lists").is_empty());
}

#[test]
fn another_contract_or_other_tokens_do_not_complete_a_draft() {
    let place = Place::new();
    let wallet = place.open();
    let other = Like { number: 2, ..USUAL };
    wallet.begin(&USUAL.draft()).expect("begins");
    let complete = |signed, calls, ratings| wallet.complete(&USUAL.id(), signed, calls, ratings);
    let (signed, calls, ratings) = (USUAL.signed(), USUAL.tokens(), USUAL.ratings());
    assert!(inconsistent(complete(
        other.signed(),
        calls.clone(),
        ratings.clone()
    )));
    let mut forged = signed.clone();
    forged.provider_signature[0] ^= 1;
    assert!(inconsistent(complete(
        forged,
        calls.clone(),
        ratings.clone()
    )));
    let mut forged = signed.clone();
    forged.client_signature[0] ^= 1;
    assert!(inconsistent(complete(
        forged,
        calls.clone(),
        ratings.clone()
    )));
    assert!(inconsistent(complete(
        signed.clone(),
        calls[1..].to_vec(),
        ratings.clone()
    )));
    assert!(inconsistent(complete(
        signed.clone(),
        vec![calls[0]; 8],
        ratings.clone()
    )));
    let mut late = calls.clone();
    late[3].epoch = Epoch(4);
    assert!(inconsistent(complete(
        signed.clone(),
        late,
        ratings.clone()
    )));
    assert!(inconsistent(complete(
        signed.clone(),
        calls.clone(),
        vec![]
    )));
    let mut foreign = ratings.clone();
    foreign[0].1 = [77; 32];
    assert!(inconsistent(complete(
        signed.clone(),
        calls.clone(),
        foreign
    )));
    let mut short = ratings.clone();
    short[0].0.authenticator.pop();
    assert!(inconsistent(complete(signed.clone(), calls.clone(), short)));
    assert_eq!(only(&wallet).stage, ContractStage::Draft);
    complete(signed, calls, ratings).expect("is the draft's");
}

#[test]
fn what_is_not_there_cannot_be_completed_or_confirmed() {
    let place = Place::new();
    let wallet = place.open();
    let completed = wallet.complete(&USUAL.id(), USUAL.signed(), USUAL.tokens(), USUAL.ratings());
    assert!(matches!(completed, Err(WalletError::NoSuchContract)));
    let confirmed = wallet.confirmed(&USUAL.id());
    assert!(matches!(confirmed, Err(WalletError::NoSuchContract)));
    wallet.begin(&USUAL.draft()).expect("begins");
    let confirmed = wallet.confirmed(&USUAL.id());
    assert!(matches!(confirmed, Err(WalletError::NoSuchContract)));
}

#[test]
fn adverts_show_whether_a_provider_shows_two() {
    let place = Place::new();
    let wallet = place.open();
    let number = |number| Like { number, ..USUAL };
    number(1).buy(&wallet);
    number(2).buy(&wallet);
    Like {
        epoch: 4,
        ..number(3)
    }
    .buy(&wallet);
    Like {
        provider: 2,
        ..number(4)
    }
    .buy(&wallet);
    let provider = USUAL.identity().id();
    let adverts = || wallet.adverts(&provider).expect("lists");
    assert_eq!(adverts().len(), 2, "one for each epoch");
    assert!(contains(&adverts(), &USUAL.draft().advert));
    let mut tagged = number(5).draft();
    let mut advert = USUAL.advert();
    advert.max_function_bytes += 1;
    tagged.advert = advert.sign(&USUAL.identity()).expect("signs");
    wallet.begin(&tagged).expect("begins");
    assert_eq!(adverts().len(), 3);
    assert!(contains(&adverts(), &tagged.advert));
}

#[test]
fn only_what_is_expired_and_not_in_use_is_forgotten() {
    let place = Place::new();
    let wallet = place.open();
    let number = |number, until| Like {
        number,
        until,
        ..USUAL
    };
    number(1, 2_000).buy(&wallet);
    number(2, 3_000).buy(&wallet);
    wallet.begin(&number(3, 2_000).draft()).expect("begins");
    wallet.begin(&number(4, 3_000).draft()).expect("begins");
    let forget = |now| wallet.forget_expired(UnixSeconds(now)).expect("forgets");
    let left = || wallet.contracts(NOW).expect("lists").contracts.len();
    assert_eq!((forget(1_999), left()), (0, 4));

    let taking = TokenQuery {
        valid_at: UnixSeconds(1_999),
        ..call(1)
    };
    // The contract that is valid longest comes first; use that up.
    let longest: Vec<_> = (0..8).map(|_| take(&wallet, 9)).collect();
    let held = wallet
        .reserve(&taking)
        .expect("takes")
        .expect("there is one");
    for token in longest {
        token.release().expect("releases");
    }
    assert_eq!(
        (forget(2_000), left()),
        (1, 3),
        "a draft went, a token is in use"
    );
    assert_eq!(
        place
            .open()
            .forget_expired(UnixSeconds(2_000))
            .expect("looks"),
        0
    );
    held.commit().expect("spends");
    assert_eq!(
        (forget(2_000), left()),
        (0, 3),
        "its rating token is good for longer"
    );
    assert_eq!((forget(u64::MAX), left()), (3, 0));
    assert!(!place.file(&number(1, 2_000).id()).exists());
}

#[test]
fn no_token_is_given_out_before_the_keys_were_seen_twice() {
    let place = Place::new();
    let wallet = place.open();
    wallet.begin(&USUAL.draft()).expect("begins");
    let granted = wallet.complete(&USUAL.id(), USUAL.signed(), USUAL.tokens(), USUAL.ratings());
    granted.expect("completes");
    wallet.confirmed(&USUAL.id()).expect("confirms");
    let waiting = || wallet.unchecked(NOW).expect("lists").len();
    let taken = || wallet.reserve(&call(1)).expect("looks").is_some();
    assert_eq!(
        (waiting(), taken(), only(&wallet).checked),
        (1, false, false)
    );
    // Another advert vouches for nothing.
    let mut other = USUAL.advert();
    other.max_function_bytes += 1;
    let other = authentic(&other.sign(&USUAL.identity()).expect("signs"));
    let checked = wallet.checked(&USUAL.id(), &other);
    assert!(matches!(checked, Err(WalletError::Inconsistent(_))));
    assert!(!taken());
    let listed = later(&wallet, &USUAL.draft().advert);
    wallet.checked(&USUAL.id(), &listed).expect("it lists it");
    assert_eq!((waiting(), only(&wallet).checked), (0, true));
    // And so it stays, in another process too.
    let held = place.open().reserve(&call(1)).expect("takes").expect("one");
    held.release_in_doubt().expect("given back");
    assert_eq!((waiting(), taken()), (1, false), "until it is seen again");
    assert_eq!(counts(&wallet), [8, 0, 0, 0]);
}

/// The next epoch's advert, which lists this one. It ended early.
fn later(wallet: &Wallet, earlier: &SignedAdvert) -> Authentic<Advert> {
    let earlier = authentic(earlier);
    let mut next = Advert::clone(&earlier);
    next.epoch = next.epoch.next();
    next.history = vec![earlier.as_past()];
    let next = next.sign(&USUAL.identity()).expect("signs");
    let next = authentic(&next);
    wallet.saw(&next).expect("looks");
    next
}

fn authentic(advert: &SignedAdvert) -> Authentic<Advert> {
    advert.clone().authenticate().expect("authentic")
}

fn contains(adverts: &[Authentic<Advert>], one: &SignedAdvert) -> bool {
    adverts.iter().any(|it| it.signed() == one)
}

#[test]
fn an_epoch_that_ended_early_is_counted_and_both_adverts_are_kept() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    assert_eq!(only(&wallet).early_ends, 0);
    let next = later(&wallet, &USUAL.draft().advert);
    assert_eq!(only(&wallet).early_ends, 1);
    let provider = USUAL.identity().id();
    let kept = place.open().adverts(&provider).expect("lists");
    assert!(kept.len() == 2 && kept.contains(&next) && contains(&kept, &USUAL.draft().advert));
}
