//! Issuance: contracts, from the proposal to the confirmation.

use std::collections::HashSet;

use dlambda_proto::{
    Advert, Authentic, CallToken, Contract, ContractId, Endpoint, RatingKey, RatingToken,
    SignedAdvert, SignedContract, UnixSeconds, Validity,
};

use super::file::{Holdings, Rating, Record, Slot, Stage};
use super::store::Durability;
use super::{Wallet, WalletError};

/// Length of a rating token's authenticator, in bytes: RSA of 2048 bits.
const RATING_AUTHENTICATOR: usize = 256;

/// All that it takes to make the very same proposal again.
#[derive(Clone, PartialEq, Eq)]
pub struct Draft {
    /// Where it is proposed; the advert names it.
    pub endpoint: Endpoint,
    /// What it is proposed under.
    pub advert: SignedAdvert,
    /// What is proposed.
    pub contract: Contract,
    /// What everything in the proposal is derived from. Secret.
    pub seed: [u8; 32],
    /// The invitation, where one is needed. Secret.
    pub invitation: Option<[u8; 32]>,
}

/// A contract whose confirmation is not known to have arrived.
#[derive(Clone, PartialEq, Eq)]
pub struct Unconfirmed {
    /// Where it was concluded.
    pub endpoint: Endpoint,
    /// What it was concluded under.
    pub advert: SignedAdvert,
    /// The contract with both signatures; the client's is to be sent again.
    pub signed: SignedContract,
}

impl Wallet {
    /// Keeps what a proposal is made of. It is on disk when this returns, and
    /// the proposal may be sent. The same draft may begin again. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::Inconsistent`] if the contract is not one under this
    /// advert, or was concluded already; [`WalletError::File`],
    /// [`WalletError::Damaged`], [`WalletError::Busy`].
    pub fn begin(&self, draft: &Draft) -> Result<(), WalletError> {
        draft.check()?;
        let id = draft.contract.id();
        let record = Record::from(draft);
        let operation = self.shared.enter()?;
        match operation.read(&id)? {
            Some(there) if there != record => Err(WalletError::Inconsistent(
                "another contract of this name is there",
            )),
            _ => operation.write(&id, &record, Durability::Now),
        }
    }

