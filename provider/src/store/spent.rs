//! Spent tokens: one table an epoch, dropped whole when the epoch is over.
//!
//! A key is the first half of a token's nonce, a value the first half of the
//! request's digest: 32 bytes a token. A client chooses its nonces: one that
//! chooses two with the same first half has spent both when it spends one.
//! Random nonces of others do not collide. A digest with the same first half
//! as another's takes 2^127 attempts to find, or 2^63 for a pair of one's own.
//! A collision gets a second request the reply to a token already spent: one
//! call for one call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use dlambda_proto::{Epoch, RequestDigest};
use redb::{
    ReadTransaction, ReadableTable as _, ReadableTableMetadata as _, Table, WriteTransaction,
};

use super::error::{Fault, StoreError};
use super::schema::{self, EpochTable};

/// What became of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpendOutcome {
    /// It was good, and is spent now. One of several copies is told so.
    First,
    /// This very request has spent it and is not closed: it may be answered
    /// again, or run again if the answer is lost.
    Again,
    /// Another request has spent it.
    Other,
    /// It was spent, and its call is closed.
    Closed,
}

/// A token, as far as the store tells tokens apart.
#[derive(Clone, Copy)]
pub(super) struct Token {
    epoch: Epoch,
    key: [u8; 16],
}

/// What a token is spent on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark([u8; 16]);

/// The spent tokens of all epochs, within one transaction.
pub(super) struct SpentTables<'txn> {
    transaction: &'txn WriteTransaction,
    known: Vec<Epoch>,
    tables: BTreeMap<Epoch, SpentTable<'txn>>,
    changed: bool,
}

type SpentTable<'txn> = Table<'txn, &'static [u8; 16], &'static [u8; 16]>;

impl Token {
    pub(super) fn new(epoch: Epoch, nonce: &[u8; 32]) -> Self {
        Self {
            epoch,
            key: first_half(nonce),
        }
    }
}

impl Mark {
    /// Equals no [`Mark::of`].
    const CLOSED: Self = Self([0xff; 16]);

    pub(super) fn of(request: &RequestDigest) -> Self {
        let mut mark = first_half(&request.0);
        mark[0] &= 0x7f;
        Self(mark)
    }
}

impl<'txn> SpentTables<'txn> {
    pub(super) fn open(transaction: &'txn WriteTransaction) -> Result<Self, Fault> {
        Ok(Self {
            transaction,
            known: schema::epochs_to_writer(transaction)?,
            tables: BTreeMap::new(),
            changed: false,
        })
    }

    /// Whether there is anything to commit.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    pub(super) fn spend(
        &mut self,
        token: Token,
        mark: Mark,
    ) -> Result<Result<SpendOutcome, StoreError>, Fault> {
        let Some(table) = self.table(token.epoch)? else {
            return Ok(Err(StoreError::UnknownEpoch));
        };
        let found = table.get(&token.key)?.map(|found| Mark(*found.value()));
        Ok(Ok(match found {
            None => {
                table.insert(&token.key, &mark.0)?;
                self.changed = true;
                SpendOutcome::First
            }
            Some(Mark::CLOSED) => SpendOutcome::Closed,
            Some(found) if found == mark => SpendOutcome::Again,
            Some(_) => SpendOutcome::Other,
        }))
    }

    /// Closes a spent token's call; one that was not spent stays good.
    pub(super) fn close(&mut self, token: Token) -> Result<(), Fault> {
        let Some(table) = self.table(token.epoch)? else {
            return Ok(());
        };
        let found = table.get(&token.key)?.map(|found| Mark(*found.value()));
        if found.is_some_and(|found| found != Mark::CLOSED) {
            table.insert(&token.key, &Mark::CLOSED.0)?;
            self.changed = true;
        }
        Ok(())
    }

    fn table(&mut self, epoch: Epoch) -> Result<Option<&mut SpentTable<'txn>>, Fault> {
        // To open a table that is not there would make it.
        if !self.known.contains(&epoch) {
            return Ok(None);
        }
        Ok(Some(match self.tables.entry(epoch) {
            Entry::Occupied(table) => table.into_mut(),
            Entry::Vacant(entry) => entry.insert(
                self.transaction
                    .open_table(EpochTable::spent(epoch).as_spent())?,
            ),
        }))
    }
}

/// How many tokens of an epoch are spent.
pub(super) fn count(transaction: &ReadTransaction, epoch: Epoch) -> Result<u64, Fault> {
    Ok(transaction
        .open_table(EpochTable::spent(epoch).as_spent())?
        .len()?)
}

/// Whether a token's call is closed, and on disk so.
#[cfg(test)]
pub(super) fn is_closed(
    transaction: &ReadTransaction,
    epoch: Epoch,
    nonce: &[u8; 32],
) -> Result<bool, Fault> {
    let table = transaction.open_table(EpochTable::spent(epoch).as_spent())?;
    let found = table.get(&first_half(nonce))?;
    Ok(found.is_some_and(|found| *found.value() == Mark::CLOSED.0))
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    *bytes.first_chunk().unwrap_or(&[0; 16])
}
