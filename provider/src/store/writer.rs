//! The one thread that writes, and its queue.
//!
//! A commit costs a sync of the disk, whether it holds one token or a
//! thousand. So the thread takes all that waits, writes it in one
//! transaction, commits, and answers everybody.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dlambda_proto::{Epoch, RequestDigest};
use redb::WriteTransaction;
use tokio_util::sync::CancellationToken;

use super::error::{Fault, StoreError};
use super::file::StoreFile;
use super::spent::SpendOutcome;
use super::transaction::{Job, TxOutcome, write};

/// Jobs that may wait. Beyond, the provider has more to do than it can.
pub(super) const QUEUE: usize = 4096;

/// Jobs in one transaction: bounds how long the first of them waits for the last.
const BATCH: usize = 1024;

/// Closed calls wait this long for a commit that a request waits for.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// While the disk is full, it is tried again this often.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// Ends the thread when dropped, after what it has taken on: blocks for a commit or two.
pub(super) struct Writer {
    queue: Option<SyncSender<Job>>,
    thread: Option<JoinHandle<()>>,
    /// Cancelled when the thread has ended, also by a panic.
    ended: CancellationToken,
}

struct Thread {
    file: Arc<StoreFile>,
    queue: Receiver<Job>,
    disk: Disk,
}

enum Disk {
    Works,
    /// The file is closed, and is opened again then.
    Full {
        retry_at: Instant,
    },
    /// Nothing more is written: after a failed write, what the kernel says is
    /// on the disk may not be.
    Failed,
}

impl Writer {
    pub(super) fn start(file: Arc<StoreFile>) -> Result<Self, StoreError> {
        let (sender, queue) = sync_channel(QUEUE);
        let path = file.path().to_owned();
        let thread = Thread {
            file,
            queue,
            disk: Disk::Works,
        };
        let ended = CancellationToken::new();
        let guard = ended.clone().drop_guard();
        let thread = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || {
                let _guard = guard;
                thread.run();
            })
            .map_err(StoreError::io(&path))?;
        Ok(Self {
            queue: Some(sender),
            thread: Some(thread),
            ended,
        })
    }

    pub(super) async fn spend(
        &self,
        epoch: Epoch,
        nonce: &[u8; 32],
        request: &RequestDigest,
    ) -> Result<SpendOutcome, StoreError> {
        let (job, answered) = Job::spend(epoch, nonce, request);
        self.try_send(job)?;
        answered.await.unwrap_or(Err(StoreError::Stopped))
    }

    pub(super) fn close(&self, epoch: Epoch, nonce: &[u8; 32]) -> Result<(), StoreError> {
        self.try_send(Job::close(epoch, nonce))
    }

    /// Has the thread do this in its next transaction, and waits for the
    /// commit. Blocks.
    pub(super) fn change<T: Send + 'static>(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<TxOutcome<T>, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (job, pending) = Job::change(change);
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.send(job).map_err(|_| StoreError::Stopped)?;
        pending.wait()
    }

    /// Cancelled when the thread has ended, also by a panic.
    pub(super) fn ended(&self) -> CancellationToken {
        self.ended.clone()
    }

    fn try_send(&self, job: Job) -> Result<(), StoreError> {
        let queue = self.queue.as_ref().ok_or(StoreError::Stopped)?;
        queue.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Busy,
            TrySendError::Disconnected(_) => StoreError::Stopped,
        })
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told to everybody who waited for it.
            let _ = thread.join();
        }
    }
}

impl Thread {
    fn run(mut self) {
        while let Some(mut batch) = self.next_batch() {
            let committed = self.write(&mut batch);
            for job in batch {
                job.answer(&committed);
            }
            if matches!(self.disk, Disk::Failed) {
                // Nothing is written any more: the provider must not go on as if it were.
                return;
            }
        }
    }

    /// All that waits, or nothing when it is time to try the disk again.
    /// `None` at the end.
    fn next_batch(&self) -> Option<Vec<Job>> {
        let first = match self.disk {
            Disk::Full { retry_at } => match self.queue.recv_timeout(until(retry_at)) {
                Ok(job) => job,
                Err(RecvTimeoutError::Timeout) => return Some(Vec::new()),
                Err(RecvTimeoutError::Disconnected) => return None,
            },
            Disk::Works | Disk::Failed => self.queue.recv().ok()?,
        };
        let due = Instant::now() + CLOSE_WITHIN;
        let mut urgent = first.is_urgent();
        let mut batch = vec![first];
        while batch.len() < BATCH {
            let wait = if urgent { Duration::ZERO } else { until(due) };
            let Ok(job) = self.queue.recv_timeout(wait) else {
                break;
            };
            urgent |= job.is_urgent();
            batch.push(job);
        }
        Some(batch)
    }

    fn write(&mut self, batch: &mut [Job]) -> Result<(), StoreError> {
        if let Disk::Full { retry_at } = self.disk
            && retry_at <= Instant::now()
        {
            let reopened = self.file.reopen();
            self.disk = Disk::after(&reopened);
            reopened?;
            tracing::info!("the store can be written again");
        }
        let file = &self.file;
        let written = file.with_database(|database| write(database, file.path(), batch));
        if let Err(error) = &written
            && matches!(self.disk, Disk::Works)
        {
            tracing::error!(%error, "the store cannot be written");
            self.file.close(error.clone());
            self.disk = Disk::after(&written);
        }
        written
    }
}

impl Disk {
    fn after(result: &Result<(), StoreError>) -> Self {
        match result {
            Ok(()) => Self::Works,
            Err(StoreError::DiskFull(_)) => Self::Full {
                retry_at: Instant::now() + RETRY_EVERY,
            },
            Err(_) => Self::Failed,
        }
    }
}

fn until(time: Instant) -> Duration {
    time.saturating_duration_since(Instant::now())
}
