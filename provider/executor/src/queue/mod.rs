//! Admission: which calls run, wait or are refused when there are more than may run at a time.
//!
//! Each plan has a queue of its own, so that the callers of one cannot starve those of another. A
//! queue runs so many calls at a time and lets so many wait, in order; a call that would have to
//! wait for longer than it may is refused at once, with the time after which to try again, before
//! it costs anything. The memory of calls comes out of one budget for all queues, in which a call
//! that fits passes one that does not, within bounds.

mod admission;
mod memory;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

pub(crate) use memory::MemoryBudget;

use crate::ExecutorError;
use crate::error::fault;
use crate::queue::memory::MemoryPermit;

/// How many calls a queue runs and lets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueConfig {
    /// Calls at a time.
    pub concurrent: usize,
    /// Calls that may wait.
    pub queued: usize,
    /// Longest wait.
    pub max_wait: Duration,
}

/// A queue of calls. Clones share it.
#[derive(Clone, Debug)]
pub struct CallQueue(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: QueueConfig,
    permits: Arc<Semaphore>,
    /// Shared by all queues.
    memory: MemoryBudget,
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// Mean time that a permit is held, if any was yet.
    mean: Mutex<Option<Duration>>,
}

/// What a queue is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Calls running now.
    pub running: usize,
    /// Calls waiting now.
    pub waiting: usize,
    /// Calls refused so far.
    pub refused: u64,
}

/// A permit to run in, until dropped.
pub(crate) struct QueuePermit {
    queue: Arc<Inner>,
    taken: Instant,
    _permit: OwnedSemaphorePermit,
    _memory: MemoryPermit,
}

impl CallQueue {
    pub(crate) fn new(config: QueueConfig, memory: MemoryBudget) -> Self {
        let concurrent = config.concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Inner {
            config: QueueConfig {
                concurrent,
                ..config
            },
            permits: Arc::new(Semaphore::new(concurrent)),
            memory,
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            mean: Mutex::default(),
        }))
    }

    /// What the queue is doing.
    pub fn status(&self) -> QueueStatus {
        QueueStatus {
            running: self.0.config.concurrent - self.0.permits.available_permits(),
            waiting: self.0.waiting.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// Waits for a permit, and for the memory that goes with it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the position in the queue is lost.
    pub(crate) async fn enter(&self, memory_bytes: u64) -> Result<QueuePermit, ExecutorError> {
        let shared = &self.0;
        let waiting = Waiting::new(&shared.waiting);
        let ahead = waiting.ahead;
        if shared.permits.available_permits() == 0 {
            let wait = expected_wait(ahead, shared.config.concurrent, shared.mean());
            if ahead >= shared.config.queued || wait > shared.config.max_wait {
                return Err(shared.refuse(wait));
            }
        }
        let until = tokio::time::Instant::now() + shared.config.max_wait;
        let permit = Arc::clone(&shared.permits).acquire_owned();
        let both = async {
            let permit = permit.await;
            let permit = permit.map_err(fault("no permit"))?;
            Ok::<_, ExecutorError>((permit, shared.memory.acquire(memory_bytes).await?))
        };
        let Ok(entered) = timeout_at(until, both).await else {
            return Err(shared.refuse(expected_wait(
                ahead,
                shared.config.concurrent,
                shared.mean(),
            )));
        };
        let (permit, memory) = entered?;
        drop(waiting);
        Ok(QueuePermit {
            queue: Arc::clone(shared),
            taken: Instant::now(),
            _permit: permit,
            _memory: memory,
        })
    }
}

impl Inner {
    fn mean(&self) -> Duration {
        self.mean
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .unwrap_or_default()
    }

    fn refuse(&self, retry_after: Duration) -> ExecutorError {
        self.refused.fetch_add(1, Ordering::Relaxed);
        ExecutorError::Overloaded { retry_after }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        let mut mean = self
            .queue
            .mean
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *mean = Some(smoothed(*mean, self.taken.elapsed()));
    }
}

struct Waiting<'a> {
    counter: &'a AtomicUsize,
    ahead: usize,
}

