//! Who runs next, when guests compete for a thread.
//!
//! Short calls must not wait behind long ones. A call that has run for a while needs a slot, of
//! which there are as many as threads, and gives it back at each tick: whatever the number of long
//! calls, only that many are ever queued before a call that has just come in. Long calls get slots
//! in order.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::yield_now;

/// Ticks of running after which a call counts as long.
const SHORT: u32 = 10;

/// Hands out slots to the calls of one runtime. Clones share it.
#[derive(Clone)]
pub(crate) struct Scheduler(Arc<Semaphore>);

/// A call's claim to a thread, and the slot if it holds one. Clones share it.
#[derive(Clone)]
pub(crate) struct RunSlot(Arc<State>);

struct State {
    scheduler: Scheduler,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    ticks: u32,
    permit: Option<OwnedSemaphorePermit>,
}

impl Scheduler {
    /// For this many threads.
    pub(crate) fn new(threads: usize) -> Self {
        Self(Arc::new(Semaphore::new(threads.max(1))))
    }

    pub(crate) fn register(&self) -> RunSlot {
        RunSlot(Arc::new(State {
            scheduler: self.clone(),
            held: Mutex::default(),
        }))
    }
}

impl RunSlot {
    /// Lets others run. A long call waits for its slot.
    ///
    /// The slot is passed on only after the runtime has looked at its sockets: if the next one had
    /// it at once, the runtime would run one long call after the other before it noticed
    /// new connections.
    pub(crate) async fn next(self) {
        // Tokio's own way, which goes on after sockets and timers.
        yield_now().await;
        let long = {
            let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.permit = None;
            held.ticks = held.ticks.saturating_add(1);
            held.ticks > SHORT
        };
        if long {
            let permit = Arc::clone(&self.0.scheduler.0).acquire_owned().await.ok();
            let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.permit = permit;
        }
    }

    /// Gives the slot back early: a call that sleeps must not keep others from running.
    pub(crate) fn release(&self) {
        let mut held = self.0.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.permit = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_many_long_calls_as_many_are_queued_as_there_are_threads() {
        let scheduler = Scheduler::new(1);
        let (one, two) = (scheduler.register(), scheduler.register());
        for _ in 0..SHORT {
            one.clone().next().await;
            two.clone().next().await;
            assert_eq!(
                scheduler.0.available_permits(),
                1,
                "short calls need no slot"
            );
        }
        one.clone().next().await;
        assert_eq!(scheduler.0.available_permits(), 0);
        let waiting = tokio::spawn(two.next());
        yield_now().await;
        yield_now().await;
        assert!(!waiting.is_finished());
        one.release();
        waiting.await.unwrap();
        assert_eq!(scheduler.0.available_permits(), 1, "its claim is gone");
    }
}
