//! What the next listing of this provider says, and when it is due.
//!
//! Sans-I/O: the caller passes the time, and makes the work.

use dlambda_proto::{
    Advert, Authentic, Day, Endpoint, FunctionPrefix, IdentityKey, ListedPlan, Listing,
    ListingError, NetworkId, SignedListing, UnixSeconds, Validity, Work,
};

use crate::store::StoredListing;

/// A listing is valid for so long, in seconds: longer than a day, so that a provider that is
/// unreachable for some hours stays listed.
const VALID: u64 = 30 * 3600;
/// And renewed when so much of it is left, in seconds.
const RENEW: u64 = 6 * 3600;
/// Beginnings are rounded down to this, in seconds: a clock to the second is a mark.
const GRAIN: u64 = 3600;

/// What a listing is made of, beside the chain.
pub(crate) struct Facts<'a> {
    pub(crate) network: NetworkId,
    pub(crate) advert: &'a Authentic<Advert>,
    /// Where the overlay node is reached, if others may come.
    pub(crate) node: &'a [Endpoint],
}

/// What is to be done about the listing.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// The latest one is good: it may be published again.
    Nothing,
    /// Another one, with work of this day.
    Next(Day),
    /// There would be another one, but no more may begin today.
    Quota,
}

/// What is due, given the latest listing that is on disk.
pub(crate) fn due(latest: Option<&StoredListing>, facts: &Facts<'_>, now: UnixSeconds) -> Due {
    let today = Day::of(now);
    let Some(latest) = latest else {
        return Due::Next(today);
    };
    let read = latest.listing.clone().authenticate(facts.network);
    let is_good = read.is_ok_and(|listing| {
        let left = listing.validity.until.0.saturating_sub(now.0);
        // A clock that was ahead has made one that begins too late for others.
        let is_current = listing.check_time(now).is_ok();
        is_current && left > RENEW && facts.content(&listing) == Listing::clone(&listing)
    });
    if is_good {
        return Due::Nothing;
    }
    let most = u32::try_from(Listing::MAX_A_DAY).unwrap_or(u32::MAX);
    if latest.day == today && latest.of_day >= most {
        return Due::Quota;
    }
    // Days may go back with the clock: only numbers, predecessors and epochs must not.
    Due::Next(today)
}

/// The listing after the latest, signed. It must be on disk before anybody sees it.
///
/// # Errors
///
/// [`ListingError`] if the facts do not fit into a listing.
pub(crate) fn next(
    latest: Option<&StoredListing>,
    facts: &Facts<'_>,
    work: Work,
    now: UnixSeconds,
    key: &IdentityKey,
) -> Result<StoredListing, ListingError> {
    let before = latest
        .map(|it| it.listing.clone().authenticate(facts.network))
        .transpose()?;
    let day = work.day;
    let from = UnixSeconds(now.0 - now.0 % GRAIN).max(day.begins());
    let mut listing = facts.first(work);
    listing.validity = Validity {
        from,
        until: from.plus(VALID),
    };
    if let Some(before) = &before {
        listing.number = before.number.saturating_add(1);
        listing.previous = Some(before.digest());
    }
    let of_day = match latest {
        Some(latest) if latest.day == day => latest.of_day.saturating_add(1),
        _ => 1,
    };
    Ok(StoredListing {
        listing: sign(listing, key)?,
        day,
        of_day,
    })
}

/// Leaves functions out that there is no room for: they are found by their advert alone then.
fn sign(mut listing: Listing, key: &IdentityKey) -> Result<SignedListing, ListingError> {
    loop {
        match listing.sign(key) {
            Err(ListingError::TooLarge) if listing.functions.pop().is_some() => {}
            signed => return signed,
        }
    }
}

