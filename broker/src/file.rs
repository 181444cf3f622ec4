//! The guest's directory on disk.
//!
//! ```text
//! file   = [format: 1, record: bytes, SHA-256(record): bytes]    canonical CBOR
//! record = [network, last sync, providers, proofs]               canonical CBOR
//! ```
//!
//! It is what was checked when it came: the checksum is against bad disks. Nothing is lost with the
//! file that a sync does not bring again, so a damaged one is an error for the reader to show, and
//! an empty directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dlambda_proto::{ListingFork, NetworkId, SignedListing, UnixSeconds, decode, encode};
use minicbor::{CborLen, Decode, Encode};
use sha2::{Digest as _, Sha256};

use crate::search::{MarketEntry, MarketParts};
use crate::{Market, Rules, StoreError};

const FORMAT: u8 = 1;
/// Longest record of a provider: its listing, and what is kept beside it.
const ENTRY_BYTES: usize = 1024 + 64;
/// Longest proof of a fork.
const FORK_BYTES: usize = 2 * 1024 + 64;
const MORE_BYTES: usize = 1024;

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Framed(
    #[n(0)] u8,
    #[cbor(n(1), with = "minicbor::bytes")] Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")] [u8; 32],
);

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Record {
    #[n(0)]
    network: NetworkId,
    #[n(1)]
    last_sync: Option<UnixSeconds>,
    #[n(2)]
    entries: Vec<Entry>,
    #[n(3)]
    forks: Vec<ListingFork>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Entry {
    #[n(0)]
    signed: SignedListing,
    #[n(1)]
    since: UnixSeconds,
    #[n(2)]
    is_chosen: bool,
    #[n(3)]
    was_chosen: bool,
}

impl Market {
    /// Reads what [`Market::save`] wrote; an empty market if there is no file. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: go on with an empty market, and sync.
    pub fn load(path: &Path, rules: Rules, now: UnixSeconds) -> Result<Self, StoreError> {
        let Some(bytes) = read(path, largest(&rules))? else {
            return Ok(Self::new(rules));
        };
        let damaged = |reason| StoreError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let record = unframe(&bytes).map_err(damaged)?;
        let record: Record =
            decode(&record).map_err(|_| damaged("it holds no directory of providers"))?;
        if record.network != rules.network {
            let path = path.to_owned();
            return Err(StoreError::OtherNetwork { path });
        }
        let parts = record.into_parts(&rules).map_err(damaged)?;
        Ok(Self::from_parts(rules, parts, now))
    }

    /// Writes the market: whole or not at all, and durably. Blocks.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`], or [`StoreError::Busy`] if another process does the same now.
    pub fn save(&self, path: &Path) -> Result<(), StoreError> {
        let parts = self.parts();
        let entries = parts.entries.into_iter().map(|it| Entry {
            signed: it.signed,
            since: it.since,
            is_chosen: it.is_chosen,
            was_chosen: it.was_chosen,
        });
        let record = encode(&Record {
            network: self.rules().network,
            last_sync: parts.last_sync,
            entries: entries.collect(),
            forks: parts.forks,
        });
        write(path, &frame(record))
    }
}

fn largest(rules: &Rules) -> usize {
    let entries = rules.capacity.saturating_mul(2 * ENTRY_BYTES);
    let forks = rules.fork_capacity.saturating_mul(FORK_BYTES);
    entries.saturating_add(forks).saturating_add(MORE_BYTES)
}

/// A record as a file.
pub(crate) fn frame(record: Vec<u8>) -> Vec<u8> {
    let checksum = Sha256::digest(&record).into();
    encode(&Framed(FORMAT, record, checksum))
}

/// The record in a file.
pub(crate) fn unframe(bytes: &[u8]) -> Result<Vec<u8>, &'static str> {
    let Framed(format, record, checksum) =
        decode(bytes).map_err(|_| "it is no file of this program, or damaged")?;
    if format != FORMAT {
        return Err("it was written by another version of this program");
    }
    if <[u8; 32]>::from(Sha256::digest(&record)) != checksum {
        return Err("it is damaged");
    }
    Ok(record)
}

impl Record {
    fn into_parts(self, rules: &Rules) -> Result<MarketParts, &'static str> {
        let entries = self.entries.into_iter().map(|it| {
            Ok(MarketEntry {
                listing: it.signed.claims(rules.network)?,
                signed: it.signed,
                since: it.since,
                is_chosen: it.is_chosen,
                was_chosen: it.was_chosen,
            })
        });
        let entries: Result<_, dlambda_proto::ListingError> = entries.collect();
        Ok(MarketParts {
            entries: entries.map_err(|_| "it holds something that is no listing")?,
            forks: self.forks,
            last_sync: self.last_sync,
        })
    }
}

/// The file's bytes, if there is one.
pub(crate) fn read(path: &Path, most: usize) -> Result<Option<Vec<u8>>, StoreError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed(path))?,
    };
    let mut bytes = Vec::new();
    let limit = u64::try_from(most).unwrap_or(u64::MAX).saturating_add(1);
    let read = file.take(limit).read_to_end(&mut bytes);
    if read.map_err(failed(path))? > most {
        return Err(StoreError::Damaged {
            path: path.to_owned(),
            reason: "it is too large",
        });
    }
    Ok(Some(bytes))
}

/// Beside the file, synced, renamed, and the directory synced. Mode 0600.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    // What a killed process left half-written is overwritten: the lock keeps others from writing.
    let _lock = lock(&beside(path, "lock"))?;
    let temporary = beside(path, "new");
    let written = write_synced(&temporary, bytes);
    written
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(failed(path))?;
    let parent = path.parent().filter(|it| !it.as_os_str().is_empty());
    let parent = parent.unwrap_or_else(|| Path::new("."));
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(failed(parent))
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private(path)?;
    file.set_len(0)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Unlocked when dropped, or when the process ends.
fn lock(path: &Path) -> Result<File, StoreError> {
    let file = private(path).map_err(failed(path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Busy {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(failed(path)(error)),
    }
}

fn private(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    options.mode(0o600).open(path)
}

fn beside(path: &Path, extension: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(extension);
    name.into()
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::File { path, source }
}
