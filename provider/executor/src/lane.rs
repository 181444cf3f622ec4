//! Who gets to run when there are more calls than places.
//!
//! Each plan has a lane of its own, so that the callers of one cannot starve those of another. A lane runs so many calls
//! at a time and lets so many wait, in order; a call that would have to wait for longer than it may is refused at once,
//! with the time after which to try again, before it costs anything. The memory of calls comes out of one budget for
//! all lanes, in which a call that fits passes one that does not, within bounds.

mod admission;
mod memory;

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;

pub(crate) use memory::MemoryBudget;

use crate::ExecutorError;
use crate::lane::memory::Promise;

/// How many calls a lane runs and lets wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneConfig {
    /// Calls at a time.
    pub concurrent: usize,
    /// Calls that may wait.
    pub queued: usize,
    /// Longest wait.
    pub max_wait: Duration,
}

/// A queue of calls. Clones share it.
#[derive(Debug, Clone)]
pub struct Lane(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: LaneConfig,
    places: Arc<Semaphore>,
    /// Shared by all lanes.
    memory: MemoryBudget,
    waiting: AtomicUsize,
    refused: AtomicU64,
    /// Mean time that a place is held, if any was yet.
    mean: Mutex<Option<Duration>>,
}

/// What a lane is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneStatus {
    /// Calls running now.
    pub running: usize,
    /// Calls waiting now.
    pub waiting: usize,
    /// Calls refused so far.
    pub refused: u64,
}

/// A place to run in, until dropped.
pub(crate) struct Place {
    lane: Arc<Shared>,
    taken: Instant,
    _place: OwnedSemaphorePermit,
    _memory: Promise,
}

impl Lane {
    pub(crate) fn new(config: LaneConfig, memory: MemoryBudget) -> Self {
        let concurrent = config.concurrent.clamp(1, Semaphore::MAX_PERMITS);
        Self(Arc::new(Shared {
            config: LaneConfig {
                concurrent,
                ..config
            },
            places: Arc::new(Semaphore::new(concurrent)),
            memory,
            waiting: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            mean: Mutex::default(),
        }))
    }

    /// What the lane is doing.
    pub fn status(&self) -> LaneStatus {
        LaneStatus {
            running: self.0.config.concurrent - self.0.places.available_permits(),
            waiting: self.0.waiting.load(Ordering::Relaxed),
            refused: self.0.refused.load(Ordering::Relaxed),
        }
    }

    /// Waits for a place, and for the memory that goes with it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the place in the queue is lost.
    pub(crate) async fn enter(&self, memory_bytes: u64) -> Result<Place, ExecutorError> {
        let shared = &self.0;
        let waiting = Waiting::new(&shared.waiting);
        let ahead = waiting.ahead;
        if shared.places.available_permits() == 0 {
            let wait = expected_wait(ahead, shared.config.concurrent, shared.mean());
            if ahead >= shared.config.queued || wait > shared.config.max_wait {
                return Err(shared.refuse(wait));
            }
        }
        let until = tokio::time::Instant::now() + shared.config.max_wait;
        let place = Arc::clone(&shared.places).acquire_owned();
        let both = async {
            let place = place.await;
            let place = place.map_err(|_| ExecutorError::Fault("no place"))?;
            Ok::<_, ExecutorError>((place, shared.memory.promise(memory_bytes).await?))
        };
        let Ok(entered) = timeout_at(until, both).await else {
            return Err(shared.refuse(expected_wait(
                ahead,
                shared.config.concurrent,
                shared.mean(),
            )));
        };
        let (place, memory) = entered?;
        drop(waiting);
        Ok(Place {
            lane: Arc::clone(shared),
            taken: Instant::now(),
            _place: place,
            _memory: memory,
        })
    }
}

impl Shared {
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

impl Drop for Place {
    fn drop(&mut self) {
        let mut mean = self
            .lane
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

/// How long a call waits with so many before it: a place is free every mean / concurrent.
fn expected_wait(ahead: usize, concurrent: usize, mean: Duration) -> Duration {
    let turns = u32::try_from(ahead + 1).unwrap_or(u32::MAX);
    let places = u32::try_from(concurrent.max(1)).unwrap_or(u32::MAX);
    mean.saturating_mul(turns) / places
}

/// A moving average over about the last eight calls.
fn smoothed(mean: Option<Duration>, latest: Duration) -> Duration {
    mean.map_or(latest, |mean| (mean * 7 + latest) / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(concurrent: usize, queued: usize, max_wait: Duration, mebibytes: u64) -> Lane {
        let config = LaneConfig {
            concurrent,
            queued,
            max_wait,
        };
        Lane::new(config, MemoryBudget::new(mebibytes << 20))
    }

    #[test]
    fn the_wait_is_the_queue_over_the_places() {
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
        let lane = lane(1, 1, Duration::from_secs(10), 100);
        let place = lane.enter(1).await.unwrap();
        let waits = tokio::spawn({
            let lane = lane.clone();
            async move { lane.enter(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        let refused = lane.enter(1).await.err().unwrap();
        assert!(matches!(refused, ExecutorError::Overloaded { .. }));
        assert_eq!(
            lane.status(),
            LaneStatus {
                running: 1,
                waiting: 1,
                refused: 1
            }
        );
        drop(place);
        waits.await.unwrap().unwrap();

        *lane.0.mean.lock().unwrap() = Some(Duration::from_secs(11));
        let _place = lane.enter(1).await.unwrap();
        let refused = lane.enter(1).await.err().unwrap();
        assert_eq!(
            refused,
            ExecutorError::Overloaded {
                retry_after: Duration::from_secs(11)
            }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_longer_than_allowed() {
        let lane = lane(1, 5, Duration::from_secs(10), 100);
        let _place = lane.enter(1).await.unwrap();
        let begun = tokio::time::Instant::now();
        assert!(lane.enter(1).await.is_err());
        assert_eq!(begun.elapsed().as_secs(), 10);
        assert_eq!(lane.status().waiting, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_shared_by_all_lanes_and_not_promised_twice() {
        let memory = MemoryBudget::new(100 << 20);
        let config = LaneConfig {
            concurrent: 9,
            queued: 9,
            max_wait: Duration::from_secs(1),
        };
        let (one, two) = (Lane::new(config, memory.clone()), Lane::new(config, memory));
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
        let config = LaneConfig {
            concurrent: 9,
            queued: 9,
            max_wait: Duration::from_secs(60),
        };
        let (large, small) = (Lane::new(config, memory.clone()), Lane::new(config, memory));
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
