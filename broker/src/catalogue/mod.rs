//! The catalogue: the current listing of every provider, bounded, and proofs against those that
//! contradicted themselves.
//!
//! It knows no clock: the time is an argument. All that it takes comes from strangers
//! and is checked in the order of what the check costs: size, form, network, time, whether it is
//! known, quota, work, and the signature last.

mod active;
mod entry;
mod forks;
mod functions;
mod insert;
mod places;
mod refusal;
mod store;

#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use dlambda_proto::{
    Authentic, Day, Listing, ListingDigest, ListingFork, NetworkId, ProviderId, SignedListing,
    Topic, UnixSeconds,
};
use sha2::{Digest as _, Sha256};

pub use self::entry::Standing;
pub use self::refusal::{Refusal, Refusals};

use self::active::Active;
use self::entry::{Entry, first_kept_day};
use self::forks::Forks;
use self::places::Places;
use crate::WorkCheck;

/// What a catalogue takes.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Rules {
    /// The network.
    pub network: NetworkId,
    /// Least effort that the work of a listing shows.
    pub effort: u64,
    /// Least effort that the work of a demand shows.
    pub demand_effort: u64,
    /// Most providers.
    pub capacity: usize,
    /// Most proofs of forks.
    pub fork_capacity: usize,
}

/// What became of something that the catalogue took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// The first of its provider. To be forwarded.
    New,
    /// The next of its provider. To be forwarded.
    Renewed,
    /// It is here already.
    Known,
}

/// The current listing of every provider. See the module.
#[derive(Clone, Debug)]
pub struct Catalogue {
    rules: Rules,
    work: Arc<dyn WorkCheck>,
    entries: BTreeMap<ProviderId, Entry>,
    /// Of the latest listings that have not ended.
    digests: BTreeMap<ListingDigest, ProviderId>,
    places: Places,
    forks: Forks,
    active: Active,
    refusals: Refusals,
    revision: u64,
}

impl Rules {
    /// Most providers, unless configured.
    pub const CAPACITY: usize = 20_000;
    /// Most proofs of forks, unless configured.
    pub const FORK_CAPACITY: usize = 4_096;

    /// Rules with the default capacities.
    #[must_use]
    pub fn new(network: NetworkId, effort: u64, demand_effort: u64) -> Self {
        Self {
            network,
            effort,
            demand_effort,
            capacity: Self::CAPACITY,
            fork_capacity: Self::FORK_CAPACITY,
        }
    }
}

impl Inserted {
    /// Whether others have to be told.
    #[must_use]
    pub fn is_news(self) -> bool {
        self != Self::Known
    }
}

impl Catalogue {
    /// An empty catalogue.
    #[must_use]
    pub fn new(rules: Rules, work: Arc<dyn WorkCheck>) -> Self {
        Self {
            rules,
            work,
            entries: BTreeMap::new(),
            digests: BTreeMap::new(),
            places: Places::new(rules.capacity),
            forks: Forks::new(rules.fork_capacity),
            active: Active::default(),
            refusals: Refusals::default(),
            revision: 0,
        }
    }

    /// What it takes.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes the canonical encoding of a signed listing.
    ///
    /// # Errors
    ///
    /// [`Refusal`]. It is [`Refusal::Fork`] if the listing contradicts one that is known: the
    /// provider is out, and the proof has to be published.
    pub fn insert_bytes(&mut self, bytes: &[u8], now: UnixSeconds) -> Result<Inserted, Refusal> {
        match SignedListing::from_bytes(bytes) {
            Ok(signed) => self.insert(signed, now),
            Err(error) => self.count(Err(error.into())),
        }
    }

    /// Takes a listing.
    ///
    /// # Errors
    ///
    /// Those of [`Catalogue::insert_bytes`].
    pub fn insert(&mut self, signed: SignedListing, now: UnixSeconds) -> Result<Inserted, Refusal> {
        let result = self.try_insert(signed, now);
        self.count(result)
    }

