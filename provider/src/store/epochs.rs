//! Epochs: their secrets' other half, and how they begin and end.

use std::fmt;

use dlambda_proto::{Epoch, PlanName, SignedAdvert, UnixSeconds, Validity, decode, encode};
use minicbor::{CborLen, Decode, Encode};
use redb::{ReadTransaction, ReadableTable, WriteTransaction};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::error::{Fault, StoreError};
use super::schema::{self, EPOCHS, META};
use super::transaction::TxOutcome;
use super::{Store, contracts, seeds};

/// What the store keeps of an epoch.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EpochRecord {
    /// What its keys are made of.
    pub(crate) secrets: EpochSecrets,
    /// The advert: the only one of its epoch, also after a restart.
    pub(crate) advert: SignedAdvert,
    /// When its tokens are good.
    pub(crate) validity: Validity,
    /// The plans that tokens are issued for.
    pub(crate) plans: Vec<PlanName>,
}

/// What an epoch's keys for tokens, ratings and receipts are made of. Put
/// nothing here that must stay secret after the epoch: bytes on a disk cannot be
/// erased with certainty. The key that opens calls is not here.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct EpochSecrets {
    /// The call keys are derived from it.
    pub(crate) calls: Zeroizing<[u8; 32]>,
    /// The seed of the key that signs receipts.
    pub(crate) receipts: Zeroizing<[u8; 32]>,
    /// The RSA key that signs rating tokens; empty if there is none.
    pub(crate) ratings: Zeroizing<Vec<u8>>,
}

/// An [`EpochRecord`] in the database; its seed is in [`seeds`].
#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredEpoch {
    #[n(0)]
    validity: Validity,
    #[n(1)]
    plans: Vec<PlanName>,
    /// Tells damaged or exchanged secrets. A hash of random bytes gives nothing away.
    #[cbor(n(2), with = "minicbor::bytes")]
    seed_hash: [u8; 32],
    #[n(3)]
    advert: SignedAdvert,
}

impl Store {
    /// Begins an epoch: durable when this returns.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// [`StoreError::EpochNotNew`] if this epoch or a later one was ever
    /// begun. After an error of the disk the epoch may be there or not; the
    /// next one is free in any case.
    pub(crate) fn begin_epoch(&self, epoch: Epoch, record: &EpochRecord) -> Result<(), StoreError> {
        let seed = record.secrets.to_bytes();
        let stored = encode(&StoredEpoch {
            validity: record.validity,
            plans: record.plans.clone(),
            seed_hash: seed_hash(&seed),
            advert: record.advert.clone(),
        });
        let path = self.file().path().to_owned();
        self.writer().change(move |transaction| {
            let mut meta = transaction.open_table(META)?;
            if schema::last_epoch(&meta)?.is_some_and(|last| epoch <= last) {
                return Ok(TxOutcome::Refused(StoreError::EpochNotNew));
            }
            // The seed first: without a record it is nothing, and erased at
            // the next start; a record without its seed would be damage.
            if let Err(error) = seeds::write(&path, epoch, &seed) {
                return Ok(TxOutcome::Refused(error));
            }
            meta.insert(schema::LAST_EPOCH, epoch.0)?;
            let mut epochs = transaction.open_table(EPOCHS)?;
            epochs.insert(epoch.0, stored.as_slice())?;
            schema::create_epoch(transaction, epoch)?;
            Ok(TxOutcome::Changed(()))
        })
    }

    /// The epochs that were begun and not ended, the oldest first.
    ///
    /// Blocks on the disk: for a blocking thread.
    ///
    /// # Errors
    ///
    /// [`StoreError::Damaged`] if a seed is not there, or not the one that
    /// was stored.
    pub(crate) fn epochs(&self) -> Result<Vec<(Epoch, EpochRecord)>, StoreError> {
        let mut list = Vec::new();
        for (epoch, stored) in self.file().read(read_all)? {
            let path = self.file().path();
            let seed = match seeds::read(path, epoch)? {
                Some(seed) if seed_hash(&seed) == stored.seed_hash => seed,
                // It may have ended since we looked.
                _ if !self.file().read(schema::epochs)?.contains(&epoch) => continue,
                found => {
                    let reason = found.map_or("the seed is missing", |_| "not the epoch's seed");
                    return Err(StoreError::damaged(&seeds::path(path, epoch), reason));
                }
            };
            let StoredEpoch {
                validity,
                plans,
                advert,
                ..
            } = stored;
            let secrets = EpochSecrets::from_bytes(&seed).ok_or_else(|| {
                StoreError::damaged(&seeds::path(path, epoch), "not an epoch's secrets")
            })?;
            let record = EpochRecord {
                secrets,
                advert,
                validity,
                plans,
            };
            list.push((epoch, record));
        }
        Ok(list)
    }

