//! The memory that calls of all queues share.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::ExecutorError;
use crate::error::fault;
use crate::queue::admission::{Admission, Entry, Grant, Granted};

/// How long a call waits before others may only have what it leaves them.
const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes that may be promised to calls. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct MemoryBudget(Arc<Mutex<Queue>>);

#[derive(Debug)]
struct Queue {
    admission: Admission,
    /// Those that wait, by request.
    callers: HashMap<u64, oneshot::Sender<MemoryPermit>>,
}

/// Bytes that are promised to a call, until dropped.
#[derive(Debug)]
pub(crate) struct MemoryPermit {
    budget: MemoryBudget,
    grant: Grant,
}

impl MemoryBudget {
    pub(crate) fn new(bytes: u64) -> Self {
        Self(Arc::new(Mutex::new(Queue {
            admission: Admission::new(bytes.max(1), PATIENCE),
            callers: HashMap::new(),
        })))
    }

    /// Waits for so many bytes; what is more than there is waits for all there is.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the place in the queue is lost.
    pub(crate) async fn acquire(&self, bytes: u64) -> Result<MemoryPermit, ExecutorError> {
        let (waiting, promise) = {
            let mut queue = self.queue();
            match queue.admission.enter(bytes, now()) {
                Entry::Granted(grant) => return Ok(MemoryPermit::new(self, grant)),
                Entry::Waits(request) => {
                    let (sender, promise) = oneshot::channel();
                    queue.callers.insert(request, sender);
                    let budget = self;
                    (Waiting { budget, request }, promise)
                }
            }
        };
        let promise = promise.await;
        drop(waiting);
        promise.map_err(fault("no memory was promised"))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change is whole in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the queue, and tells those who need wait no longer.
    fn change(&self, change: impl FnOnce(&mut Queue) -> Granted) {
        let told: Vec<_> = {
            let mut queue = self.queue();
            let granted = change(&mut queue).into_iter();
            granted
                .map(|(request, grant)| (queue.callers.remove(&request), grant))
                .collect()
        };
        // Not under the lock: what is not taken is given back at once.
        for (caller, grant) in told {
            let promise = MemoryPermit::new(self, grant);
            if let Some(caller) = caller {
                let _ = caller.send(promise);
            }
        }
    }
}

impl MemoryPermit {
    fn new(budget: &MemoryBudget, grant: Grant) -> Self {
        Self {
            budget: budget.clone(),
            grant,
        }
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        let grant = &self.grant;
        self.budget
            .change(|queue| queue.admission.leave(grant, now()));
    }
}

/// A request that waits, until dropped.
struct Waiting<'a> {
    budget: &'a MemoryBudget,
    request: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.budget.change(|queue| {
            queue.callers.remove(&self.request);
            queue.admission.withdraw(self.request, now())
        });
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(budget: &MemoryBudget, bytes: u64) -> tokio::task::JoinHandle<MemoryPermit> {
        let budget = budget.clone();
        tokio::spawn(async move { budget.acquire(bytes).await.unwrap() })
    }

    #[tokio::test(start_paused = true)]
    async fn a_caller_that_gives_up_leaves_nothing_behind() {
        let budget = MemoryBudget::new(100);
        let running = budget.acquire(60).await.unwrap();
        let large = waits(&budget, 100);
        tokio::time::sleep(2 * PATIENCE).await;
        let small = waits(&budget, 40);
        tokio::time::sleep(PATIENCE).await;
        assert!(!small.is_finished(), "the large one has a reservation");
        large.abort();
        let small = small.await.unwrap();
        assert!(budget.queue().callers.is_empty());
        drop((running, small));
        assert!(budget.acquire(100).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_promised_to_a_caller_that_has_gone_is_given_to_the_next() {
        let budget = MemoryBudget::new(100);
        let running = budget.acquire(100).await.unwrap();
        let mut gone = Box::pin(budget.acquire(100));
        assert!(must_wait(gone.as_mut()).await);
        let next = waits(&budget, 100);
        tokio::task::yield_now().await;
        // The promise is on its way when its caller goes.
        drop(running);
        drop(gone);
        let next = next.await.unwrap();
        assert!(budget.queue().callers.is_empty());
        drop(next);
        assert!(budget.acquire(100).await.is_ok());
    }

    /// Whether it has to wait.
    async fn must_wait<F: Future + Unpin>(mut future: F) -> bool {
        std::future::poll_fn(|context| {
            std::task::Poll::Ready(std::pin::Pin::new(&mut future).poll(context).is_pending())
        })
        .await
    }
}
