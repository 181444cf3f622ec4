//! Whom a node knows, is connected to, and dials next. No I/O, no clock, no randomness but what
//! is handed in.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dlambda_proto::Endpoint;
use libp2p_identity::PeerId;
use libp2p_swarm::ConnectionId;
use rand_core::Rng;

use super::chance;
use crate::bucket::Bucket;

/// Nodes of which an address is remembered.
const MAX_KNOWN: usize = 1024;

/// Addresses without the name of a peer: bootstrap nodes, and those that listings name.
const MAX_ADDRESSES: usize = 512;

/// Peers and addresses that are left alone for some time.
const MAX_BANNED: usize = 1024;

/// After so many failures in a row a node is forgotten.
const MAX_FAILURES: u32 = 3;

/// The wait after a failure grows to so many times the wait after the first.
const MAX_DOUBLINGS: u32 = 7;

/// Everything that a node remembers of others.
pub(super) struct Peers {
    own: Endpoint,
    /// How long a node is left alone after the first failure, or after it has hung up.
    back_off: Duration,
    addresses: HashMap<Endpoint, Address>,
    known: HashMap<PeerId, Known>,
    connected: HashMap<PeerId, Connected>,
    dialling: HashMap<ConnectionId, Candidate>,
    banned_peers: HashMap<PeerId, Instant>,
    banned_addresses: HashMap<Endpoint, Instant>,
}

/// An address of which we do not know who is there.
struct Address {
    bootstrap: bool,
    attempts: Attempts,
}

/// A peer of which we have an address.
struct Known {
    address: Endpoint,
    /// We have dialled it there. Until then it is only what somebody said.
    verified: bool,
    attempts: Attempts,
}

#[derive(Default)]
struct Attempts {
    failures: u32,
    not_before: Option<Instant>,
}

