//! The broker's catalogue as what a node asks.

use std::fmt;

use dlambda_broker::{Catalogue, Inserted, NodeState, Refusal};
use dlambda_proto::{
    Demand, Endpoint, ListingDigest, ListingFork, SignedFunctionDemand, SignedListing, SignedOffer,
    UnixSeconds, decode, encode,
};
use minicbor::{CborLen, Decode, Encode};

use super::{Held, Store, Verdict};
use crate::GossipTopic;

/// What is gossiped on [`GossipTopic::Listings`], in canonical CBOR. On the other topics a
/// [`Demand`], a [`SignedOffer`] and a [`SignedFunctionDemand`] are gossiped as they are.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub enum Announcement {
    /// A provider's listing.
    #[n(0)]
    Listing(#[n(0)] SignedListing),
    /// The proof that a provider has shown two.
    #[n(1)]
    Fork(#[n(0)] ListingFork),
}

impl Announcement {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        encode(self)
    }
}

impl Store for NodeState {
    fn offer(&mut self, topic: GossipTopic, item: &[u8], now: UnixSeconds) -> Verdict {
        let catalogue = &mut self.catalogue;
        let taken = match topic {
            GossipTopic::Listings => match decode(item) {
                Ok(Announcement::Listing(listing)) => catalogue.insert(listing, now),
                Ok(Announcement::Fork(fork)) => catalogue.insert_fork(fork, now),
                Err(_) => return MALFORMED,
            },
            GossipTopic::Demands => match decode::<Demand>(item) {
                Ok(demand) => catalogue.insert_demand(&demand, now),
                Err(_) => return MALFORMED,
            },
            GossipTopic::Offers => match decode::<SignedOffer>(item) {
                Ok(offer) => catalogue.insert_offer(offer, now),
                Err(_) => return MALFORMED,
            },
            GossipTopic::FunctionDemand => match decode::<SignedFunctionDemand>(item) {
                Ok(demand) => catalogue.insert_function_demand(demand, now),
                Err(_) => return MALFORMED,
            },
        };
        verdict(taken)
    }

    /// Listings by their digest, and proofs by their provider's id: for a provider one is enough.
    fn held(&self) -> Vec<Held> {
        let listings = self.catalogue.digests().map(|(at, digest)| Held {
            at,
            digest: digest.0,
        });
        let forks = self.catalogue.forks().map(|(provider, fork)| Held {
            at: ends(&self.catalogue, fork),
            digest: *provider.as_bytes(),
        });
        listings.chain(forks).collect()
    }

    fn item(&self, digest: &[u8; 32]) -> Option<Vec<u8>> {
        if let Some(listing) = self.catalogue.signed(&ListingDigest(*digest)) {
            return Some(Announcement::Listing(listing.clone()).to_bytes());
        }
        let mut forks = self.catalogue.forks();
        let (_, fork) = forks.find(|(provider, _)| provider.as_bytes() == digest)?;
        Some(Announcement::Fork(fork.clone()).to_bytes())
    }

    fn count(&self) -> usize {
        self.catalogue.len() + self.catalogue.forks().len()
    }

    fn nodes(&self) -> Vec<Endpoint> {
        let listings = self.catalogue.iter();
        listings.flat_map(|it| it.node.iter().copied()).collect()
    }

    fn prune(&mut self, now: UnixSeconds) {
        self.catalogue.prune(now);
    }
}

const MALFORMED: Verdict = Verdict::Reject("malformed");

fn verdict(taken: Result<Inserted, Refusal>) -> Verdict {
    match taken {
        Ok(Inserted::Known) => Verdict::Ignore("known"),
        Ok(Inserted::New | Inserted::Renewed) => Verdict::Accept,
        Err(Refusal::Fork(fork)) => Verdict::Publish(Announcement::Fork(*fork).to_bytes()),
        Err(refusal) if refusal.is_misbehaviour() => Verdict::Reject(refusal.name()),
        Err(refusal) => Verdict::Ignore(refusal.name()),
    }
}

/// The day of the later listing, on which it depends how long a proof is kept: one that is kept
/// for longer replaces another.
fn ends(catalogue: &Catalogue, fork: &ListingFork) -> UnixSeconds {
    let network = catalogue.rules().network;
    let day = |listing: &SignedListing| listing.claims(network).ok().map(|it| it.work.day);
    let later = day(&fork.one).max(day(&fork.other));
    later.map_or(UnixSeconds(0), |day| day.begins())
}

impl fmt::Debug for Announcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcement([scrubbed])")
    }
}
