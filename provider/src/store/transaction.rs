//! What the store's thread is asked to do, and how it is done: all in one
//! transaction, or nothing.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use dlambda_proto::{Epoch, RequestDigest};
use redb::{Database, Durability, WriteTransaction};
use tokio::sync::oneshot;

use super::error::{Fault, StoreError};
use super::file::StoreFile;
use super::spent::{Mark, SpendOutcome, SpentTables, Token};

/// What a change came to. One that is refused must not have written anything.
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
    Change(Box<dyn Change>),
}

pub(super) struct Spend {
    token: Token,
    mark: Mark,
    result: Result<SpendOutcome, StoreError>,
    answer: oneshot::Sender<Result<SpendOutcome, StoreError>>,
}

pub(super) trait Change: Send {
    /// Returns whether there is anything to commit. A fault is the whole
    /// transaction's.
    fn apply(&mut self, transaction: &WriteTransaction, file: &StoreFile) -> Result<bool, Fault>;
    fn answer(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Transaction<F, T> {
    change: Option<F>,
    result: Result<T, StoreError>,
    answer: SyncSender<Result<T, StoreError>>,
}

/// One transaction.
pub(super) fn write(database: &Database, file: &StoreFile, batch: &mut [Job]) -> Result<(), Fault> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    let mut changed = false;
    // Changes first: they may drop tables that must not be open then.
    for job in batch.iter_mut() {
        if let Job::Change(change) = job {
            changed |= change.apply(&transaction, file)?;
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
    ) -> (Self, Receiver<Result<T, StoreError>>) {
        let (answer, answered) = sync_channel(1);
        let transaction = Transaction {
            change: Some(change),
            result: Err(StoreError::Stopped),
            answer,
        };
        (Self::Change(Box::new(transaction)), answered)
    }

    /// Whether somebody waits for it.
    pub(super) fn is_urgent(&self) -> bool {
        !matches!(self, Self::Close(_))
    }

    pub(super) fn answer(self, committed: &Result<(), StoreError>) {
        match self {
            Self::Spend(spend) => {
                let result = committed.clone().and(spend.result);
                // Whoever asked may have gone; the token is spent all the same.
                let _ = spend.answer.send(result);
            }
            Self::Close(_) => {}
            Self::Change(change) => change.answer(committed.clone()),
        }
    }
}

impl<F, T> Change for Transaction<F, T>
where
    F: FnOnce(&WriteTransaction) -> Result<TxOutcome<T>, Fault> + Send,
    T: Send,
{
    fn apply(&mut self, transaction: &WriteTransaction, file: &StoreFile) -> Result<bool, Fault> {
        let Some(change) = self.change.take() else {
            return Ok(false);
        };
        let (result, changed) = match change(transaction) {
            Ok(TxOutcome::Changed(value)) => (Ok(value), true),
            Ok(TxOutcome::Same(value)) => (Ok(value), false),
            Ok(TxOutcome::Refused(error)) => (Err(error), false),
            // A record that cannot be read is found before anything is
            // written, and is nobody else's trouble.
            Err(fault @ Fault::Damaged(_)) => (Err(fault.at(file.path())), false),
            Err(fault) => return Err(fault),
        };
        self.result = result;
        Ok(changed)
    }

    fn answer(self: Box<Self>, committed: Result<(), StoreError>) {
        let result = committed.and(self.result);
        let _ = self.answer.send(result);
    }
}
