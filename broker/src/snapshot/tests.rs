//! Parts of a snapshot, and what is no part of it.

use std::sync::OnceLock;

use dlambda_proto::{Answer, ListingError, encode};
use proptest::prelude::*;

use super::read::{Chunks, bucket, check_forks, check_manifest};
use super::*;
use crate::SnapshotError;
use crate::catalogue::tests::{NETWORK, NOON, Provider, at, authentic, catalogue, rules};

fn filled(providers: u64) -> Catalogue {
    let mut catalogue = catalogue(1_000);
    for number in 0..providers {
        let listing = Provider::new(number).publish(NOON);
        catalogue.insert(listing, at(NOON)).unwrap();
    }
    for number in 1_000..1_003 {
        let provider = Provider::new(number);
        let one = provider.next(NOON);
        let mut other = one.clone();
        other.plans[0].price += 1;
        let (one, other) = (provider.sign(&one), provider.sign(&other));
        let fork = authentic(&one).fork(&authentic(&other)).unwrap();
        catalogue.insert_fork(fork, at(NOON)).unwrap();
    }
    catalogue
}

fn chunks(snapshot: &Snapshot, manifest: Manifest) -> Result<usize, SnapshotError> {
    check_manifest(&manifest, &rules(1_000))?;
    let mut chunks = Chunks::new(manifest);
    for number in (0..chunks.total()).rev() {
        let chunk = snapshot.chunk(number).unwrap();
        chunks.put(number, chunk.to_vec())?;
    }
    assert!(chunks.is_complete());
    chunks.finish(NETWORK).map(|listings| listings.len())
}

#[test]
fn a_guest_puts_together_what_a_node_cut() {
    let catalogue = filled(900);
    let snapshot = Snapshot::of(&catalogue);
    let manifest = snapshot.manifest().clone();
    assert!(manifest.chunks() > 1, "{} bytes", manifest.bytes);
    println!("{} listings, {} bytes", manifest.listings, manifest.bytes);
    assert_eq!(chunks(&snapshot, manifest.clone()), Ok(900));
    assert_eq!(
        snapshot.chunk(u32::try_from(manifest.chunks()).unwrap()),
        None
    );
    let mut seen = 0;
    for number in 0..=u8::MAX {
        let page = snapshot.bucket(number, 0).unwrap();
        seen += bucket(&manifest, number, page, NETWORK).unwrap().len();
        assert!(snapshot.bucket(number, 1).is_none());
    }
    assert_eq!(seen, 900);
    let forks = snapshot.forks(0).unwrap();
    assert_eq!(check_forks(&manifest, forks), Ok(()));
    assert!(snapshot.forks(1).is_none());
    assert!(Snapshot::of(&catalogue).id() == snapshot.id());
    assert!(Snapshot::of(&filled(899)).id() != snapshot.id());
    assert_eq!(
        chunks(
            &Snapshot::of(&filled(0)),
            Snapshot::of(&filled(0)).manifest().clone()
        ),
        Ok(0)
    );
}

#[test]
fn pages_end_with_one_that_is_not_full() {
    assert_eq!(page_of(0, 0, 4), Some(0..0));
    assert_eq!(page_of(4, 0, 4), Some(0..4));
    assert_eq!(page_of(4, 1, 4), Some(4..4));
    assert_eq!(page_of(4, 2, 4), None);
    assert_eq!(page_of(5, 1, 4), Some(4..5));
    assert_eq!(page_of(5, u32::MAX, Answer::MAX_LISTINGS), None);
}

#[test]
fn every_wrong_manifest_has_its_error() {
    type Spoil = fn(&mut Manifest);
    let table: [(Spoil, SnapshotError); 9] = [
        (
            |it| _ = it.buckets.pop(),
            SnapshotError::Manifest("buckets"),
        ),
        (
            |it| it.listings = 1_001,
            SnapshotError::Manifest("listings"),
        ),
        (
            |it| it.forks = 5,
            SnapshotError::Manifest("proofs of forks"),
        ),
        (|it| it.bytes = 1 << 40, SnapshotError::Manifest("bytes")),
        (|it| it.bytes = 1, SnapshotError::Manifest("bytes")),
        (|it| it.snapshot.0[0] ^= 1, SnapshotError::SnapshotId),
        (|it| it.listings -= 1, SnapshotError::SnapshotId),
        (|it| it.buckets[0].0[0] ^= 1, SnapshotError::SnapshotId),
        (|it| it.forks_digest.0[0] ^= 1, SnapshotError::SnapshotId),
    ];
    let snapshot = Snapshot::of(&filled(20));
    for (spoil, error) in table {
        let mut manifest = snapshot.manifest().clone();
        spoil(&mut manifest);
        assert_eq!(chunks(&snapshot, manifest), Err(error));
    }
}

fn small_snapshot() -> &'static Snapshot {
    static SNAPSHOT: OnceLock<Snapshot> = OnceLock::new();
    SNAPSHOT.get_or_init(|| Snapshot::of(&filled(20)))
}

