//! What most sources list.
//!
//! Everything valid that any source shows is *known*. A provider is *chosen* if more than half of
//! the sources that answered list it, and of its listings one that a bootstrap node lists. So with
//! one or two sources, all must agree. A provider that one source alone shows to one guest would
//! know its caller.
//!
//! News take their time: a source may be one listing behind. So sources that list a listing, the
//! one directly before it or the one directly after it count together for the provider. Of these
//! listings, as far as a bootstrap node lists them exactly, the one is chosen that most sources
//! list exactly, and of two such the earlier: a successor that others alone show, however many, is
//! not chosen, since its keys could be for one guest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dlambda_proto::{Listing, ListingDigest, ListingFork, ProviderId, SignedListing, UnixSeconds};

use crate::snapshot::read::Read;
use crate::{Catalogue, Refusal, Rules, WorkCheck};

/// A valid listing that some source shows.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it says.
    pub listing: Listing,
    /// Its bytes.
    pub signed: SignedListing,
    /// How many sources list it, or the one directly before or after it.
    pub votes: usize,
    /// Whether these are most, and a bootstrap node is among them.
    pub is_chosen: bool,
}

/// What a source lists.
pub(crate) type Lists = BTreeMap<ProviderId, ListingDigest>;

/// Least size of what all bootstrap nodes list from which on sources are compared with it.
const COMPARABLE: usize = 4;

/// Listings of several sources, each checked once.
pub(crate) struct Pool {
    /// Checks, and finds contradictions. It has room for all that sources may show.
    catalogue: Catalogue,
    listings: BTreeMap<ListingDigest, Pooled>,
    found: Vec<ListingFork>,
    now: UnixSeconds,
}

struct Pooled {
    claims: Listing,
    signed: SignedListing,
    is_valid: bool,
}

impl Pool {
    pub(crate) fn new(rules: Rules, work: Arc<dyn WorkCheck>, now: UnixSeconds) -> Self {
        let room = Rules {
            // Sources and their spares are fewer than 32.
            capacity: rules.capacity.saturating_mul(32),
            fork_capacity: rules.fork_capacity.saturating_mul(32),
            ..rules
        };
        Self {
            catalogue: Catalogue::new(room, work),
            listings: BTreeMap::new(),
            found: Vec::new(),
            now,
        }
    }

    /// Takes what a source lists. The error is that it lists what no node takes.
    pub(crate) fn add(&mut self, read: Read) -> Result<(), Refusal> {
        if self.listings.contains_key(&read.digest) {
            return Ok(());
        }
        let is_valid = match self.catalogue.insert(read.signed.clone(), self.now) {
            Ok(_) | Err(Refusal::Superseded) => true,
            Err(Refusal::Fork(fork)) => {
                self.found.push(*fork);
                false
            }
            Err(refusal) if refusal.is_misbehaviour() => return Err(refusal),
            Err(_) => false,
        };
        let pooled = Pooled {
            claims: read.claims,
            signed: read.signed,
            is_valid,
        };
        self.listings.insert(read.digest, pooled);
        Ok(())
    }

    /// Takes a proof that a source has. The error is that it proves nothing.
    pub(crate) fn add_fork(&mut self, fork: ListingFork) -> Result<(), Refusal> {
        match self.catalogue.insert_fork(fork, self.now) {
            Err(refusal) if refusal.is_misbehaviour() => Err(refusal),
            _ => Ok(()),
        }
    }

    /// Whether a source withholds: it lists less than three quarters of what all these bootstrap
    /// nodes list.
    pub(crate) fn withholds(&self, lists: &Lists, bootstrap: &[&Lists]) -> bool {
        let Some((first, rest)) = bootstrap.split_first() else {
            return false;
        };
        let is_valid = |digest| self.valid(digest).is_some();
        let common = first.iter().filter(|(_, digest)| is_valid(digest));
        let common = common.map(|(provider, _)| provider);
        let common: Vec<_> = common
            .filter(|it| rest.iter().all(|lists| lists.contains_key(it)))
            .collect();
        let listed = common.iter().filter(|it| lists.contains_key(it)).count();
        common.len() >= COMPARABLE && listed * 4 < common.len() * 3
    }

    /// Counts. Each vote is what a source lists, and whether it is a bootstrap node.
    pub(crate) fn tally(&self, votes: &[(bool, &Lists)]) -> Vec<Known> {
        let mut by_provider = BTreeMap::<ProviderId, Vec<(ListingDigest, &Pooled)>>::new();
        for (digest, pooled) in &self.listings {
            if self.valid(digest).is_some() {
                let listings = by_provider.entry(pooled.claims.provider).or_default();
                listings.push((*digest, pooled));
            }
        }
        let known = by_provider.into_iter();
        known
            .filter_map(|(provider, listings)| self.choose(&provider, &listings, votes))
            .collect()
    }

    /// The proofs that sources have, and those found here.
    pub(crate) fn forks(&self) -> Vec<ListingFork> {
        self.catalogue.forks().map(|(_, it)| it.clone()).collect()
    }

    /// The proofs that follow from what different sources list.
    pub(crate) fn found(&self) -> Vec<ListingFork> {
        let mut seen = BTreeSet::new();
        let mut found = self.found.clone();
        found.retain(|fork| seen.insert((fork.one.digest(), fork.other.digest())));
        found
    }

    fn valid(&self, digest: &ListingDigest) -> Option<&Pooled> {
        let pooled = self.listings.get(digest)?;
        let is_out = self.catalogue.fork(&pooled.claims.provider).is_some();
        (pooled.is_valid && !is_out).then_some(pooled)
    }

    fn choose(
        &self,
        provider: &ProviderId,
        listings: &[(ListingDigest, &Pooled)],
        votes: &[(bool, &Lists)],
    ) -> Option<Known> {
        let mut best: Option<(usize, Known)> = None;
        for (digest, pooled) in listings {
            let mut exact = 0;
            let (mut near, mut of_bootstrap) = (0, false);
            for (is_bootstrap, lists) in votes {
                let listed = lists.get(provider);
                let Some(other) = listed.and_then(|it| self.valid(it)) else {
                    continue;
                };
                let is_same = listed == Some(digest);
                let is_next = other.claims.previous == Some(*digest)
                    || pooled.claims.previous.as_ref() == listed;
                if is_same || is_next {
                    exact += usize::from(is_same);
                    near += 1;
                    of_bootstrap |= *is_bootstrap && is_same;
                }
            }
            let known = Known {
                listing: pooled.claims.clone(),
                signed: pooled.signed.clone(),
                votes: near,
                is_chosen: near * 2 > votes.len() && of_bootstrap,
            };
            if best
                .as_ref()
                .is_none_or(|it| is_better(&(exact, known.clone()), it))
            {
                best = Some((exact, known));
            }
        }
        best.map(|(_, known)| known)
    }
}

/// Chosen before known; then what more sources list exactly; then of chosen ones the earlier, and
/// of others the later.
fn is_better((exact, known): &(usize, Known), (other_exact, other): &(usize, Known)) -> bool {
    let earlier = known.listing.number < other.listing.number;
    (known.is_chosen, exact, known.is_chosen == earlier)
        > (other.is_chosen, other_exact, other.is_chosen != earlier)
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} listings)", self.listings.len())
    }
}
