//! The clients of a gateway: their keys, and the messages held for them.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use nym_gateway_requests::SharedSymmetricKey;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    counters::Count,
    node::{Delivery, Exit},
    options::Limits,
};

/// A client's address at its gateway: its ed25519 key.
pub(crate) type ClientId = [u8; 32];

/// Everybody who registered with one gateway.
pub(crate) struct Clients {
    limits: Limits,
    known: Mutex<HashMap<ClientId, Arc<Client>>>,
    held: Arc<AtomicUsize>,
    pub(crate) registered: Count,
    pub(crate) logins: Count,
    pub(crate) sent: Count,
    pub(crate) pushed: Count,
}

impl Clients {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            known: Mutex::default(),
            held: Arc::default(),
            registered: Count::default(),
            logins: Count::default(),
            sent: Count::default(),
            pushed: Count::default(),
        }
    }

    /// Registers a client, or gives a known one another key; what is held for
    /// it stays. None when there are too many.
    pub(crate) fn register(&self, id: ClientId, key: SharedSymmetricKey) -> Option<Arc<Client>> {
        let mut known = lock(&self.known);
        if known.len() >= self.limits.clients && !known.contains_key(&id) {
            return None;
        }
        let key = Arc::new(key);
        let client = known
            .entry(id)
            .or_insert_with(|| Arc::new(Client::new(id, key.clone(), self.held.clone())));
        *lock(&client.key) = key;
        self.registered.up();
        Some(client.clone())
    }

    /// The client with this address, if it registered.
    pub(crate) fn get(&self, id: &ClientId) -> Option<Arc<Client>> {
        lock(&self.known).get(id).cloned()
    }

    /// Forgets a client and what is held for it.
    pub(crate) fn forget(&self, id: &ClientId) {
        if let Some(client) = lock(&self.known).remove(id) {
            client.clear();
        }
    }

    /// How many are registered, how many of them connected, how many messages
    /// are held for them, and how many bytes those are.
    pub(crate) fn census(&self) -> (usize, usize, usize, usize) {
        let known = lock(&self.known);
        let online = known.values().filter(|client| client.is_online()).count();
        let stored = known
            .values()
            .map(|client| lock(&client.inbox).messages.len())
            .sum();
        (
            known.len(),
            online,
            stored,
            self.held.load(Ordering::Relaxed),
        )
    }
}

impl Exit for Clients {
    fn deliver(&self, to: ClientId, message: Vec<u8>, is_ack: bool) -> Delivery {
        let Some(client) = self.get(&to) else {
            return Delivery::Unknown;
        };
        if is_ack && !client.is_online() {
            return Delivery::Unknown;
        }
        if client.hold(message, &self.limits) {
            Delivery::Taken
        } else {
            Delivery::Full
        }
    }
}

/// One registered client.
pub(crate) struct Client {
    pub(crate) id: ClientId,
    key: Mutex<Arc<SharedSymmetricKey>>,
    inbox: Mutex<Inbox>,
    arrived: Notify,
    /// Ends the session that the client has, if it has one.
    session: Mutex<Option<CancellationToken>>,
    /// Bytes held for all clients.
    held: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Inbox {
    messages: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Client {
    fn new(id: ClientId, key: Arc<SharedSymmetricKey>, held: Arc<AtomicUsize>) -> Self {
        Self {
            id,
            key: Mutex::new(key),
            inbox: Mutex::default(),
            arrived: Notify::new(),
            session: Mutex::default(),
            held,
        }
    }

    pub(crate) fn key(&self) -> Arc<SharedSymmetricKey> {
        lock(&self.key).clone()
    }

    pub(crate) fn is_online(&self) -> bool {
        lock(&self.session)
            .as_ref()
            .is_some_and(|session| !session.is_cancelled())
    }

    /// Makes `session` the client's only one.
    pub(crate) fn begin(&self, session: CancellationToken) {
        if let Some(former) = lock(&self.session).replace(session) {
            former.cancel();
        }
    }

    /// The next message held for the client; waits for one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub(crate) async fn next(&self) -> Vec<u8> {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.arrived.notified().await;
        }
    }