/// Serves these bytes under a manifest whose name fits.
fn serve(bytes: Vec<u8>, change: impl FnOnce(&mut Manifest)) -> Result<usize, SnapshotError> {
    let mut manifest = small_snapshot().manifest().clone();
    manifest.bytes = bytes.len() as u64;
    change(&mut manifest);
    manifest.snapshot = snapshot_id(&manifest, &bytes);
    let mut chunks = Chunks::new(manifest);
    chunks.put(0, bytes)?;
    chunks.finish(NETWORK).map(|listings| listings.len())
}

#[test]
fn every_wrong_chunk_has_its_error() {
    let snapshot = Snapshot::of(&filled(20));
    let bytes = snapshot.chunk(0).unwrap().to_vec();
    let malformed =
        SnapshotError::Listing(ListingError::Decode(dlambda_proto::DecodeError::Malformed));
    assert_eq!(serve(bytes.clone(), |_| {}), Ok(20));
    // Shorter or longer than announced.
    let mut chunks = Chunks::new(snapshot.manifest().clone());
    let expected = bytes.len() as u64;
    for found in [0, expected - 1, expected + 1] {
        let chunk = vec![0; usize::try_from(found).unwrap()];
        let error = SnapshotError::ChunkLength { expected, found };
        assert_eq!(chunks.put(0, chunk), Err(error));
    }
    let beyond = chunks.put(1, vec![0; 10]);
    let error = SnapshotError::ChunkLength {
        expected: 0,
        found: 10,
    };
    assert_eq!(beyond, Err(error));
    // Missing.
    let error = chunks.finish(NETWORK).unwrap_err();
    assert!(matches!(error, SnapshotError::ChunkLength { found: 0, .. }));
    // Not listings.
    assert_eq!(serve(vec![0x9f; 9_000], |_| {}), Err(malformed));
    assert_eq!(serve(vec![0x82; 9_000], |_| {}), Err(malformed));
    let mut cut = bytes.clone();
    cut.pop();
    assert_eq!(serve(cut, |_| {}), Err(malformed));
    // Another number of them.
    let error = SnapshotError::Count {
        expected: 19,
        found: 20,
    };
    assert_eq!(serve(bytes.clone(), |it| it.listings = 19), Err(error));
    // Twice the same.
    let first = encode(&authentic(&snapshot_first(&snapshot)).signed().clone());
    let doubled = [&first[..], &bytes].concat();
    let refused = serve(doubled, |it| it.listings = 21);
    assert_eq!(refused, Err(SnapshotError::Order));
    // Another one in a bucket.
    let at = snapshot
        .manifest()
        .buckets
        .iter()
        .position(|it| it.0 != bucket_digest(&[]).0);
    let at = u8::try_from(at.unwrap()).unwrap();
    let refused = serve(bytes, |it| it.buckets[usize::from(at)].0[0] ^= 1);
    assert_eq!(refused, Err(SnapshotError::BucketDigest(at)));
}

fn snapshot_first(snapshot: &Snapshot) -> SignedListing {
    let mut pages = (0..=u8::MAX).filter_map(|it| snapshot.bucket(it, 0)?.pop());
    pages.next().unwrap()
}

#[test]
fn every_wrong_bucket_and_page_of_proofs_has_its_error() {
    let snapshot = Snapshot::of(&filled(200));
    let manifest = snapshot.manifest();
    let mut crowded = (0..=u8::MAX).filter(|it| snapshot.bucket(*it, 0).unwrap().len() > 1);
    let number = crowded.next().unwrap();
    let page = snapshot.bucket(number, 0).unwrap();
    let read = |page: Vec<_>| bucket(manifest, number, page, NETWORK).map(|it| it.len());
    assert_eq!(read(page.clone()), Ok(page.len()));
    assert_eq!(read(vec![]), Err(SnapshotError::BucketDigest(number)));
    let reversed = page.iter().rev().cloned().collect();
    assert_eq!(read(reversed), Err(SnapshotError::Order));
    let elsewhere = bucket(manifest, number ^ 1, page, NETWORK);
    assert_eq!(elsewhere.unwrap_err(), SnapshotError::Order);
    let forks = snapshot.forks(0).unwrap();
    let error = SnapshotError::Count {
        expected: 3,
        found: 2,
    };
    assert_eq!(check_forks(manifest, &forks[1..]), Err(error));
    let mut swapped = forks.to_vec();
    swapped.swap(0, 1);
    assert_eq!(
        check_forks(manifest, &swapped),
        Err(SnapshotError::ForksDigest)
    );
}

proptest! {
    #[test]
    fn anything_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 1..2000)) {
        prop_assert!(serve(bytes, |it| it.listings = 3).is_err());
    }

    #[test]
    fn a_changed_byte_is_noticed(at in 0_usize..100_000, to: u8) {
        let snapshot = small_snapshot();
        let mut bytes = snapshot.chunk(0).unwrap().to_vec();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let mut chunks = Chunks::new(snapshot.manifest().clone());
        chunks.put(0, bytes).unwrap();
        prop_assert_eq!(chunks.finish(NETWORK).unwrap_err(), SnapshotError::SnapshotId);
    }
}
