//! A whole provider, in memory, one of whose services fails.

use std::sync::atomic::{AtomicBool, Ordering};

use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::UnixSeconds;

use super::*;

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Panics once told to: the first to ask for the time is the rotation of epochs.
#[derive(Default)]
struct FaultyClock {
    faulty: AtomicBool,
}

impl Clock for FaultyClock {
    fn now(&self) -> UnixSeconds {
        assert!(!self.faulty.load(Ordering::SeqCst), "a faulty clock");
        SystemClock::default().now()
    }
}

async fn start(dir: &Path, clock: &Arc<FaultyClock>) -> Provider {
    let functions = dir.join("functions");
    std::fs::create_dir_all(&functions).expect("made");
    let mut config = ProviderConfig::default();
    config.execution.process_isolation = false;
    let data = DataDir::open(&dir.join("data")).expect("it is free");
    let transport = Arc::new(MemoryNetwork::new(Duration::ZERO).transport([1; 32]));
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    let started = Provider::start(config, &functions, data, transport, clock).await;
    started.expect("starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_panics_ends_the_provider_with_its_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(FaultyClock::default());
    let provider = start(dir.path(), &clock).await;
    let stop = provider.stop_handle();
    let (ready, is_ready) = oneshot::channel();
    let serving = provider.serve(LONG, None, move || {
        let _ = ready.send(());
    });
    let serving = tokio::spawn(serving);
    is_ready.await.expect("it is ready");
    clock.faulty.store(true, Ordering::SeqCst);
    let ended = timeout(LONG, serving).await.expect("it is noticed");
    let error = ended.expect("no panic").expect_err("a failure");
    assert!(matches!(
        error,
        ProviderError::ServicePanicked("epoch rotation")
    ));
    assert!(stop.0.is_cancelled());
    // All that it held is free again.
    clock.faulty.store(false, Ordering::SeqCst);
    start(dir.path(), &clock).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_is_no_error_and_leaves_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock = Arc::new(FaultyClock::default());
    for _ in 0..2 {
        let provider = start(dir.path(), &clock).await;
        let stop = provider.stop_handle();
        let serving = provider.serve(LONG, None, move || stop.stop());
        let ended = timeout(LONG, serving).await.expect("it ends");
        ended.expect("in order");
    }
}
