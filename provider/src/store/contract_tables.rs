//! How contracts and grants lie in the database.

use dlambda_proto::{Contract, ContractId, Epoch, Grant, decode, encode};
use minicbor::{CborLen, Decode, Encode};
use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata as _, TableDefinition, WriteTransaction,
};

use super::contracts::{ContractCounts, ContractSummary, StoredGrant};
use super::epochs;
use super::error::{Fault, StoreError};
use super::transaction::TxOutcome;

/// By epoch and contract id.
const CONTRACTS: TableDefinition<'_, ContractKey, &[u8]> = TableDefinition::new("contracts");

/// By epoch and plan: contracts, confirmed ones, calls, ratings.
const COUNTS: TableDefinition<'_, (u64, &str), (u64, u64, u64, u64)> =
    TableDefinition::new("counts");

type ContractKey = (u64, &'static [u8; 32]);

/// By the proposal's digest. A table an epoch, for it is dropped with it: a
/// grant for 128 calls takes 8 KiB.
type GrantTable<'a> = TableDefinition<'a, &'static [u8; 32], &'static [u8]>;

/// A `SignedContract` that the client may not have signed yet.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
pub(super) struct StoredContract {
    #[n(0)]
    pub(super) contract: Contract,
    #[cbor(n(1), with = "minicbor::bytes")]
    pub(super) provider_signature: [u8; 64],
    #[cbor(n(2), with = "minicbor::bytes")]
    pub(super) client_signature: Option<[u8; 64]>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct GrantRecord {
    #[n(0)]
    contract: ContractId,
    #[n(1)]
    grant: Grant,
}

pub(super) fn create_tables(transaction: &WriteTransaction) -> Result<(), Fault> {
    transaction.open_table(CONTRACTS)?;
    transaction.open_table(COUNTS)?;
    Ok(())
}

pub(super) fn create_epoch(transaction: &WriteTransaction, epoch: Epoch) -> Result<(), Fault> {
    transaction.open_table(grant_table(&grant_table_name(epoch)))?;
    Ok(())
}

/// Forgets an epoch's grants and counts, and contracts that one side signed.
pub(super) fn end_epoch(transaction: &WriteTransaction, epoch: Epoch) -> Result<(), Fault> {
    transaction.delete_table(grant_table(&grant_table_name(epoch)))?;
    transaction
        .open_table(COUNTS)?
        .retain(|(of, _), _| of != epoch.0)?;
    let of_epoch = (epoch.0, &[0; 32])..=(epoch.0, &[0xff; 32]);
    // One that cannot be read is of no use to anybody.
    transaction
        .open_table(CONTRACTS)?
        .retain_in(of_epoch, |_, stored| {
            read_contract(stored).is_ok_and(|stored| stored.client_signature.is_some())
        })?;
    Ok(())
}

/// Forgets the oldest contracts of past epochs, if there are too many.
pub(super) fn forget_oldest(
    transaction: &WriteTransaction,
    oldest_live: Option<Epoch>,
    keep: u64,
) -> Result<(), Fault> {
    let mut contracts = transaction.open_table(CONTRACTS)?;
    while contracts.len()? > keep {
        let first = contracts.first()?.map(|(key, _)| key.value().0);
        if first.is_none_or(|epoch| oldest_live.is_some_and(|live| epoch >= live.0)) {
            break;
        }
        contracts.pop_first()?;
    }
    Ok(())
}

/// The grant of a proposal, in an epoch that is not over.
pub(super) fn grant(
    transaction: &ReadTransaction,
    proposal: &[u8; 32],
) -> Result<Option<StoredGrant>, Fault> {
    let contracts = transaction.open_table(CONTRACTS)?;
    for epoch in epochs::known(transaction)? {
        let grants = transaction.open_table(grant_table(&grant_table_name(epoch)))?;
        if let Some(grant) = find_grant(&grants, &contracts, epoch, proposal)? {
            return Ok(Some(grant));
        }
    }
    Ok(None)
}

/// A contract of an epoch that is not over.
pub(super) fn contract(
    transaction: &ReadTransaction,
    id: &ContractId,
) -> Result<Option<StoredContract>, Fault> {
    let known = epochs::known(transaction)?;
    let found = find_contract(&transaction.open_table(CONTRACTS)?, &known, id)?;
    Ok(found.map(|(_, stored)| stored))
}

pub(super) fn counts(transaction: &ReadTransaction) -> Result<Vec<ContractCounts>, Fault> {
    let mut list = Vec::new();
    for entry in transaction.open_table(COUNTS)?.iter()? {
        let (key, counts) = entry?;
        let (epoch, plan) = key.value();
        let (granted, confirmed, calls, ratings) = counts.value();
        let plan = plan.parse().map_err(|_| Fault::Damaged("a plan's name"))?;
        list.push(ContractCounts {
            epoch: Epoch(epoch),
            plan,
            granted,
            confirmed,
            calls,
            ratings,
        });
    }
    Ok(list)
}

/// At most `limit` contracts, those of the latest epoch first.
pub(super) fn summaries(
    transaction: &ReadTransaction,
    limit: usize,
) -> Result<Vec<ContractSummary>, Fault> {
    let contracts = transaction.open_table(CONTRACTS)?;
    let mut list = Vec::new();
    for entry in contracts.iter()?.rev().take(limit) {
        let (key, stored) = entry?;
        let (epoch, id) = key.value();
        let stored = read_contract(stored.value())?;
        list.push(ContractSummary {
            id: ContractId(*id),
            plan: stored.contract.plan.name,
            calls: stored.contract.calls,
            epoch: Epoch(epoch),
            confirmed: stored.client_signature.is_some(),
        });
    }
    Ok(list)
}

/// Grants, unless the proposal or the contract was granted before.
pub(super) fn record_grant(
    transaction: &WriteTransaction,
    proposal: &[u8; 32],
    fresh: StoredGrant,
) -> Result<TxOutcome<StoredGrant>, Fault> {
    let StoredGrant { contract, grant } = &fresh;
    let (epoch, id) = (contract.epoch, contract.id());
    if !epochs::known_to_writer(transaction)?.contains(&epoch) {
        return Ok(TxOutcome::Refused(StoreError::UnknownEpoch));
    }
    let mut grants = transaction.open_table(grant_table(&grant_table_name(epoch)))?;
    let mut contracts = transaction.open_table(CONTRACTS)?;
    if let Some(stored) = find_grant(&grants, &contracts, epoch, proposal)? {
        return Ok(TxOutcome::Same(stored));
    }
    if contracts.get((epoch.0, &id.0))?.is_some() {
        return Ok(TxOutcome::Refused(StoreError::ContractTaken));
    }
    let record = encode(&GrantRecord {
        contract: id,
        grant: grant.clone(),
    });
    grants.insert(proposal, record.as_slice())?;
    let stored = encode(&StoredContract {
        contract: contract.clone(),
        provider_signature: grant.signature,
        client_signature: None,
    });
    contracts.insert((epoch.0, &id.0), stored.as_slice())?;
    let (calls, ratings) = (contract.calls.calls(), contract.calls.ratings());
    count(transaction, contract, |counts| {
        counts.0 += 1;
        counts.2 += u64::from(calls);
        counts.3 += u64::from(ratings);
    })?;
    Ok(TxOutcome::Changed(fresh))
}

/// Keeps the first signature.
pub(super) fn confirm(
    transaction: &WriteTransaction,
    id: &ContractId,
    signature: [u8; 64],
) -> Result<TxOutcome<()>, Fault> {
    let known = epochs::known_to_writer(transaction)?;
    let mut contracts = transaction.open_table(CONTRACTS)?;
    let Some((epoch, mut stored)) = find_contract(&contracts, &known, id)? else {
        return Ok(TxOutcome::Refused(StoreError::UnknownContract));
    };
    if stored.client_signature.is_some() {
        return Ok(TxOutcome::Same(()));
    }
    stored.client_signature = Some(signature);
    contracts.insert((epoch.0, &id.0), encode(&stored).as_slice())?;
    count(transaction, &stored.contract, |counts| counts.1 += 1)?;
    Ok(TxOutcome::Changed(()))
}

fn count(
    transaction: &WriteTransaction,
    contract: &Contract,
    change: impl FnOnce(&mut (u64, u64, u64, u64)),
) -> Result<(), Fault> {
    let mut table = transaction.open_table(COUNTS)?;
    let key = (contract.epoch.0, contract.plan.name.as_str());
    let found = table.get(key)?.map(|counts| counts.value());
    let mut counts = found.unwrap_or_default();
    change(&mut counts);
    table.insert(key, counts)?;
    Ok(())
}

fn find_grant(
    grants: &impl ReadableTable<&'static [u8; 32], &'static [u8]>,
    contracts: &impl ReadableTable<ContractKey, &'static [u8]>,
    epoch: Epoch,
    proposal: &[u8; 32],
) -> Result<Option<StoredGrant>, Fault> {
    let Some(record) = grants.get(proposal)? else {
        return Ok(None);
    };
    let GrantRecord {
        contract: id,
        grant,
    } = decode(record.value()).map_err(|_| Fault::Damaged("a grant's record"))?;
    let (_, stored) = find_contract(contracts, &[epoch], &id)?
        .ok_or(Fault::Damaged("a grant without its contract"))?;
    let contract = stored.contract;
    Ok(Some(StoredGrant { contract, grant }))
}

fn find_contract(
    contracts: &impl ReadableTable<ContractKey, &'static [u8]>,
    epochs: &[Epoch],
    id: &ContractId,
) -> Result<Option<(Epoch, StoredContract)>, Fault> {
    for epoch in epochs {
        if let Some(stored) = contracts.get((epoch.0, &id.0))? {
            return Ok(Some((*epoch, read_contract(stored.value())?)));
        }
    }
    Ok(None)
}

fn read_contract(bytes: &[u8]) -> Result<StoredContract, Fault> {
    decode(bytes).map_err(|_| Fault::Damaged("a contract's record"))
}

fn grant_table_name(epoch: Epoch) -> String {
    format!("grants/{}", epoch.0)
}

fn grant_table(name: &str) -> GrantTable<'_> {
    TableDefinition::new(name)
}