    /// Proposals without a known answer. The provider answers the same
    /// proposal with the same grant, so they may be sent again, also while
    /// another process does so. Damaged files are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn drafts(&self) -> Result<Vec<Draft>, WalletError> {
        let records = self.records()?.into_iter();
        Ok(records.filter_map(Record::into_draft).collect())
    }

    /// Removes a draft whose proposal was refused, if it is there. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::Inconsistent`] if the contract was concluded meanwhile;
    /// [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`].
    pub fn abandon(&self, id: &ContractId) -> Result<(), WalletError> {
        let operation = self.shared.enter()?;
        match operation.read(id)? {
            Some(record) if record.holdings().is_some() => Err(WalletError::Inconsistent(
                "a contract cannot be abandoned once it is concluded",
            )),
            _ => operation.remove(id),
        }
    }

    /// Replaces a draft by the contract with its tokens, each rating token with
    /// the secret seed of its key. It is on disk when this returns, and the
    /// confirmation may be sent. If another process did this already, what it
    /// stored stays: some of the tokens may be spent by now. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::Inconsistent`] if the contract is not the draft's, is not
    /// signed by both, or the tokens are not as many and of the epoch that it
    /// says; [`WalletError::NoSuchContract`] if there is no such draft;
    /// [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`].
    pub fn complete(
        &self,
        id: &ContractId,
        signed: SignedContract,
        calls: Vec<CallToken>,
        ratings: Vec<(RatingToken, [u8; 32])>,
    ) -> Result<(), WalletError> {
        check_grant(id, &signed, &calls, &ratings)?;
        let operation = self.shared.enter()?;
        let mut record = operation.read(id)?.ok_or(WalletError::NoSuchContract)?;
        if record.holdings().is_some() {
            return operation.sync();
        }
        let ratings = ratings.into_iter();
        record.stage = Stage::Signed(Box::new(Holdings {
            provider_signature: signed.provider_signature,
            client_signature: signed.client_signature,
            confirmed: false,
            slots: calls.into_iter().map(Slot::Fresh).collect(),
            ratings: ratings
                .map(|(token, seed)| Rating { token, seed })
                .collect(),
            seen: None,
        }));
        operation.write(id, &record, Durability::Now)
    }

    /// Notes that the provider has our signature. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::NoSuchContract`] if there is no such contract, or only a
    /// draft; [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`].
    pub fn confirmed(&self, id: &ContractId) -> Result<(), WalletError> {
        let operation = self.shared.enter()?;
        let mut record = operation.read(id)?.ok_or(WalletError::NoSuchContract)?;
        let holdings = record.holdings_mut().ok_or(WalletError::NoSuchContract)?;
        if holdings.confirmed {
            return Ok(());
        }
        holdings.confirmed = true;
        // If it is lost, the confirmation is sent once more.
        operation.write(id, &record, Durability::Later)
    }

    /// Contracts whose confirmation is not known to have arrived, but for those
    /// that are over and only kept for their ratings. Damaged files are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn unconfirmed(&self, now: UnixSeconds) -> Result<Vec<Unconfirmed>, WalletError> {
        let open = |record: &Record| {
            !record.is_over(now) && record.holdings().is_some_and(|it| !it.confirmed)
        };
        let unconfirmed = |record: Record| {
            Some(Unconfirmed {
                signed: record.signed()?,
                endpoint: record.endpoint,
                advert: record.advert,
            })
        };
        let records = self.records()?.into_iter().filter(open);
        Ok(records.filter_map(unconfirmed).collect())
    }
}

/// A contract whose provider was seen on no circuit but its own.
#[derive(Clone, PartialEq, Eq)]
pub struct Unchecked {
    /// The contract's name.
    pub id: ContractId,
    /// Where it was concluded.
    pub endpoint: Endpoint,
    /// What it was concluded under.
    pub advert: SignedAdvert,
    /// When its tokens are good.
    pub validity: Validity,
}

impl Wallet {
    /// Contracts that are not over and whose tokens wait for a second look at the
    /// provider's advert. Damaged files are passed over. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if the directory cannot be read; [`WalletError::Busy`].
    pub fn unchecked(&self, now: UnixSeconds) -> Result<Vec<Unchecked>, WalletError> {
        let waits = |record: &Record| {
            !record.is_over(now) && record.holdings().is_some_and(|it| it.seen.is_none())
        };
        let records = self.records()?.into_iter().filter(waits);
        let unchecked = records.map(|record| Unchecked {
            id: record.contract.id(),
            endpoint: record.endpoint,
            advert: record.advert,
            validity: record.contract.validity,
        });
        Ok(unchecked.collect())
    }

    /// Notes that another circuit showed `seen`, which is the contract's advert
    /// or vouches for it: from now on its tokens are given out. It is on disk
    /// when this returns. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::Inconsistent`] if `seen` does not vouch for it;
    /// [`WalletError::NoSuchContract`] if there is no such contract, or only a
    /// draft; [`WalletError::File`], [`WalletError::Damaged`], [`WalletError::Busy`].
    pub fn checked(&self, id: &ContractId, seen: &Authentic<Advert>) -> Result<(), WalletError> {
        let operation = self.shared.enter()?;
        let mut record = operation.read(id)?.ok_or(WalletError::NoSuchContract)?;
        let own = record.advert.clone().authenticate();
        if !own.is_ok_and(|own| seen.vouches_for(&own)) {
            return Err(WalletError::Inconsistent("an advert for the second look"));
        }
        let holdings = record.holdings_mut().ok_or(WalletError::NoSuchContract)?;
        holdings.seen = Some(seen.signed().clone());
        operation.write(id, &record, Durability::Now)
    }

