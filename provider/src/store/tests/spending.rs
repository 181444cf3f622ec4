use std::pin::pin;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::*;
use crate::store::spent;
use crate::store::writer::QUEUE;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(100);

#[test]
fn a_token_is_spent_once_and_on_one_request() {
    let (_dir, path, mut store) = store();
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    for _ in 0..2 {
        assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Again));
        assert_eq!(spend(&store, "a token", "two"), Ok(SpendOutcome::Other));
        assert_eq!(store.spent_count(EPOCH).expect("counts"), 1);
        store = reopen(store, &path);
    }
    assert_eq!(spend(&store, "another", "one"), Ok(SpendOutcome::First));
}

#[test]
fn a_closed_token_is_closed_for_every_request() {
    let (_dir, path, mut store) = store();
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    store.close(EPOCH, &bytes("a token"));
    for _ in 0..2 {
        assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Closed));
        assert_eq!(spend(&store, "a token", "two"), Ok(SpendOutcome::Closed));
        assert_eq!(store.spent_count(EPOCH).expect("counts"), 1);
        store = reopen(store, &path);
    }
}

#[test]
fn a_token_closed_last_is_written_when_the_store_is_dropped() {
    let (_dir, path, store) = store();
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    store.close(EPOCH, &bytes("a token"));
    let store = reopen(store, &path);
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Closed));
}

#[test]
fn tokens_are_closed_among_other_requests() {
    let (_dir, _path, store) = store();
    for token in ["one", "two"] {
        assert_eq!(spend(&store, token, "one"), Ok(SpendOutcome::First));
    }
    let (release, thread) = hold(&store);
    let (nonce, by) = (bytes("three"), request("one"));
    store.close(EPOCH, &bytes("one"));
    let mut third = Box::pin(store.spend(EPOCH, &nonce, &by));
    assert!(poll(third.as_mut()).is_pending());
    store.close(EPOCH, &bytes("two"));
    drop(release);
    thread.join().expect("no panic");
    assert_eq!(wait(third), Ok(SpendOutcome::First));
    for token in ["one", "two"] {
        assert_eq!(spend(&store, token, "one"), Ok(SpendOutcome::Closed));
    }
}

#[test]
fn a_closed_token_is_written_without_another_request() {
    let (_dir, _path, store) = store();
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    let is_closed = || {
        let nonce = bytes("a token");
        let look = store.file().read(|t| spent::is_closed(t, EPOCH, &nonce));
        look.expect("readable")
    };
    assert!(!is_closed());
    store.close(EPOCH, &bytes("a token"));
    let start = Instant::now();
    while !is_closed() {
        assert!(start.elapsed() < LONG, "never written");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn closing_an_unspent_token_does_nothing() {
    let (_dir, _path, store) = store();
    store.close(EPOCH, &bytes("a token"));
    store.close(Epoch(8), &bytes("a token"));
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Again));
}

#[test]
fn no_digest_looks_like_a_closed_token() {
    let (_dir, _path, store) = store();
    for byte in [0, 0x7f, 0x80, 0xff] {
        let (nonce, request) = ([byte; 32], RequestDigest([byte; 32]));
        let spend = || wait(store.spend(EPOCH, &nonce, &request));
        assert_eq!(spend(), Ok(SpendOutcome::First));
        assert_eq!(spend(), Ok(SpendOutcome::Again));
    }
}

#[test]
fn tokens_that_begin_alike_are_one() {
    let (_dir, _path, store) = store();
    let spend = |nonce| wait(store.spend(EPOCH, &nonce, &request("one")));
    let mut nonce = bytes("a token");
    assert_eq!(spend(nonce), Ok(SpendOutcome::First));
    nonce[16] ^= 1;
    assert_eq!(spend(nonce), Ok(SpendOutcome::Again));
    nonce[15] ^= 1;
    assert_eq!(spend(nonce), Ok(SpendOutcome::First));
}

