//! Whether a provider shows the advert that it has listed for everybody.
//!
//! Most of several nodes list what the catalogue has, so an advert for one visitor is not in it. A
//! provider that the catalogue does not have is called as before: its address was told.

use dlambda_broker::Market;
use dlambda_proto::{Advert, Authentic, Endpoint, ErrorKind, HasKind, Retry, UnixSeconds};
use thiserror::Error;

/// How an advert differs from what is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ListingMismatch {
    /// The provider was shown to list different things in different places.
    #[error("the provider has signed two listings that contradict each other")]
    Forked,
    /// The advert follows directly on the listed one: the catalogue is older than the epoch.
    #[error("the provider's epoch is newer than its listing in the catalogue")]
    Newer,
    /// It is neither the listed one nor its direct successor.
    #[error("the provider shows another advert than it has listed")]
    Other,
}

/// Compares an advert with what the catalogue lists of its provider at `now`.
pub(crate) fn check(
    market: &Market,
    shown: &Authentic<Advert>,
    now: UnixSeconds,
) -> Result<(), ListingMismatch> {
    if market.fork(&shown.provider).is_some() {
        return Err(ListingMismatch::Forked);
    }
    let Some(listed) = market.get(&shown.provider, now) else {
        return Ok(());
    };
    let listing = listed.listing();
    if shown.signed().digest() == listing.advert {
        return Ok(());
    }
    let follows = (shown.history.last())
        .is_some_and(|it| it.epoch == listing.epoch && it.advert == listing.advert);
    Err(if follows {
        ListingMismatch::Newer
    } else {
        ListingMismatch::Other
    })
}

/// Whether anything may be sent to this endpoint at all, before it is dialled: a connection that is
/// given up after the greeting tells the provider that its caller holds a proof.
pub(crate) fn check_endpoint(market: &Market, endpoint: &Endpoint) -> Result<(), ListingMismatch> {
    if market.is_forked_at(endpoint) {
        return Err(ListingMismatch::Forked);
    }
    Ok(())
}

impl HasKind for ListingMismatch {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Newer => ErrorKind::Refused,
            Self::Forked | Self::Other => ErrorKind::ProviderMisbehaved,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Newer => Retry::Later,
            Self::Forked | Self::Other => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dlambda_broker::{Catalogue, Equihash, NodeState, Plan as _, Rules, Sources, Sync};
    use dlambda_crypto::work;
    use dlambda_privacy::os_rng;
    use dlambda_proto::{
        Day, Epoch, IdentityKey, ListedPlan, Listing, ListingDigest, NetworkId, OnionAddress,
        PastEpoch, ReceiptKey, SignedListing, Validity, Work,
    };

    use super::*;

    const NETWORK: NetworkId = NetworkId::from_bytes([1; 16]);
    const DAY: Day = Day(20_000);

    fn key() -> IdentityKey {
        IdentityKey::from_seed(&[1; 32])
    }

    fn onion() -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([1; 32]))
    }

    fn now() -> UnixSeconds {
        DAY.begins().plus(3600)
    }

    fn rules() -> Rules {
        Rules::new(NETWORK, 1, 1)
    }

    fn advert(epoch: u64, bytes: u32, history: Vec<PastEpoch>) -> Authentic<Advert> {
        let receipts = ReceiptKey::from_seed(&[2; 32]).id();
        let mut advert = Advert::minimal(key().id(), Epoch(epoch), now(), receipts, onion());
        advert.max_function_bytes = bytes;
        advert.history = history;
        advert.sign(&key()).unwrap().authenticate().unwrap()
    }

    fn listing(
        number: u64,
        previous: Option<ListingDigest>,
        of: &Authentic<Advert>,
    ) -> SignedListing {
        let challenge = Work::for_listing(NETWORK, &key().id(), DAY);
        let listing = Listing {
            network: NETWORK,
            provider: key().id(),
            number,
            previous,
            epoch: of.epoch,
            advert: of.signed().digest(),
            validity: Validity {
                from: DAY.begins(),
                until: DAY.begins().plus(24 * 3600),
            },
            endpoints: vec![onion()],
            node: vec![],
            resources: of.specs.resources(),
            region: None,
            plans: vec![ListedPlan {
                name: "small".parse().unwrap(),
                price: 0,
            }],
            functions: vec![],
            work: work::perform(&challenge, DAY, 1, [0; 16], || false).unwrap(),
        };
        listing.sign(&key()).unwrap()
    }

    /// What a guest has that synced with one node.
    fn market(node: Catalogue) -> Market {
        let mut node = NodeState::new(node);
        let sources = Sources::draw(&[onion()], &[], &mut os_rng());
        let mut sync = Sync::new(rules(), Arc::new(Equihash), sources, now(), &mut os_rng());
        while let Some(request) = sync.next() {
            let (answer, _) = node.answer(request.ask, now());
            sync.receive(request.id, Ok(answer));
        }
        let mut market = Market::new(rules());
        market.update(sync.finish().unwrap(), now());
        market
    }

    #[test]
    fn an_advert_is_the_listed_one_or_follows_it_or_is_for_one_visitor() {
        let listed = advert(3, 1 << 20, vec![]);
        let mut node = Catalogue::new(rules(), Arc::new(Equihash));
        node.insert(listing(0, None, &listed), now()).unwrap();
        let market = market(node);
        let says = |shown: &Authentic<Advert>| check(&market, shown, now());
        assert_eq!(says(&listed), Ok(()));
        let next = advert(4, 1 << 20, vec![listed.as_past()]);
        assert_eq!(says(&next), Err(ListingMismatch::Newer));
        // Another one of the epoch; one that follows another; one two epochs later; an earlier one.
        let other = advert(3, 1 << 19, vec![]);
        let after_other = advert(4, 1 << 20, vec![other.as_past()]);
        let later = advert(5, 1 << 20, vec![listed.as_past(), next.as_past()]);
        let earlier = advert(2, 1 << 20, vec![]);
        for shown in [other, after_other, later, earlier] {
            assert_eq!(says(&shown), Err(ListingMismatch::Other));
        }
        // A catalogue that is out of date says nothing.
        let much_later = now().plus(3 * 24 * 3600);
        let shown = advert(9, 1 << 20, vec![]);
        assert_eq!(check(&market, &shown, much_later), Ok(()));
    }

    #[test]
    fn a_provider_that_forked_gets_nothing_and_one_that_is_not_listed_is_not_judged() {
        let listed = advert(3, 1 << 20, vec![]);
        let empty = market(Catalogue::new(rules(), Arc::new(Equihash)));
        assert_eq!(check(&empty, &listed, now()), Ok(()));
        let mut node = Catalogue::new(rules(), Arc::new(Equihash));
        node.insert(listing(0, None, &listed), now()).unwrap();
        let other = listing(0, None, &advert(3, 1 << 19, vec![]));
        assert!(node.insert(other, now()).is_err());
        let market = market(node);
        let forked = check(&market, &listed, now());
        assert_eq!(forked, Err(ListingMismatch::Forked));
        // It is not even dialled.
        let dialled = check_endpoint(&market, &onion());
        assert_eq!(dialled, Err(ListingMismatch::Forked));
        let elsewhere = Endpoint::Onion(OnionAddress::from_public_key([9; 32]));
        assert_eq!(check_endpoint(&market, &elsewhere), Ok(()));
        assert_eq!(check_endpoint(&empty, &onion()), Ok(()));
    }
}
