//! A token for each call.

use dlambda_proto::ANSWER_KEPT_SECONDS;

use super::super::WalletError;
use super::*;

#[test]
fn each_call_gets_a_token_of_its_own_and_a_seed_of_its_own() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held: Vec<_> = (0..8).map(|number| take(&wallet, number)).collect();
    assert!(wallet.reserve(&call(8)).expect("looks").is_none());
    let mut nonces: Vec<_> = held.iter().map(|held| held.token().nonce).collect();
    nonces.sort_unstable();
    nonces.dedup();
    let bought: Vec<_> = USUAL.tokens().iter().map(|token| token.nonce).collect();
    assert_eq!(nonces, bought);
    let mut seeds: Vec<_> = held.iter().map(|held| *held.seed()).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 8);
    for held in &held {
        assert!(!held.resumed());
        assert!(*held.advert() == USUAL.draft().advert);
        assert!(*held.provider() == USUAL.identity().id());
        assert_eq!(*held.plan(), plan(0));
    }
    assert_eq!(counts(&wallet), [0, 8, 0, 0]);
    for held in held {
        held.commit().expect("spends");
    }
    assert_eq!(counts(&place.open()), [0, 0, 0, 8]);
}

#[test]
fn a_spent_token_is_erased_from_the_file() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let nonce = held.token().nonce;
    let is_there = || {
        let file = std::fs::read(place.file(&USUAL.id())).expect("reads");
        file.windows(32).any(|window| window == nonce)
    };
    assert!(is_there());
    held.commit().expect("spends");
    assert!(!is_there());
}

#[test]
fn the_same_call_at_the_same_time_gets_two_tokens() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let first = take(&wallet, 1);
    let second = take(&wallet, 1);
    let third = take(&place.open(), 1);
    let tokens = [&first, &second, &third].map(|held| held.token().nonce);
    assert!(tokens[0] != tokens[1] && tokens[1] != tokens[2] && tokens[0] != tokens[2]);
    assert!(![&first, &second, &third].iter().any(|held| held.resumed()));
}

#[test]
fn an_interrupted_call_gets_its_token_and_seed_again_and_no_other_call_does() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let (token, seed) = (held.token(), *held.seed());
    drop(held);
    assert_eq!(counts(&wallet), [7, 0, 1, 0]);
    for _ in 0..2 {
        let others: Vec<_> = (10..17).map(|number| take(&wallet, number)).collect();
        assert!(others.iter().all(|other| other.token() != token));
        assert!(wallet.reserve(&call(18)).expect("looks").is_none());
        for other in others {
            other.release().expect("releases");
        }
    }
    let again = take(&wallet, 1);
    assert!(again.resumed());
    assert!(again.token() == token && *again.seed() == seed);
    let meanwhile = take(&wallet, 1);
    assert!(!meanwhile.resumed() && meanwhile.token() != token);
    again.commit().expect("spends");
    assert!(take(&place.open(), 1).token() != token);
}

#[test]
fn an_interrupted_token_is_for_its_endpoint_plan_and_time_only() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    Like {
        number: 2,
        plan: 1,
        ..USUAL
    }
    .buy(&wallet);
    Like {
        number: 3,
        provider: 2,
        ..USUAL
    }
    .buy(&wallet);
    drop(take(&wallet, 1));
    let resumed = |taking: TokenQuery| {
        let held = wallet.reserve(&taking).expect("takes")?;
        Some((held.resumed(), held.release().expect("releases")).0)
    };
    assert_eq!(
        resumed(TokenQuery {
            plan: Some(plan(1)),
            ..call(1)
        }),
        Some(false)
    );
    assert_eq!(
        resumed(TokenQuery {
            endpoint: endpoint(2),
            ..call(1)
        }),
        Some(false)
    );
    assert_eq!(
        resumed(TokenQuery {
            valid_at: UnixSeconds(2_000),
            ..call(1)
        }),
        None
    );
    assert_eq!(
        resumed(TokenQuery {
            valid_at: UnixSeconds(999),
            ..call(1)
        }),
        None
    );
    assert_eq!(
        resumed(TokenQuery {
            plan: Some(plan(0)),
            ..call(1)
        }),
        Some(true)
    );
}

/// A call that is made every few minutes, by a clock, must not bring its first token back each
/// time.
#[test]
fn an_interrupted_token_comes_back_by_itself_only_while_the_answer_is_kept() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let token = take(&wallet, 1).token();
    let later = |seconds, resuming| TokenQuery {
        now: NOW.plus(seconds),
        resuming,
        ..call(1)
    };
    let resumed = |seconds, resuming| {
        let held = wallet.reserve(&later(seconds, resuming)).expect("takes")?;
        let found = (held.resumed(), held.token() == token);
        held.release().expect("releases");
        Some(found)
    };
    for seconds in [0, 150, ANSWER_KEPT_SECONDS - 1] {
        assert_eq!(resumed(seconds, Resuming::Soon), Some((true, true)));
    }
    for seconds in [ANSWER_KEPT_SECONDS, 3600, 86_400] {
        assert_eq!(resumed(seconds, Resuming::Soon), Some((false, false)));
        assert_eq!(resumed(seconds, Resuming::AtAnyTime), Some((true, true)));
    }
    let set_back = TokenQuery {
        now: UnixSeconds(NOW.0 - ANSWER_KEPT_SECONDS),
        ..call(1)
    };
    let held = wallet
        .reserve(&set_back)
        .expect("takes")
        .expect("there is one");
    assert!(!held.resumed(), "nor when the clock was set back");
}

