use super::*;

fn damaged(store: &Store) -> PathBuf {
    match store.epochs() {
        Err(StoreError::Damaged { path, .. }) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn epochs_and_their_secrets_are_there_after_a_restart() {
    let (_dir, path, mut store) = store();
    store
        .begin_epoch(Epoch(9), &record(9, 200))
        .expect("begins");
    let all = [(EPOCH, record(7, 100)), (Epoch(9), record(9, 200))];
    for _ in 0..2 {
        assert_eq!(store.epochs().expect("readable"), all);
        store = reopen(store, &path);
    }
}

#[test]
fn an_epochs_number_is_used_once_and_numbers_only_grow() {
    let (_dir, path, store) = store();
    for old in [EPOCH, Epoch(6), Epoch(0)] {
        let begun = store.begin_epoch(old, &record(1, 100));
        assert_eq!(begun, Err(StoreError::EpochNotNew));
    }
    assert_eq!(store.end_epochs(UnixSeconds(100)), Ok(vec![EPOCH]));
    let store = reopen(store, &path);
    let begun = store.begin_epoch(EPOCH, &record(1, 100));
    assert_eq!(begun, Err(StoreError::EpochNotNew), "after it has ended");
    store
        .begin_epoch(Epoch(8), &record(8, 100))
        .expect("begins");
    assert_eq!(
        store.epochs().expect("readable"),
        [(Epoch(8), record(8, 100))]
    );
}

#[test]
fn an_epoch_ends_when_it_is_no_longer_valid_and_is_forgotten() {
    let (_dir, path, store) = store();
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::First));
    for epoch in [EPOCH, Epoch(8)] {
        for name in ["confirmed", "unconfirmed"] {
            let (name, contract) = (format!("{name} {epoch:?}"), contract(epoch, name));
            let granted = store.record_grant(bytes(&name), &contract, &grant(&name));
            granted.expect("granted");
            if name.starts_with("confirmed") {
                store.confirm(&contract.id(), [9; 64]).expect("kept");
            }
        }
    }
    assert_eq!(store.end_epochs(UnixSeconds(99)), Ok(vec![]));
    assert_eq!(spend(&store, "a token", "one"), Ok(SpendOutcome::Again));
    assert_eq!(store.end_epochs(UnixSeconds(100)), Ok(vec![EPOCH]));
    assert_eq!(store.end_epochs(UnixSeconds(100)), Ok(vec![]));

    let store = reopen(store, &path);
    let epochs = store.epochs().expect("readable");
    assert_eq!(epochs, [(Epoch(8), record(8, 200))]);
    for by in ["one", "two"] {
        let spent = spend(&store, "a token", by);
        assert_eq!(spent, Err(StoreError::UnknownEpoch), "never again");
    }
    let proposal = |name: &str, epoch: Epoch| bytes(&format!("{name} {epoch:?}"));
    let granted = |epoch| {
        store
            .grant(&proposal("confirmed", epoch))
            .expect("readable")
    };
    assert!(granted(EPOCH).is_none() && granted(Epoch(8)).is_some());
    let confirmed = contract(EPOCH, "confirmed");
    let again = store.confirm(&confirmed.id(), [9; 64]);
    assert_eq!(again, Err(StoreError::UnknownContract));
    let late = store.record_grant(bytes("late"), &contract(EPOCH, "late"), &grant("late"));
    assert!(matches!(late, Err(StoreError::UnknownEpoch)));
    let counts = store.contract_counts().expect("readable");
    assert!(counts.iter().all(|counts| counts.epoch == Epoch(8)));
    let mut kept: Vec<_> = store
        .contracts(10)
        .expect("readable")
        .into_iter()
        .map(|contract| (contract.epoch, contract.confirmed))
        .collect();
    kept.sort();
    assert_eq!(
        kept,
        [(EPOCH, true), (Epoch(8), false), (Epoch(8), true)],
        "what both have signed stays"
    );
}

