//! A node's catalogue on disk, so that providers keep their places when the node starts again.
//!
//! ```text
//! record = [network, providers, proofs]    canonical CBOR, framed as a guest's directory is
//! ```

use std::path::Path;
use std::sync::Arc;

use dlambda_proto::{
    Day, Listing, ListingError, ListingFork, NetworkId, SignedListing, UnixSeconds, decode, encode,
};
use minicbor::{CborLen, Decode, Encode};

use super::entry::{Entry, Standing};
use super::forks::ProofRank;
use super::{Catalogue, Rules};
use crate::file::{frame, read, unframe, write};
use crate::{StoreError, WorkCheck};

/// Days of which listings of a provider are kept: those of which one can be valid.
const DAYS: usize = 4;

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct Record {
    #[n(0)]
    network: NetworkId,
    #[n(1)]
    entries: Vec<StoredEntry>,
    #[n(2)]
    forks: Vec<StoredFork>,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredEntry {
    #[n(0)]
    latest: SignedListing,
    #[n(1)]
    earlier: Vec<SignedListing>,
    #[n(2)]
    effort: u64,
    #[n(3)]
    is_listed: bool,
    #[n(4)]
    since: UnixSeconds,
    #[n(5)]
    days: u32,
    #[n(6)]
    is_senior: bool,
}

#[derive(Encode, Decode, CborLen)]
#[cbor(array)]
struct StoredFork {
    #[n(0)]
    fork: ListingFork,
    #[n(1)]
    days: u32,
    #[n(2)]
    effort: u64,
    #[n(3)]
    ends: Day,
}

impl Catalogue {
    /// Reads what [`Catalogue::save`] wrote; an empty catalogue if there is no file. What has ended
    /// since is pruned. Blocks, and checks every signature.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: go on with an empty catalogue.
    pub fn load(
        path: &Path,
        rules: Rules,
        work: Arc<dyn WorkCheck>,
        now: UnixSeconds,
    ) -> Result<Self, StoreError> {
        let mut catalogue = Self::new(rules, work);
        let Some(bytes) = read(path, largest(&rules))? else {
            return Ok(catalogue);
        };
        let damaged = |reason| StoreError::Damaged {
            path: path.to_owned(),
            reason,
        };
        let record = unframe(&bytes).map_err(damaged)?;
        let record: Record =
            decode(&record).map_err(|_| damaged("it holds no catalogue of providers"))?;
        if record.network != rules.network {
            let path = path.to_owned();
            return Err(StoreError::OtherNetwork { path });
        }
        let restored = catalogue.restore(record);
        restored.map_err(|_| damaged("it holds something that is no listing"))?;
        catalogue.prune(now);
        Ok(catalogue)
    }

    /// Writes the catalogue: whole or not at all, and durably. Blocks. Offers and demands are not
    /// written: they are of use for half an hour.
    ///
    /// # Errors
    ///
    /// [`StoreError::File`], or [`StoreError::Busy`] if another process does the same now.
    pub fn save(&self, path: &Path) -> Result<(), StoreError> {
        let entries = self.entries.values().map(|entry| StoredEntry {
            latest: entry.latest.signed().clone(),
            earlier: entry.earlier().cloned().collect(),
            effort: entry.effort,
            is_listed: entry.listed,
            since: entry.standing.since,
            days: entry.standing.days,
            is_senior: entry.standing.is_senior,
        });
        let forks = self.forks.ranked().map(|(rank, fork)| StoredFork {
            fork: fork.clone(),
            days: rank.days,
            effort: rank.effort,
            ends: rank.ends,
        });
        let record = encode(&Record {
            network: self.rules.network,
            entries: entries.collect(),
            forks: forks.collect(),
        });
        write(path, &frame(record))
    }

    fn restore(&mut self, record: Record) -> Result<(), ListingError> {
        let network = self.rules.network;
        for stored in record.forks {
            let provider = stored.fork.verify(network)?;
            let rank = ProofRank {
                days: stored.days,
                effort: stored.effort,
                ends: stored.ends,
                provider,
            };
            self.forks.insert(stored.fork, rank);
        }
        for stored in record.entries {
            let latest = stored.latest.authenticate(network)?;
            let is_out = self.forks.contains(&latest.provider);
            // The capacity may have been another.
            // So may what the network asks for: others take what shows less for a lie.
            let is_worked = stored.effort >= self.rules.effort;
            if is_out || !is_worked || self.entries.len() >= self.rules.capacity {
                continue;
            }
            let standing = Standing {
                since: stored.since,
                days: stored.days,
                is_senior: stored.is_senior && self.places.has_senior_place(),
            };
            let mut entry = Entry::new(latest, stored.effort, standing);
            entry.listed = stored.is_listed;
            for earlier in stored.earlier {
                entry.remember(&earlier.authenticate(network)?);
            }
            self.put(entry);
        }
        Ok(())
    }
}

/// Longest file with these capacities.
fn largest(rules: &Rules) -> usize {
    let listings = 1 + DAYS * Listing::MAX_A_DAY;
    let entry = listings * (Listing::MAX_BYTES + 8) + 64;
    let entries = rules.capacity.saturating_mul(entry);
    let forks = rules.fork_capacity;
    let forks = forks.saturating_mul(2 * Listing::MAX_BYTES + 64);
    entries.saturating_add(forks).saturating_add(1024)
}
