use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(30);

fn supervisor() -> (Supervisor, CancellationToken) {
    let stop = CancellationToken::new();
    (Supervisor::new(stop.clone()), stop)
}

async fn forever() -> Outcome {
    std::future::pending().await
}

async fn panics() -> Outcome {
    tokio::task::yield_now().await;
    panic!("a secret")
}

async fn failure(supervisor: &mut Supervisor) -> ProviderError {
    let failure = timeout(LONG, supervisor.failure()).await;
    failure.expect("it is noticed")
}

/// Nothing has failed, though all services that can have ended.
async fn assert_no_failure(supervisor: &mut Supervisor) {
    let failure = timeout(Duration::from_millis(100), supervisor.failure()).await;
    assert!(failure.is_err(), "{failure:?}");
}

#[tokio::test]
async fn a_service_that_panics_is_noticed_by_its_name() {
    let (mut supervisor, _stop) = supervisor();
    supervisor.essential("lasting", forever());
    supervisor.essential("panicking", panics());
    let error = failure(&mut supervisor).await;
    assert!(matches!(error, ProviderError::ServicePanicked("panicking")));
    assert!(!error.to_string().contains("secret"), "{error}");
}

#[tokio::test]
async fn a_finite_service_may_complete_and_may_not_panic_or_fail() {
    let (mut supervisor, _stop) = supervisor();
    supervisor.finite("complete", async { Ok(()) });
    assert_no_failure(&mut supervisor).await;
    supervisor.finite("failing", async { Err(ProviderError::SelfTestAnswer) });
    let error = failure(&mut supervisor).await;
    assert!(matches!(error, ProviderError::SelfTestAnswer));
    supervisor.finite("panicking", panics());
    let error = failure(&mut supervisor).await;
    assert!(matches!(error, ProviderError::ServicePanicked("panicking")));
}

#[tokio::test]
async fn an_essential_service_that_ends_or_fails_is_noticed() {
    let (mut supervisor, _stop) = supervisor();
    supervisor.essential("lasting", forever());
    supervisor.essential("ending", async { Ok(()) });
    let error = failure(&mut supervisor).await;
    assert!(matches!(error, ProviderError::ServiceEnded("ending")));
    supervisor.essential("failing", async { Err(ProviderError::Interrupted) });
    let error = failure(&mut supervisor).await;
    assert!(matches!(error, ProviderError::Interrupted));
}

#[tokio::test(start_paused = true)]
async fn a_restarting_service_is_started_again_however_it_ends() {
    let (mut supervisor, _stop) = supervisor();
    let starts = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&starts);
    supervisor.restarting("restarting", move || {
        let start = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            match start {
                0 => panics().await,
                1 => Ok(()),
                2 => Err(ProviderError::Interrupted),
                _ => forever().await,
            }
        }
    });
    let failure = timeout(100 * RESTART_AFTER, supervisor.failure()).await;
    assert!(failure.is_err(), "{failure:?}");
    assert_eq!(starts.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn after_the_stop_services_may_end() {
    let (mut supervisor, stop) = supervisor();
    let until_stop = stop.clone();
    supervisor.essential("until the stop", async move {
        until_stop.cancelled().await;
        Ok(())
    });
    stop.cancel();
    assert_no_failure(&mut supervisor).await;
}

/// Says that it was dropped.
struct Dropped(Arc<AtomicUsize>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn a_shutdown_returns_when_all_services_have_ended() {
    let (mut supervisor, _stop) = supervisor();
    let dropped = Arc::new(AtomicUsize::new(0));
    for name in ["one", "two"] {
        let held = Dropped(Arc::clone(&dropped));
        supervisor.essential(name, async move {
            let _held = held;
            forever().await
        });
    }
    assert!(supervisor.shutdown(LONG).await);
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_does_not_wait_for_a_service_that_blocks() {
    let (mut supervisor, _stop) = supervisor();
    let (blocks, is_blocking) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    supervisor.essential("blocking", async move {
        let _ = blocks.send(());
        let _ = released.recv_timeout(LONG);
        Ok(())
    });
    is_blocking.await.expect("it runs");
    assert!(!supervisor.shutdown(Duration::from_millis(50)).await);
    drop(release);
}
