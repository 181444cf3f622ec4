//! Who has a place in the catalogue when there are more providers than places.
//!
//! A provider that has been listed for seven days becomes *senior* when it renews its listing, as
//! long as there are senior places, three quarters of all, and stays so as long as its listings
//! leave no gap. The others are *newcomers*: they share what is left, a quarter at least. When
//! nothing is left, the newcomer with the least work goes, and never a senior provider, whatever
//! number of newcomers comes.

use std::collections::BTreeSet;

use dlambda_proto::{Listing, ProviderId, UnixSeconds, Work};

use super::entry::Entry;

/// Counts the places.
#[derive(Clone, Debug)]
pub(super) struct Places {
    capacity: usize,
    seniors: usize,
    newcomers: BTreeSet<Rank>,
}

/// The order in which newcomers lose their places: least work first, ties by a hash that follows
/// from provider and day, so that it cannot be chosen without more work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    effort: u64,
    tie: [u8; 32],
    provider: ProviderId,
}

impl Rank {
    pub(super) fn of(listing: &Listing, effort: u64) -> Self {
        let Listing {
            network, provider, ..
        } = listing;
        Self {
            effort,
            tie: Work::for_listing(*network, provider, listing.work.day),
            provider: *provider,
        }
    }

    fn of_entry(entry: &Entry) -> Self {
        // Who is not listed any more makes room first.
        let effort = if entry.listed { entry.effort } else { 0 };
        Self::of(&entry.latest, effort)
    }
}

impl Places {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            seniors: 0,
            newcomers: BTreeSet::new(),
        }
    }

    /// Who has to go if this newcomer comes. The error is that it does not get a place.
    pub(super) fn make_room_for(&self, rank: &Rank) -> Result<Option<ProviderId>, NoRoom> {
        if self.seniors + self.newcomers.len() < self.capacity {
            return Ok(None);
        }
        match self.newcomers.first() {
            Some(least) if least < rank => Ok(Some(least.provider)),
            _ => Err(NoRoom),
        }
    }

    pub(super) fn enter(&mut self, entry: &Entry) {
        if entry.standing.is_senior {
            self.seniors += 1;
        } else {
            self.newcomers.insert(Rank::of_entry(entry));
        }
    }

    pub(super) fn leave(&mut self, entry: &Entry) {
        if entry.standing.is_senior {
            self.seniors = self.seniors.saturating_sub(1);
        } else {
            self.newcomers.remove(&Rank::of_entry(entry));
        }
    }

    /// Makes a provider senior that has been listed for long enough, if there is a senior place.
    /// It must have left its place as a newcomer.
    pub(super) fn promote(&self, entry: &mut Entry, now: UnixSeconds) {
        if self.has_senior_place() && entry.standing.is_long_enough(now) {
            entry.standing.is_senior = true;
        }
    }

    pub(super) fn has_senior_place(&self) -> bool {
        self.seniors < self.capacity.saturating_mul(3) / 4
    }

    pub(super) fn seniors(&self) -> usize {
        self.seniors
    }
}

/// The newcomer shows less work than all who have places.
#[derive(Clone, Debug)]
pub(super) struct NoRoom;
