//! How the catalogue checks what it is given, in the order of what the checks cost.

use dlambda_proto::{
    Authentic, Day, Listing, ListingFork, ProviderId, SignedListing, UnixSeconds, Work,
};

use super::entry::{Entry, Standing};
use super::forks::{self, ProofRank};
use super::places::Rank;
use super::{Catalogue, Inserted, Refusal};

impl Catalogue {
    pub(super) fn try_insert(
        &mut self,
        signed: SignedListing,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let claims = signed.claims(self.rules.network)?;
        claims.check_time(now)?;
        if self.forks.contains(&claims.provider) {
            return Err(Refusal::Convicted);
        }
        let entry = self.entries.get(&claims.provider);
        if entry.is_some_and(|it| it.knows(&signed.digest())) {
            return Ok(Inserted::Known);
        }
        let contradicted = entry.and_then(|it| it.contradicted_by(&claims, self.rules.network));
        let published = entry.map_or(0, |it| it.published_on(claims.work.day));
        if contradicted.is_none() && published >= Listing::MAX_A_DAY {
            return Err(Refusal::OverQuota);
        }
        let effort = self.worth_of(&claims)?;
        let rank = Rank::of(&claims, effort);
        let displaced = match entry {
            Some(_) => None,
            None => (self.places.make_room_for(&rank)).map_err(|_| Refusal::Full)?,
        };
        let listing = signed.authenticate(self.rules.network)?;
        if let Some(other) = contradicted {
            let other = other.authenticate(self.rules.network)?;
            return Err(self.convict(&listing, &other, effort));
        }
        if let Some(provider) = displaced {
            self.take(&provider);
            self.active.forget(&provider);
        }
        self.accept(listing, effort, now)
    }

    /// Takes a listing that was checked, and for which there is room.
    fn accept(
        &mut self,
        listing: Authentic<Listing>,
        effort: u64,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let Some(mut entry) = self.take(&listing.provider) else {
            self.put(Entry::new(listing, effort, Standing::new(now)));
            return Ok(Inserted::New);
        };
        let is_later = listing.number > entry.latest.number;
        if is_later {
            entry.renew(listing, effort, now);
            self.places.promote(&mut entry, now);
        } else {
            // What contradicts it may still come.
            entry.remember(&listing);
        }
        self.put(entry);
        if is_later {
            Ok(Inserted::Renewed)
        } else {
            Err(Refusal::Superseded)
        }
    }

    /// Puts a provider out on the evidence of two listings.
    fn convict(
        &mut self,
        one: &Authentic<Listing>,
        other: &Authentic<Listing>,
        effort: u64,
    ) -> Refusal {
        let Some(fork) = one.fork(other) else {
            return Refusal::NoFork;
        };
        self.keep_proof(fork.clone(), one, other, effort);
        Refusal::Fork(Box::new(fork))
    }

    pub(super) fn try_insert_fork(
        &mut self,
        fork: &ListingFork,
        now: UnixSeconds,
    ) -> Result<Inserted, Refusal> {
        let network = self.rules.network;
        let (one, other) = (fork.one.claims(network)?, fork.other.claims(network)?);
        if !one.contradicts(&other) {
            return Err(Refusal::NoFork);
        }
        let latest = Day::of(now.plus(Listing::CLOCK_SKEW_SECONDS));
        if one.work.day.max(other.work.day) > latest {
            return Err(Refusal::Early);
        }
        let ends = forks::ends(&one, &other);
        if ends <= Day::of(now) {
            return Err(Refusal::Expired);
        }
        let held = self.forks.end_of(&one.provider);
        if held.is_some_and(|it| it >= ends) {
            return Ok(Inserted::Known);
        }
        let effort = self.worth_of(&one)?.min(self.worth_of(&other)?);
        let one = fork.one.clone().authenticate(network)?;
        let other = fork.other.clone().authenticate(network)?;
        let fork = one.fork(&other).ok_or(Refusal::NoFork)?;
        if !self.keep_proof(fork, &one, &other, effort) {
            return Err(Refusal::Full);
        }
        Ok(match held {
            None => Inserted::New,
            Some(_) => Inserted::Renewed,
        })
    }

    /// Puts the provider out and keeps the proof, if there is room for it.
    fn keep_proof(
        &mut self,
        fork: ListingFork,
        one: &Listing,
        other: &Listing,
        effort: u64,
    ) -> bool {
        let entry = self.take(&one.provider);
        self.active.forget(&one.provider);
        self.revision += 1;
        let rank = ProofRank {
            days: entry.map_or(0, |it| it.standing.days),
            effort,
            ends: forks::ends(one, other),
            provider: one.provider,
        };
        self.forks.insert(fork, rank)
    }

    fn worth_of(&self, claims: &Listing) -> Result<u64, Refusal> {
        let challenge = Work::for_listing(claims.network, &claims.provider, claims.work.day);
        self.worth(&challenge, &claims.work, self.rules.effort)
    }

    pub(super) fn worth(
        &self,
        challenge: &[u8; 32],
        work: &Work,
        required: u64,
    ) -> Result<u64, Refusal> {
        let shown = self.work.effort(challenge, work).ok_or(Refusal::Unworked)?;
        if shown < required {
            return Err(Refusal::TooLittleWork { shown, required });
        }
        Ok(shown)
    }

    pub(super) fn take(&mut self, provider: &ProviderId) -> Option<Entry> {
        let entry = self.entries.remove(provider)?;
        self.places.leave(&entry);
        self.digests.remove(&entry.digest);
        self.revision += 1;
        Some(entry)
    }

    pub(super) fn put(&mut self, entry: Entry) {
        self.places.enter(&entry);
        if entry.listed {
            self.digests.insert(entry.digest, entry.latest.provider);
        }
        self.entries.insert(entry.latest.provider, entry);
        self.revision += 1;
    }

    pub(super) fn count<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        if let Err(refusal) = &result {
            self.refusals.count(refusal);
        }
        result
    }
}
