//! Addresses of nodes, and how far they are to be believed.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dlambda_proto::Endpoint;
use libp2p_identity::PeerId;

use super::{Candidate, MAX_BANNED, is_banned};

/// Nodes of which an address is remembered.
const MAX_KNOWN: usize = 1024;

/// Addresses without the name of a peer: bootstrap nodes, and those that listings name.
const MAX_ADDRESSES: usize = 512;

/// After so many failures in a row a node is forgotten.
const MAX_FAILURES: u32 = 3;

/// The wait after a failure grows to two to the power of this times the wait after the first.
const MAX_DOUBLINGS: u32 = 7;

/// Where nodes are.
pub(super) struct Book {
    own: Endpoint,
    /// How long a node is left alone after the first failure, or after it has hung up.
    back_off: Duration,
    addresses: HashMap<Endpoint, Address>,
    known: HashMap<PeerId, Known>,
    banned: HashMap<Endpoint, Instant>,
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

/// What may be dialled, by how it came to be known.
#[derive(Default)]
pub(super) struct Candidates {
    /// At addresses that we have dialled before.
    pub(super) verified: Vec<Candidate>,
    /// At addresses that others have told, or listings.
    pub(super) hearsay: Vec<Candidate>,
    /// Bootstrap nodes.
    pub(super) bootstrap: Vec<Candidate>,
}

impl Book {
    pub(super) fn new(own: Endpoint, back_off: Duration) -> Self {
        Self {
            own,
            back_off,
            addresses: HashMap::new(),
            known: HashMap::new(),
            banned: HashMap::new(),
        }
    }

    pub(super) fn learn(&mut self, address: Endpoint, bootstrap: bool) {
        let is_known = self.known.values().any(|known| known.address == address);
        let has_room = bootstrap || self.addresses.len() < MAX_ADDRESSES;
        if self.is_others(&address) && !is_known && has_room {
            self.addresses.entry(address).or_insert_with(|| Address {
                bootstrap,
                attempts: Attempts::default(),
            });
        }
    }

    /// A verified address is not replaced by hearsay, and another only once it has failed.
    pub(super) fn hear_of(
        &mut self,
        peer: PeerId,
        address: Endpoint,
        is_connected: impl Fn(&PeerId) -> bool,
    ) {
        if !self.is_others(&address) {
            return;
        }
        match self.known.get_mut(&peer) {
            Some(known) if !known.verified && known.attempts.failures > 0 => {
                known.address = address;
            }
            Some(_) => {}
            None => self.remember(peer, address, false, is_connected),
        }
    }

    /// We have dialled the peer at this address.
    pub(super) fn reached(
        &mut self,
        peer: PeerId,
        address: Endpoint,
        is_connected: impl Fn(&PeerId) -> bool,
    ) {
        if let Some(entry) = self.addresses.get_mut(&address) {
            entry.attempts = Attempts::default();
            if !entry.bootstrap {
                self.addresses.remove(&address);
            }
        }
        self.remember(peer, address, true, is_connected);
    }

    fn is_others(&self, address: &Endpoint) -> bool {
        matches!(address, Endpoint::Onion(_)) && *address != self.own
    }

    /// What is only hearsay makes room first.
    fn remember(
        &mut self,
        peer: PeerId,
        address: Endpoint,
        verified: bool,
        is_connected: impl Fn(&PeerId) -> bool,
    ) {
        if self.known.len() >= MAX_KNOWN && !self.known.contains_key(&peer) {
            let removable = self.known.iter().filter(|(peer, _)| !is_connected(peer));
            let worth = |known: &Known| (known.verified, known.attempts.failures == 0);
            let first = removable.min_by_key(|(_, known)| worth(known));
            if let Some(peer) = first.map(|(peer, _)| *peer) {
                self.known.remove(&peer);
            }
        }
        let known = Known {
            address,
            verified,
            attempts: Attempts::default(),
        };
        self.known.insert(peer, known);
    }

    /// What may be dialled now.
    pub(super) fn candidates(
        &self,
        now: Instant,
        is_free: impl Fn(Option<&PeerId>, &Endpoint) -> bool,
    ) -> Candidates {
        let mut candidates = Candidates::default();
        let may = |peer, address, attempts: &Attempts| {
            attempts.not_before.is_none_or(|moment| moment <= now)
                && !is_banned(&self.banned, address, now)
                && is_free(peer, address)
        };
        for (peer, known) in &self.known {
            if may(Some(peer), &known.address, &known.attempts) {
                let pool = match known.verified {
                    true => &mut candidates.verified,
                    false => &mut candidates.hearsay,
                };
                pool.push(Candidate {
                    address: known.address,
                    peer: Some(*peer),
                });
            }
        }
        for (address, entry) in &self.addresses {
            if may(None, address, &entry.attempts) {
                let pool = match entry.bootstrap {
                    true => &mut candidates.bootstrap,
                    false => &mut candidates.hearsay,
                };
                pool.push(Candidate {
                    address: *address,
                    peer: None,
                });
            }
        }
        candidates
    }

