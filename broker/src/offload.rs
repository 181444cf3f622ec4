//! Work off the runtime's threads that ends with those who wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::{JoinError, spawn_blocking};

/// Says to work whether it should end.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether nothing waits for the work any more.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Does work of seconds on a thread that may block.
///
/// # Errors
///
/// [`JoinError`] if the work panicked, or the runtime ends.
///
/// # Cancel safety
///
/// Asks the work to stop if cancelled; it ends when it next looks.
pub async fn offload<T: Send + 'static>(
    work: impl FnOnce(Stop) -> T + Send + 'static,
) -> Result<T, JoinError> {
    let stop = Stop(Arc::default());
    let _asked = StopOnDrop(stop.clone());
    spawn_blocking(move || work(stop)).await
}

struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn work_ends_with_those_who_wait_for_it() {
        let (ended, has_ended) = tokio::sync::oneshot::channel();
        let work = offload(move |stop| {
            while !stop.is_asked_for() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = ended.send(());
        });
        assert!(
            tokio::time::timeout(Duration::from_millis(20), work)
                .await
                .is_err()
        );
        tokio::time::timeout(Duration::from_secs(60), has_ended)
            .await
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn work_that_is_waited_for_is_not_stopped() {
        assert!(!offload(|stop| stop.is_asked_for()).await.unwrap());
    }
}
