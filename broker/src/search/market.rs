//! What a guest knows of the market, and what it may choose from.

use std::collections::{BTreeMap, HashSet};

use dlambda_proto::{
    Authentic, Capacity, Class, Day, Endpoint, Listing, ListingFork, Offer, ProviderId,
    Requirement, Requirements, SignedListing, UnixSeconds,
};

use crate::tally::Known;
use crate::{LookedUp, NoneFits, Rules, Synced};

/// For how many days a proof of a fork is kept.
const FORK_DAYS: u64 = 30;

/// A guest's directory: the providers it knows, those it may choose, and proofs against others.
#[derive(Clone)]
pub struct Market {
    rules: Rules,
    entries: BTreeMap<ProviderId, MarketEntry>,
    forks: BTreeMap<ProviderId, ListingFork>,
    /// Where the providers of these proofs are: read once, not before each dial.
    forked_at: HashSet<Endpoint>,
    /// The latest offers. They are not stored: they are of use for half an hour.
    offers: BTreeMap<ProviderId, Offer>,
    last_sync: Option<UnixSeconds>,
}

/// A provider that most sources list: what a search finds.
#[derive(Clone)]
pub struct Listed {
    listing: Listing,
    signed: SignedListing,
    since: UnixSeconds,
    capacity: Option<Capacity>,
}

#[derive(Clone)]
pub(crate) struct MarketEntry {
    pub(crate) listing: Listing,
    pub(crate) signed: SignedListing,
    pub(crate) since: UnixSeconds,
    pub(crate) is_chosen: bool,
    /// Whether it was, when it was put here.
    pub(crate) was_chosen: bool,
}

/// All that is stored of a market.
pub(crate) struct MarketParts {
    pub(crate) entries: Vec<MarketEntry>,
    pub(crate) forks: Vec<ListingFork>,
    pub(crate) last_sync: Option<UnixSeconds>,
}

impl Listed {
    /// What the provider says of itself.
    #[must_use]
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// The signed bytes.
    #[must_use]
    pub fn signed(&self) -> &SignedListing {
        &self.signed
    }

    /// Since when this guest knows the provider.
    #[must_use]
    pub fn since(&self) -> UnixSeconds {
        self.since
    }

    /// What the provider offered within the last half hour, if this guest asked.
    #[must_use]
    pub fn capacity(&self) -> Option<Capacity> {
        self.capacity
    }
}

