//! The store's file: how it is made, opened, read, and opened again after the
//! disk was full.
//!
//! Settings, and why:
//!
//! - One-phase commit: a commit is one `fdatasync` and not two. After a crash,
//!   checksums tell a whole commit from a torn one, which is then as if it had
//!   never been; it was not acknowledged. Two phases defend against an attacker
//!   who decides in which order this machine's pages reach its disk; such an
//!   attacker has the machine. What one phase cannot do is to tell a torn commit from one that
//!   rotted on the disk: if the very last commit before a crash does, its
//!   tokens can be spent again. All other damage is noticed.
//! - No quick repair: it makes every commit dearer, and to repair a million
//!   tokens takes a tenth of a second.
//! - Every open verifies all checksums, in as long: redb trusts, and may panic
//!   on, what it does not verify.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockWriteGuard};

use redb::backends::FileBackend;
use redb::{Builder, Database, DatabaseError, ReadTransaction, ReadableDatabase as _};

use super::error::{Fault, StoreError};
use super::{schema, seeds};

/// redb's cache. What is not in it is mostly in the kernel's.
const CACHE_BYTES: usize = 32 << 20;

/// A file smaller than this is not worth compacting.
const COMPACT_FROM_BYTES: u64 = 16 << 20;

/// Opens the file that is there. Tests put a failing disk in between.
pub(super) type Opener = Box<dyn Fn(&Path) -> Result<Database, DatabaseError> + Send + Sync>;

pub(super) struct StoreFile {
    path: PathBuf,
    opener: Opener,
    state: RwLock<State>,
}

enum State {
    Open(Database),
    /// The disk failed; what everybody is told.
    Closed(StoreError),
}

impl StoreFile {
    /// Opens the store, making it if there is none. Blocks.
    pub(super) fn open(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        if !path.try_exists().map_err(StoreError::io(path))? {
            create(path)?;
        }
        seeds::check_private(path)?;
        let mut database = open_file(path, &opener)?;
        compact(&mut database, path)?;
        let store = Self {
            path: path.to_owned(),
            opener,
            state: RwLock::new(State::Open(database)),
        };
        let known = store.read(schema::epochs)?;
        seeds::erase_all_but(path, &known)?;
        Ok(store)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Looks at what is committed. Keep it short: pages are not reused meanwhile.
    pub(super) fn read<T>(
        &self,
        look: impl FnOnce(&ReadTransaction) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        self.with_database(|database| look(&database.begin_read()?))
    }

    pub(super) fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            State::Open(database) => work(database).map_err(|fault| fault.at(&self.path)),
            State::Closed(error) => Err(error.clone()),
        }
    }

    /// After a failed write redb wants to be closed; then nothing of the
    /// failed transaction is left, or all of it.
    pub(super) fn close(&self, error: StoreError) {
        *self.exclusive() = State::Closed(error);
    }

    /// Tries to open the file again.
    pub(super) fn reopen(&self) -> Result<(), StoreError> {
        let mut state = self.exclusive();
        let opened = open_file(&self.path, &self.opener);
        let (next, result) = match opened {
            Ok(database) => (State::Open(database), Ok(())),
            Err(error) => (State::Closed(error.clone()), Err(error)),
        };
        *state = next;
        result
    }

    fn exclusive(&self) -> RwLockWriteGuard<'_, State> {
        // Whole between any two assignments.
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The real disk.
pub(super) fn file_opener() -> Opener {
    Box::new(|path| builder().open(path))
}

pub(super) fn builder() -> Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Makes an empty store: whole under its name, or not there at all.
fn create(path: &Path) -> Result<(), StoreError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let temporary = PathBuf::from(temporary);
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(StoreError::io(&temporary)(error));
        }
        _ => {}
    }
    let file = OpenOptions::new()
        .create_new(true)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&temporary)
        .map_err(StoreError::io(&temporary))?;
    initialize(file).map_err(|fault| fault.at(&temporary))?;
    File::open(&temporary)
        .and_then(|file| file.sync_all())
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(StoreError::io(path))?;
    seeds::sync_directory(path)
}

fn initialize(file: File) -> Result<(), Fault> {
    let database = builder().create_with_backend(FileBackend::new(file)?)?;
    let transaction = database.begin_write()?;
    schema::create(&transaction)?;
    transaction.commit()?;
    Ok(database.close()?)
}

fn open_file(path: &Path, opener: &Opener) -> Result<Database, StoreError> {
    let opened = opener(path).map_err(Fault::from).and_then(|database| {
        let transaction = database.begin_read()?;
        let format = transaction.open_table(schema::META)?.get("format")?;
        match format.map(|format| format.value()) {
            Some(schema::FORMAT) => Ok(database),
            _ => Err(Fault::Damaged("made by another version")),
        }
    });
    opened.map_err(|fault| fault.at(path))
}

/// Gives the pages of past epochs back to the file system, when they are more
/// than half of the file. redb itself keeps them for later use, with what was
/// in them until they are written again.
fn compact(database: &mut Database, path: &Path) -> Result<(), StoreError> {
    let file_bytes = path.metadata().map_err(StoreError::io(path))?.len();
    if file_bytes < COMPACT_FROM_BYTES {
        return Ok(());
    }
    let used = used_bytes(database).map_err(|fault| fault.at(path))?;
    if used < file_bytes / 2 {
        let compacted = database.compact().map_err(Fault::from);
        compacted.map_err(|fault| fault.at(path))?;
    }
    Ok(())
}

fn used_bytes(database: &Database) -> Result<u64, Fault> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    transaction.abort()?;
    let page_bytes = u64::try_from(stats.page_size()).unwrap_or(u64::MAX);
    Ok(stats.allocated_pages().saturating_mul(page_bytes))
}
