//! What the tests of the store share.

mod contracts;
mod crash;
mod disk;
mod epochs;
mod files;
mod rotation;
mod spending;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::mpsc;
use std::task::{Context, Poll, Waker};

use dlambda_proto::{
    BatchSize, Contract, ContractId, ContractKey, Epoch, Grant, IdentityKey, Payment,
    PaymentMethod, Plan, PlanName, RequestDigest, ServiceTerms, Technology, TokenKeyId,
    UnixSeconds, Validity,
};
use sha2::{Digest as _, Sha256};

use super::transaction::TxOutcome;
use super::{EpochRecord, SpendOutcome, Store, StoreError};

const EPOCH: Epoch = Epoch(7);

/// A directory with a store in which [`EPOCH`] has begun, valid until 100.
fn store() -> (tempfile::TempDir, PathBuf, Store) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("ledger.redb");
    let store = Store::open(&path).expect("opens");
    store.begin_epoch(EPOCH, &record(7, 100)).expect("begins");
    (dir, path, store)
}

/// Closes the store, which must be the last clone, and opens it again.
fn reopen(store: Store, path: &Path) -> Store {
    drop(store);
    Store::open(path).expect("opens")
}

fn record(seed: u8, until: u64) -> EpochRecord {
    EpochRecord::for_tests(bytes(&format!("seed {seed}")), until, vec![plan()])
}

fn bytes(name: &str) -> [u8; 32] {
    Sha256::digest(name).into()
}

fn request(name: &str) -> RequestDigest {
    RequestDigest(bytes(name))
}

fn contract(epoch: Epoch, name: &str) -> Contract {
    Contract {
        provider: IdentityKey::from_seed(&[1; 32]).id(),
        client: ContractKey::from_seed(&bytes(name)).id(),
        epoch,
        plan: Plan::standard_menu().remove(0),
        calls: BatchSize::Calls32,
        payment: Payment {
            total: 0,
            method: PaymentMethod::Gratis,
        },
        service: ServiceTerms {
            start_within_ms: 1000,
        },
        technology: Technology {
            deterministic: true,
            tee: None,
        },
        validity: Validity {
            from: UnixSeconds(1),
            until: UnixSeconds(100),
        },
        call_key: TokenKeyId([1; 32]),
        rating_key: TokenKeyId([2; 32]),
    }
}

fn grant(name: &str) -> Grant {
    Grant {
        signature: [5; 64],
        call_response: bytes(name).repeat(32),
        rating_response: bytes(name).repeat(8),
    }
}

fn plan() -> PlanName {
    Plan::standard_menu().remove(0).name
}

/// Spends and waits, without a runtime.
fn spend(store: &Store, nonce: &str, by: &str) -> Result<SpendOutcome, StoreError> {
    let (nonce, by) = (bytes(nonce), request(by));
    wait(store.spend(EPOCH, &nonce, &by))
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// Makes the thread wait until the sender is used or dropped.
fn hold(store: &Store) -> (mpsc::Sender<()>, std::thread::JoinHandle<()>) {
    let (release, released) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let store = store.clone();
    let thread = std::thread::spawn(move || {
        let held = store.writer().change(move |_| {
            begin.send(()).expect("awaited");
            let _ = released.recv();
            Ok(TxOutcome::Same(()))
        });
        held.expect("nothing went wrong");
    });
    begun.recv().expect("begins");
    (release, thread)
}

/// Lets the future do all it can at once; the spending is in the queue then.
fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

impl PartialEq for StoreError {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}