    /// A dial has failed. Returns a peer that has been forgotten because of it.
    pub(super) fn failed(
        &mut self,
        address: Option<Endpoint>,
        peer: Option<PeerId>,
        now: Instant,
    ) -> Option<PeerId> {
        if let Some(address) = address
            && let Some(entry) = self.addresses.get_mut(&address)
        {
            entry.attempts.fail(now, self.back_off);
            if entry.attempts.failures >= MAX_FAILURES && !entry.bootstrap {
                self.addresses.remove(&address);
            }
        }
        let peer = peer?;
        let known = self.known.get_mut(&peer)?;
        known.attempts.fail(now, self.back_off);
        if known.attempts.failures < MAX_FAILURES {
            return None;
        }
        self.known.remove(&peer);
        Some(peer)
    }

    /// A peer has gone: it is not dialled again at once.
    pub(super) fn left(&mut self, peer: &PeerId, now: Instant) {
        let moment = Some(now + self.back_off);
        let Some(known) = self.known.get_mut(peer) else {
            return;
        };
        known.attempts.not_before = moment;
        if let Some(entry) = self.addresses.get_mut(&known.address) {
            entry.attempts.not_before = moment;
        }
    }

    /// An address at which we ourselves have answered is forgotten.
    pub(super) fn is_us(&mut self, address: &Endpoint) {
        self.addresses.remove(address);
        self.known.retain(|_, known| known.address != *address);
    }

    /// Forgets a peer, and leaves its address alone until then.
    pub(super) fn ban(&mut self, peer: &PeerId, until: Instant, now: Instant) {
        let address = self.known.remove(peer).map(|known| known.address);
        self.banned.retain(|_, until| *until > now);
        if let Some(address) = address
            && self.banned.len() < MAX_BANNED
        {
            self.banned.insert(address, until);
        }
    }

    pub(super) fn has(&self, peer: &PeerId) -> bool {
        self.known.contains_key(peer)
    }

    pub(super) fn reached_now(&self) -> usize {
        self.known.values().filter(|known| known.verified).count()
    }

    pub(super) fn len(&self) -> usize {
        self.known.len() + self.addresses.len()
    }
}

impl Attempts {
    fn fail(&mut self, now: Instant, back_off: Duration) {
        let wait = back_off.saturating_mul(1 << self.failures.min(MAX_DOUBLINGS));
        self.failures += 1;
        self.not_before = Some(now + wait);
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::OnionAddress;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn place(number: u32) -> Endpoint {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&number.to_be_bytes());
        Endpoint::Onion(OnionAddress::from_public_key(key))
    }

    fn book() -> Book {
        Book::new(place(0), 10 * SECOND)
    }

    fn dialled(book: &Book, now: Instant) -> Candidates {
        book.candidates(now, |_, _| true)
    }

    #[test]
    fn hearsay_replaces_nothing_that_was_verified_and_makes_room_first() {
        let (mut book, now) = (book(), Instant::now());
        let peer = PeerId::random();
        book.hear_of(peer, place(1), |_| false);
        book.hear_of(peer, place(2), |_| false);
        assert_eq!(dialled(&book, now).hearsay[0].address, place(1));
        book.reached(peer, place(1), |_| false);
        book.hear_of(peer, place(3), |_| false);
        for number in 10..5_000 {
            book.hear_of(PeerId::random(), place(number), |_| false);
        }
        assert_eq!(book.len(), MAX_KNOWN);
        let candidates = dialled(&book, now);
        assert_eq!(candidates.verified.len(), 1);
        assert_eq!(candidates.verified[0].address, place(1));
    }

    #[test]
    fn what_fails_is_left_alone_for_longer_each_time_and_then_forgotten() {
        let (mut book, mut now) = (book(), Instant::now());
        let peer = PeerId::random();
        book.hear_of(peer, place(1), |_| false);
        book.learn(place(2), true);
        book.learn(place(3), false);
        for wait in [10, 20] {
            let forgotten = book.failed(Some(place(1)), Some(peer), now);
            assert_eq!(forgotten, None);
            book.failed(Some(place(2)), None, now);
            book.failed(Some(place(3)), None, now);
            let early = dialled(&book, now + (wait - 1) * SECOND);
            assert!(early.hearsay.is_empty() && early.bootstrap.is_empty());
            now += wait * SECOND;
            let due = dialled(&book, now);
            assert_eq!((due.hearsay.len(), due.bootstrap.len()), (2, 1));
        }
        assert_eq!(book.failed(Some(place(1)), Some(peer), now), Some(peer));
        book.failed(Some(place(2)), None, now);
        book.failed(Some(place(3)), None, now);
        assert_eq!(book.len(), 1, "a bootstrap node stays");
    }

    #[test]
    fn ourselves_and_what_is_no_onion_service_is_not_learned() {
        let mut book = book();
        let loopback = Endpoint::DangerouslyDirect(([127, 0, 0, 1], 4001).into());
        for address in [place(0), loopback] {
            book.learn(address, true);
            book.hear_of(PeerId::random(), address, |_| false);
        }
        assert_eq!(book.len(), 0);
        book.learn(place(1), true);
        book.is_us(&place(1));
        assert_eq!(book.len(), 0);
    }

    #[test]
    fn a_banned_peer_is_not_found_under_another_name() {
        let (mut book, now) = (book(), Instant::now());
        let peer = PeerId::random();
        book.reached(peer, place(1), |_| false);
        book.ban(&peer, now + SECOND, now);
        book.hear_of(PeerId::random(), place(1), |_| false);
        book.learn(place(1), false);
        assert!(dialled(&book, now).hearsay.is_empty());
        assert_eq!(dialled(&book, now + 2 * SECOND).hearsay.len(), 1);
    }
}
