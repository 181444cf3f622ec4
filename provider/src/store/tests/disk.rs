//! A disk that fills up or fails, and how often it is synced.

use std::fs::OpenOptions;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use redb::StorageBackend;
use redb::backends::FileBackend;

use super::*;
use crate::store::file::{Opener, builder};

/// Far more than anything here takes.
const LONG: Duration = Duration::from_secs(100);

/// What happens to a disk, and what was done to it.
#[derive(Debug, Default)]
struct Fate {
    full: AtomicBool,
    broken: AtomicBool,
    /// Counts down to the one write that fails; 0 for none.
    fail_write: AtomicUsize,
    syncs: AtomicUsize,
}

#[derive(Debug)]
struct Disk {
    file: FileBackend,
    fate: Arc<Fate>,
}

impl Fate {
    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            Err(io::ErrorKind::StorageFull.into())
        } else if self.broken.load(Ordering::SeqCst) {
            Err(io::Error::other("broken"))
        } else {
            Ok(())
        }
    }

    fn syncs(&self) -> usize {
        self.syncs.load(Ordering::SeqCst)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.fate.check()?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fate.check()?;
        self.fate.syncs.fetch_add(1, Ordering::SeqCst);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fate.check()?;
        let left = self.fate.fail_write.load(Ordering::SeqCst);
        self.fate
            .fail_write
            .store(left.saturating_sub(1), Ordering::SeqCst);
        if left == 1 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.write(offset, data)
    }
}

fn opener(fate: &Arc<Fate>) -> Opener {
    let fate = Arc::clone(fate);
    Box::new(move |path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let disk = Disk {
            file: FileBackend::new(file)?,
            fate: Arc::clone(&fate),
        };
        builder().create_with_backend(disk)
    })
}

fn on_disk() -> (tempfile::TempDir, PathBuf, Store, Arc<Fate>) {
    let (dir, path, store) = store();
    drop(store);
    let fate = Arc::default();
    let store = Store::open_with(&path, opener(&fate)).expect("opens");
    (dir, path, store, fate)
}

