use dlambda_proto::{Epoch, Usage};

use super::*;
use crate::store::EpochRecord;

const EPOCH: Epoch = Epoch(1);

fn redeemer(dir: &std::path::Path) -> Redeemer {
    let store = Store::open(&dir.join("ledger.redb")).expect("opens");
    let plans = vec!["small".parse().expect("a name")];
    let record = EpochRecord::for_tests([1; 32], 10, plans);
    // On the second start it is there already.
    let _ = store.begin_epoch(EPOCH, &record);
    Redeemer::new(store)
}

fn token(nonce: u8) -> CallToken {
    CallToken {
        epoch: EPOCH,
        nonce: [nonce; 32],
        authenticator: [0; 64],
    }
}

fn request(number: u8) -> RequestDigest {
    RequestDigest([number; 32])
}

fn reply(stdout: usize) -> Reply {
    Reply {
        completion: Completion::Exited {
            status: 0,
            stdout: vec![1; stdout],
            stderr: vec![],
            http: None,
        },
        usage: Usage::default(),
        engine: [0; 32],
        receipt: None,
    }
}

async fn serve(redeemer: &Redeemer, nonce: u8, number: u8) -> Result<Redemption, RedeemError> {
    let mut redemption = redeemer.receive(token(nonce), request(number)).await?;
    redemption.spend().await.map(|()| redemption)
}

const SPENT: Option<RedeemError> = Some(RedeemError::Unpaid(TokenProblem::Spent));

#[tokio::test]
async fn a_request_is_answered_again_until_it_is_closed() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let mut redemption = serve(&redeemer, 1, 1).await.expect("pays");
    redemption.cache(&reply(5));
    drop(redemption);
    let again = redeemer.receive(token(1), request(1)).await.expect("pays");
    assert!(
        again
            .cached_reply()
            .is_some_and(|cached| *cached == reply(5))
    );
    drop(again);
    assert_eq!(serve(&redeemer, 1, 2).await.err(), SPENT, "another request");
    redeemer.acknowledge(&token(1)).await;
    assert_eq!(serve(&redeemer, 1, 1).await.err(), SPENT, "it is closed");
}

#[tokio::test]
async fn a_request_whose_reply_was_lost_runs_again_a_few_times() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    for _ in 0..MAX_RUNS {
        let redemption = serve(&redeemer, 1, 1).await.expect("runs");
        assert!(redemption.cached_reply().is_none());
        drop(redemption);
    }
    assert_eq!(serve(&redeemer, 1, 1).await.err(), SPENT);
}

#[tokio::test]
async fn a_busy_provider_uses_up_no_run() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let busy = Reply {
        completion: Completion::Busy { retry_seconds: 5 },
        ..reply(0)
    };
    for _ in 0..10 {
        let mut redemption = serve(&redeemer, 1, 1).await.expect("pays");
        redemption.cache(&busy);
        drop(redemption);
    }
}

fn later(redeemer: &Redeemer, later: Duration) {
    let mut entries = redeemer.0.entries();
    entries.swept = None;
    entries.sweep(&redeemer.0.store, Instant::now() + later);
}

#[tokio::test]
async fn a_request_that_never_ran_may_come_at_any_time() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let busy = Reply {
        completion: Completion::Busy { retry_seconds: 300 },
        ..reply(0)
    };
    let mut redemption = serve(&redeemer, 1, 1).await.expect("pays");
    redemption.cache(&busy);
    drop(redemption);
    later(&redeemer, 10 * KEEP_UNANSWERED);
    assert!(redeemer.0.entries().by_nonce.is_empty());
    assert_eq!(serve(&redeemer, 1, 2).await.err(), SPENT, "another request");
    assert!(serve(&redeemer, 1, 1).await.is_ok(), "the same");
}

#[tokio::test]
async fn an_unanswered_request_may_come_again_for_an_hour_and_runs_a_few_times() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    for _ in 0..MAX_RUNS {
        // Its caller hangs up.
        drop(serve(&redeemer, 1, 1).await.expect("runs"));
        later(&redeemer, 2 * KEEP);
    }
    assert_eq!(serve(&redeemer, 1, 1).await.err(), SPENT, "too often");
    drop(serve(&redeemer, 2, 1).await.expect("runs"));
    later(&redeemer, 2 * KEEP_UNANSWERED);
    assert_eq!(serve(&redeemer, 2, 1).await.err(), SPENT, "too late");
}

#[tokio::test]
async fn a_reply_waits_for_five_minutes_from_when_it_was_last_given() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let mut redemption = serve(&redeemer, 1, 1).await.expect("pays");
    redemption.cache(&reply(MAX_CACHED_BYTES + 1));
    drop(redemption);
    later(&redeemer, KEEP / 2);
    assert!(
        serve(&redeemer, 1, 1).await.is_ok(),
        "too large to cache, it runs again"
    );
    later(&redeemer, KEEP + Duration::from_secs(1));
    assert_eq!(serve(&redeemer, 1, 1).await.err(), SPENT);
}

#[tokio::test]
async fn a_token_that_was_not_spent_pays_for_another_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let redemption = redeemer.receive(token(1), request(1)).await.expect("pays");
    let waiting = redeemer.receive(token(1), request(1));
    let waited = tokio::time::timeout(Duration::from_millis(20), waiting).await;
    assert!(waited.is_err(), "one at a time");
    drop(redemption);
    assert!(serve(&redeemer, 1, 2).await.is_ok());
}

#[tokio::test]
async fn a_spent_token_stays_spent_after_a_restart() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = {
        let first = redeemer(dir.path());
        drop(serve(&first, 1, 1).await.expect("pays"));
        drop(first);
        redeemer(dir.path())
    };
    assert_eq!(serve(&redeemer, 1, 2).await.err(), SPENT);
    assert!(serve(&redeemer, 1, 1).await.is_ok(), "the same request may");
}

#[tokio::test]
async fn one_of_racing_copies_runs_and_the_others_get_its_reply() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = Arc::new(redeemer(dir.path()));
    let copies = (0..20).map(|_| {
        let redeemer = Arc::clone(&redeemer);
        tokio::spawn(async move {
            let mut redemption = redeemer.receive(token(1), request(1)).await.expect("pays");
            if redemption.cached_reply().is_some() {
                return 0;
            }
            redemption.spend().await.expect("pays");
            redemption.cache(&reply(1));
            drop(redemption);
            1
        })
    });
    let mut runs = 0;
    for copy in copies.collect::<Vec<_>>() {
        runs += copy.await.expect("ends");
    }
    assert_eq!(runs, 1);
}

#[tokio::test]
async fn large_replies_are_not_cached_and_permits_are_given_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let redeemer = redeemer(dir.path());
    let mut redemption = serve(&redeemer, 1, 1).await.expect("pays");
    redemption.cache(&reply(MAX_CACHED_BYTES + 1));
    assert!(redemption.cached_reply().is_none());
    redemption.cache(&reply(1));
    drop(redemption);
    assert_eq!(redeemer.0.cached.load(Ordering::Relaxed), 1);
    redeemer.acknowledge(&token(1)).await;
    assert_eq!(redeemer.0.cached.load(Ordering::Relaxed), 0);
}