    /// Forgets every epoch that is no longer valid at `now`, and says which:
    /// its secret, its spent tokens, its grants, and the contracts that were
    /// not confirmed. Contracts signed by both stay for the operator's books,
    /// the latest [`Store::MAX_ENDED_CONTRACTS`] of them.
    ///
    /// Without the secret, nothing can ever make or check a token of the epoch
    /// again, so that its spent tokens may be forgotten. The secret's file is
    /// overwritten and removed after all else is durable; how far that erases
    /// it depends on the disk (see the module on seeds). What the database
    /// held stays in its file, unreachable, until the page is used again.
    ///
    /// Blocks on the disk: for a blocking thread. For a million tokens it
    /// takes a fraction of a second, in which no token is spent.
    ///
    /// # Errors
    ///
    /// Those of the disk. Call it again: what is not yet erased then will be,
    /// at the next start at the latest.
    pub(crate) fn end_epochs(&self, now: UnixSeconds) -> Result<Vec<Epoch>, StoreError> {
        let ended = self
            .writer()
            .change(move |transaction| end_epochs(transaction, now))?;
        let (known, last) = self.file().read(|transaction| {
            let last = schema::last_epoch(&transaction.open_table(META)?)?;
            Ok((schema::epochs(transaction)?, last))
        })?;
        if let Some(last) = last {
            seeds::erase_ended(self.file().path(), &known, last)?;
        }
        Ok(ended)
    }
}

fn read_all(transaction: &ReadTransaction) -> Result<Vec<(Epoch, StoredEpoch)>, Fault> {
    read_all_in(&transaction.open_table(EPOCHS)?)
}

fn read_all_in(
    table: &impl ReadableTable<u64, &'static [u8]>,
) -> Result<Vec<(Epoch, StoredEpoch)>, Fault> {
    let mut list = Vec::new();
    for entry in table.iter()? {
        let (epoch, stored) = entry?;
        let stored = decode(stored.value()).map_err(|_| Fault::Damaged("an epoch's record"))?;
        list.push((Epoch(epoch.value()), stored));
    }
    Ok(list)
}

fn end_epochs(
    transaction: &WriteTransaction,
    now: UnixSeconds,
) -> Result<TxOutcome<Vec<Epoch>>, Fault> {
    let mut epochs = transaction.open_table(EPOCHS)?;
    let (ended, live): (Vec<_>, Vec<_>) = read_all_in(&epochs)?
        .into_iter()
        .partition(|(_, stored)| stored.validity.until <= now);
    if ended.is_empty() {
        return Ok(TxOutcome::Same(Vec::new()));
    }
    let ended: Vec<Epoch> = ended.into_iter().map(|(epoch, _)| epoch).collect();
    for epoch in &ended {
        contracts::end_epoch(transaction, *epoch)?;
        schema::drop_epoch(transaction, *epoch)?;
        epochs.remove(epoch.0)?;
    }
    let oldest_live = live.first().map(|(epoch, _)| *epoch);
    contracts::forget_oldest(transaction, oldest_live, Store::MAX_ENDED_CONTRACTS)?;
    Ok(TxOutcome::Changed(ended))
}

#[cfg(test)]
impl EpochRecord {
    /// One that is like no other, whose tokens are good from 1 until `until`.
    pub(crate) fn for_tests(seed: [u8; 32], until: u64, plans: Vec<PlanName>) -> Self {
        use dlambda_proto::{Advert, Endpoint, IdentityKey, OnionAddress, ReceiptKey};
        let identity = IdentityKey::from_seed(&[1; 32]);
        let advert = Advert::minimal(
            identity.id(),
            Epoch(1),
            UnixSeconds(1),
            ReceiptKey::from_seed(&seed).id(),
            Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
        );
        Self {
            secrets: EpochSecrets {
                calls: Zeroizing::new(seed),
                receipts: Zeroizing::new([2; 32]),
                ratings: Zeroizing::new(vec![3; 100]),
            },
            advert: advert.sign(&identity).expect("signs"),
            validity: Validity {
                from: UnixSeconds(1),
                until: UnixSeconds(until),
            },
            plans,
        }
    }
}

impl EpochSecrets {
    /// `calls (32) | receipts (32) | ratings`.
    fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(64 + self.ratings.len()));
        bytes.extend_from_slice(&*self.calls);
        bytes.extend_from_slice(&*self.receipts);
        bytes.extend_from_slice(&self.ratings);
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (calls, rest) = bytes.split_first_chunk::<32>()?;
        let (receipts, ratings) = rest.split_first_chunk::<32>()?;
        Some(Self {
            calls: Zeroizing::new(*calls),
            receipts: Zeroizing::new(*receipts),
            ratings: Zeroizing::new(ratings.to_vec()),
        })
    }
}

fn seed_hash(seed: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/ledger-seed/v1\0");
    hash.update(seed);
    hash.finalize().into()
}

impl fmt::Debug for EpochRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EpochRecord([scrubbed])")
    }
}
