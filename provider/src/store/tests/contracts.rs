use std::sync::Barrier;

use super::*;
use crate::store::contracts::forget_oldest;
use crate::store::{ContractCounts, StoredGrant};

fn record_grant(store: &Store, proposal: &str, of: &str) -> Result<StoredGrant, StoreError> {
    store.record_grant(bytes(proposal), &contract(EPOCH, of), &grant(proposal))
}

#[test]
fn a_repeated_proposal_gets_the_same_grant() {
    let (_dir, path, mut store) = store();
    assert!(store.grant(&bytes("one")).expect("readable").is_none());
    let first = record_grant(&store, "one", "a client").expect("granted");
    assert!(first.grant == grant("one") && first.contract == contract(EPOCH, "a client"));
    for _ in 0..2 {
        let other = store.record_grant(bytes("one"), &first.contract, &grant("two"));
        assert!(other.expect("granted") == first);
        let found = store.grant(&bytes("one")).expect("readable");
        assert!(found.expect("found") == first);
        let found = store.contract(&first.contract.id()).expect("readable");
        assert!(found.expect("found") == (first.contract.clone(), [5; 64]));
        store = reopen(store, &path);
    }
}

#[test]
fn racing_copies_of_a_proposal_get_one_grant() {
    const THREADS: usize = 16;
    let (_dir, _path, store) = store();
    let start = Barrier::new(THREADS);
    for round in 0..20 {
        let proposal = format!("proposal {round}");
        let grants: Vec<StoredGrant> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (store, start, proposal) = (&store, &start, &proposal);
                    scope.spawn(move || {
                        let contract = contract(EPOCH, proposal);
                        let grant = grant(&format!("{proposal} {thread}"));
                        start.wait();
                        store.record_grant(bytes(proposal), &contract, &grant)
                    })
                })
                .collect();
            let results = threads.into_iter().map(|thread| thread.join());
            let results = results.map(|result| result.expect("no panic"));
            results.map(|result| result.expect("granted")).collect()
        });
        assert!(grants.iter().all(|grant| *grant == grants[0]));
    }
    let counts = store.contract_counts().expect("readable");
    assert_eq!(counts[0].granted, 20);
}

#[test]
fn a_contract_is_granted_to_one_proposal() {
    let (_dir, _path, store) = store();
    record_grant(&store, "one", "a client").expect("granted");
    let other = record_grant(&store, "two", "a client");
    assert!(matches!(other, Err(StoreError::ContractTaken)));
    assert!(store.grant(&bytes("two")).expect("readable").is_none());
    assert_eq!(store.contract_counts().expect("readable")[0].granted, 1);
}

#[test]
fn a_grant_needs_an_epoch() {
    let (_dir, _path, store) = store();
    for epoch in [Epoch(6), Epoch(8)] {
        let contract = contract(epoch, "a client");
        let granted = store.record_grant(bytes("one"), &contract, &grant("one"));
        assert!(matches!(granted, Err(StoreError::UnknownEpoch)));
    }
}

#[test]
fn a_confirmation_is_kept_and_the_first_one_stays() {
    let (_dir, path, store) = store();
    let contract = contract(EPOCH, "a client");
    let unknown = store.confirm(&contract.id(), [1; 64]);
    assert_eq!(unknown, Err(StoreError::UnknownContract));
    record_grant(&store, "one", "a client").expect("granted");
    let signed = store.signed_contract(&contract.id()).expect("readable");
    assert!(signed.is_none(), "one side has signed");
    for signature in [1, 1, 2] {
        assert_eq!(store.confirm(&contract.id(), [signature; 64]), Ok(()));
    }
    let store = reopen(store, &path);
    let signed = store.signed_contract(&contract.id()).expect("readable");
    let signed = signed.expect("both have signed");
    assert!(signed.contract == contract);
    assert_eq!(signed.provider_signature, [5; 64]);
    assert_eq!(signed.client_signature, [1; 64]);
    assert_eq!(store.contract_counts().expect("readable")[0].confirmed, 1);
}

#[test]
fn counts_are_by_epoch_and_plan() {
    let (_dir, path, store) = store();
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    let mut large = contract(EPOCH, "a third");
    large.plan = Plan::standard_menu().remove(2);
    large.calls = BatchSize::Calls128;
    let all = [
        contract(EPOCH, "one"),
        contract(EPOCH, "another"),
        contract(Epoch(8), "one"),
        large,
    ];
    for (i, contract) in all.iter().enumerate() {
        let proposal = bytes(&i.to_string());
        let granted = store.record_grant(proposal, contract, &grant("a grant"));
        granted.expect("granted");
    }
    store.confirm(&all[0].id(), [1; 64]).expect("confirmed");
    let store = reopen(store, &path);
    let counts = |epoch, plan: &str, [granted, confirmed, calls, ratings]: [u64; 4]| {
        let plan = plan.parse().expect("a name");
        ContractCounts {
            epoch,
            plan,
            granted,
            confirmed,
            calls,
            ratings,
        }
    };
    assert_eq!(
        store.contract_counts().expect("readable"),
        [
            counts(EPOCH, "large", [1, 0, 128, 16]),
            counts(EPOCH, "small", [2, 1, 64, 8]),
            counts(Epoch(8), "small", [1, 0, 32, 4]),
        ]
    );
}

#[test]
fn the_list_of_contracts_is_bounded_and_the_latest_come_first() {
    let (_dir, _path, store) = store();
    store
        .begin_epoch(Epoch(8), &record(8, 200))
        .expect("begins");
    record_grant(&store, "old", "old").expect("granted");
    let new = contract(Epoch(8), "new");
    let granted = store.record_grant(bytes("new"), &new, &grant("new"));
    granted.expect("granted");
    let all = store.contracts(10).expect("readable");
    let ids: Vec<ContractId> = all.iter().map(|contract| contract.id).collect();
    assert!(ids == [new.id(), contract(EPOCH, "old").id()]);
    assert_eq!(all[0].plan, plan());
    assert_eq!(all[0].calls, BatchSize::Calls32);
    assert_eq!(store.contracts(1).expect("readable"), all[..1]);
    assert!(store.contracts(0).expect("readable").is_empty());
}

#[test]
fn the_oldest_contracts_of_past_epochs_are_forgotten() {
    let (_dir, _path, store) = store();
    for epoch in [8, 9] {
        let begun = store.begin_epoch(Epoch(epoch), &record(1, 200));
        begun.expect("begins");
    }
    for epoch in [7, 8, 9] {
        for name in ["one", "two"] {
            let contract = contract(Epoch(epoch), name);
            let proposal = bytes(&format!("{epoch} {name}"));
            let granted = store.record_grant(proposal, &contract, &grant(name));
            granted.expect("granted");
        }
    }
    let forget = |live, keep| {
        let forget = store.writer().change(move |transaction| {
            forget_oldest(transaction, live, keep)?;
            Ok(TxOutcome::Changed(()))
        });
        forget.expect("works");
        let left = store.contracts(10).expect("readable");
        let mut epochs: Vec<u64> = left.iter().map(|contract| contract.epoch.0).collect();
        epochs.reverse();
        epochs
    };
    assert_eq!(forget(Some(Epoch(8)), 5), [7, 8, 8, 9, 9]);
    assert_eq!(forget(Some(Epoch(8)), 1), [8, 8, 9, 9], "of past epochs");
    assert_eq!(forget(None, 1), [9]);
}
