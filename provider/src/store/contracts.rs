//! Contracts: what was granted, to which proposal, and what was confirmed.

#[cfg(test)]
use dlambda_proto::SignedContract;
use dlambda_proto::{BatchSize, Contract, ContractId, Epoch, Grant, PlanName, decode, encode};
use minicbor::{CborLen, Decode, Encode};
use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata as _, WriteTransaction};

use super::Store;
use super::error::{Fault, StoreError};
use super::schema::{self, CONTRACTS, COUNTS, ContractKey, EpochTable};
use super::transaction::TxOutcome;

/// A grant that was recorded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct StoredGrant {
    /// The contract that was granted.
    pub(crate) contract: Contract,
    /// What the proposal was answered with.
    pub(crate) grant: Grant,
}

/// What was issued for one plan of one epoch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContractCounts {
    /// The epoch.
    pub(crate) epoch: Epoch,
    /// The plan.
    pub(crate) plan: PlanName,
    /// Contracts granted, the confirmed ones included.
    pub(crate) granted: u64,
    /// Contracts that the other side has signed too.
    pub(crate) confirmed: u64,
    /// Call tokens issued.
    pub(crate) calls: u64,
    /// Rating tokens issued.
    pub(crate) ratings: u64,
}

/// One line of the operator's list of contracts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContractSummary {
    /// The contract's name between its parties.
    pub(crate) id: ContractId,
    /// The plan.
    pub(crate) plan: PlanName,
    /// How many calls.
    pub(crate) calls: BatchSize,
    /// The epoch whose tokens it gave.
    pub(crate) epoch: Epoch,
    /// Whether both sides have signed.
    pub(crate) confirmed: bool,
}

/// A `SignedContract` that the client may not have signed yet.
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredContract {
    #[n(0)]
    contract: Contract,
    #[cbor(n(1), with = "minicbor::bytes")]
    provider_signature: [u8; 64],
    #[cbor(n(2), with = "minicbor::bytes")]
    client_signature: Option<[u8; 64]>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct GrantRecord {
    #[n(0)]
    contract: ContractId,
    #[n(1)]
    grant: Grant,
}

/// Every method blocks on the disk: call it on a blocking thread. Every one
/// can fail with the errors of the disk.
impl Store {
    /// Contracts of past epochs that are kept. About 400 bytes each.
    pub(crate) const MAX_ENDED_CONTRACTS: u64 = 1 << 16;

    /// What was answered to the proposal of this digest, if it was granted in
    /// an epoch that is not over.
    pub(crate) fn grant(&self, proposal: &[u8; 32]) -> Result<Option<StoredGrant>, StoreError> {
        self.file().read(|transaction| {
            let contracts = transaction.open_table(CONTRACTS)?;
            for epoch in schema::epochs(transaction)? {
                let grants = transaction.open_table(EpochTable::grants(epoch).as_grants())?;
                if let Some(grant) = find_grant(&grants, &contracts, epoch, proposal)? {
                    return Ok(Some(grant));
                }
            }
            Ok(None)
        })
    }

    /// The number of contracts that were granted in an epoch.
    pub(crate) fn granted_in(&self, epoch: Epoch) -> Result<u64, StoreError> {
        let counts = self.contract_counts()?;
        let of_epoch = counts.iter().filter(|counts| counts.epoch == epoch);
        Ok(of_epoch.map(|counts| counts.granted).sum())
    }

    /// Records a grant, durably when this returns, and returns the one to
    /// send: if a faster copy of the proposal was granted already, that is the
    /// other's, and this one is dropped.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownEpoch`] if the contract's epoch is over, and
    /// [`StoreError::ContractTaken`] if the contract was granted to another
    /// proposal: one contract, one invitation and one payment are good for one
    /// set of tokens. After an error of the disk the grant may be there or not.
    pub(crate) fn record_grant(
        &self,
        proposal: [u8; 32],
        contract: &Contract,
        grant: &Grant,
    ) -> Result<StoredGrant, StoreError> {
        let fresh = StoredGrant {
            contract: contract.clone(),
            grant: grant.clone(),
        };
        self.writer()
            .change(move |transaction| record_grant(transaction, &proposal, fresh))
    }

    /// A contract of an epoch that is not over, and the provider's signature
    /// of it.
    pub(crate) fn contract(
        &self,
        id: &ContractId,
    ) -> Result<Option<(Contract, [u8; 64])>, StoreError> {
        let found = self.stored_contract(id)?;
        Ok(found.map(|stored| (stored.contract, stored.provider_signature)))
    }

    /// A contract of an epoch that is not over, if both sides have signed it.
    #[cfg(test)]
    pub(crate) fn signed_contract(
        &self,
        id: &ContractId,
    ) -> Result<Option<SignedContract>, StoreError> {
        let found = self.stored_contract(id)?;
        Ok(found.and_then(|stored| {
            Some(SignedContract {
                contract: stored.contract,
                provider_signature: stored.provider_signature,
                client_signature: stored.client_signature?,
            })
        }))
    }

    /// Keeps the client's signature, durably when this returns. Whether it is
    /// valid is for the caller to check. A contract that is confirmed already
    /// keeps the first signature, and this is no error.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownContract`] if it was not granted, or its epoch is
    /// over. After an error of the disk the signature may be there or not.
    pub(crate) fn confirm(&self, id: &ContractId, signature: [u8; 64]) -> Result<(), StoreError> {
        let id = *id;
        self.writer()
            .change(move |transaction| confirm(transaction, &id, signature))
    }

    /// What was issued in the epochs that are not over, by epoch and plan.
    pub(crate) fn contract_counts(&self) -> Result<Vec<ContractCounts>, StoreError> {
        self.file().read(counts)
    }

    /// At most `limit` contracts, those of the latest epoch first.
    pub(crate) fn contracts(&self, limit: usize) -> Result<Vec<ContractSummary>, StoreError> {
        self.file()
            .read(|transaction| summaries(transaction, limit))
    }

    fn stored_contract(&self, id: &ContractId) -> Result<Option<StoredContract>, StoreError> {
        self.file().read(|transaction| {
            let known = schema::epochs(transaction)?;
            let found = find_contract(&transaction.open_table(CONTRACTS)?, &known, id)?;
            Ok(found.map(|(_, stored)| stored))
        })
    }
}

/// Forgets an epoch's counts, and the contracts that only one side signed. Its
/// grants are a table of its own, which [`schema::drop_epoch`] drops.
pub(super) fn end_epoch(transaction: &WriteTransaction, epoch: Epoch) -> Result<(), Fault> {
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

fn counts(transaction: &ReadTransaction) -> Result<Vec<ContractCounts>, Fault> {
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

fn summaries(transaction: &ReadTransaction, limit: usize) -> Result<Vec<ContractSummary>, Fault> {
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
fn record_grant(
    transaction: &WriteTransaction,
    proposal: &[u8; 32],
    fresh: StoredGrant,
) -> Result<TxOutcome<StoredGrant>, Fault> {
    let StoredGrant { contract, grant } = &fresh;
    let (epoch, id) = (contract.epoch, contract.id());
    if !schema::epochs_to_writer(transaction)?.contains(&epoch) {
        return Ok(TxOutcome::Refused(StoreError::UnknownEpoch));
    }
    let mut grants = transaction.open_table(EpochTable::grants(epoch).as_grants())?;
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
fn confirm(
    transaction: &WriteTransaction,
    id: &ContractId,
    signature: [u8; 64],
) -> Result<TxOutcome<()>, Fault> {
    let known = schema::epochs_to_writer(transaction)?;
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
