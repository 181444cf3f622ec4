//! What the catalogue takes and refuses.

mod active;
mod forks;
mod functions;
mod listings;
mod places;
mod store;

use std::sync::Arc;

use dlambda_proto::{
    AdvertDigest, Authentic, Day, Endpoint, Epoch, FunctionId, FunctionPrefix, IdentityKey,
    ListedPlan, Listing, NetworkId, NymAddress, OnionAddress, ProviderId, Resources, SignedListing,
    UnixSeconds, Validity, Work,
};

use super::{Catalogue, Rules};
use crate::WorkCheck;

pub(crate) const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
pub(crate) const EFFORT: u64 = 1_000;
pub(crate) const DAY: u64 = 20_000;
pub(crate) const NOON: u64 = DAY * 86_400 + 43_200;
pub(crate) const HOUR: u64 = 3_600;

/// Takes what the nonce says as effort, and no work where it says nothing.
#[derive(Debug)]
pub(crate) struct Claimed;

impl WorkCheck for Claimed {
    fn effort(&self, _: &[u8; 32], work: &Work) -> Option<u64> {
        let effort = u64::from_be_bytes(*work.nonce.first_chunk()?);
        (effort > 0).then_some(effort)
    }
}

pub(crate) fn work(day: Day, effort: u64) -> Work {
    let mut nonce = [0; 16];
    nonce[..8].copy_from_slice(&effort.to_be_bytes());
    Work {
        day,
        nonce,
        solution: [0; 68],
    }
}

/// An honest provider, which keeps one chain.
#[derive(Clone)]
pub(crate) struct Provider {
    key: Arc<IdentityKey>,
    pub(crate) last: Option<Listing>,
    pub(crate) effort: u64,
}

impl Provider {
    pub(crate) fn new(number: u64) -> Self {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        Self {
            key: Arc::new(IdentityKey::from_seed(&seed)),
            last: None,
            effort: EFFORT,
        }
    }

    pub(crate) fn id(&self) -> ProviderId {
        self.key.id()
    }

    /// The next listing of the chain, valid for 30 hours from `now`.
    pub(crate) fn next(&self, now: u64) -> Listing {
        let from = UnixSeconds(now);
        let last = self.last.as_ref();
        let first = self.id().as_bytes()[0];
        Listing {
            network: NETWORK,
            provider: self.id(),
            number: last.map_or(0, |it| it.number + 1),
            previous: last.map(Listing::digest),
            epoch: Epoch(now / 86_400),
            advert: AdvertDigest([(now / 86_400).to_be_bytes()[7]; 32]),
            validity: Validity {
                from,
                until: from.plus(30 * HOUR),
            },
            endpoints: vec![Endpoint::Onion(OnionAddress::from_public_key(
                *self.id().as_bytes(),
            ))],
            node: vec![Endpoint::Onion(OnionAddress::from_public_key(
                self.id().as_bytes().map(|byte| !byte),
            ))],
            resources: Resources {
                cores: 1 + u16::from(first % 8),
                memory_mib: 4096,
                gpu_vram_mib: 0,
                tee: false,
            },
            region: None,
            plans: vec![ListedPlan {
                name: "small".parse().unwrap(),
                price: 10,
            }],
            functions: vec![FunctionPrefix::of(&FunctionId::of(b"f"))],
            work: work(Day::of(from), self.effort),
        }
    }

    /// The next listing of the chain.
    pub(crate) fn publish(&mut self, now: u64) -> SignedListing {
        let listing = self.next(now);
        let signed = self.sign(&listing);
        self.last = Some(listing);
        signed
    }

    pub(crate) fn sign(&self, listing: &Listing) -> SignedListing {
        listing.sign(&self.key).unwrap()
    }

    pub(crate) fn key(&self) -> &IdentityKey {
        &self.key
    }
}

/// A Nym address, which no two numbers share.
pub(crate) fn nym(number: u8) -> Endpoint {
    let mut base = [0x66; 32];
    base[0] = 0x58;
    let address = [base, [number; 32], base].concat().try_into().unwrap();
    Endpoint::Nym(NymAddress::from_bytes(address).unwrap())
}

pub(crate) fn rules(capacity: usize) -> Rules {
    Rules {
        capacity,
        fork_capacity: 4,
        ..Rules::new(NETWORK, EFFORT, EFFORT)
    }
}

pub(crate) fn catalogue(capacity: usize) -> Catalogue {
    Catalogue::new(rules(capacity), Arc::new(Claimed))
}

pub(crate) fn at(seconds: u64) -> UnixSeconds {
    UnixSeconds(seconds)
}

pub(crate) fn authentic(signed: &SignedListing) -> Authentic<Listing> {
    signed.clone().authenticate(NETWORK).unwrap()
}
