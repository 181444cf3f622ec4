//! Whom a node knows, is connected to, and dials next. No I/O, no clock, no randomness but what
//! is handed in.

mod book;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dlambda_proto::Endpoint;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use rand_core::Rng;

use self::book::Book;
use super::chance;
use super::serving::ONE_PEER;
use crate::bucket::Bucket;

/// Peers and addresses that are left alone for some time.
const MAX_BANNED: usize = 1024;

/// Everything that a node remembers of others.
pub(super) struct Peers {
    book: Book,
    connected: HashMap<PeerId, Connected>,
    dialling: HashMap<ConnectionId, Candidate>,
    banned: HashMap<PeerId, Instant>,
}

/// A peer to which there is a connection.
struct Connected {
    since: Instant,
    connections: HashMap<ConnectionId, Direction>,
    misbehaved: u32,
    useless: Bucket,
    requests: Bucket,
    /// Bytes of functions.
    bytes: Bucket,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// The other side.
    Incoming,
    /// We, at this address.
    Outgoing(Endpoint),
}

/// What can be dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where.
    pub(super) address: Endpoint,
    /// Who should be there, if we know.
    pub(super) peer: Option<PeerId>,
}

impl Peers {
    /// Knows the bootstrap nodes, and itself.
    pub(super) fn new(own: Endpoint, bootstrap: &[Endpoint], back_off: Duration) -> Self {
        let mut peers = Self {
            book: Book::new(own, back_off),
            connected: HashMap::new(),
            dialling: HashMap::new(),
            banned: HashMap::new(),
        };
        for address in bootstrap {
            peers.learn_address(*address, true);
        }
        peers
    }

    /// An address at which there should be a node, whoever it is.
    pub(super) fn learn_address(&mut self, address: Endpoint, bootstrap: bool) {
        self.book.learn(address, bootstrap);
    }

    /// An address that somebody, perhaps the peer itself, says is the peer's.
    pub(super) fn hear_of(&mut self, peer: PeerId, address: Endpoint) {
        let connected = &self.connected;
        (self.book).hear_of(peer, address, |peer| connected.contains_key(peer));
    }

    /// Something that may be dialled now, at random: if possible, one of those whose address has
    /// been verified, of the others, or of the bootstrap nodes.
    pub(super) fn candidate(&self, now: Instant, rng: &mut impl Rng) -> Option<Candidate> {
        let candidates = self.book.candidates(now, |peer, address| {
            let is_wanted = |peer: &PeerId| {
                !self.connected.contains_key(peer) && !is_banned(&self.banned, peer, now)
            };
            let outgoing = Direction::Outgoing(*address);
            let mut connections = self
                .connected
                .values()
                .flat_map(|it| it.connections.values());
            peer.is_none_or(is_wanted)
                && !self.is_dialled(address)
                && !connections.any(|direction| *direction == outgoing)
        });
        let pools = [
            candidates.verified,
            candidates.hearsay,
            candidates.bootstrap,
        ];
        let start = chance::below(rng, pools.len());
        let mut turns = (0..pools.len()).map(|turn| &pools[(start + turn) % pools.len()]);
        turns.find_map(|pool| chance::pick(rng, pool).copied())
    }

    /// A peer with an address that is only hearsay, whether we are connected to it or not.
    pub(super) fn unverified(&self, now: Instant, rng: &mut impl Rng) -> Option<Candidate> {
        let candidates = self.book.candidates(now, |peer, address| {
            peer.is_some_and(|peer| !is_banned(&self.banned, peer, now))
                && !self.is_dialled(address)
        });
        chance::pick(rng, &candidates.hearsay).copied()
    }

    fn is_dialled(&self, address: &Endpoint) -> bool {
        self.dialling.values().any(|it| it.address == *address)
    }

    /// We dial.
    pub(super) fn dialling(&mut self, connection: ConnectionId, candidate: Candidate) {
        self.dialling.insert(connection, candidate);
    }

    /// We dial no more, for reasons of our own.
    pub(super) fn not_dialled(&mut self, connection: ConnectionId) {
        self.dialling.remove(&connection);
    }

    /// Whether we dial this connection since an address is said to be this peer's.
    pub(super) fn is_dialled_as(&self, connection: ConnectionId, peer: &PeerId) -> bool {
        let dialled = self.dialling.get(&connection);
        dialled.is_some_and(|candidate| candidate.peer == Some(*peer))
    }

    /// A dial has failed. Returns a peer that has been forgotten because of it.
    pub(super) fn failed(
        &mut self,
        connection: ConnectionId,
        peer: Option<PeerId>,
        now: Instant,
    ) -> Option<PeerId> {
        let dialled = self.dialling.remove(&connection);
        let peer = peer.or_else(|| dialled.and_then(|it| it.peer));
        self.book.failed(dialled.map(|it| it.address), peer, now)
    }

    /// An address at which we ourselves have answered is forgotten.
    pub(super) fn is_us(&mut self, connection: ConnectionId) {
        if let Some(dialled) = self.dialling.remove(&connection) {
            self.book.is_us(&dialled.address);
        }
    }