impl Facts<'_> {
    /// What the given listing would say, were it made from these facts.
    fn content(&self, like: &Listing) -> Listing {
        let mut listing = self.first(like.work.clone());
        listing.validity = like.validity;
        listing.number = like.number;
        listing.previous = like.previous;
        // As many as there was room for.
        listing.functions.truncate(like.functions.len());
        listing
    }

    fn first(&self, work: Work) -> Listing {
        let Self {
            network,
            advert,
            node,
        } = *self;
        let plan = |plan: &dlambda_proto::Plan| ListedPlan {
            name: plan.name.clone(),
            price: plan.price,
        };
        let mut resources = advert.specs.resources();
        resources.memory_mib = resources.memory_mib.max(1);
        let functions = advert.functions.iter().take(Listing::MAX_FUNCTIONS);
        let begins = work.day.begins();
        Listing {
            network,
            provider: advert.provider,
            number: 0,
            previous: None,
            epoch: advert.epoch,
            advert: advert.signed().digest(),
            validity: Validity {
                from: begins,
                until: begins.plus(VALID),
            },
            endpoints: advert.endpoints.iter().take(4).copied().collect(),
            node: node.iter().take(2).copied().collect(),
            resources,
            region: advert.specs.region.clone(),
            plans: advert.plans.iter().map(plan).collect(),
            functions: functions.map(|it| FunctionPrefix::of(&it.id)).collect(),
            work,
        }
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{Epoch, FunctionId, OnionAddress, PublishedFunction, ReceiptKey};

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([3; 16]);
    const NOON: u64 = 20_000 * 86_400 + 12 * 3600;

    fn key() -> IdentityKey {
        IdentityKey::from_seed(&[1; 32])
    }

    fn onion(key: u8) -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([key; 32]))
    }

    fn advert(epoch: u64, functions: usize) -> Authentic<Advert> {
        let mut advert = Advert::minimal(
            key().id(),
            Epoch(epoch),
            UnixSeconds(NOON),
            ReceiptKey::from_seed(&[2; 32]).id(),
            onion(1),
        );
        advert.functions = (0..functions)
            .map(|number| PublishedFunction {
                id: FunctionId::of(&number.to_be_bytes()),
                alias: format!("f{number}"),
                size: 1,
            })
            .collect();
        let signed = advert.sign(&key()).unwrap();
        signed.authenticate().unwrap()
    }

    fn work(day: Day) -> Work {
        Work {
            day,
            nonce: [0; 16],
            solution: [0; 68],
        }
    }

    /// What a provider does whenever it looks.
    struct Chain {
        latest: Option<StoredListing>,
        node: Vec<Endpoint>,
    }

    impl Chain {
        fn look(&mut self, advert: &Authentic<Advert>, now: u64) -> Due {
            let facts = Facts {
                network: NETWORK,
                advert,
                node: &self.node,
            };
            let now = UnixSeconds(now);
            let due = due(self.latest.as_ref(), &facts, now);
            if let Due::Next(day) = due {
                let next = next(self.latest.as_ref(), &facts, work(day), now, &key());
                self.latest = Some(next.unwrap());
            }
            due
        }

        fn listing(&self) -> Authentic<Listing> {
            let latest = self.latest.clone().unwrap().listing;
            latest.authenticate(NETWORK).unwrap()
        }
    }

    fn chain() -> Chain {
        Chain {
            latest: None,
            node: vec![onion(2)],
        }
    }

    #[test]
    fn a_listing_is_made_once_and_renewed_before_it_ends() {
        let (mut chain, advert) = (chain(), advert(1, 1));
        let today = Day::of(UnixSeconds(NOON));
        assert_eq!(chain.look(&advert, NOON + 61), Due::Next(today));
        let first = chain.listing();
        assert_eq!(first.validity.from, UnixSeconds(NOON), "no minute shows");
        assert_eq!((first.number, first.previous), (0, None));
        // A restart changes nothing.
        for later in [0, 3600, 23 * 3600] {
            assert_eq!(chain.look(&advert, NOON + later), Due::Nothing);
        }
        let tomorrow = NOON + 24 * 3600;
        assert_eq!(chain.look(&advert, tomorrow), Due::Next(today.next()));
        let second = chain.listing();
        assert!(second.succeeds(&first) && !second.contradicts(&first));
        assert_eq!(second.work.day, today.next());
    }

    #[test]
    fn what_changes_is_listed_anew_and_the_chain_agrees_with_itself() {
        let mut chain = chain();
        let mut seen = Vec::new();
        for epoch in 1..=3 {
            assert_ne!(chain.look(&advert(epoch, 1), NOON), Due::Nothing);
            seen.push(chain.listing());
        }
        // A second address of the node is told, too.
        chain.node = vec![onion(9), onion(10)];
        assert_ne!(chain.look(&advert(3, 1), NOON), Due::Nothing);
        assert!(chain.listing().node == chain.node);
        seen.push(chain.listing());
        for one in &seen {
            for other in &seen {
                assert!(!one.contradicts(other));
            }
        }
    }

    #[test]
    fn no_more_than_eight_begin_on_a_day() {
        let mut chain = chain();
        for epoch in 1..=8 {
            assert_ne!(chain.look(&advert(epoch, 1), NOON), Due::Quota);
        }
        assert_eq!(chain.look(&advert(9, 1), NOON), Due::Quota);
        let tomorrow = NOON + 24 * 3600;
        assert_ne!(chain.look(&advert(9, 1), tomorrow), Due::Quota);
        assert_eq!(chain.latest.unwrap().of_day, 1);
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_put_right_forks_nothing_and_lists_again() {
        let (mut chain, advert) = (chain(), advert(1, 1));
        let ahead = NOON + 365 * 24 * 3600;
        chain.look(&advert, ahead);
        let first = chain.listing();
        // Nobody else would take that one now.
        let today = Day::of(UnixSeconds(NOON));
        assert_eq!(chain.look(&advert, NOON), Due::Next(today));
        let second = chain.listing();
        assert!(second.succeeds(&first) && !second.contradicts(&first));
        assert!(second.check_time(UnixSeconds(NOON)).is_ok());
        assert_eq!(chain.look(&advert, NOON), Due::Nothing);
    }

    #[test]
    fn many_functions_fit_as_far_as_there_is_room() {
        let mut chain = chain();
        let advert = advert(1, 256);
        chain.look(&advert, NOON);
        assert!(chain.listing().functions.len() <= Listing::MAX_FUNCTIONS);
        assert_eq!(chain.look(&advert, NOON), Due::Nothing);
    }
}