    /// Keeps a later advert of a provider with those of its contracts that were
    /// checked and that it vouches for: which epochs ended early can be shown from it. Blocks.
    ///
    /// # Errors
    ///
    /// [`WalletError::File`] if a file cannot be written; [`WalletError::Busy`].
    pub fn saw(&self, shown: &Authentic<Advert>) -> Result<(), WalletError> {
        let operation = self.shared.enter()?;
        for id in operation.contracts()? {
            let Ok(Some(mut record)) = operation.read(&id) else {
                continue;
            };
            let own = record.advert.clone().authenticate();
            let vouches = own.is_ok_and(|own| shown.vouches_for(&own));
            let Some(seen) = record.holdings_mut().and_then(|it| it.seen.as_mut()) else {
                continue;
            };
            let is_later = (seen.clone().authenticate()).is_ok_and(|it| it.epoch < shown.epoch);
            if vouches && is_later {
                *seen = shown.signed().clone();
                operation.write(&id, &record, Durability::Later)?;
            }
        }
        Ok(())
    }
}

impl Draft {
    /// Whether advert, contract and endpoint belong together.
    fn check(&self) -> Result<(), WalletError> {
        let Self {
            contract, advert, ..
        } = self;
        let advert = advert
            .clone()
            .authenticate()
            .map_err(|_| WalletError::Inconsistent("the advert is not the provider's"))?;
        let plan = advert.plan(Some(&contract.plan.name));
        check(&[
            (advert.provider == contract.provider, "provider"),
            (advert.epoch == contract.epoch, "epoch"),
            (plan == Some(&contract.plan), "plan"),
            (advert.tokens == contract.validity, "validity"),
            (advert.endpoints.contains(&self.endpoint), "endpoint"),
        ])
    }
}

impl From<&Draft> for Record {
    fn from(draft: &Draft) -> Self {
        Self {
            endpoint: draft.endpoint,
            advert: draft.advert.clone(),
            contract: draft.contract.clone(),
            stage: Stage::Draft {
                seed: draft.seed,
                invitation: draft.invitation,
            },
        }
    }
}

impl Record {
    fn into_draft(self) -> Option<Draft> {
        let Stage::Draft { seed, invitation } = self.stage else {
            return None;
        };
        Some(Draft {
            endpoint: self.endpoint,
            advert: self.advert,
            contract: self.contract,
            seed,
            invitation,
        })
    }
}

/// Whether these are the contract of this name and its tokens. The tokens
/// themselves were checked by who made them.
fn check_grant(
    id: &ContractId,
    signed: &SignedContract,
    calls: &[CallToken],
    ratings: &[(RatingToken, [u8; 32])],
) -> Result<(), WalletError> {
    let contract = &signed.contract;
    check(&[
        (contract.id() == *id, "another contract than the draft's"),
        (signed.verify(), "signatures"),
    ])?;
    let nonces: HashSet<_> = calls.iter().map(|token| token.nonce).collect();
    let is_good_rating = |(token, seed): &(RatingToken, [u8; 32])| {
        token.epoch == contract.epoch
            && token.key == RatingKey::from_seed(seed).id()
            && token.authenticator.len() == RATING_AUTHENTICATOR
    };
    check(&[
        (
            calls.len() == usize::from(contract.calls.calls()),
            "number of call tokens",
        ),
        (nonces.len() == calls.len(), "a call token twice"),
        (
            calls.iter().all(|token| token.epoch == contract.epoch),
            "epoch of a call token",
        ),
        (
            ratings.len() == usize::from(contract.calls.ratings()),
            "number of rating tokens",
        ),
        (ratings.iter().all(is_good_rating), "a rating token"),
    ])
}

fn check(conditions: &[(bool, &'static str)]) -> Result<(), WalletError> {
    match conditions.iter().find(|(good, _)| !good) {
        None => Ok(()),
        Some((_, what)) => Err(WalletError::Inconsistent(what)),
    }
}
