//! What is in the wallet, and what is over.

use dlambda_proto::{
    Advert, Authentic, ContractId, Endpoint, Epoch, PlanName, ProviderId, UnixSeconds, Validity,
};

use super::file::{Record, Slot};
use super::store::Durability;
use super::{Operation, Wallet, WalletError};

/// What is in the wallet. `Debug` says nothing.
#[non_exhaustive]
pub struct Listing {
    /// The contracts, in no particular order.
    pub contracts: Vec<ContractSummary>,
    /// The files that cannot be used, with the reason. Their tokens are not
    /// counted above and never taken; the files are left as they are.
    pub damaged: Vec<WalletError>,
}

/// A contract in numbers. `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContractSummary {
    /// The contract's name between its parties.
    pub id: ContractId,
    /// Where it was proposed.
    pub endpoint: Endpoint,
    /// Who serves.
    pub provider: ProviderId,
    /// The plan.
    pub plan: PlanName,
    /// The epoch of the tokens.
    pub epoch: Epoch,
    /// Calls bought, or asked for. It is the sum of the four numbers below
    /// unless the contract is a draft, which has no tokens.
    pub calls: u16,
    /// Tokens that no call was made with.
    pub fresh: usize,
    /// Tokens of calls that are waiting for their answer, in any process.
    pub in_use: usize,
    /// Tokens that may have been sent without an answer. Each is for the same
    /// call, should it be made again.
    pub interrupted: usize,
    /// Tokens of calls that were answered.
    pub spent: usize,
    /// Rating tokens that are left.
    pub ratings: usize,
    /// When the tokens are good.
    pub validity: Validity,
    /// Whether that is over.
    pub expired: bool,
    /// How far the contract has come.
    pub stage: ContractStage,
    /// Whether the provider's keys were seen on a second circuit. Before that,
    /// no token is spent.
    pub checked: bool,
    /// How many epochs the provider is known to have ended before their time,
    /// of those whose tokens were good when it was last noticed.
    pub early_ends: usize,
}

/// How far a contract has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContractStage {
    /// The provider is known to have our signature.
    Confirmed,
    /// Proposed; the provider's answer is not known.
    Draft,
    /// Signed by both; the provider may not have our signature yet.
    Unconfirmed,
}

impl Wallet {
    /// Everything in the wallet, expired contracts included. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read;
    /// [`WalletError::Busy`]. A file that cannot be used is no error but listed.
    pub fn contracts(&self, now: UnixSeconds) -> Result<Listing, WalletError> {
        let operation = self.shared.enter()?;
        let mut listing = Listing {
            contracts: Vec::new(),
            damaged: Vec::new(),
        };
        for id in operation.contracts()? {
            match operation.read(&id) {
                Ok(None) => {}
                Ok(Some(record)) => listing.contracts.push(operation.summary(id, record, now)),
                Err(error) => listing.damaged.push(error),
            }
        }
        Ok(listing)
    }

    /// The adverts of this provider that contracts and drafts were made under,
    /// or that were seen since, each once. If two contradict each other, it shows
    /// different keys to different visitors. Damaged files are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn adverts(&self, provider: &ProviderId) -> Result<Vec<Authentic<Advert>>, WalletError> {
        let mut adverts: Vec<Authentic<Advert>> = Vec::new();
        let records = self.records()?.into_iter();
        for record in records.filter(|it| it.contract.provider == *provider) {
            let seen = record.holdings().and_then(|it| it.seen.clone());
            for advert in [Some(record.advert), seen].into_iter().flatten() {
                let is_known = adverts.iter().any(|it| *it.signed() == advert);
                // One that its provider did not sign contradicts nothing.
                if !is_known && let Ok(advert) = advert.authenticate() {
                    adverts.push(advert);
                }
            }
        }
        Ok(adverts)
    }

    /// Removes the contracts and drafts whose validity is over, with their
    /// tokens, and returns how many. One with a token in use stays, and so does
    /// a damaged file. Of a contract with rating tokens that are still good only
    /// the call tokens are erased. Blocks.
    ///
    /// Be sure of `now`: a clock that is far ahead costs all tokens.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if a file cannot be removed; [`WalletError::Busy`].
    pub fn forget_expired(&self, now: UnixSeconds) -> Result<usize, WalletError> {
        let operation = self.shared.enter()?;
        let mut forgotten = 0;
        for id in operation.contracts()? {
            let Ok(Some(mut record)) = operation.read(&id) else {
                continue;
            };
            let summary = operation.summary(id, record.clone(), now);
            if !summary.expired || summary.in_use > 0 {
                continue;
            }
            if !record.keeps_ratings(now) {
                operation.remove(&id)?;
                forgotten += 1;
            } else if record.erase_calls() {
                operation.write(&id, &record, Durability::Later)?;
            }
        }
        Ok(forgotten)
    }

    /// All contracts and drafts but the damaged.
    pub(super) fn records(&self) -> Result<Vec<Record>, WalletError> {
        let operation = self.shared.enter()?;
        let ids = operation.contracts()?.into_iter();
        let read = |id| operation.read(&id).ok().flatten();
        Ok(ids.filter_map(read).collect())
    }
}

impl Operation<'_> {
    fn summary(&self, id: ContractId, record: Record, now: UnixSeconds) -> ContractSummary {
        let stage = match record.holdings() {
            None => ContractStage::Draft,
            Some(holdings) if holdings.confirmed => ContractStage::Confirmed,
            Some(_) => ContractStage::Unconfirmed,
        };
        let (mut fresh, mut in_use, mut interrupted, mut spent) = (0, 0, 0, 0);
        let slots = record.holdings().map_or(&[][..], |it| &it.slots);
        for (index, slot) in slots.iter().enumerate() {
            *match slot {
                Slot::Fresh(_) => &mut fresh,
                Slot::Taken { owner, .. } if self.is_in_use((id, index), *owner) => &mut in_use,
                Slot::Taken { .. } => &mut interrupted,
                Slot::Spent => &mut spent,
            } += 1;
        }
        let ratings = record.holdings().map_or(0, |it| it.ratings.len());
        let seen = record.holdings().and_then(|it| it.seen.as_ref());
        let checked = seen.is_some();
        let latest = seen.unwrap_or(&record.advert).clone().authenticate();
        let early_ends = latest.map_or(0, |advert| advert.early_ends());
        let contract = record.contract;
        ContractSummary {
            id,
            endpoint: record.endpoint,
            provider: contract.provider,
            plan: contract.plan.name,
            epoch: contract.epoch,
            calls: contract.calls.calls(),
            fresh,
            in_use,
            interrupted,
            spent,
            ratings,
            validity: contract.validity,
            expired: contract.validity.until <= now,
            stage,
            checked,
            early_ends,
        }
    }
}
