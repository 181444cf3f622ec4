use std::os::unix::fs::PermissionsExt as _;

use dlambda_proto::{ErrorKind, HasKind as _};

use super::*;

/// The files of a directory by name.
pub(super) fn list(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(dir).expect("readable");
    let read = entries.map(|entry| {
        let entry = entry.expect("readable");
        let bytes = std::fs::read(entry.path()).expect("readable");
        (entry.file_name().into_string().expect("a name"), bytes)
    });
    let mut files: Vec<_> = read.collect();
    files.sort();
    files
}

fn error(path: &Path) -> StoreError {
    match Store::open(path) {
        Ok(_) => panic!("it opened"),
        Err(error) => error,
    }
}

fn set_mode(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("our own file");
}

#[test]
fn all_files_are_their_owners_alone() {
    let (dir, _path, _ledger) = store();
    let entries = std::fs::read_dir(dir.path()).expect("readable");
    let modes: Vec<u32> = entries
        .map(|entry| {
            let metadata = entry.expect("readable").metadata().expect("readable");
            metadata.permissions().mode() & 0o777
        })
        .collect();
    assert_eq!(modes, [0o600, 0o600], "the database and a seed");
}

#[test]
fn a_file_that_others_can_read_is_refused() {
    let (dir, path, store) = store();
    let seed = dir.path().join("ledger.redb.seed-7");
    set_mode(&seed, 0o640);
    let refused = store.epochs();
    assert!(matches!(refused, Err(StoreError::Exposed(at)) if at == seed));
    drop(store);
    set_mode(&path, 0o644);
    assert!(matches!(error(&path), StoreError::Exposed(at) if at == path));
}

#[test]
fn a_file_is_open_once() {
    let (_dir, path, store) = store();
    assert!(matches!(error(&path), StoreError::InUse(at) if at == path));
    let clone = store.clone();
    drop(store);
    assert!(matches!(error(&path), StoreError::InUse(_)));
    drop(clone);
    assert!(Store::open(&path).is_ok());
}

#[test]
fn a_foreign_file_is_named_and_left_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.redb");
    for foreign in [&b""[..], b"short", &[0; 8192], &[0xa5; 100_000]] {
        std::fs::write(&path, foreign).expect("written");
        set_mode(&path, 0o600);
        let error = error(&path);
        assert!(matches!(&error, StoreError::Damaged { path: at, .. } if *at == path));
        assert!(error.to_string().contains("ledger.redb"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Local);
        assert_eq!(std::fs::read(&path).expect("there"), foreign);
    }
}

fn set_format(path: &Path, table: &str, format: u64) {
    let database = redb::Database::create(path).expect("opens");
    let transaction = database.begin_write().expect("begins");
    let table = redb::TableDefinition::<&str, u64>::new(table);
    let mut table = transaction.open_table(table).expect("opens");
    table.insert("format", format).expect("writes");
    drop(table);
    transaction.commit().expect("commits");
}

#[test]
fn a_database_of_something_else_or_another_version_is_refused() {
    let (dir, path, store) = store();
    drop(store);
    set_format(&path, "meta", 2);
    assert!(matches!(error(&path), StoreError::Damaged { path: at, .. } if at == path));
    set_format(&path, "meta", 1);
    assert!(Store::open(&path).is_ok());

    let other = dir.path().join("other.redb");
    set_format(&other, "other", 1);
    set_mode(&other, 0o600);
    assert!(matches!(error(&other), StoreError::Damaged { path: at, .. } if at == other));
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let (_dir, path, store) = store();
    for token in 0..50 {
        let spent = spend(&store, &token.to_string(), "one");
        assert_eq!(spent, Ok(SpendOutcome::First));
    }
    drop(store);
    let good = std::fs::read(&path).expect("there");
    let (mut refused, step) = (0, good.len() / 400);
    for at in (0..320).step_by(3).chain((320..good.len()).step_by(step)) {
        let mut bad = good.clone();
        bad[at] ^= 0x55;
        std::fs::write(&path, &bad).expect("written");
        match Store::open(&path) {
            // It hit what nothing hangs on.
            Ok(store) => {
                for token in 0..50 {
                    let spent = spend(&store, &token.to_string(), "one");
                    assert_eq!(spent, Ok(SpendOutcome::Again), "byte {at}");
                }
                assert_eq!(store.epochs().expect("readable").len(), 1, "byte {at}");
            }
            Err(StoreError::Damaged { path: at, .. }) if at == path => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    assert!(refused > 50, "damage was noticed {refused} times");
}

#[test]
fn a_half_made_store_is_made_anew() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.redb");
    std::fs::write(dir.path().join("ledger.redb.new"), b"half").expect("written");
    let store = Store::open(&path).expect("opens");
    assert!(store.epochs().expect("readable").is_empty());
    assert_eq!(list(dir.path()).len(), 1);
}

#[test]
fn the_space_of_past_epochs_is_given_back_at_the_start() {
    let (_dir, path, store) = store();
    let begun = store.begin_epoch(Epoch(8), &record(8, 200));
    begun.expect("begins");
    // A page each, so that what comes after lies behind them in the file.
    let fill = store.writer().change(|transaction| {
        let table = redb::TableDefinition::<&[u8; 32], &[u8]>::new("grants/7");
        let grants = &mut transaction.open_table(table)?;
        for i in 0..6000 {
            grants.insert(&bytes(&i.to_string()), [1; 3000].as_slice())?;
        }
        Ok(TxOutcome::Changed(()))
    });
    fill.expect("writes");
    let (nonces, by) = ((0..1000).map(|i| bytes(&i.to_string())), request("one"));
    let nonces: Vec<_> = nonces.collect();
    let spend_all = |store: &Store, expected| {
        let spend = |nonce| Box::pin(store.spend(Epoch(8), nonce, &by));
        let mut all: Vec<_> = nonces.iter().map(spend).collect();
        for one in &mut all {
            let _ = poll(one.as_mut());
        }
        assert!(all.into_iter().all(|one| wait(one) == Ok(expected)));
    };
    spend_all(&store, SpendOutcome::First);
    store.end_epochs(UnixSeconds(100)).expect("ends");
    drop(store);
    let size = || path.metadata().expect("there").len();
    let before = size();
    let store = Store::open(&path).expect("opens");
    assert!(size() < before / 10, "{} bytes, {before} before", size());
    spend_all(&store, SpendOutcome::Again);
}