/// Asks until the disk is used again.
fn until_it_works(store: &Store, token: &str, by: &str) -> SpendOutcome {
    let start = Instant::now();
    loop {
        match spend(store, token, by) {
            Ok(spending) => return spending,
            Err(StoreError::DiskFull(_)) => {}
            Err(error) => panic!("{error}"),
        }
        assert!(start.elapsed() < LONG, "never again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_full_disk_marks_nothing_and_works_again_when_there_is_room() {
    let (_dir, path, store, fate) = on_disk();
    assert_eq!(spend(&store, "before", "one"), Ok(SpendOutcome::First));
    fate.full.store(true, Ordering::SeqCst);
    let full = StoreError::DiskFull(path.clone());
    for _ in 0..3 {
        assert_eq!(spend(&store, "a token", "one"), Err(full.clone()));
    }
    let granted = store.record_grant(bytes("one"), &contract(EPOCH, "one"), &grant("one"));
    assert!(matches!(granted, Err(error) if error == full));
    assert_eq!(store.begin_epoch(Epoch(8), &record(8, 200)), Err(full));
    fate.full.store(false, Ordering::SeqCst);
    assert_eq!(
        until_it_works(&store, "a token", "two"),
        SpendOutcome::First
    );
    assert_eq!(spend(&store, "before", "two"), Ok(SpendOutcome::Other));
    assert!(store.grant(&bytes("one")).expect("readable").is_none());
    store
        .begin_epoch(Epoch(8), &record(9, 200))
        .expect("begins");
    let store = reopen(store, &path);
    let epochs = store.epochs().expect("readable");
    assert_eq!(
        epochs,
        [(EPOCH, record(7, 100)), (Epoch(8), record(9, 200))]
    );
    assert_eq!(spend(&store, "a token", "two"), Ok(SpendOutcome::Again));
}

#[test]
fn a_full_disk_is_tried_again_without_a_request() {
    let (_dir, _path, store, fate) = on_disk();
    fate.full.store(true, Ordering::SeqCst);
    assert!(spend(&store, "a token", "one").is_err());
    assert!(store.spent_count(EPOCH).is_err(), "closed meanwhile");
    fate.full.store(false, Ordering::SeqCst);
    let start = Instant::now();
    while store.spent_count(EPOCH).is_err() {
        assert!(start.elapsed() < LONG, "never again");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn nothing_is_written_any_more_to_a_disk_that_failed() {
    let (_dir, path, store, fate) = on_disk();
    assert_eq!(spend(&store, "before", "one"), Ok(SpendOutcome::First));
    fate.broken.store(true, Ordering::SeqCst);
    let failed = spend(&store, "a token", "one");
    assert!(matches!(&failed, Err(StoreError::Disk { path: at, .. }) if *at == path));
    fate.broken.store(false, Ordering::SeqCst);
    assert_eq!(spend(&store, "before", "one"), Err(StoreError::Stopped));
    assert!(store.epochs().is_err());
    // The provider hears of it, and ends.
    wait_for_the_end(&store);
    let store = reopen(store, &path);
    assert_eq!(spend(&store, "before", "two"), Ok(SpendOutcome::Other));
}

/// Whichever write fails, what was acknowledged stays, and what was not is
/// either not there or can come again.
#[test]
fn a_commit_that_is_cut_short_is_whole_or_not_there() {
    let (mut failed, mut marked) = (0, 0);
    for write in 1.. {
        let (_dir, path, store, fate) = on_disk();
        assert_eq!(spend(&store, "before", "one"), Ok(SpendOutcome::First));
        fate.fail_write.store(write, Ordering::SeqCst);
        let spent = spend(&store, "a token", "one");
        let survived = fate.fail_write.swap(0, Ordering::SeqCst) != 0;
        let store = reopen(store, &path);
        assert_eq!(spend(&store, "before", "two"), Ok(SpendOutcome::Other));
        let again = spend(&store, "a token", "one").expect("works");
        match spent {
            Ok(spent) => assert_eq!((spent, again), (SpendOutcome::First, SpendOutcome::Again)),
            Err(_) if again == SpendOutcome::First => failed += 1,
            Err(_) => {
                assert_eq!(again, SpendOutcome::Again);
                marked += 1;
            }
        }
        if survived {
            break;
        }
    }
    assert!(
        failed > 3,
        "{failed} failed, {marked} were there all the same"
    );
}

#[test]
fn nothing_is_acknowledged_before_the_disk_is_synced() {
    let (_dir, _path, store, fate) = on_disk();
    let mut syncs = fate.syncs();
    let mut synced = |what: &str| {
        let now = fate.syncs();
        assert!(now > syncs, "{what}");
        syncs = now;
    };
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    synced("spent");
    let contract = contract(EPOCH, "a client");
    let granted = store.record_grant(bytes("one"), &contract, &grant("one"));
    granted.expect("granted");
    synced("granted");
    store.confirm(&contract.id(), [1; 64]).expect("confirmed");
    synced("confirmed");
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    synced("begun");
    store.end_epochs(UnixSeconds(100)).expect("ends");
    synced("ended");
}

#[test]
fn repeated_requests_cost_no_sync() {
    let (_dir, _path, store, fate) = on_disk();
    let contract = contract(EPOCH, "a client");
    let all = |expected| {
        assert_eq!(spend(&store, "a token", "one"), Ok(expected));
        let granted = store.record_grant(bytes("one"), &contract, &grant("one"));
        granted.expect("granted");
        store.confirm(&contract.id(), [1; 64]).expect("confirmed");
        store.end_epochs(UnixSeconds(99)).expect("none ends");
    };
    all(SpendOutcome::First);
    let syncs = fate.syncs();
    all(SpendOutcome::Again);
    assert_eq!(fate.syncs(), syncs);
}

#[test]
fn waiting_requests_share_one_sync() {
    let (_dir, _path, store, fate) = on_disk();
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    let before = fate.syncs();
    assert_eq!(spend(&store, "another", "one"), Ok(SpendOutcome::First));
    let of_one = fate.syncs() - before;

    let (release, thread) = hold(&store);
    let nonces: Vec<_> = (0..500).map(|i| bytes(&i.to_string())).collect();
    let by = request("one");
    let mut waiting: Vec<_> = nonces
        .iter()
        .map(|nonce| Box::pin(store.spend(EPOCH, nonce, &by)))
        .collect();
    for one in &mut waiting {
        assert!(poll(one.as_mut()).is_pending());
    }
    let before = fate.syncs();
    drop(release);
    for one in waiting {
        assert_eq!(wait(one), Ok(SpendOutcome::First));
    }
    thread.join().expect("no panic");
    // One more where the file had to grow.
    assert!(fate.syncs() - before <= of_one + 1, "{of_one} for one");
}

#[test]
fn a_writer_that_panics_is_noticed() {
    let (_dir, _path, store) = store();
    assert!(poll(Box::pin(store.writer_ended()).as_mut()).is_pending());
    let panicked = store
        .writer()
        .change(|_| -> Result<TxOutcome<()>, _> { panic!("the writer") });
    assert_eq!(panicked, Err(StoreError::Stopped));
    wait_for_the_end(&store);
    assert_eq!(spend(&store, "a token", "one"), Err(StoreError::Stopped));
}

fn wait_for_the_end(store: &Store) {
    let mut ended = Box::pin(store.writer_ended());
    let start = Instant::now();
    while poll(ended.as_mut()).is_pending() {
        assert!(start.elapsed() < LONG, "never noticed");
        std::thread::sleep(Duration::from_millis(10));
    }
}
