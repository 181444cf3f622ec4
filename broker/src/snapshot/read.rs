//! The guest's side of a snapshot: what a stranger serves is held against its manifest.
//!
//! A manifest is bounded before anything is asked for, and memory grows only with what has come.
//! That the listings are signed and worked for is not looked at here.

use std::collections::BTreeMap;

use dlambda_proto::{
    BucketDigest, DecodeError, Listing, ListingDigest, ListingError, ListingFork, Manifest,
    NetworkId, ProviderId, SignedListing,
};

use super::{bucket_digest, forks_digest, snapshot_id};
use crate::{Rules, SnapshotError};

/// A listing as it was read: its signature is not checked.
#[derive(Clone, Debug)]
pub struct Read {
    /// Whose listing it claims to be.
    pub provider: ProviderId,
    /// Names it.
    pub digest: ListingDigest,
    /// What it claims.
    pub claims: Listing,
    /// Its bytes.
    pub signed: SignedListing,
}

/// Puts the chunks of a catalogue together. They may come in any order.
#[derive(Debug)]
pub struct Chunks {
    manifest: Manifest,
    parts: BTreeMap<u32, Vec<u8>>,
}

/// Whether the manifest is one that a node with these rules can have made.
///
/// # Errors
///
/// [`SnapshotError::Manifest`].
pub fn check_manifest(manifest: &Manifest, rules: &Rules) -> Result<(), SnapshotError> {
    let listings = u64::from(manifest.listings);
    for (good, what) in [
        (manifest.buckets.len() == Manifest::BUCKETS, "buckets"),
        (listings <= rules.capacity as u64, "listings"),
        (
            u64::from(manifest.forks) <= rules.fork_capacity as u64,
            "proofs of forks",
        ),
        (
            manifest.bytes <= listings * Listing::MAX_BYTES as u64 && manifest.bytes >= listings,
            "bytes",
        ),
    ] {
        if !good {
            return Err(SnapshotError::Manifest(what));
        }
    }
    Ok(())
}

impl Chunks {
    /// The chunks of this manifest, which has been checked: none yet.
    #[must_use]
    pub fn new(manifest: Manifest) -> Self {
        Self {
            manifest,
            parts: BTreeMap::new(),
        }
    }

    /// How many there are to be.
    #[must_use]
    pub fn total(&self) -> u32 {
        u32::try_from(self.manifest.chunks()).unwrap_or(u32::MAX)
    }

    /// Whether all have come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.parts.len() as u64 == self.manifest.chunks()
    }

    /// Takes a chunk.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::ChunkLength`] if its length does not follow from the manifest.
    pub fn put(&mut self, number: u32, chunk: Vec<u8>) -> Result<(), SnapshotError> {
        let whole = Manifest::CHUNK_BYTES as u64;
        let before = u64::from(number).saturating_mul(whole);
        let expected = self.manifest.bytes.saturating_sub(before).min(whole);
        let found = chunk.len() as u64;
        if found != expected || expected == 0 {
            return Err(SnapshotError::ChunkLength { expected, found });
        }
        self.parts.insert(number, chunk);
        Ok(())
    }

    /// The listings, in the order of their providers' ids.
    ///
    /// # Errors
    ///
    /// [`SnapshotError`] if they are not what the manifest says, or not all are there.
    pub fn finish(self, network: NetworkId) -> Result<Vec<Read>, SnapshotError> {
        let Self { manifest, parts } = self;
        let bytes: Vec<u8> = parts.into_values().flatten().collect();
        let (expected, found) = (manifest.bytes, bytes.len() as u64);
        if expected != found {
            return Err(SnapshotError::ChunkLength { expected, found });
        }
        if snapshot_id(&manifest, &bytes) != manifest.snapshot {
            return Err(SnapshotError::SnapshotId);
        }
        let listings = split(&bytes, u64::from(manifest.listings), network)?;
        let mut rest = &listings[..];
        for (bucket, digest) in (0..=u8::MAX).zip(&manifest.buckets) {
            let len = rest.partition_point(|it| it.provider.as_bytes()[0] <= bucket);
            let (these, others) = rest.split_at(len);
            check_bucket(these, bucket, digest)?;
            rest = others;
        }
        Ok(listings)
    }
}

/// Reads the listings of a bucket that came in pages, and holds them against the manifest.
///
/// # Errors
///
/// [`SnapshotError`] if they are not those.
pub fn bucket(
    manifest: &Manifest,
    bucket: u8,
    listings: Vec<SignedListing>,
    network: NetworkId,
) -> Result<Vec<Read>, SnapshotError> {
    let listings: Result<Vec<_>, _> = listings
        .into_iter()
        .map(|it| Read::of(it, network))
        .collect();
    let listings = listings?;
    let digest = manifest.buckets.get(usize::from(bucket));
    let digest = digest.ok_or(SnapshotError::Manifest("buckets"))?;
    check_bucket(&listings, bucket, digest)?;
    Ok(listings)
}

/// Holds the proofs of forks against the manifest.
///
/// # Errors
///
/// [`SnapshotError::Count`] or [`SnapshotError::ForksDigest`].
pub fn check_forks(manifest: &Manifest, forks: &[ListingFork]) -> Result<(), SnapshotError> {
    check_count(u64::from(manifest.forks), forks.len())?;
    if forks_digest(forks) != manifest.forks_digest {
        return Err(SnapshotError::ForksDigest);
    }
    Ok(())
}

impl Read {
    /// Reads what a listing claims.
    ///
    /// # Errors
    ///
    /// [`SnapshotError::Listing`].
    pub fn of(signed: SignedListing, network: NetworkId) -> Result<Self, SnapshotError> {
        let claims = signed.claims(network)?;
        Ok(Self {
            provider: claims.provider,
            digest: signed.digest(),
            claims,
            signed,
        })
    }
}

/// Every listing in `bytes`. Heads are read one by one: a decoder that skips what it does not know
/// would remember where it is, for every byte of a stranger's.
fn split(bytes: &[u8], expected: u64, network: NetworkId) -> Result<Vec<Read>, SnapshotError> {
    let malformed = || SnapshotError::Listing(ListingError::Decode(DecodeError::Malformed));
    let mut decoder = minicbor::Decoder::new(bytes);
    let mut listings = Vec::new();
    while decoder.position() < bytes.len() {
        let start = decoder.position();
        if decoder.array().map_err(|_| malformed())? != Some(2) {
            return Err(malformed());
        }
        decoder.bytes().map_err(|_| malformed())?;
        decoder.bytes().map_err(|_| malformed())?;
        let signed = SignedListing::from_bytes(&bytes[start..decoder.position()])?;
        listings.push(Read::of(signed, network)?);
        if listings.len() as u64 > expected {
            break;
        }
    }
    check_count(expected, listings.len())?;
    Ok(listings)
}

fn check_bucket(listings: &[Read], bucket: u8, digest: &BucketDigest) -> Result<(), SnapshotError> {
    let in_bucket = |it: &Read| it.provider.as_bytes()[0] == bucket;
    let in_order = listings.is_sorted_by(|one, next| one.provider < next.provider);
    if !in_order || !listings.iter().all(in_bucket) {
        return Err(SnapshotError::Order);
    }
    let digests: Vec<_> = listings.iter().map(|it| it.digest).collect();
    if bucket_digest(&digests) != *digest {
        return Err(SnapshotError::BucketDigest(bucket));
    }
    Ok(())
}

fn check_count(expected: u64, found: usize) -> Result<(), SnapshotError> {
    let found = found as u64;
    if expected != found {
        return Err(SnapshotError::Count { expected, found });
    }
    Ok(())
}