impl Market {
    /// An empty market. It keeps twice as many providers as `rules.capacity`: nodes need not all
    /// have the same.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            entries: BTreeMap::new(),
            forks: BTreeMap::new(),
            forked_at: HashSet::new(),
            offers: BTreeMap::new(),
            last_sync: None,
        }
    }

    /// The rules it was made with.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Takes what a sync brought: only what most of its sources list is chosen from now on. Returns
    /// the proofs that are to be submitted to a node: those that follow from this sync alone, since
    /// others would say what this guest was shown before.
    pub fn update(&mut self, synced: Synced, now: UnixSeconds) -> Vec<ListingFork> {
        for entry in self.entries.values_mut() {
            entry.is_chosen = false;
        }
        self.last_sync = Some(now);
        self.put_forks(synced.forks);
        self.merge(synced.known, synced.found, now)
    }

    /// Takes what a look-up brought, beside what was chosen before. Returns the proofs that are to
    /// be submitted to a node, as [`Market::update`] does.
    pub fn absorb(&mut self, looked_up: LookedUp, now: UnixSeconds) -> Vec<ListingFork> {
        self.merge(looked_up.known, looked_up.found, now)
    }

    /// Takes the offers of providers that are listed here.
    pub fn put_offers(&mut self, offers: Vec<Authentic<Offer>>) {
        for offer in offers {
            if self.entries.contains_key(&offer.provider) {
                let (offer, _) = offer.into_parts();
                self.offers.insert(offer.provider, offer);
            }
        }
    }

    /// The chosen providers that meet the requirements, in the order of their ids.
    ///
    /// # Errors
    ///
    /// [`NoneFits`] if there is none: it names the requirement that excluded most.
    pub fn find(&self, wanted: &Requirements, now: UnixSeconds) -> Result<Vec<Listed>, NoneFits> {
        let mut listed = Vec::new();
        let mut counts = BTreeMap::<Requirement, usize>::new();
        let mut providers = 0;
        for entry in self.chosen(now) {
            providers += 1;
            let unmet = wanted.unmet_by(&entry.listing);
            if unmet.is_empty() {
                listed.push(self.listed(entry, now));
            }
            for requirement in unmet {
                *counts.entry(requirement).or_default() += 1;
            }
        }
        if !listed.is_empty() {
            return Ok(listed);
        }
        let most = counts.iter().rev().max_by_key(|(_, count)| **count);
        match most {
            Some((most, lacking)) => Err(NoneFits::Lacking {
                providers,
                most: *most,
                lacking: *lacking,
                counts: counts.clone(),
            }),
            None => Err(NoneFits::NoProvider),
        }
    }

    /// The same, of those that have offered capacity for the class of the requirements within the
    /// last half hour.
    ///
    /// # Errors
    ///
    /// The same.
    pub fn find_offering(
        &self,
        wanted: &Requirements,
        now: UnixSeconds,
    ) -> Result<Vec<Listed>, NoneFits> {
        let mut listed = self.find(wanted, now)?;
        listed.retain(|it| it.capacity.is_some_and(|it| it > Capacity::None));
        if listed.is_empty() {
            return Err(NoneFits::NoOffer);
        }
        Ok(listed)
    }

    /// What a search for offers asks for.
    #[must_use]
    pub fn class_of(wanted: &Requirements) -> Class {
        Class::that_covers(wanted)
    }

    /// The provider's chosen listing.
    #[must_use]
    pub fn get(&self, provider: &ProviderId, now: UnixSeconds) -> Option<Listed> {
        let entry = self.entries.get(provider)?;
        let is_valid = entry.is_chosen && entry.listing.check_time(now).is_ok();
        is_valid.then(|| self.listed(entry, now))
    }

    /// Whether a provider is known at all, chosen or not.
    #[must_use]
    pub fn knows(&self, provider: &ProviderId) -> bool {
        self.entries.contains_key(provider)
    }

    /// The proof against a provider, if there is one.
    #[must_use]
    pub fn fork(&self, provider: &ProviderId) -> Option<&ListingFork> {
        self.forks.get(provider)
    }

    /// Whether a proof is against a provider that one of its listings has at this endpoint: then it
    /// is better not even dialled, since hanging up would say that the proof is known.
    #[must_use]
    pub fn is_forked_at(&self, endpoint: &Endpoint) -> bool {
        self.forked_at.contains(endpoint)
    }

    /// When the last sync ended.
    #[must_use]
    pub fn last_sync(&self) -> Option<UnixSeconds> {
        self.last_sync
    }

    /// How many providers are chosen, and how many are known.
    #[must_use]
    pub fn counts(&self, now: UnixSeconds) -> (usize, usize) {
        (self.chosen(now).count(), self.entries.len())
    }

    /// The overlay nodes of chosen providers that `reaches` accepts, one endpoint each, and the
    /// days since they are known: from these sources are drawn. Nodes that name one of `bootstrap`,
    /// all endpoints of all bootstrap nodes, are left out: they are sources already.
    ///
    /// Other nodes that share an endpoint count as several: a listing may name the endpoint of a
    /// stranger, which must not lose its place to that.
    pub fn nodes(
        &self,
        now: UnixSeconds,
        reaches: impl Fn(&Endpoint) -> bool,
        bootstrap: &[Endpoint],
    ) -> Vec<(Endpoint, u64)> {
        let nodes = self.chosen(now).filter_map(|entry| {
            if entry.listing.node.iter().any(|it| bootstrap.contains(it)) {
                return None;
            }
            let endpoint = entry.listing.node.iter().find(|it| reaches(it))?;
            let days = now.0.saturating_sub(entry.since.0) / (24 * 3600);
            Some((*endpoint, days))
        });
        nodes.collect()
    }

    /// Drops what is over.
    pub fn prune(&mut self, now: UnixSeconds) {
        (self.entries).retain(|_, it| it.listing.validity.until > now);
        let today = Day::of(now).0;
        self.forks.retain(|_, fork| {
            let one = fork.one.claims(self.rules.network);
            let other = fork.other.claims(self.rules.network);
            let day = |it: Listing| it.work.day.0;
            let last = one.map(day).ok().max(other.map(day).ok());
            last.is_some_and(|day| day.saturating_add(FORK_DAYS) > today)
        });
        self.forked_at = self.endpoints_of_forks();
        self.offers.retain(|_, it| it.check_time(now).is_ok());
    }

    pub(crate) fn parts(&self) -> MarketParts {
        MarketParts {
            entries: self.entries.values().cloned().collect(),
            forks: self.forks.values().cloned().collect(),
            last_sync: self.last_sync,
        }
    }

    pub(crate) fn from_parts(rules: Rules, parts: MarketParts, now: UnixSeconds) -> Self {
        let mut market = Self::new(rules);
        let entries = parts.entries.into_iter();
        market.entries = entries.map(|it| (it.listing.provider, it)).collect();
        market.last_sync = parts.last_sync;
        market.put_forks(parts.forks);
        market.prune(now);
        market.bound();
        market
    }

    fn chosen(&self, now: UnixSeconds) -> impl Iterator<Item = &MarketEntry> {
        let entries = self.entries.values();
        entries.filter(move |it| it.is_chosen && it.listing.check_time(now).is_ok())
    }

    fn listed(&self, entry: &MarketEntry, now: UnixSeconds) -> Listed {
        let offer = self.offers.get(&entry.listing.provider);
        let offer = offer.filter(|it| it.check_time(now).is_ok());
        Listed {
            listing: entry.listing.clone(),
            signed: entry.signed.clone(),
            since: entry.since,
            capacity: offer.map(|it| it.capacity),
        }
    }

    fn merge(
        &mut self,
        known: Vec<Known>,
        found: Vec<ListingFork>,
        now: UnixSeconds,
    ) -> Vec<ListingFork> {
        self.put_forks(found.clone());
        for known in known {
            if self.forks.contains_key(&known.listing.provider) {
                continue;
            }
            if let Some(fork) = self.contradiction(&known) {
                // It stays here: a listing that one guest alone was shown would name that guest.
                self.put_forks(vec![fork]);
                continue;
            }
            self.put(known, now);
        }
        self.prune(now);
        self.bound();
        found
    }

    /// The proof, if a listing contradicts what most sources of an earlier sync listed.
    fn contradiction(&self, known: &Known) -> Option<ListingFork> {
        let held = self.entries.get(&known.listing.provider)?;
        if !held.was_chosen || !held.listing.contradicts(&known.listing) {
            return None;
        }
        let held = held.signed.clone().authenticate(self.rules.network);
        let known = known.signed.clone().authenticate(self.rules.network);
        held.ok()?.fork(&known.ok()?)
    }

    fn put(&mut self, known: Known, now: UnixSeconds) {
        let held = self.entries.get(&known.listing.provider);
        // What most sources listed is what later ones are measured by.
        if !known.is_chosen && held.is_some_and(|it| it.was_chosen) {
            return;
        }
        let entry = MarketEntry {
            since: held.map_or(now, |it| it.since),
            is_chosen: known.is_chosen,
            was_chosen: known.is_chosen,
            listing: known.listing,
            signed: known.signed,
        };
        self.entries.insert(entry.listing.provider, entry);
    }

    fn put_forks(&mut self, forks: Vec<ListingFork>) {
        for fork in forks {
            let Ok(claims) = fork.one.claims(self.rules.network) else {
                continue;
            };
            self.entries.remove(&claims.provider);
            self.offers.remove(&claims.provider);
            // A guest has no use for more proofs than a node keeps.
            if self.forks.len() < self.rules.fork_capacity {
                self.forks.entry(claims.provider).or_insert(fork);
            }
        }
        self.forked_at = self.endpoints_of_forks();
    }

    fn endpoints_of_forks(&self) -> HashSet<Endpoint> {
        let listings = self
            .forks
            .values()
            .flat_map(|fork| [&fork.one, &fork.other]);
        let claims = listings.filter_map(|it| it.claims(self.rules.network).ok());
        claims.flat_map(|it| it.endpoints).collect()
    }

    /// Keeps twice as many providers as a node: chosen ones first, then those known for longest.
    fn bound(&mut self) {
        let most = self.rules.capacity.saturating_mul(2);
        if self.entries.len() <= most {
            return;
        }
        let mut order: Vec<_> = self.entries.values().collect();
        order.sort_by_key(|it| (!it.is_chosen, it.since, it.listing.provider));
        let gone: Vec<_> = order[most..].iter().map(|it| it.listing.provider).collect();
        for provider in gone {
            self.entries.remove(&provider);
        }
    }
}

impl std::fmt::Debug for Market {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Market({} providers)", self.entries.len())
    }
}

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Listed([scrubbed])")
    }
}