/// A peer to which there is a connection.
struct Connected {
    since: Instant,
    connections: HashMap<ConnectionId, Direction>,
    misbehaved: u32,
    useless: Bucket,
    requests: Bucket,
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
            own,
            back_off,
            addresses: HashMap::new(),
            known: HashMap::new(),
            connected: HashMap::new(),
            dialling: HashMap::new(),
            banned_peers: HashMap::new(),
            banned_addresses: HashMap::new(),
        };
        for address in bootstrap {
            peers.learn_address(*address, true);
        }
        peers
    }

    /// An address at which there should be a node, whoever it is.
    pub(super) fn learn_address(&mut self, address: Endpoint, bootstrap: bool) {
        let is_known = self.known.values().any(|known| known.address == address);
        let has_room = bootstrap || self.addresses.len() < MAX_ADDRESSES;
        if matches!(address, Endpoint::Onion(_)) && address != self.own && !is_known && has_room {
            self.addresses.entry(address).or_insert_with(|| Address {
                bootstrap,
                attempts: Attempts::default(),
            });
        }
    }

    /// An address that somebody, perhaps the peer itself, says is the peer's. A verified address
    /// is not replaced by such hearsay.
    pub(super) fn hear_of(&mut self, peer: PeerId, address: Endpoint) {
        if !matches!(address, Endpoint::Onion(_)) || address == self.own {
            return;
        }
        match self.known.get_mut(&peer) {
            Some(known) if !known.verified && known.attempts.failures > 0 => {
                known.address = address;
            }
            Some(_) => {}
            None => {
                self.make_room();
                self.known.insert(
                    peer,
                    Known {
                        address,
                        verified: false,
                        attempts: Attempts::default(),
                    },
                );
            }
        }
    }

    /// What is only hearsay makes room first.
    fn make_room(&mut self) {
        if self.known.len() < MAX_KNOWN {
            return;
        }
        let connected = &self.connected;
        let removable = self
            .known
            .iter()
            .filter(|(peer, _)| !connected.contains_key(peer));
        let first =
            removable.min_by_key(|(_, known)| (known.verified, known.attempts.failures == 0));
        if let Some(peer) = first.map(|(peer, _)| *peer) {
            self.known.remove(&peer);
        }
    }

    /// Something that may be dialled now, at random: if possible, one of those whose address has
    /// been verified, of the others, or of the bootstrap nodes.
    pub(super) fn candidate(&self, now: Instant, rng: &mut impl Rng) -> Option<Candidate> {
        let mut pools = [Vec::new(), Vec::new(), Vec::new()];
        for (peer, known) in &self.known {
            if !self.connected.contains_key(peer)
                && !is_banned(&self.banned_peers, peer, now)
                && self.is_free(&known.address, &known.attempts, now)
            {
                pools[usize::from(!known.verified)].push(Candidate {
                    address: known.address,
                    peer: Some(*peer),
                });
            }
        }
        for (address, entry) in &self.addresses {
            if self.is_free(address, &entry.attempts, now) {
                pools[if entry.bootstrap { 2 } else { 1 }].push(Candidate {
                    address: *address,
                    peer: None,
                });
            }
        }
        let start = chance::below(rng, pools.len());
        let mut turns = (0..pools.len()).map(|turn| &pools[(start + turn) % pools.len()]);
        turns.find_map(|pool| chance::pick(rng, pool).copied())
    }

    /// A peer with an address that is only hearsay, whether we are connected to it or not.
    pub(super) fn unverified(&self, now: Instant, rng: &mut impl Rng) -> Option<Candidate> {
        let pool: Vec<Candidate> = self
            .known
            .iter()
            .filter(|(peer, known)| {
                !known.verified
                    && !is_banned(&self.banned_peers, peer, now)
                    && self.may_be_dialled(&known.address, &known.attempts, now)
            })
            .map(|(peer, known)| Candidate {
                address: known.address,
                peer: Some(*peer),
            })
            .collect();
        chance::pick(rng, &pool).copied()
    }

    fn is_free(&self, address: &Endpoint, attempts: &Attempts, now: Instant) -> bool {
        let outgoing = Direction::Outgoing(*address);
        let is_connected = self
            .connected
            .values()
            .any(|peer| peer.connections.values().any(|it| *it == outgoing));
        !is_connected && self.may_be_dialled(address, attempts, now)
    }

    fn may_be_dialled(&self, address: &Endpoint, attempts: &Attempts, now: Instant) -> bool {
        let is_dialled = self.dialling.values().any(|it| it.address == *address);
        !is_dialled
            && attempts.not_before.is_none_or(|moment| moment <= now)
            && !is_banned(&self.banned_addresses, address, now)
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
        if let Some(address) = dialled.and_then(|it| self.addresses.get_mut(&it.address)) {
            address.attempts.fail(now, self.back_off);
            let is_gone = address.attempts.failures >= MAX_FAILURES && !address.bootstrap;
            if is_gone && let Some(dialled) = dialled {
                self.addresses.remove(&dialled.address);
            }
        }
        let peer = peer.or_else(|| dialled.and_then(|it| it.peer))?;
        let known = self.known.get_mut(&peer)?;
        known.attempts.fail(now, self.back_off);
        if known.attempts.failures < MAX_FAILURES {
            return None;
        }
        self.known.remove(&peer);
        Some(peer)
    }

    /// An address at which we ourselves have answered is forgotten.
    pub(super) fn is_us(&mut self, connection: ConnectionId) {
        if let Some(dialled) = self.dialling.remove(&connection) {
            self.addresses.remove(&dialled.address);
            self.known
                .retain(|_, known| known.address != dialled.address);
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
            if let Some(entry) = self.addresses.get_mut(&address) {
                entry.attempts = Attempts::default();
                if !entry.bootstrap {
                    self.addresses.remove(&address);
                }
            }
            self.make_room();
            let known = Known {
                address,
                verified: true,
                attempts: Attempts::default(),
            };
            self.known.insert(peer, known);
        }
        let entry = self.connected.entry(peer).or_insert_with(|| Connected {
            since: now,
            connections: HashMap::new(),
            misbehaved: 0,
            useless: Bucket::new(400.0, 1.0, now),
            requests: Bucket::new(200.0, 1.0, now),
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
        if let Some(known) = self.known.get_mut(peer) {
            let moment = Some(now + self.back_off);
            known.attempts.not_before = moment;
            if let Some(entry) = self.addresses.get_mut(&known.address) {
                entry.attempts.not_before = moment;
            }
        }
        true
    }

    /// Leaves a peer alone, and where it was dialled, for so long.
    pub(super) fn ban(&mut self, peer: PeerId, time: Duration, now: Instant) {
        let until = now + time;
        self.banned_peers.retain(|_, until| *until > now);
        if self.banned_peers.len() < MAX_BANNED {
            self.banned_peers.insert(peer, until);
        }
        let address = self.known.remove(&peer).map(|known| known.address);
        self.banned_addresses.retain(|_, until| *until > now);
        if let Some(address) = address
            && self.banned_addresses.len() < MAX_BANNED
        {
            self.banned_addresses.insert(address, until);
        }
    }

    /// Whether a peer is left alone.
    pub(super) fn is_banned(&self, peer: &PeerId, now: Instant) -> bool {
        is_banned(&self.banned_peers, peer, now)
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
        self.known.contains_key(peer)
    }

    /// How many nodes we have an address of.
    pub(super) fn known_now(&self) -> usize {
        self.known.len() + self.addresses.len()
    }
}

fn is_banned<K: std::hash::Hash + Eq>(bans: &HashMap<K, Instant>, key: &K, now: Instant) -> bool {
    bans.get(key).is_some_and(|until| *until > now)
}

impl Attempts {
    fn fail(&mut self, now: Instant, back_off: Duration) {
        let wait = back_off.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS));
        self.failures += 1;
        self.not_before = Some(now + wait);
    }
}
