//! What is kept of one provider.

use dlambda_proto::{
    Authentic, Day, Listing, ListingDigest, NetworkId, SignedListing, UnixSeconds,
};

/// A provider's latest listing, and what is needed to see that it contradicts itself.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) latest: Authentic<Listing>,
    pub(super) digest: ListingDigest,
    /// What the work of the latest listing shows.
    pub(super) effort: u64,
    /// Whether the latest listing has not ended. If it has, the rest is kept for a while.
    pub(super) listed: bool,
    pub(super) standing: Standing,
    /// Listings before the latest that can still be valid, at most eight a day.
    earlier: Vec<Earlier>,
}

/// For how long a provider has been listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Since when it has had a listing at every time, by the clock here.
    pub since: UnixSeconds,
    /// For how many different days it has shown work since.
    pub days: u32,
    /// Whether it has a place that no newcomer takes.
    pub is_senior: bool,
}

#[derive(Clone, Debug)]
struct Earlier {
    signed: SignedListing,
    digest: ListingDigest,
    day: Day,
}

impl Standing {
    /// How long a provider has to be listed before it can become senior, in days.
    pub const SENIOR_DAYS: u32 = 7;

    pub(super) fn new(now: UnixSeconds) -> Self {
        Self {
            since: now,
            days: 1,
            is_senior: false,
        }
    }

    /// Whether seven days have passed, and were worked for. Days are counted here, since a listing
    /// can say that it began earlier.
    pub(super) fn is_long_enough(&self, now: UnixSeconds) -> bool {
        let days = u64::from(Self::SENIOR_DAYS);
        self.days >= Self::SENIOR_DAYS && now >= self.since.plus(days * 24 * 3600)
    }
}

impl Entry {
    pub(super) fn new(latest: Authentic<Listing>, effort: u64, standing: Standing) -> Self {
        Self {
            digest: latest.digest(),
            latest,
            effort,
            listed: true,
            standing,
            earlier: Vec::new(),
        }
    }

    pub(super) fn knows(&self, digest: &ListingDigest) -> bool {
        self.digest == *digest || self.earlier.iter().any(|it| it.digest == *digest)
    }

    /// A listing that is kept and that an honest provider cannot have signed beside `claims`.
    pub(super) fn contradicted_by(
        &self,
        claims: &Listing,
        network: NetworkId,
    ) -> Option<SignedListing> {
        if self.latest.contradicts(claims) {
            return Some(self.latest.signed().clone());
        }
        let mut earlier = self.earlier.iter();
        let contradicts = |it: &&Earlier| {
            let claimed = it.signed.claims(network);
            claimed.is_ok_and(|kept| kept.contradicts(claims))
        };
        earlier.find(contradicts).map(|it| it.signed.clone())
    }

    /// How many listings of this day are kept.
    pub(super) fn published_on(&self, day: Day) -> usize {
        let earlier = self.earlier.iter().filter(|it| it.day == day);
        earlier.count() + usize::from(self.latest.work.day == day)
    }

    /// The listings that are kept beside the latest.
    pub(super) fn earlier(&self) -> impl Iterator<Item = &SignedListing> {
        self.earlier.iter().map(|it| &it.signed)
    }

    /// Keeps a listing of the chain that is not the latest.
    pub(super) fn remember(&mut self, listing: &Authentic<Listing>) {
        self.earlier.push(Earlier {
            signed: listing.signed().clone(),
            digest: listing.digest(),
            day: listing.work.day,
        });
    }

    /// Makes `next` the latest listing. The caller has checked that it is later.
    pub(super) fn renew(&mut self, next: Authentic<Listing>, effort: u64, now: UnixSeconds) {
        if !self.listed || self.latest.validity.until <= now {
            self.standing = Standing::new(now);
        } else if next.work.day > self.latest.work.day {
            self.standing.days = self.standing.days.saturating_add(1);
        }
        let previous = std::mem::replace(&mut self.latest, next);
        self.remember(&previous);
        self.digest = self.latest.digest();
        self.effort = effort;
        self.listed = true;
        self.forget_before(first_kept_day(now));
    }

    /// Forgets what has no part in quotas any more. Says whether anything is left.
    pub(super) fn forget_before(&mut self, day: Day) -> bool {
        self.earlier.retain(|it| it.day >= day);
        self.listed || self.latest.work.day >= day
    }
}

/// The first day whose listings are kept beside the latest: none that began before it is valid.
pub(super) fn first_kept_day(now: UnixSeconds) -> Day {
    let longest = now.0.saturating_sub(Listing::MAX_VALIDITY_SECONDS);
    Day::of(UnixSeconds(longest))
}
