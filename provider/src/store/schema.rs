//! The tables of the database. Their names and types are the format on disk.

use dlambda_proto::Epoch;
use redb::{ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};

use super::error::Fault;

/// `"format"`: of this file. `"last epoch"`: the highest number ever begun.
pub(super) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");

/// The version of the format, under `"format"`.
pub(super) const FORMAT: u64 = 1;

/// Under `"last epoch"`.
pub(super) const LAST_EPOCH: &str = "last epoch";

/// Records of epochs.
pub(super) const EPOCHS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("epochs");

/// By epoch and contract id.
pub(super) const CONTRACTS: TableDefinition<'_, ContractKey, &[u8]> =
    TableDefinition::new("contracts");

/// By epoch and plan: contracts, confirmed ones, calls, ratings.
pub(super) const COUNTS: TableDefinition<'_, (u64, &str), (u64, u64, u64, u64)> =
    TableDefinition::new("counts");

/// The latest listing by overlay. Made with the first.
pub(super) const LISTINGS: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new("listings");

pub(super) type ContractKey = (u64, &'static [u8; 32]);

/// By the proposal's digest. A table an epoch, for it is dropped with it: a
/// grant for 128 calls takes 8 KiB.
type GrantTable<'a> = TableDefinition<'a, &'static [u8; 32], &'static [u8]>;

/// By the first half of a token's nonce. A table an epoch.
type SpentTable<'a> = TableDefinition<'a, &'static [u8; 16], &'static [u8; 16]>;

/// The name of an epoch's table.
pub(super) struct EpochTable(String);

impl EpochTable {
    pub(super) fn grants(epoch: Epoch) -> Self {
        Self(format!("grants/{}", epoch.0))
    }

    pub(super) fn spent(epoch: Epoch) -> Self {
        Self(format!("spent/{}", epoch.0))
    }

    pub(super) fn as_grants(&self) -> GrantTable<'_> {
        TableDefinition::new(&self.0)
    }

    pub(super) fn as_spent(&self) -> SpentTable<'_> {
        TableDefinition::new(&self.0)
    }
}

/// Makes the tables of an empty database.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(META)?.insert("format", FORMAT)?;
    transaction.open_table(EPOCHS)?;
    transaction.open_table(CONTRACTS)?;
    transaction.open_table(COUNTS)?;
    Ok(())
}

/// Makes the tables of a new epoch.
pub(super) fn create_epoch(transaction: &WriteTransaction, epoch: Epoch) -> Result<(), Fault> {
    transaction.open_table(EpochTable::spent(epoch).as_spent())?;
    transaction.open_table(EpochTable::grants(epoch).as_grants())?;
    Ok(())
}

/// Drops the tables of an epoch that is over.
pub(super) fn drop_epoch(transaction: &WriteTransaction, epoch: Epoch) -> Result<(), Fault> {
    transaction.delete_table(EpochTable::grants(epoch).as_grants())?;
    transaction.delete_table(EpochTable::spent(epoch).as_spent())?;
    Ok(())
}

/// The epochs that are there, the oldest first.
pub(super) fn epochs(transaction: &ReadTransaction) -> Result<Vec<Epoch>, Fault> {
    numbers(&transaction.open_table(EPOCHS)?)
}

/// The epochs that are there in a transaction that writes, the oldest first.
pub(super) fn epochs_to_writer(transaction: &WriteTransaction) -> Result<Vec<Epoch>, Fault> {
    numbers(&transaction.open_table(EPOCHS)?)
}

/// The highest epoch that was ever begun.
pub(super) fn last_epoch(
    table: &impl ReadableTable<&'static str, u64>,
) -> Result<Option<Epoch>, Fault> {
    Ok(table.get(LAST_EPOCH)?.map(|last| Epoch(last.value())))
}

fn numbers(table: &impl ReadableTable<u64, &'static [u8]>) -> Result<Vec<Epoch>, Fault> {
    let mut numbers = Vec::new();
    for entry in table.iter()? {
        numbers.push(Epoch(entry?.0.value()));
    }
    Ok(numbers)
}
