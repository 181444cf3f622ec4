//! Who may touch the wallet now, and who is still alive.
//!
//! Two kinds of lock, both the kernel's (`flock`), so that a killed process
//! frees what it held: one for the directory, held during an operation, and
//! one for each open wallet, held for its lifetime, by which others tell a
//! token in use from one whose owner is gone.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use dlambda_privacy::os_rng;
use minicbor::{CborLen, Decode, Encode};
use rand_core::Rng as _;

use super::WalletError;

/// How long a wait may last in which no process gets the lock.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a lock that another process has.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

/// The one way to the directory: for one thread of one process at a time.
///
/// Threads of one process queue up in memory, and the first of them asks for
/// the file's lock. Without the queue all of them would poll for it.
pub(super) struct DirLock {
    path: PathBuf,
    patience: Duration,
    queue: Mutex<Queue>,
    freed: Condvar,
}

struct Queue {
    taken: bool,
    /// When this process last ended an operation. Patience is counted from
    /// here: a slow disk with a long queue is no reason to give up.
    progressed: Instant,
}

/// The directory is ours until this is dropped.
pub(super) struct DirGuard<'a> {
    turn: QueueTurn<'a>,
    file: File,
}

/// This thread is the first of its process; it may not have the file yet.
struct QueueTurn<'a>(&'a DirLock);

impl DirLock {
    pub(super) fn new(path: PathBuf, patience: Duration) -> Self {
        Self {
            path,
            patience,
            queue: Mutex::new(Queue {
                taken: false,
                progressed: Instant::now(),
            }),
            freed: Condvar::new(),
        }
    }

    /// Waits for the directory.
    pub(super) fn enter(&self) -> Result<DirGuard<'_>, WalletError> {
        let started = Instant::now();
        let mut queue = self.queue();
        while queue.taken {
            let idle = started.max(queue.progressed).elapsed();
            let Some(left) = self.patience.checked_sub(idle) else {
                return Err(self.busy());
            };
            let woken = self.freed.wait_timeout(queue, left);
            queue = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        queue.taken = true;
        let since = started.max(queue.progressed);
        drop(queue);
        let turn = QueueTurn(self);
        let file = self.lock_file(since)?;
        Ok(DirGuard { turn, file })
    }

    /// Opened anew each time: if a person deletes a "stale" lock file, only
    /// those who are inside are apart from the rest, and not for long.
    fn lock_file(&self, since: Instant) -> Result<File, WalletError> {
        let file = open_lock(&self.path, true).map_err(WalletError::io(&self.path))?;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) if since.elapsed() >= self.patience => {
                    return Err(self.busy());
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOOK_AGAIN),
                Err(TryLockError::Error(error)) => {
                    return Err(WalletError::file(&self.path, error));
                }
            }
        }
    }

    fn busy(&self) -> WalletError {
        WalletError::Busy {
            path: self.path.clone(),
            seconds: self.patience.as_secs(),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for DirGuard<'_> {
    fn drop(&mut self) {
        // Not left to `close`: a child that is just being started still has a
        // copy of the descriptor, and would keep the lock until it runs.
        let _ = self.file.unlock();
        self.turn.0.queue().progressed = Instant::now();
    }
}

impl Drop for QueueTurn<'_> {
    fn drop(&mut self) {
        self.0.queue().taken = false;
        self.0.freed.notify_one();
    }
}

/// Names an open wallet.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub(super) struct LeaseId(#[cbor(n(0), with = "minicbor::bytes")] pub(super) [u8; 16]);

/// An open wallet's sign of life.
pub(super) struct Lease {
    id: LeaseId,
    path: PathBuf,
    file: File,
}

impl Lease {
    /// Gives a sign of life in the directory `owners`. Only while the dir_lock is
    /// entered, or a [`sweep`] could remove the file before it is locked.
    pub(super) fn register(owners: &Path) -> Result<Self, WalletError> {
        let mut id = LeaseId([0; 16]);
        os_rng().fill_bytes(&mut id.0);
        let path = owners.join(id.file_name());
        let file = open_lock(&path, true).map_err(WalletError::io(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { id, path, file }),
            Err(error) => Err(WalletError::file(path, error)),
        }
    }

    pub(super) fn id(&self) -> LeaseId {
        self.id
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
        // See the unlock of `DirGuard`.
        let _ = self.file.unlock();
    }
}

impl LeaseId {
    /// Whether this wallet is still open, here or elsewhere. When in doubt it
    /// is: a token that is not handed out again does no harm.
    pub(super) fn is_alive(self, owners: &Path) -> bool {
        is_locked(&owners.join(self.file_name()))
    }

    fn file_name(self) -> String {
        hex::encode(self.0)
    }
}

/// Removes the files of wallets that were killed. Only while the dir_lock is entered.
pub(super) fn sweep(owners: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(owners)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| hex::decode_to_slice(name, &mut [0; 16]).is_ok());
        if is_ours && !is_locked(&entry.path()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
    Ok(())
}

fn is_locked(path: &Path) -> bool {
    match open_lock(path, false) {
        Err(error) => error.kind() != io::ErrorKind::NotFound,
        Ok(file) => {
            let locked = file.try_lock().is_err();
            let _ = file.unlock();
            locked
        }
    }
}

fn open_lock(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new()
        .create(create)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}
