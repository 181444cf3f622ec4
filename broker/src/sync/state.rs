//! What a source of a sync is at.

use std::collections::VecDeque;

use dlambda_proto::{
    Answer, Ask, BucketDigest, ListingFork, Manifest, NetworkId, ProviderId, SignedListing,
};

use crate::SourceFault;
use crate::snapshot::read::{Chunks, Read, bucket, check_forks};
use crate::tally::Lists;

/// A source's way through a sync.
#[derive(Default)]
pub(super) enum State {
    /// Its manifest is missing.
    #[default]
    Manifest,
    /// Its manifest is here.
    Waiting(Manifest),
    /// Its catalogue is taken whole.
    Whole {
        manifest: Manifest,
        chunks: Chunks,
        next: u32,
    },
    /// Some of its buckets are taken.
    Buckets(Buckets),
    /// Its proofs of forks are taken.
    Forks {
        manifest: Manifest,
        lists: Lists,
        pages: Vec<ListingFork>,
    },
    /// Everything is here.
    Done(Lists),
}

/// What follows from an answer.
pub(super) enum Step {
    To(State),
    /// All its listings are here; these may be new.
    Listings(Manifest, Lists, Vec<Read>),
    /// All its proofs are here.
    Forks(Manifest, Lists, Vec<ListingFork>),
}

/// The catalogue that others are compared with.
pub(super) struct Reference {
    pub(super) buckets: Vec<BucketDigest>,
    pub(super) lists: Lists,
    /// The sets of proofs that were taken.
    pub(super) forks: Vec<BucketDigest>,
}

/// The buckets of a source that differ from the reference.
pub(super) struct Buckets {
    manifest: Manifest,
    /// The one that is being taken comes first.
    missing: VecDeque<u8>,
    page: u32,
    listings: Vec<SignedListing>,
    /// All of them, as far as they are here, but for those that differ.
    lists: Lists,
    new: Vec<Read>,
}

impl State {
    pub(super) fn lists(&self) -> Option<&Lists> {
        match self {
            Self::Done(lists) => Some(lists),
            _ => None,
        }
    }

    pub(super) fn take_chunk(
        self,
        number: u32,
        chunk: Vec<u8>,
        network: NetworkId,
    ) -> Result<Step, SourceFault> {
        let Self::Whole {
            manifest,
            mut chunks,
            next,
        } = self
        else {
            return Err(SourceFault::WrongAnswer);
        };
        chunks.put(number, chunk)?;
        let state = Self::Whole {
            manifest,
            chunks,
            next,
        };
        state.finish_if_complete(network)
    }

    pub(super) fn finish_if_complete(self, network: NetworkId) -> Result<Step, SourceFault> {
        match self {
            Self::Whole {
                manifest, chunks, ..
            } if chunks.is_complete() => {
                let reads = chunks.finish(network)?;
                let lists = reads.iter().map(|it| (it.provider, it.digest)).collect();
                Ok(Step::Listings(manifest, lists, reads))
            }
            state => Ok(Step::To(state)),
        }
    }

    pub(super) fn take_forks(self, forks: Vec<ListingFork>) -> Result<Step, SourceFault> {
        let Self::Forks {
            manifest,
            lists,
            mut pages,
        } = self
        else {
            return Err(SourceFault::WrongAnswer);
        };
        let is_last = forks.len() < Answer::MAX_FORKS;
        pages.extend(forks.into_iter().take(Answer::MAX_FORKS));
        if is_last || pages.len() as u64 > u64::from(manifest.forks) {
            check_forks(&manifest, &pages)?;
            return Ok(Step::Forks(manifest, lists, pages));
        }
        Ok(Step::To(Self::Forks {
            manifest,
            lists,
            pages,
        }))
    }
}

impl Reference {
    /// The buckets that differ.
    pub(super) fn different_from(&self, manifest: &Manifest) -> Vec<u8> {
        let pairs = self.buckets.iter().zip(&manifest.buckets);
        let numbered = (0..=u8::MAX).zip(pairs);
        let different = numbered.filter(|(_, (ours, theirs))| ours != theirs);
        different.map(|(number, _)| number).collect()
    }

    /// Begins with the buckets of a source that differ.
    pub(super) fn start(&self, manifest: Manifest, different: Vec<u8>) -> Step {
        let is_same = |it: &&ProviderId| different.binary_search(&it.as_bytes()[0]).is_err();
        let same = self.lists.iter().filter(|(provider, _)| is_same(provider));
        let buckets = Buckets {
            lists: same
                .map(|(provider, digest)| (*provider, *digest))
                .collect(),
            manifest,
            missing: different.into(),
            page: 0,
            listings: Vec::new(),
            new: Vec::new(),
        };
        buckets.step()
    }
}

impl Buckets {
    pub(super) fn ask(&self) -> Option<Ask> {
        let bucket = *self.missing.front()?;
        Some(Ask::Bucket(self.manifest.snapshot, bucket, self.page))
    }

    pub(super) fn take(
        mut self,
        page: Vec<SignedListing>,
        network: NetworkId,
    ) -> Result<Step, SourceFault> {
        let is_last = page.len() < Answer::MAX_LISTINGS;
        self.listings
            .extend(page.into_iter().take(Answer::MAX_LISTINGS));
        self.page += 1;
        let most = u64::from(self.manifest.listings);
        if !is_last && self.listings.len() as u64 <= most {
            return Ok(Step::To(State::Buckets(self)));
        }
        let Some(number) = self.missing.pop_front() else {
            return Err(SourceFault::WrongAnswer);
        };
        let listings = std::mem::take(&mut self.listings);
        let reads = bucket(&self.manifest, number, listings, network)?;
        (self.lists).extend(reads.iter().map(|it| (it.provider, it.digest)));
        self.new.extend(reads);
        self.page = 0;
        Ok(self.step())
    }

    fn step(self) -> Step {
        if self.missing.is_empty() {
            Step::Listings(self.manifest, self.lists, self.new)
        } else {
            Step::To(State::Buckets(self))
        }
    }
}