    /// Puts back what [`next`](Self::next) gave and could not be handed out.
    pub(crate) fn put_back(&self, message: Vec<u8>) {
        let mut inbox = lock(&self.inbox);
        inbox.bytes += message.len();
        self.held.fetch_add(message.len(), Ordering::Relaxed);
        inbox.messages.push_front(message);
    }

    fn hold(&self, message: Vec<u8>, limits: &Limits) -> bool {
        let len = message.len();
        {
            let mut inbox = lock(&self.inbox);
            if inbox.bytes + len > limits.inbox_bytes
                || self.held.load(Ordering::Relaxed) + len > limits.inboxes_bytes
            {
                return false;
            }
            inbox.bytes += len;
            self.held.fetch_add(len, Ordering::Relaxed);
            inbox.messages.push_back(message);
        }
        self.arrived.notify_one();
        true
    }

    fn take(&self) -> Option<Vec<u8>> {
        let mut inbox = lock(&self.inbox);
        let message = inbox.messages.pop_front()?;
        inbox.bytes -= message.len();
        self.held.fetch_sub(message.len(), Ordering::Relaxed);
        Some(message)
    }

    fn clear(&self) {
        while self.take().is_some() {}
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: ClientId = [1; 32];
    const BOB: ClientId = [2; 32];

    fn clients() -> Clients {
        Clients::new(Limits {
            clients: 2,
            inbox_bytes: 100,
            inboxes_bytes: 150,
            ..Limits::default()
        })
    }

    fn register(clients: &Clients, id: ClientId) -> Option<Arc<Client>> {
        clients.register(id, SharedSymmetricKey::try_from_bytes(&[0; 32]).unwrap())
    }

    #[test]
    fn messages_are_held_up_to_the_bounds() {
        let clients = clients();
        register(&clients, ALICE).unwrap();
        register(&clients, BOB).unwrap();
        assert_eq!(clients.deliver(ALICE, vec![0; 100], false), Delivery::Taken);
        assert_eq!(clients.deliver(ALICE, vec![0; 1], false), Delivery::Full);
        assert_eq!(clients.deliver(BOB, vec![0; 51], false), Delivery::Full);
        assert_eq!(clients.deliver(BOB, vec![0; 50], false), Delivery::Taken);
        assert_eq!(clients.census(), (2, 0, 2, 150));
    }

    #[test]
    fn room_comes_back_when_messages_go() {
        let clients = clients();
        let alice = register(&clients, ALICE).unwrap();
        assert_eq!(clients.deliver(ALICE, vec![7; 100], false), Delivery::Taken);
        alice.put_back(alice.take().unwrap());
        assert_eq!(clients.census().3, 100);
        assert_eq!(alice.take(), Some(vec![7; 100]));
        assert_eq!(clients.census().3, 0);
        assert_eq!(clients.deliver(ALICE, vec![0; 100], false), Delivery::Taken);
        clients.forget(&ALICE);
        assert_eq!(clients.census(), (0, 0, 0, 0));
    }

    #[test]
    fn strangers_and_acks_for_the_absent_are_not_kept() {
        let clients = clients();
        assert_eq!(clients.deliver(ALICE, vec![0], false), Delivery::Unknown);
        let alice = register(&clients, ALICE).unwrap();
        assert_eq!(clients.deliver(ALICE, vec![0], true), Delivery::Unknown);
        alice.begin(CancellationToken::new());
        assert_eq!(clients.deliver(ALICE, vec![0], true), Delivery::Taken);
    }

    #[test]
    fn clients_are_no_more_than_the_bound_and_may_register_again() {
        let clients = clients();
        for id in [ALICE, BOB, ALICE] {
            assert!(register(&clients, id).is_some());
        }
        assert!(register(&clients, [3; 32]).is_none());
        assert_eq!(clients.registered.get(), 3);
    }

    #[test]
    fn a_client_has_one_session() {
        let clients = clients();
        let alice = register(&clients, ALICE).unwrap();
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        alice.begin(first.clone());
        alice.begin(second.clone());
        assert!(first.is_cancelled() && alice.is_online());
        second.cancel();
        assert!(!alice.is_online());
    }
}