#[test]
fn only_the_interrupted_call_can_be_taken_up_on_request() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let asked = |number| TokenQuery {
        resuming: Resuming::AtAnyTime,
        ..call(number)
    };
    drop(take(&wallet, 1));
    assert!(wallet.reserve(&asked(2)).expect("looks").is_none());
    let held = wallet
        .reserve(&asked(1))
        .expect("takes")
        .expect("it is there");
    assert!(
        wallet.reserve(&asked(1)).expect("looks").is_none(),
        "it is in use"
    );
    held.commit().expect("spends");
    assert!(
        wallet.reserve(&asked(1)).expect("looks").is_none(),
        "it is over"
    );
    assert_eq!(counts(&wallet), [7, 0, 0, 1], "no fresh token is touched");
}

#[test]
fn a_released_token_is_fresh_again_with_another_seed() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let (token, seed) = (held.token(), *held.seed());
    held.release().expect("releases");
    assert_eq!(counts(&place.open()), [8, 0, 0, 0]);
    let next = take(&wallet, 1);
    assert!(!next.resumed() && next.token() == token && *next.seed() != seed);
}

#[test]
fn a_resumed_token_is_never_fresh_again() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let (token, seed) = (held.token(), *held.seed());
    drop(held);
    for _ in 0..3 {
        let again = take(&wallet, 1);
        assert!(again.resumed());
        // It was not sent this time, but perhaps the first.
        again.release().expect("releases");
        assert_eq!(counts(&wallet), [7, 0, 1, 0]);
    }
    assert!((0..7).all(|number| take(&wallet, 100 + number).token() != token));
    let elsewhere = take(&place.open(), 1);
    assert!(elsewhere.resumed() && elsewhere.token() == token && *elsewhere.seed() == seed);
}

#[test]
fn a_release_does_not_unmark_the_next_holder_of_the_place() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    for _ in 0..3 {
        take(&wallet, 1).release().expect("releases");
        let held = take(&wallet, 1);
        assert_eq!(counts(&wallet), [7, 1, 0, 0]);
        held.release().expect("releases");
    }
}

#[test]
fn the_contract_that_is_valid_longest_comes_first() {
    let place = Place::new();
    let wallet = place.open();
    for (number, until) in [(1, 2_000), (2, 4_000), (3, 3_000)] {
        Like {
            number,
            until,
            ..USUAL
        }
        .buy(&wallet);
    }
    let numbers: Vec<_> = (0..24).map(|n| take(&wallet, n)).collect();
    let numbers: Vec<_> = numbers.iter().map(|held| held.token().nonce[0]).collect();
    assert_eq!(numbers, [[2; 8], [3; 8], [1; 8]].concat());
}

#[test]
fn an_interrupted_token_comes_before_one_that_is_valid_longer() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    drop(take(&wallet, 1));
    Like {
        number: 2,
        until: 5_000,
        ..USUAL
    }
    .buy(&wallet);
    assert_eq!(take(&wallet, 1).token().nonce[0], 1);
    assert_eq!(take(&wallet, 2).token().nonce[0], 2);
}

#[test]
fn tokens_are_counted_by_endpoint_plan_and_time() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    Like { number: 2, ..USUAL }.buy(&wallet);
    Like {
        number: 3,
        plan: 1,
        calls: BatchSize::Calls32,
        ..USUAL
    }
    .buy(&wallet);
    wallet
        .begin(&Like { number: 4, ..USUAL }.draft())
        .expect("begins");
    let left = |provider, plan: Option<usize>, now| {
        let plan = plan.map(super::plan);
        let left = wallet.tokens_left(&endpoint(provider), plan.as_ref(), UnixSeconds(now));
        left.expect("counts")
    };
    assert_eq!(left(1, None, 1_500), 16);
    assert_eq!(left(1, Some(0), 1_500), 16);
    assert_eq!(left(1, Some(1), 1_500), 32);
    assert_eq!(left(1, Some(2), 1_500), 0);
    assert_eq!(left(2, None, 1_500), 0);
    assert_eq!((left(1, None, 999), left(1, None, 2_000)), (0, 0));
    let held = take(&wallet, 1);
    assert_eq!(left(1, None, 1_500), 15);
    held.commit().expect("spends");
    assert_eq!(left(1, None, 1_500), 15);
}

#[test]
fn a_spend_that_cannot_be_recorded_is_not_resumed_here() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let token = held.token();
    let file = place.file(&USUAL.id());
    let kept = std::fs::read(&file).expect("reads");
    std::fs::write(&file, b"damaged").expect("writes");
    assert!(matches!(held.commit(), Err(WalletError::Damaged { .. })));
    std::fs::write(&file, kept).expect("mends");
    let next = take(&wallet, 1);
    assert!(!next.resumed() && next.token() != token);
    drop((next, wallet));
    let later = place.open();
    assert_eq!(counts(&later), [6, 0, 2, 0]);
}

#[test]
fn nothing_is_left_to_end_when_the_contract_is_gone() {
    let place = Place::new();
    let wallet = place.open();
    USUAL.buy(&wallet);
    let (first, second) = (take(&wallet, 1), take(&wallet, 2));
    std::fs::remove_file(place.file(&USUAL.id())).expect("removes");
    first.commit().expect("has nothing to erase");
    assert!(matches!(second.release(), Err(WalletError::NoSuchContract)));
}