#[test]
fn epochs_do_not_share_tokens() {
    let (_dir, _path, store) = store();
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    for epoch in [EPOCH, Epoch(8)] {
        let spent = wait(store.spend(epoch, &bytes("a token"), &request("one")));
        assert_eq!(spent, Ok(SpendOutcome::First));
        assert_eq!(store.spent_count(epoch).expect("counts"), 1);
    }
    let spent = wait(store.spend(Epoch(9), &bytes("a token"), &request("one")));
    assert_eq!(spent, Err(StoreError::UnknownEpoch));
    let count = store.spent_count(Epoch(9));
    assert_eq!(count, Err(StoreError::UnknownEpoch));
}

/// Many threads spend the same tokens at once, each on the request that the
/// function says.
fn race(by: impl Fn(usize) -> String + Sync) -> Vec<Vec<SpendOutcome>> {
    const THREADS: usize = 16;
    const TOKENS: usize = 40;
    let (_dir, _path, store) = store();
    let start = Barrier::new(THREADS);
    let by_thread: Vec<Vec<SpendOutcome>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (store, start, by) = (&store, &start, by(thread));
                scope.spawn(move || {
                    let one = |token: usize| {
                        start.wait();
                        spend(store, &token.to_string(), &by).expect("works")
                    };
                    (0..TOKENS).map(one).collect()
                })
            })
            .collect();
        let results = threads.into_iter().map(|thread| thread.join());
        results.map(|result| result.expect("no panic")).collect()
    });
    assert_eq!(store.spent_count(EPOCH).expect("counts"), TOKENS as u64);
    (0..TOKENS)
        .map(|token| by_thread.iter().map(|results| results[token]).collect())
        .collect()
}

fn count(results: &[SpendOutcome], wanted: SpendOutcome) -> usize {
    results.iter().filter(|result| **result == wanted).count()
}

#[test]
fn exactly_one_of_racing_copies_is_first() {
    for results in race(|_| "one".to_owned()) {
        assert_eq!(count(&results, SpendOutcome::First), 1, "{results:?}");
        assert_eq!(count(&results, SpendOutcome::Again), results.len() - 1);
    }
}

#[test]
fn exactly_one_of_racing_requests_gets_the_token() {
    for results in race(|thread| thread.to_string()) {
        assert_eq!(count(&results, SpendOutcome::First), 1, "{results:?}");
        assert_eq!(count(&results, SpendOutcome::Other), results.len() - 1);
    }
}

#[test]
fn requests_beyond_the_queue_are_refused_and_the_others_served() {
    let (_dir, _path, store) = store();
    let (release, thread) = hold(&store);
    let by = request("one");
    let nonces: Vec<_> = (0..=QUEUE).map(|i| bytes(&i.to_string())).collect();
    let mut waiting: Vec<_> = nonces[..QUEUE]
        .iter()
        .map(|nonce| Box::pin(store.spend(EPOCH, nonce, &by)))
        .collect();
    for one in &mut waiting {
        assert!(poll(one.as_mut()).is_pending());
    }
    let late = pin!(store.spend(EPOCH, &nonces[QUEUE], &by));
    assert_eq!(poll(late), Poll::Ready(Err(StoreError::Busy)));
    drop(release);
    for one in waiting {
        assert_eq!(wait(one), Ok(SpendOutcome::First));
    }
    thread.join().expect("no panic");
    let late = wait(store.spend(EPOCH, &nonces[QUEUE], &by));
    assert_eq!(late, Ok(SpendOutcome::First), "was not spent");
}

#[test]
fn a_caller_that_leaves_has_spent_the_token_on_its_request() {
    let (_dir, _path, store) = store();
    let (release, thread) = hold(&store);
    let (nonce, by) = (bytes("a token"), request("one"));
    assert!(poll(pin!(store.spend(EPOCH, &nonce, &by))).is_pending());
    drop(release);
    thread.join().expect("no panic");
    assert_eq!(spend(&store, "a token", "two"), Ok(SpendOutcome::Other));
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Again));
}
