//! Which connections a node has.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use dlambda_privacy::os_rng;
use libp2p_core::ConnectedPoint;
use libp2p_identity::PeerId;
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{ConnectionId, DialError, ListenError, SwarmEvent};

use super::chance;
use super::peers::{Candidate, Direction};
use super::run::Running;
use crate::Store;
use crate::behaviour::exchange::Request;
use crate::behaviour::{Heard, OverlayEvent};
use crate::transport::{from_multiaddr, to_multiaddr};

/// Dials at a time, because there are too few peers.
const DIALS: usize = 3;

/// Peers that we have dialled, beyond those that we want, before some of them are let go.
const SURPLUS: usize = 4;

/// How long a connection is new.
const NEW: Duration = Duration::from_secs(20);

/// How long a peer is left alone that does not speak our protocols, or breaks them.
pub(super) const BAN: Duration = Duration::from_secs(3600);

/// How long a peer is left alone that was of no use.
pub(super) const SHORT_BAN: Duration = Duration::from_secs(600);

/// Broken messages that a peer may send.
const FORGIVEN: u32 = 2;

impl<S: Store> Running<S> {
    /// Dials if there are too few peers. Half of them should be such as we have chosen ourselves:
    /// who dials us may have done so to be all our peers.
    pub(super) fn seek_peers(&mut self, now: Instant) {
        let wanted = self.peers_wanted;
        for _ in 0..DIALS {
            let dialling = self.peers.dialling_now();
            let outgoing = self.peers.outgoing().count() + dialling;
            let all = self.peers.all_connected().count() + dialling;
            if dialling >= DIALS || (all >= wanted && outgoing >= wanted.div_ceil(2)) {
                return;
            }
            let Some(candidate) = self.peers.candidate(now, &mut os_rng()) else {
                return;
            };
            self.dial(candidate, PeerCondition::DisconnectedAndNotDialing);
        }
    }

    /// Lets peers go that we have dialled, if there are many: look-ups in the routing table dial
    /// everybody that they hear of. Those with which we gossip or fetch from stay, and new ones for
    /// a while.
    pub(super) fn shed_peers(&mut self, now: Instant) {
        let outgoing = self.peers.outgoing().count();
        let surplus = outgoing.saturating_sub(self.peers_wanted + SURPLUS);
        if surplus == 0 {
            return;
        }
        let mut needed = self.meshed();
        needed.extend(self.fetching.peer());
        let settled = self
            .peers
            .outgoing_since(now.checked_sub(NEW).unwrap_or(now));
        let mut spare: Vec<PeerId> = settled
            .filter(|peer| !needed.contains(peer))
            .copied()
            .collect();
        for _ in 0..surplus.min(spare.len()) {
            let at = chance::below(&mut os_rng(), spare.len());
            let peer = spare.swap_remove(at);
            self.hang_up(peer);
        }
    }

    /// Dials an address that is only hearsay. What nobody has dialled is told to nobody else.
    pub(super) fn check_an_address(&mut self, now: Instant) {
        if let Some(candidate) = self.peers.unverified(now, &mut os_rng()) {
            self.dial(candidate, PeerCondition::NotDialing);
        }
    }

    /// Begins to dial; `None` if that is not possible.
    pub(super) fn dial(
        &mut self,
        candidate: Candidate,
        condition: PeerCondition,
    ) -> Option<ConnectionId> {
        let address = to_multiaddr(&candidate.address)?;
        let options = match candidate.peer {
            Some(peer) => DialOpts::peer_id(peer)
                .condition(condition)
                .addresses(vec![address])
                .build(),
            None => DialOpts::unknown_peer_id().address(address).build(),
        };
        let connection = options.connection_id();
        self.peers.dialling(connection, candidate);
        if self.swarm.dial(options).is_err() {
            self.peers.not_dialled(connection);
            return None;
        }
        Some(connection)
    }

    pub(super) fn hang_up(&mut self, peer: PeerId) {
        // It is an error if it has just gone by itself.
        let _ = self.swarm.disconnect_peer_id(peer);
    }

    /// Leaves a peer alone for some time.
    pub(super) fn ban(&mut self, peer: PeerId, time: Duration) {
        self.peers.ban(peer, time, Instant::now());
        self.swarm.behaviour_mut().routing.remove(&peer);
        self.hang_up(peer);
    }

