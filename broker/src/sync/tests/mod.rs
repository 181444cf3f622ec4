//! What a guest knows and chooses, whatever its sources do.

mod choosing;
mod faults;

use std::collections::BTreeMap;

use dlambda_proto::{Manifest, OnionAddress, ProviderId, SignedListing};
use rand_chacha::ChaCha8Rng;
use rand_core::SeedableRng as _;

use super::*;
use crate::catalogue::tests::{Claimed, HOUR, NOON, Provider, at, rules};
use crate::{Catalogue, NodeState};

/// How a node treats its guests.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Conduct {
    Honest,
    Silent,
    Busy,
    Gone,
    /// Answers everything with an empty list.
    Empty,
    /// Answers every page with a full one.
    Endless,
    /// Its chunks are another catalogue's.
    OtherChunks,
    /// Its manifest announces a petabyte.
    Huge,
    /// Its listings are not signed.
    Forged,
}

struct Node {
    state: NodeState,
    conduct: Conduct,
}

fn endpoint(number: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([number; 32]))
}

fn node(listings: &[SignedListing], conduct: Conduct) -> Node {
    let mut catalogue = Catalogue::new(rules(2_000), Arc::new(Claimed));
    for listing in listings {
        let taken = catalogue.insert(listing.clone(), at(NOON));
        assert!(taken.is_ok(), "{taken:?}");
    }
    Node {
        state: NodeState::new(catalogue),
        conduct,
    }
}

impl Node {
    fn answer(&mut self, ask: Ask) -> Result<Answer, GuestError> {
        let listing = || Provider::new(1).publish(NOON);
        let honest = |it: &mut Self, ask: Ask| it.state.answer(ask, at(NOON)).0;
        Ok(match (self.conduct, ask) {
            (Conduct::Silent, _) => return Err(GuestError::Deadline),
            (Conduct::Busy, _) => Answer::Busy,
            (Conduct::Gone, ask) if ask != Ask::Manifest => Answer::Gone,
            (Conduct::Empty, ask) if ask != Ask::Manifest => Answer::Listings(vec![]),
            (Conduct::Endless, Ask::Bucket(..)) => {
                Answer::Listings(vec![listing(); Answer::MAX_LISTINGS])
            }
            (Conduct::OtherChunks, ask @ Ask::Chunk(..)) => match honest(self, ask) {
                Answer::Chunk(mut bytes) => {
                    bytes[100] ^= 1;
                    Answer::Chunk(bytes)
                }
                other => other,
            },
            (Conduct::Huge, Ask::Manifest) => match honest(self, Ask::Manifest) {
                Answer::Manifest(manifest) => Answer::Manifest(Manifest {
                    bytes: 1 << 50,
                    ..manifest
                }),
                other => other,
            },
            (_, ask) => honest(self, ask),
        })
    }
}

/// Two bootstrap nodes and these others run a sync to its end.
struct World {
    nodes: BTreeMap<Vec<u8>, Node>,
    bootstrap: Vec<Endpoint>,
    others: Vec<(Endpoint, u64)>,
    asks: Vec<(Endpoint, Ask)>,
}

impl World {
    fn new(bootstrap: Vec<Node>, others: Vec<Node>) -> Self {
        let mut world = Self {
            nodes: BTreeMap::new(),
            bootstrap: Vec::new(),
            others: Vec::new(),
            asks: Vec::new(),
        };
        for (number, node) in (1..).zip(bootstrap) {
            world.nodes.insert(vec![number], node);
            world.bootstrap.push(endpoint(number));
        }
        for (number, node) in (100..).zip(others) {
            world.nodes.insert(vec![number], node);
            world.others.push((endpoint(number), 3));
        }
        world
    }

    fn number(&self, of: &Endpoint) -> u8 {
        let numbers = self.nodes.keys().map(|it| it[0]);
        numbers.into_iter().find(|it| endpoint(*it) == *of).unwrap()
    }

    fn sync(&mut self, seed: u8) -> Result<Synced, SyncError> {
        let mut rng = ChaCha8Rng::from_seed([seed; 32]);
        let sources = Sources::draw(&self.bootstrap, &self.others, &mut rng);
        let mut sync = Sync::new(rules(2_000), Arc::new(Claimed), sources, at(NOON), &mut rng);
        while let Some(request) = sync.next() {
            self.asks.push((request.endpoint, request.ask.clone()));
            let number = self.number(&request.endpoint);
            let node = self.nodes.get_mut(&vec![number]).unwrap();
            let answer = node.answer(request.ask);
            sync.receive(request.id, answer);
            assert!(self.asks.len() < 5_000, "asks without end");
        }
        assert!(sync.is_done());
        sync.finish()
    }
}

fn listings(count: u64) -> Vec<SignedListing> {
    (0..count)
        .map(|it| Provider::new(it).publish(NOON))
        .collect()
}

fn nodes(count: usize, listings: &[SignedListing], conduct: Conduct) -> Vec<Node> {
    (0..count).map(|_| node(listings, conduct)).collect()
}

fn chosen(synced: &Synced) -> Vec<ProviderId> {
    let chosen = synced.known.iter().filter(|it| it.is_chosen);
    chosen.map(|it| it.listing.provider).collect()
}
