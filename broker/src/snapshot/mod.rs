//! A state of a catalogue, as guests take it: in chunks, in buckets, and what names it.
//!
//! A node makes a snapshot when its catalogue has changed, keeps the latest, and serves their
//! parts without looking at the catalogue. [`read`] is the guest's side.

pub mod read;

#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::Range;

use dlambda_proto::{
    Answer, BucketDigest, ListingDigest, ListingFork, Manifest, SignedListing, SnapshotId, encode,
};
use sha2::{Digest as _, Sha256};

use crate::Catalogue;

/// A state of a catalogue. It does not change; share it.
pub struct Snapshot {
    manifest: Manifest,
    bytes: Vec<u8>,
    /// Where each listing ends in the bytes.
    ends: Vec<usize>,
    /// The listings of each bucket.
    buckets: Vec<Range<usize>>,
    forks: Vec<ListingFork>,
}

impl Snapshot {
    /// The present state of this catalogue.
    #[must_use]
    pub fn of(catalogue: &Catalogue) -> Self {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(catalogue.len());
        let mut in_buckets = vec![Vec::new(); Manifest::BUCKETS];
        for listing in catalogue.iter() {
            bytes.extend(encode(listing.signed()));
            ends.push(bytes.len());
            in_buckets[usize::from(listing.provider.as_bytes()[0])].push(listing.digest());
        }
        let forks: Vec<_> = catalogue.forks().map(|(_, fork)| fork.clone()).collect();
        let digests = in_buckets.iter().map(|it| bucket_digest(it)).collect();
        let mut manifest = Manifest {
            snapshot: SnapshotId([0; 32]),
            bytes: bytes.len() as u64,
            listings: small(ends.len()),
            buckets: digests,
            forks: small(forks.len()),
            forks_digest: forks_digest(&forks),
        };
        manifest.snapshot = snapshot_id(&manifest, &bytes);
        let mut start = 0;
        let buckets = in_buckets.iter().map(|it| {
            let range = start..start + it.len();
            start = range.end;
            range
        });
        Self {
            buckets: buckets.collect(),
            manifest,
            bytes,
            ends,
            forks,
        }
    }

    /// What it has.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Its name.
    #[must_use]
    pub fn id(&self) -> SnapshotId {
        self.manifest.snapshot
    }

    /// A chunk of the bytes, if there is one of this number.
    #[must_use]
    pub fn chunk(&self, number: u32) -> Option<&[u8]> {
        let number = usize::try_from(number).ok()?;
        self.bytes.chunks(Manifest::CHUNK_BYTES).nth(number)
    }

    /// A page of a bucket. The page after the last whole one may be empty.
    #[must_use]
    pub fn bucket(&self, bucket: u8, page: u32) -> Option<Vec<SignedListing>> {
        let listings = self.buckets[usize::from(bucket)].clone();
        let page = page_of(listings.len(), page, Answer::MAX_LISTINGS)?;
        let page = listings.start + page.start..listings.start + page.end;
        // They were encoded here.
        page.map(|at| {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            SignedListing::from_bytes(&self.bytes[start..self.ends[at]]).ok()
        })
        .collect()
    }

    /// A page of the proofs of forks. The page after the last whole one may be empty.
    #[must_use]
    pub fn forks(&self, page: u32) -> Option<&[ListingFork]> {
        let page = page_of(self.forks.len(), page, Answer::MAX_FORKS)?;
        self.forks.get(page)
    }
}

/// A page of so many things, if there is one.
fn page_of(all: usize, page: u32, each: usize) -> Option<Range<usize>> {
    let start = usize::try_from(page).ok()?.checked_mul(each)?;
    (start <= all).then(|| start..all.min(start + each))
}

fn small(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// SHA-256 over the digests, its first 16 bytes.
fn bucket_digest(listings: &[ListingDigest]) -> BucketDigest {
    let mut hash = Sha256::new();
    for listing in listings {
        hash.update(listing.0);
    }
    first_half(&hash.finalize().into())
}

fn forks_digest(forks: &[ListingFork]) -> BucketDigest {
    let mut hash = Sha256::new();
    for fork in forks {
        hash.update(encode(fork));
    }
    first_half(&hash.finalize().into())
}

fn first_half(hash: &[u8; 32]) -> BucketDigest {
    BucketDigest(std::array::from_fn(|at| hash[at]))
}

/// SHA-256 over a domain, the manifest without its name, and the hash of all bytes.
fn snapshot_id(manifest: &Manifest, bytes: &[u8]) -> SnapshotId {
    let unnamed = Manifest {
        snapshot: SnapshotId([0; 32]),
        ..manifest.clone()
    };
    let mut hash = Sha256::new();
    hash.update(b"dlambda/snapshot/v1\0");
    hash.update(encode(&unnamed));
    hash.update(Sha256::digest(bytes));
    SnapshotId(hash.finalize().into())
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({} listings)", self.ends.len())
    }
}
