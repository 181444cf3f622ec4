//! Many threads, many wallets, one directory.

use std::collections::HashSet;
use std::fs::File;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;

use super::super::WalletError;
use super::*;

#[test]
fn wallets_go_anywhere() {
    fn is_free<T: Clone + Send + Sync + 'static>() {}
    is_free::<Wallet>();
    fn is_sent<T: Send + Sync + 'static>() {}
    is_sent::<ReservedToken>();
    is_sent::<WalletError>();
}

#[test]
fn a_hundred_threads_of_eight_wallets_get_a_token_each() {
    let place = Place::new();
    let like = Like {
        calls: BatchSize::Calls128,
        ..USUAL
    };
    like.buy(&place.open());
    let wallets: Vec<_> = (0..8).map(|_| place.open()).collect();
    let start = Arc::new(Barrier::new(100));
    let threads: Vec<_> = (0..100)
        .map(|index: usize| {
            let wallet = wallets[index % 8].clone();
            let start = Arc::clone(&start);
            thread::spawn(move || {
                start.wait();
                // All the same call: nothing but the locks keeps them apart.
                take(&wallet, 1)
            })
        })
        .collect();
    let held: Vec<_> = threads
        .into_iter()
        .map(|thread| thread.join().expect("takes"))
        .collect();
    let nonces: HashSet<_> = held.iter().map(|held| held.token().nonce).collect();
    assert_eq!(nonces.len(), 100);
    assert!(!held.iter().any(ReservedToken::resumed));
    assert_eq!(counts(&wallets[0]), [28, 100, 0, 0]);
    let threads: Vec<_> = held
        .into_iter()
        .enumerate()
        .map(|(index, held)| {
            thread::spawn(move || match index % 4 {
                0 => held.commit().expect("spends"),
                1 => drop(held),
                _ => held.release().expect("releases"),
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("ends");
    }
    drop(wallets);
    assert_eq!(counts(&place.open()), [28 + 50, 0, 25, 25]);
}

#[test]
fn a_token_that_changes_hands_has_one_holder_at_a_time() {
    let place = Place::new();
    // So many that they do not run out, however the threads take turns.
    let like = Like {
        calls: BatchSize::Calls128,
        ..USUAL
    };
    like.buy(&place.open());
    let wallets = [place.open(), place.open()];
    let holding = Arc::new(Mutex::new(HashSet::new()));
    let threads: Vec<_> = (0..8)
        .map(|index: usize| {
            let (wallet, holding) = (wallets[index % 2].clone(), Arc::clone(&holding));
            thread::spawn(move || {
                for round in 0..16 {
                    let held = take(&wallet, 1);
                    let nonce = held.token().nonce;
                    assert!(holding.lock().expect("works").insert(nonce), "two holders");
                    thread::yield_now();
                    assert!(holding.lock().expect("works").remove(&nonce));
                    match round % 4 {
                        // It comes back resumed, to us or the next thread.
                        0 => drop(held),
                        _ => held.release().expect("releases"),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("ends");
    }
    drop(wallets);
    let [fresh, in_use, interrupted, spent] = counts(&place.open());
    assert_eq!((fresh + interrupted, in_use, spent), (128, 0, 0));
}

#[test]
fn a_token_is_in_use_for_others_as_long_as_its_wallet_lives() {
    let place = Place::new();
    let (ours, theirs) = (place.open(), place.open());
    USUAL.buy(&ours);
    let held = take(&theirs, 1);
    let (token, seed) = (held.token(), *held.seed());
    drop(theirs);
    assert_eq!(
        counts(&ours),
        [7, 1, 0, 0],
        "the token keeps its wallet alive"
    );
    assert!(take(&ours, 1).token() != token);
    drop(held);
    assert_eq!(counts(&ours), [6, 0, 2, 0]);
    let again: Vec<_> = (0..2).map(|_| take(&ours, 1)).collect();
    assert!(again.iter().all(ReservedToken::resumed));
    assert!(
        again
            .iter()
            .any(|it| it.token() == token && *it.seed() == seed)
    );
}

#[test]
fn a_dropped_token_of_a_living_wallet_is_left_alone_by_others() {
    let place = Place::new();
    let (ours, theirs) = (place.open(), place.open());
    USUAL.buy(&ours);
    drop(take(&theirs, 1));
    assert!(
        !take(&ours, 1).resumed(),
        "we cannot know that it was dropped"
    );
    assert!(take(&theirs, 1).resumed(), "they do");
}

#[test]
fn a_process_that_stops_inside_does_not_stop_the_others_for_ever() {
    let place = Place::new();
    let wallet = Wallet::open_with_patience(&place.path, Duration::from_millis(50)).expect("opens");
    USUAL.buy(&wallet);
    let held = take(&wallet, 1);
    let lock = place.path.join("lock");
    let stopped = File::open(&lock).expect("opens");
    stopped.lock().expect("locks");
    let is_busy =
        |error: &WalletError| matches!(error, WalletError::Busy { path, .. } if *path == lock);
    let threads: Vec<_> = (0..8)
        .map(|number| {
            let wallet = wallet.clone();
            thread::spawn(move || wallet.reserve(&call(number)).map(drop))
        })
        .collect();
    for thread in threads {
        assert!(is_busy(
            &thread.join().expect("ends").expect_err("gives up")
        ));
    }
    let opened = Wallet::open_with_patience(&place.path, Duration::ZERO);
    assert!(is_busy(&opened.expect_err("gives up")));
    assert!(is_busy(&held.release().expect_err("gives up")));
    stopped.unlock().expect("unlocks");
    drop(wallet);
    assert_eq!(counts(&place.open()), [7, 0, 1, 0]);
}

#[test]
fn a_thread_that_hangs_inside_does_not_stop_the_others_for_ever() {
    let place = Place::new();
    let wallet = Wallet::open_with_patience(&place.path, Duration::from_millis(50)).expect("opens");
    let hanging = wallet.shared.enter().expect("enters");
    let other = wallet.clone();
    let thread = thread::spawn(move || other.reserve(&call(1)).map(drop));
    let result = thread.join().expect("ends");
    assert!(matches!(result, Err(WalletError::Busy { .. })));
    drop(hanging);
    assert!(wallet.reserve(&call(1)).expect("looks").is_none());
}

#[test]
fn a_deleted_lock_file_is_made_again() {
    let place = Place::new();
    let (ours, theirs) = (place.open(), place.open());
    USUAL.buy(&ours);
    std::fs::remove_file(place.path.join("lock")).expect("removes");
    let held = [take(&ours, 1), take(&theirs, 1), take(&place.open(), 1)];
    let nonces: HashSet<_> = held.iter().map(|held| held.token().nonce).collect();
    assert_eq!(nonces.len(), 3);
}
