//! What a guest asks an overlay node, and what it answers.
//!
//! A guest is a caller, or a provider without a node. It sends one [`Ask`] on a stream of its own
//! and reads one [`Answer`]. Nothing in an ask depends on what the guest has, or on earlier asks,
//! beside the name of a snapshot that many guests have been told.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::{Class, Demand, ListingFork, SignedListing, SignedOffer, Topic};

/// A question of a guest.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum Ask {
    /// What the node has: [`Answer::Manifest`].
    #[n(0)]
    Manifest,
    /// A part of all listings: [`Answer::Chunk`].
    #[n(1)]
    Chunk(#[n(0)] SnapshotId, #[n(1)] u32),
    /// A page of the listings in one bucket: [`Answer::Listings`]. Every page but the last has
    /// [`Answer::MAX_LISTINGS`].
    #[n(2)]
    Bucket(#[n(0)] SnapshotId, #[n(1)] u8, #[n(2)] u32),
    /// The listings of a topic: [`Answer::Listings`].
    #[n(3)]
    LookUp(#[n(0)] Topic),
    /// The latest offers of a class: [`Answer::Offers`].
    #[n(4)]
    Offers(#[n(0)] Class),
    /// A listing to be published: [`Answer::Accepted`].
    #[n(5)]
    SubmitListing(#[n(0)] SignedListing),
    /// A demand to be published: [`Answer::Accepted`].
    #[n(6)]
    SubmitDemand(#[n(0)] Demand),
    /// A proof to be published: [`Answer::Accepted`].
    #[n(7)]
    SubmitFork(#[n(0)] ListingFork),
    /// A page of the proofs of forks that the node keeps: [`Answer::Forks`]. Every page but the
    /// last has [`Answer::MAX_FORKS`].
    #[n(8)]
    Forks(#[n(0)] SnapshotId, #[n(1)] u32),
}

/// A node's answer.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum Answer {
    /// What the node has.
    #[n(0)]
    Manifest(#[n(0)] Manifest),
    /// Bytes of the catalogue.
    #[n(1)]
    Chunk(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Listings.
    #[n(2)]
    Listings(#[n(0)] Vec<SignedListing>),
    /// Offers.
    #[n(3)]
    Offers(#[n(0)] Vec<SignedOffer>),
    /// Proofs of forks.
    #[n(4)]
    Forks(#[n(0)] Vec<ListingFork>),
    /// What was submitted is published.
    #[n(5)]
    Accepted,
    /// It was not.
    #[n(6)]
    Refused(#[n(0)] SubmitRefusal),
    /// The snapshot is not kept any more, or there is no such part of it.
    #[n(7)]
    Gone,
    /// Too many guests at once.
    #[n(8)]
    Busy,
}

/// Why a node does not publish what was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(index_only)]
#[non_exhaustive]
pub enum SubmitRefusal {
    /// It is not well formed, or not signed, or of another network.
    #[n(0)]
    Invalid,
    /// It is not valid at this time.
    #[n(1)]
    NotNow,
    /// It brings too little work.
    #[n(2)]
    TooLittleWork,
    /// Its provider has published as many as it may today.
    #[n(3)]
    OverQuota,
    /// There is no room for it.
    #[n(4)]
    Full,
    /// It contradicts another listing of its provider.
    #[n(5)]
    Fork,
    /// It is older than what is known.
    #[n(6)]
    Superseded,
}

/// Names a state of a node's catalogue: the hash of all of it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct SnapshotId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

/// What a node has, at one moment.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct Manifest {
    /// Names it.
    #[n(0)]
    pub snapshot: SnapshotId,
    /// Bytes of all listings: the concatenation of the canonical encodings of signed listings, in
    /// the order of their providers' ids.
    #[n(1)]
    pub bytes: u64,
    /// How many listings.
    #[n(2)]
    pub listings: u32,
    /// SHA-256 over the digests of the listings whose provider's id begins with the byte that is
    /// the place in this list: 256 of them.
    #[n(3)]
    pub buckets: Vec<BucketDigest>,
    /// How many proofs of forks.
    #[n(4)]
    pub forks: u32,
    /// SHA-256 over the canonical encodings of these proofs, in the order of their providers' ids.
    #[n(5)]
    pub forks_digest: BucketDigest,
}

/// Names the content of a bucket: the first 16 bytes of a SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct BucketDigest(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl Ask {
    /// Bytes of every ask, padded.
    pub const BYTES: usize = 3 << 10;
}

impl Answer {
    /// Bytes that answers are padded to: the smallest that holds it.
    pub const BUCKETS: [usize; 4] = [1 << 10, 16 << 10, 64 << 10, 320 << 10];
    /// Most listings or offers in one answer.
    pub const MAX_LISTINGS: usize = 256;
    /// Most proofs of forks in one answer.
    pub const MAX_FORKS: usize = 64;
}

impl Manifest {
    /// Buckets of a catalogue.
    pub const BUCKETS: usize = 256;
    /// Bytes of a chunk; the last one has what is left.
    pub const CHUNK_BYTES: usize = 256 << 10;

    /// How many chunks there are.
    #[must_use]
    pub fn chunks(&self) -> u64 {
        self.bytes.div_ceil(Self::CHUNK_BYTES as u64)
    }
}

macro_rules! scrubbed {
    ($($type:ident),*) => {$(
        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($type), "([scrubbed])"))
            }
        }
    )*};
}

scrubbed!(Ask, Answer, SnapshotId, Manifest, BucketDigest);