    /// There is a connection. Returns whether it is the first to this peer.
    pub(super) fn connected(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        direction: Direction,
        now: Instant,
    ) -> bool {
        self.dialling.remove(&connection);
        if let Direction::Outgoing(address) = direction {
            let connected = &self.connected;
            (self.book).reached(peer, address, |peer| connected.contains_key(peer));
        }
        let entry = self.connected.entry(peer).or_insert_with(|| Connected {
            since: now,
            connections: HashMap::new(),
            misbehaved: 0,
            useless: Bucket::new(400.0, 1.0, now),
            requests: Bucket::new(200.0, 1.0, now),
            bytes: Bucket::new(ONE_PEER.0, ONE_PEER.1, now),
        });
        entry.connections.insert(connection, direction);
        entry.connections.len() == 1
    }

    /// A connection has ended. Returns whether it was the last to this peer, which is not dialled
    /// again at once.
    pub(super) fn closed(&mut self, peer: &PeerId, connection: ConnectionId, now: Instant) -> bool {
        let Some(entry) = self.connected.get_mut(peer) else {
            return false;
        };
        entry.connections.remove(&connection);
        if !entry.connections.is_empty() {
            return false;
        }
        self.connected.remove(peer);
        self.book.left(peer, now);
        true
    }

    /// Leaves a peer alone, and where it was dialled, for so long.
    pub(super) fn ban(&mut self, peer: PeerId, time: Duration, now: Instant) {
        let until = now + time;
        self.banned.retain(|_, until| *until > now);
        if self.banned.len() < MAX_BANNED {
            self.banned.insert(peer, until);
        }
        self.book.ban(&peer, until, now);
    }

    /// Whether a peer is left alone.
    pub(super) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        is_banned(&self.banned, peer, now)
    }

    /// A peer has broken a protocol; returns how often it has.
    pub(super) fn misbehaved(&mut self, peer: &PeerId) -> u32 {
        let Some(entry) = self.connected.get_mut(peer) else {
            return 0;
        };
        entry.misbehaved += 1;
        entry.misbehaved
    }

    /// A peer has sent something of no use; returns whether it does so too often.
    pub(super) fn is_useless(&mut self, peer: &PeerId, now: Instant) -> bool {
        let entry = self.connected.get_mut(peer);
        entry.is_some_and(|entry| !entry.useless.take(now))
    }

    /// Whether a peer may ask once more now.
    pub(super) fn may_ask(&mut self, peer: &PeerId, now: Instant) -> bool {
        let entry = self.connected.get_mut(peer);
        entry.is_some_and(|entry| entry.requests.take(now))
    }

    /// Whether a peer may get so many bytes of functions now.
    pub(super) fn may_get(&mut self, peer: &PeerId, bytes: f64, now: Instant) -> bool {
        let entry = self.connected.get_mut(peer);
        entry.is_some_and(|entry| entry.bytes.take_many(bytes, now))
    }

    /// The peer that we have dialled at this address and are connected to.
    pub(super) fn reached_at(&self, address: &Endpoint) -> Option<PeerId> {
        let outgoing = Direction::Outgoing(*address);
        let mut peers = self.connected.iter();
        let found = peers.find(|(_, it)| it.connections.values().any(|it| *it == outgoing));
        found.map(|(peer, _)| *peer)
    }

    /// Peers that we are connected to.
    pub(super) fn all_connected(&self) -> impl Iterator<Item = &PeerId> {
        self.connected.keys()
    }

    /// Peers that we have dialled.
    pub(super) fn outgoing(&self) -> impl Iterator<Item = &PeerId> {
        self.in_direction(|direction| matches!(direction, Direction::Outgoing(_)))
    }

    /// Of these, such as have been connected since then.
    pub(super) fn outgoing_since(&self, moment: Instant) -> impl Iterator<Item = &PeerId> {
        let is_settled = move |peer: &&PeerId| {
            let peer = self.connected.get(*peer);
            peer.is_some_and(|peer| peer.since <= moment)
        };
        self.outgoing().filter(is_settled)
    }

    /// Peers that have dialled us.
    pub(super) fn incoming(&self) -> impl Iterator<Item = &PeerId> {
        self.in_direction(|direction| *direction == Direction::Incoming)
    }

    fn in_direction(&self, is_meant: fn(&Direction) -> bool) -> impl Iterator<Item = &PeerId> {
        let peers = self.connected.iter();
        let peers = peers.filter(move |(_, it)| it.connections.values().any(is_meant));
        peers.map(|(peer, _)| peer)
    }

    /// How many connections we are setting up.
    pub(super) fn dialling_now(&self) -> usize {
        self.dialling.len()
    }

    /// Whether we have an address of a peer.
    pub(super) fn has_address(&self, peer: &PeerId) -> bool {
        self.book.has(peer)
    }

    /// How many nodes we have an address of at which we have reached them.
    pub(super) fn reached_now(&self) -> usize {
        self.book.reached_now()
    }

    /// How many nodes we have an address of.
    pub(super) fn known_now(&self) -> usize {
        self.book.len()
    }
}

fn is_banned<K: std::hash::Hash + Eq>(bans: &HashMap<K, Instant>, key: &K, now: Instant) -> bool {
    bans.get(key).is_some_and(|until| *until > now)
}
