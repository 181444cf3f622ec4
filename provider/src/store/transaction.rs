//! What the writer is asked to do, and how it is done: all in one
//! transaction, or nothing.

use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dlambda_proto::{Epoch, RequestDigest};
use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;

use super::error::{Fault, StoreError};
use super::spent::{Mark, SpendOutcome, SpentTables, Token};

/// The result of a change. One that is refused must not have written anything.
pub(super) enum TxOutcome<T> {
    /// It is to be committed.
    Changed(T),
    /// It was so already.
    Same(T),
    /// It cannot be.
    Refused(StoreError),
}

/// One thing to do, and whom to tell.
pub(super) enum Job {
    Spend(Spend),
    Close(Token),
    Change(Transaction),
}

pub(super) struct Spend {
    token: Token,
    mark: Mark,
    result: Result<SpendOutcome, StoreError>,
    answer: oneshot::Sender<Result<SpendOutcome, StoreError>>,
}

/// A change of any tables. Its result goes to a [`Pending`].
pub(super) struct Transaction {
    apply: Option<Box<Apply>>,
    committed: SyncSender<Result<(), StoreError>>,
}

/// Says whether there is anything to commit. A fault ends the whole transaction.
type Apply = dyn FnOnce(&WriteTransaction, &Path) -> Result<bool, Fault> + Send;

/// The result of a [`Transaction`] to come.
pub(super) struct Pending<T> {
    committed: Receiver<Result<(), StoreError>>,
    result: Receiver<Result<T, StoreError>>,
}

/// Writes a batch as one transaction. `path` is the file's, for errors.
pub(super) fn write(database: &Database, path: &Path, batch: &mut [Job]) -> Result<(), Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut changed = false;
    // Changes first: they may drop tables that must not be open then.
    for job in batch.iter_mut() {
        if let Job::Change(change) = job {
            changed |= change.apply(&transaction, path)?;
        }
    }
    let mut tables = SpentTables::open(&transaction)?;
    for job in batch {
        match job {
            Job::Spend(spend) => spend.result = tables.spend(spend.token, spend.mark)?,
            Job::Close(token) => tables.close(*token)?,
            Job::Change(_) => {}
        }
    }
    changed |= tables.changed();
    drop(tables);
    // What was so already is durable already; it needs no sync.
    if changed {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(())
}

impl Job {
    pub(super) fn spend(
        epoch: Epoch,
        nonce: &[u8; 32],
        request: &RequestDigest,
    ) -> (Self, oneshot::Receiver<Result<SpendOutcome, StoreError>>) {
        let (answer, answered) = oneshot::channel();
        let spend = Spend {
            token: Token::new(epoch, nonce),
            mark: Mark::of(request),
            result: Err(StoreError::Stopped),
            answer,
        };
        (Self::Spend(spend), answered)
    }

    pub(super) fn close(epoch: Epoch, nonce: &[u8; 32]) -> Self {
        Self::Close(Token::new(epoch, nonce))
    }

    pub(super) fn change<T: Send + 'static>(
        change: impl FnOnce(&WriteTransaction) -> Result<TxOutcome<T>, Fault> + Send + 'static,
    ) -> (Self, Pending<T>) {
        let (transaction, pending) = Transaction::new(change);
        (Self::Change(transaction), pending)
    }

    /// Whether a request waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        !matches!(self, Self::Close(_))
    }

    pub(super) fn answer(self, committed: &Result<(), StoreError>) {
        match self {
            Self::Spend(spend) => {
                let result = committed.clone().and(spend.result);
                // The caller may have gone; the token is spent all the same.
                let _ = spend.answer.send(result);
            }
            Self::Close(_) => {}
            Self::Change(change) => {
                // The same.
                let _ = change.committed.send(committed.clone());
            }
        }
    }
}

impl Transaction {
    fn new<T: Send + 'static>(
        change: impl FnOnce(&WriteTransaction) -> Result<TxOutcome<T>, Fault> + Send + 'static,
    ) -> (Self, Pending<T>) {
        // Room for the one message, so that the writer never waits.
        let (sender, result) = sync_channel(1);
        let apply = move |transaction: &WriteTransaction, path: &Path| {
            let (result, changed) = match change(transaction) {
                Ok(TxOutcome::Changed(value)) => (Ok(value), true),
                Ok(TxOutcome::Same(value)) => (Ok(value), false),
                Ok(TxOutcome::Refused(error)) => (Err(error), false),
                // A record that cannot be read is found before anything is
                // written, and concerns no other job of the batch.
                Err(fault @ Fault::Damaged(_)) => (Err(fault.at(path)), false),
                Err(fault) => return Err(fault),
            };
            // The caller may have gone.
            let _ = sender.send(result);
            Ok(changed)
        };
        let (committed, is_committed) = sync_channel(1);
        let transaction = Self {
            apply: Some(Box::new(apply)),
            committed,
        };
        let pending = Pending {
            committed: is_committed,
            result,
        };
        (transaction, pending)
    }

    fn apply(&mut self, transaction: &WriteTransaction, path: &Path) -> Result<bool, Fault> {
        let apply = self.apply.take();
        apply.map_or(Ok(false), |apply| apply(transaction, path))
    }
}

impl<T> Pending<T> {
    /// Waits for the commit. Blocks.
    pub(super) fn wait(self) -> Result<T, StoreError> {
        self.committed.recv().unwrap_or(Err(StoreError::Stopped))?;
        self.result.recv().unwrap_or(Err(StoreError::Stopped))
    }
}