    /// Takes a proof: its provider is out for 30 days.
    ///
    /// # Errors
    ///
    /// [`Refusal`]. Both listings must bring their day's work, or proofs would be free.
    pub fn insert_fork(
        &mut self,
        fork: ListingFork,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let result = self.try_insert_fork(&fork, now);
        self.count(result)
    }

    /// Drops what is over. To be called every few minutes.
    pub fn prune(&mut self, now: UnixSeconds) {
        let over = self.entries.values().filter(|entry| {
            entry.latest.validity.until <= now && (entry.listed || entry.standing.is_senior)
        });
        let over: Vec<_> = over.map(|entry| entry.latest.provider).collect();
        for provider in over {
            if let Some(mut entry) = self.take(&provider) {
                entry.listed = false;
                entry.standing.is_senior = false;
                self.put(entry);
                self.active.forget(&provider);
            }
        }
        let first = first_kept_day(now);
        let mut gone = Vec::new();
        for (provider, entry) in &mut self.entries {
            if !entry.forget_before(first) {
                gone.push(*provider);
            }
        }
        for provider in gone {
            self.take(&provider);
        }
        if self.forks.prune(Day::of(now)) > 0 {
            self.revision += 1;
        }
        self.active.prune(now);
    }

    /// The current listing of a provider.
    #[must_use]
    pub fn get(&self, provider: &ProviderId) -> Option<&Authentic<Listing>> {
        let entry = self.entries.get(provider)?;
        entry.listed.then_some(&entry.latest)
    }

    /// Since when a provider has been listed.
    #[must_use]
    pub fn standing(&self, provider: &ProviderId) -> Option<Standing> {
        let entry = self.entries.get(provider)?;
        entry.listed.then_some(entry.standing)
    }

    /// The current listings in the order of their providers' ids.
    pub fn iter(&self) -> impl Iterator<Item = &Authentic<Listing>> {
        let entries = self.entries.values();
        entries.filter(|it| it.listed).map(|it| &it.latest)
    }

    /// How many listings there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// How many providers have places that no newcomer takes.
    #[must_use]
    pub fn seniors(&self) -> usize {
        self.places.seniors()
    }

    /// What a reconciliation compares: when each current listing begins, and its digest.
    pub fn digests(&self) -> impl Iterator<Item = (UnixSeconds, ListingDigest)> {
        let entries = self.entries.values().filter(|it| it.listed);
        entries.map(|it| (it.latest.validity.from, it.digest))
    }

    /// The current listing with this digest.
    #[must_use]
    pub fn signed(&self, digest: &ListingDigest) -> Option<&SignedListing> {
        let listing = self.get(self.digests.get(digest)?)?;
        Some(listing.signed())
    }

    /// The listings of a topic, at most `limit`. If there are more, all nodes choose the same of
    /// them, and others on another day: a guest takes what most of several nodes list.
    #[must_use]
    pub fn topic(&self, topic: Topic, now: UnixSeconds, limit: usize) -> Vec<SignedListing> {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/topic-order/v1\0");
        hash.update(topic.to_bytes());
        hash.update(Day::of(now).0.to_be_bytes());
        let order: [u8; 32] = hash.finalize().into();
        let place = |id: &ProviderId| -> [u8; 32] {
            std::array::from_fn(|at| id.as_bytes()[at] ^ order[at])
        };
        let in_topic = self.iter().filter(|it| it.is_in(topic));
        let mut found: Vec<_> = in_topic.map(|it| (place(&it.provider), it)).collect();
        found.sort_unstable_by_key(|(place, _)| *place);
        found.truncate(limit);
        found
            .into_iter()
            .map(|(_, it)| it.signed().clone())
            .collect()
    }

    /// The proofs, in the order of their providers' ids.
    pub fn forks(&self) -> impl ExactSizeIterator<Item = (&ProviderId, &ListingFork)> {
        self.forks.iter()
    }

    /// The proof against this provider.
    #[must_use]
    pub fn fork(&self, provider: &ProviderId) -> Option<&ListingFork> {
        self.forks.get(provider)
    }

    /// How often what was refused.
    #[must_use]
    pub fn refusals(&self) -> &Refusals {
        &self.refusals
    }

    /// Grows with every change of listings or proofs.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }
}
