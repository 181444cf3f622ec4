//! Active search: demands that were seen, and the latest offer of each listed provider. With them
//! its latest statement of how often functions are called.

use std::collections::{BTreeMap, BTreeSet};

use dlambda_proto::{
    Authentic, Class, Day, Demand, FunctionDemand, Listing, Offer, ProviderId, SignedOffer,
    UnixSeconds, Work, encode,
};
use sha2::{Digest as _, Sha256};

use super::{Catalogue, Inserted, Refusal};

/// Most demands that are remembered. Those of the earliest day go first: then a demand could be
/// published again, which costs its copier nothing and its readers one answer in ten minutes at
/// most.
const MAX_DEMANDS: usize = 16_384;

/// The latest offers, and the demands of these days.
#[derive(Clone, Debug, Default)]
pub(super) struct Active {
    offers: BTreeMap<ProviderId, Authentic<Offer>>,
    /// The latest of each listed provider.
    pub(super) function_demands: BTreeMap<ProviderId, FunctionDemand>,
    demands: BTreeSet<(Day, [u8; 32])>,
    /// Classes of the demands that came since they were last taken.
    demanded: BTreeSet<Class>,
}

impl Catalogue {
    /// Takes an offer of a listed provider: one in ten minutes.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn insert_offer(
        &mut self,
        signed: SignedOffer,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let result = self.try_insert_offer(signed, now);
        self.count(result)
    }

    /// Takes a demand that has not been seen.
    ///
    /// # Errors
    ///
    /// [`Refusal`].
    pub fn insert_demand(
        &mut self,
        demand: &Demand,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let result = self.try_insert_demand(demand, now);
        self.count(result)
    }

    /// The offers that are of use of providers whose machines belong to the class, the newest
    /// first, at most `limit`: what is free is free for every class of the machine.
    #[must_use]
    pub fn offers(&self, class: Class, now: UnixSeconds, limit: usize) -> Vec<SignedOffer> {
        let offers = self.active.offers.values();
        let belongs = |it: &Authentic<Offer>| {
            let listing = self.get(&it.provider);
            listing.is_some_and(|it| class.is_met_by(&it.resources))
        };
        let fits = |it: &&Authentic<Offer>| it.check_time(now).is_ok() && belongs(it);
        let mut offers: Vec<_> = offers.filter(fits).collect();
        offers.sort_by_key(|it| std::cmp::Reverse(it.minute));
        offers.truncate(limit);
        offers.into_iter().map(|it| it.signed().clone()).collect()
    }

    /// The classes that were demanded since this was last asked: a provider answers them.
    pub fn take_demanded(&mut self) -> BTreeSet<Class> {
        std::mem::take(&mut self.active.demanded)
    }

    /// How many offers are kept.
    #[must_use]
    pub fn offer_count(&self) -> usize {
        self.active.offers.len()
    }

    fn try_insert_offer(
        &mut self,
        signed: SignedOffer,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let claims = signed.claims(self.rules.network)?;
        claims.check_time(now)?;
        let listing = self.get(&claims.provider);
        let names_it = |it: &&Authentic<Listing>| claims.class.is_met_by(&it.resources);
        let listing = listing.filter(names_it).ok_or(Refusal::Unlisted)?;
        let entry = self.entries.get(&listing.provider);
        if !entry.is_some_and(|it| it.knows(&claims.listing)) {
            return Err(Refusal::Unlisted);
        }
        let held = self.active.offers.get(&claims.provider);
        let inserted = match held {
            None => Inserted::New,
            Some(held) if **held == claims => return Ok(Inserted::Known),
            Some(held) if claims.minute < held.minute => return Err(Refusal::Superseded),
            Some(held) if claims.minute < held.minute + Offer::INTERVAL_MINUTES => {
                return Err(Refusal::OverQuota);
            }
            Some(_) => Inserted::Renewed,
        };
        let offer = signed.authenticate(self.rules.network)?;
        self.active.offers.insert(claims.provider, offer);
        Ok(inserted)
    }

    fn try_insert_demand(
        &mut self,
        demand: &Demand,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        if demand.network != self.rules.network {
            return Err(Refusal::OtherNetwork);
        }
        let skew = Listing::CLOCK_SKEW_SECONDS;
        if demand.work.day > Day::of(now.plus(skew)) {
            return Err(Refusal::Early);
        }
        if demand.work.day < Day::of(UnixSeconds(now.0.saturating_sub(skew))) {
            return Err(Refusal::Expired);
        }
        let key = (demand.work.day, Sha256::digest(encode(demand)).into());
        if self.active.demands.contains(&key) {
            return Ok(Inserted::Known);
        }
        let challenge = Work::for_demand(demand.network, demand.class, demand.work.day);
        self.worth(&challenge, &demand.work, self.rules.demand_effort)?;
        if self.active.demands.len() >= MAX_DEMANDS {
            self.active.demands.pop_first();
        }
        self.active.demands.insert(key);
        self.active.demanded.insert(demand.class);
        Ok(Inserted::New)
    }
}

impl Active {
    pub(super) fn forget(&mut self, provider: &ProviderId) {
        self.offers.remove(provider);
        self.function_demands.remove(provider);
    }

    pub(super) fn prune(&mut self, now: UnixSeconds) {
        let first = super::entry::first_kept_day(now);
        self.demands.retain(|(day, _)| *day >= first);
        self.offers.retain(|_, offer| offer.check_time(now).is_ok());
        (self.function_demands).retain(|_, demand| demand.check_time(now).is_ok());
    }
}
