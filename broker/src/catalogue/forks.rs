//! Proofs that providers contradicted themselves.
//!
//! A proof keeps its provider out for 30 days, counted from the later of its two listings, so that
//! all nodes forget it on one day and none brings it back to the others. There is one proof a
//! provider.
//!
//! # When there are too many
//!
//! Identities to throw away are as cheap as a day's work, and so are proofs against them. Their
//! owner would use them to push out the proof against a provider that has been listed for long. So
//! the proof goes whose provider had been listed for the fewest days, and of these the one with
//! the least work. Its owner can come back with that identity, which is worth no more than a new
//! one: both are new here, and need the day's work.

use std::collections::{BTreeMap, BTreeSet};

use dlambda_proto::{Day, Listing, ListingFork, ProviderId};

/// For how many days a proof is kept.
const KEPT_DAYS: u64 = 30;

/// The proofs.
#[derive(Clone, Debug)]
pub(super) struct Forks {
    capacity: usize,
    proofs: BTreeMap<ProviderId, Proof>,
    ranks: BTreeSet<ProofRank>,
}

#[derive(Clone, Debug)]
struct Proof {
    fork: ListingFork,
    rank: ProofRank,
}

/// The order in which proofs make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ProofRank {
    /// For how many days the provider had been listed.
    pub(super) days: u32,
    /// The lesser effort of the two listings.
    pub(super) effort: u64,
    /// The first day on which the proof is not kept any more.
    pub(super) ends: Day,
    pub(super) provider: ProviderId,
}

/// The first day on which a proof of these two listings is not kept any more.
pub(super) fn ends(one: &Listing, other: &Listing) -> Day {
    let later = one.work.day.max(other.work.day);
    Day(later.0.saturating_add(KEPT_DAYS))
}

impl Forks {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            proofs: BTreeMap::new(),
            ranks: BTreeSet::new(),
        }
    }

    pub(super) fn contains(&self, provider: &ProviderId) -> bool {
        self.proofs.contains_key(provider)
    }

    /// Until when the proof against this provider is kept.
    pub(super) fn end_of(&self, provider: &ProviderId) -> Option<Day> {
        self.proofs.get(provider).map(|proof| proof.rank.ends)
    }

    pub(super) fn get(&self, provider: &ProviderId) -> Option<&ListingFork> {
        self.proofs.get(provider).map(|proof| &proof.fork)
    }

    /// Keeps a proof. Returns whether there is room for it.
    pub(super) fn insert(&mut self, fork: ListingFork, mut rank: ProofRank) -> bool {
        if let Some(held) = self.remove(&rank.provider) {
            rank.days = rank.days.max(held.rank.days);
        }
        if self.proofs.len() >= self.capacity {
            match self.ranks.first().copied() {
                Some(least) if least < rank => self.remove(&least.provider),
                _ => return false,
            };
        }
        self.ranks.insert(rank);
        self.proofs.insert(rank.provider, Proof { fork, rank });
        true
    }

    pub(super) fn prune(&mut self, today: Day) -> usize {
        let over = self.ranks.iter().filter(|rank| rank.ends <= today);
        let over: Vec<_> = over.map(|rank| rank.provider).collect();
        for provider in &over {
            self.remove(provider);
        }
        over.len()
    }

    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&ProviderId, &ListingFork)> {
        self.proofs.iter().map(|(id, proof)| (id, &proof.fork))
    }

    /// The proofs with what decides which of them make room.
    pub(super) fn ranked(&self) -> impl Iterator<Item = (&ProofRank, &ListingFork)> {
        self.proofs.values().map(|it| (&it.rank, &it.fork))
    }

    fn remove(&mut self, provider: &ProviderId) -> Option<Proof> {
        let proof = self.proofs.remove(provider)?;
        self.ranks.remove(&proof.rank);
        Some(proof)
    }
}