    /// A peer has broken a protocol. Once or twice it may have been a fault of its machine.
    pub(super) fn misbehaved(&mut self, peer: PeerId, reason: &'static str) {
        self.status.refuse(reason);
        if self.peers.misbehaved(&peer) > FORGIVEN {
            self.ban(peer, BAN);
        }
    }

    pub(super) fn connection_event(&mut self, event: SwarmEvent<OverlayEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            } => self.established(peer_id, connection_id, &endpoint),
            SwarmEvent::ConnectionClosed {
                peer_id,
                connection_id,
                ..
            } => self.ended(peer_id, connection_id),
            SwarmEvent::OutgoingConnectionError {
                connection_id,
                peer_id,
                error,
            } => self.not_reached(connection_id, peer_id, &error),
            SwarmEvent::IncomingConnectionError { error, .. } => {
                self.status.refuse(match error {
                    ListenError::Denied { .. } => "too many connections",
                    _ => "connection not set up",
                });
            }
            _ => {}
        }
    }

    fn established(&mut self, peer: PeerId, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let now = Instant::now();
        let direction = match endpoint {
            ConnectedPoint::Dialer { address, .. } => match from_multiaddr(address) {
                Some(address) => Direction::Outgoing(address),
                // The transport dials nothing else.
                None => return,
            },
            ConnectedPoint::Listener { .. } => Direction::Incoming,
        };
        self.status.connections += 1;
        let is_check = self.peers.is_dialled_as(connection, &peer);
        let is_first = self.peers.connected(peer, connection, direction, now);
        if self.peers.is_banned(&peer, now) {
            self.status.refuse("peer that is left alone");
            self.hang_up(peer);
            return;
        }
        match direction {
            Direction::Outgoing(address) => {
                if let Some(address) = to_multiaddr(&address) {
                    self.swarm.behaviour_mut().routing.add(&peer, address);
                }
                if is_check && !is_first {
                    self.swarm.close_connection(connection);
                }
            }
            Direction::Incoming => {
                if is_first && !self.peers.has_address(&peer) {
                    let exchange = &mut self.swarm.behaviour_mut().exchange;
                    exchange.send_request(&peer, Request::Hello);
                }
                self.make_room();
            }
        }
        if is_first {
            self.arrived(now);
        }
        self.fetch_from(connection, peer);
    }

    fn ended(&mut self, peer: PeerId, connection: ConnectionId) {
        self.fetch_not_from(connection);
        if self.peers.closed(&peer, connection, Instant::now()) {
            self.gone(peer);
        }
    }

    /// Before there are as many incoming connections as there may be, one is let go, of the half
    /// that has been of least use: otherwise who came first could keep out everybody else.
    fn make_room(&mut self) {
        let limit = self.capacity.incoming - self.capacity.incoming / 8;
        let incoming: Vec<PeerId> = self.peers.incoming().copied().collect();
        if incoming.len() <= limit as usize {
            return;
        }
        let gossip = &self.swarm.behaviour().gossip;
        let score = |peer| (gossip.peer_score(&peer).unwrap_or_default(), peer);
        let mut by_use: Vec<(f64, PeerId)> = incoming.into_iter().map(score).collect();
        by_use.sort_unstable_by(|one, other| one.0.total_cmp(&other.0));
        by_use.truncate(by_use.len().div_ceil(2));
        if let Some((_, peer)) = chance::pick(&mut os_rng(), &by_use) {
            self.status.refuse("connection that made room");
            self.hang_up(*peer);
        }
    }

    fn not_reached(&mut self, connection: ConnectionId, peer: Option<PeerId>, error: &DialError) {
        self.fetch_not_from(connection);
        match error {
            DialError::LocalPeerId { .. } => self.peers.is_us(connection),
            DialError::Denied { .. }
            | DialError::Aborted
            | DialError::NoAddresses
            | DialError::DialPeerConditionFalse(_) => self.peers.not_dialled(connection),
            DialError::WrongPeerId { .. } | DialError::Transport(_) => {
                let forgotten = self.peers.failed(connection, peer, Instant::now());
                if let Some(peer) = forgotten {
                    self.swarm.behaviour_mut().routing.remove(&peer);
                }
            }
        }
    }

    /// Others know a peer.
    pub(super) fn routing_event(&mut self, heard: &Heard) {
        if heard.peer != *self.swarm.local_peer_id() {
            self.peers.hear_of(heard.peer, heard.address);
        }
    }

    fn meshed(&self) -> HashSet<PeerId> {
        let gossip = &self.swarm.behaviour().gossip;
        gossip.all_mesh_peers().copied().collect()
    }
}