/// Both are in one transaction, in either order.
#[test]
fn an_epoch_may_end_while_its_tokens_are_spent() {
    let (_dir, _path, store) = store();
    let (release, thread) = hold(&store);
    let (nonces, by) = (["one", "two"].map(bytes), request("one"));
    let mut first = Box::pin(store.spend(EPOCH, &nonces[0], &by));
    assert!(poll(first.as_mut()).is_pending());
    let (queued, is_queued) = mpsc::channel();
    let ending = std::thread::spawn({
        let store = store.clone();
        move || {
            queued.send(()).expect("awaited");
            store.end_epochs(UnixSeconds(100))
        }
    });
    is_queued.recv().expect("it starts");
    let mut second = Box::pin(store.spend(EPOCH, &nonces[1], &by));
    assert!(poll(second.as_mut()).is_pending());
    drop(release);
    thread.join().expect("no panic");
    assert_eq!(ending.join().expect("no panic"), Ok(vec![EPOCH]));
    for spent in [wait(first), wait(second)] {
        let fine = matches!(
            spent,
            Ok(SpendOutcome::First) | Err(StoreError::UnknownEpoch)
        );
        assert!(fine, "{spent:?}");
    }
    let spent = spend(&store, "three", "one");
    assert_eq!(spent, Err(StoreError::UnknownEpoch));
}

/// The seed is written before the epoch is in the database.
#[test]
fn the_secret_of_an_epoch_that_just_begins_is_not_erased() {
    let (dir, _path, store) = store();
    let beginning = dir.path().join("ledger.redb.seed-8");
    std::fs::write(&beginning, [1; 32]).expect("written");
    assert_eq!(store.end_epochs(UnixSeconds(100)), Ok(vec![EPOCH]));
    assert!(beginning.exists());
}

#[test]
fn an_ended_epochs_secret_is_nowhere_in_the_directory() {
    let (dir, _path, store) = store();
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    let holding = |record: &EpochRecord| -> Vec<String> {
        let seed = &record.secrets.calls[..];
        let files = files::list(dir.path()).into_iter();
        let holding = files.filter(|(_, bytes)| bytes.windows(32).any(|part| part == seed));
        holding.map(|(name, _)| name).collect()
    };
    assert_eq!(holding(&record(7, 100)), ["ledger.redb.seed-7"]);
    // A second name shows what became of the bytes themselves.
    let other_name = dir.path().join("another name");
    std::fs::hard_link(dir.path().join("ledger.redb.seed-7"), &other_name).expect("linked");
    store.end_epochs(UnixSeconds(100)).expect("ends");
    assert_eq!(holding(&record(7, 100)), [""; 0]);
    let left = std::fs::read(other_name).expect("there");
    assert!(left.len() > 64 && left.iter().all(|byte| *byte == 0));
    assert!(!dir.path().join("ledger.redb.seed-7").exists());
    assert_eq!(holding(&record(8, 200)), ["ledger.redb.seed-8"]);
}

#[test]
fn secrets_that_belong_to_no_epoch_are_erased_at_the_start() {
    let (dir, path, store) = store();
    let stray = ["ledger.redb.seed-8", "ledger.redb.seed-7.new"];
    for name in stray {
        std::fs::write(dir.path().join(name), [1; 32]).expect("written");
    }
    let others = ["ledger.redb.seed-08", "ledger.redb.seeds", "seed-8"];
    for name in others {
        std::fs::write(dir.path().join(name), b"not ours").expect("written");
    }
    let store = reopen(store, &path);
    for name in stray {
        assert!(!dir.path().join(name).exists(), "{name}");
    }
    for name in others {
        let left = std::fs::read(dir.path().join(name)).expect("there");
        assert_eq!(left, b"not ours");
    }
    assert_eq!(store.epochs().expect("readable"), [(EPOCH, record(7, 100))]);
}

#[test]
fn a_secret_that_is_lost_or_changed_is_noticed() {
    let (dir, _path, store) = store();
    let seed = dir.path().join("ledger.redb.seed-7");
    std::fs::write(&seed, bytes("another")).expect("written");
    assert_eq!(damaged(&store), seed);
    std::fs::write(&seed, b"short").expect("written");
    assert_eq!(damaged(&store), seed);
    std::fs::remove_file(&seed).expect("removed");
    assert_eq!(damaged(&store), seed);
}

#[test]
fn a_record_says_nothing_in_a_log() {
    assert_eq!(format!("{:?}", record(7, 100)), "EpochRecord([scrubbed])");
}
