//! Contracts: what was granted, to which proposal, and what was confirmed.

#[cfg(test)]
use dlambda_proto::SignedContract;
use dlambda_proto::{BatchSize, Contract, ContractId, Epoch, Grant, PlanName};

use super::contract_tables as tables;
use super::{Store, StoreError};

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

impl Store {
    /// Contracts of past epochs that are kept. About 400 bytes each.
    pub(crate) const MAX_ENDED_CONTRACTS: u64 = 1 << 16;

    /// What was answered to the proposal of this digest, if it was granted in
    /// an epoch that is not over.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn grant(&self, proposal: &[u8; 32]) -> Result<Option<StoredGrant>, StoreError> {
        self.file()
            .read(|transaction| tables::grant(transaction, proposal))
    }

    /// Contracts that were granted in an epoch.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn granted_in(&self, epoch: Epoch) -> Result<u64, StoreError> {
        let counts = self.contract_counts()?;
        let of_epoch = counts.iter().filter(|counts| counts.epoch == epoch);
        Ok(of_epoch.map(|counts| counts.granted).sum())
    }

    /// Records a grant, durably when this returns, and returns the one to
    /// send: if the proposal was granted already, by a copy of it that was
    /// faster, that is the other's, and this one is thrown away.
    ///
    /// Blocks on the disk: for a blocking thread.
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
            .change(move |transaction| tables::record_grant(transaction, &proposal, fresh))
    }

    /// A contract of an epoch that is not over, and the provider's signature
    /// of it.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn contract(
        &self,
        id: &ContractId,
    ) -> Result<Option<(Contract, [u8; 64])>, StoreError> {
        let found = self
            .file()
            .read(|transaction| tables::contract(transaction, id));
        Ok(found?.map(|stored| (stored.contract, stored.provider_signature)))
    }

    /// A contract of an epoch that is not over, if both sides have signed it.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    #[cfg(test)]
    pub(crate) fn signed_contract(
        &self,
        id: &ContractId,
    ) -> Result<Option<SignedContract>, StoreError> {
        let found = self
            .file()
            .read(|transaction| tables::contract(transaction, id));
        Ok(found?.and_then(|stored| {
            Some(SignedContract {
                contract: stored.contract,
                provider_signature: stored.provider_signature,
                client_signature: stored.client_signature?,
            })
        }))
    }

    /// Keeps the client's signature, durably when this returns. Whether it is
    /// one is for the caller to check. A contract that is confirmed already
    /// keeps the first signature, and this is no error.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// [`StoreError::UnknownContract`] if it was not granted, or its epoch is
    /// over. After an error of the disk the signature may be there or not.
    pub(crate) fn confirm(&self, id: &ContractId, signature: [u8; 64]) -> Result<(), StoreError> {
        let id = *id;
        self.writer()
            .change(move |transaction| tables::confirm(transaction, &id, signature))
    }

    /// What was issued in the epochs that are not over, by epoch and plan.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn contract_counts(&self) -> Result<Vec<ContractCounts>, StoreError> {
        self.file().read(tables::counts)
    }

    /// At most `limit` contracts, those of the latest epoch first.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// Those of the disk.
    pub(crate) fn contracts(&self, limit: usize) -> Result<Vec<ContractSummary>, StoreError> {
        self.file()
            .read(|transaction| tables::summaries(transaction, limit))
    }
}