impl<'a> Waiting<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        let ahead = counter.fetch_add(1, Ordering::Relaxed);
        Self { counter, ahead }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.counter.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How long a call waits with so many before it: a permit is free every mean / concurrent.
fn expected_wait(ahead: usize, concurrent: usize, mean: Duration) -> Duration {
    let position = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
    let permits = u32::try_from(concurrent.max(1)).unwrap_or(u32::MAX);
    mean.saturating_mul(position) / permits
}

/// A moving average over about the last eight calls.
fn smoothed(mean: Option<Duration>, latest: Duration) -> Duration {
    mean.map_or(latest, |mean| (mean * 7 + latest) / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(concurrent: usize, queued: usize, max_wait: Duration, mebibytes: u64) -> CallQueue {
        let config = QueueConfig {
            concurrent,
            queued,
            max_wait,
        };
        CallQueue::new(config, MemoryBudget::new(mebibytes << 20))
    }

    #[test]
    fn the_wait_is_the_queue_over_the_permits() {
        let second = Duration::from_secs(1);
        assert_eq!(expected_wait(0, 1, second), second);
        assert_eq!(expected_wait(9, 5, second), 2 * second);
        assert_eq!(
            expected_wait(usize::MAX - 1, 1, Duration::MAX),
            Duration::MAX
        );
        assert_eq!(smoothed(None, second), second);
        assert_eq!(smoothed(Some(9 * second), second), 8 * second);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_and_a_long_wait_are_refused_with_a_time() {
        let queue = queue(1, 1, Duration::from_secs(10), 100);
        let permit = queue.enter(1).await.unwrap();
        let waits = tokio::spawn({
            let queue = queue.clone();
            async move { queue.enter(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = queue.enter(1).await.err().unwrap();
        assert!(matches!(refused, ExecutorError::Overloaded { .. }));
        assert_eq!(
            queue.status(),
            QueueStatus {
                running: 1,
                waiting: 1,
                refused: 1
            }
        );
        drop(permit);
        waits.await.unwrap().unwrap();

        *queue.0.mean.lock().unwrap() = Some(Duration::from_secs(11));
        let _permit = queue.enter(1).await.unwrap();
        let refused = queue.enter(1).await.err().unwrap();
        assert_eq!(
            refused,
            ExecutorError::Overloaded {
                retry_after: Duration::from_secs(11)
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_allowed() {
        let queue = queue(1, 5, Duration::from_secs(10), 100);
        let _permit = queue.enter(1).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(queue.enter(1).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert_eq!(queue.status().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_shared_by_all_queues_and_not_promised_twice() {
        let memory = MemoryBudget::new(100 << 20);
        let config = QueueConfig {
            concurrent: 9,
            queued: 9,
            max_wait: Duration::from_secs(1),
        };
        let (one, two) = (
            CallQueue::new(config, memory.clone()),
            CallQueue::new(config, memory),
        );
        let large = one.enter(90 << 20).await.unwrap();
        assert!(two.enter(20 << 20).await.is_err());
        let _small = two.enter(10 << 20).await.unwrap();
        drop(large);
        assert!(one.enter(90 << 20).await.is_ok());
        drop(_small);
        assert!(
            one.enter(1 << 40).await.is_ok(),
            "more than there is takes all there is"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_a_small_plan_does_not_wait_behind_one_of_a_large_plan() {
        let memory = MemoryBudget::new(1_100 << 20);
        let config = QueueConfig {
            concurrent: 9,
            queued: 9,
            max_wait: Duration::from_secs(60),
        };
        let (large, small) = (
            CallQueue::new(config, memory.clone()),
            CallQueue::new(config, memory),
        );
        let running = large.enter(1 << 30).await.unwrap();
        let waits = tokio::spawn({
            let large = large.clone();
            async move { large.enter(1 << 30).await.map(drop) }
        });
        let begun = tokio::time::Instant::now();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(small.enter(64 << 20).await.unwrap());
        }
        assert_eq!(begun.elapsed().as_secs(), 10, "none of them waited");
        drop(running);
        waits.await.unwrap().unwrap();
    }
}
