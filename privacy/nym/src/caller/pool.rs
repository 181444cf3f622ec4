//! Clients that are connected ahead of time.
//!
//! A gateway sees when a client connects. If one connected for each call, or
//! right after one was used, it would see the calls.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use dlambda_nym_link::Traffic;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::Entry;
use crate::chance;
use crate::client::Client;
use crate::error::{HelperError, Trouble};
use crate::network::Network;
use crate::storage::InMemory;

/// Clients kept at most.
const LARGEST: u8 = 16;

/// The mean time until a used client is replaced.
const REFILL_AFTER: Duration = Duration::from_secs(2);

/// Tries to connect a client for a session that waits for one: after three
/// failures another gateway is tried.
const TRIES: u32 = 4;

/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// How often clients that have ended are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// Connected clients that no session has had. Clones share them.
#[derive(Clone)]
pub(super) struct Pool(Arc<Inner>);

struct Inner {
    network: Network,
    entry: Entry,
    size: usize,
    ready: Mutex<VecDeque<Client>>,
    taken: Notify,
}

impl Pool {
    /// Connects the first client, by trying until the deadline, and the
    /// others in the background.
    pub(super) async fn start(
        network: Network,
        entry: Entry,
        size: u8,
        deadline: Duration,
    ) -> Result<Self, HelperError> {
        let first = first(&network, &entry, deadline).await?;
        let pool = Self(Arc::new(Inner {
            network,
            entry,
            size: usize::from(size.min(LARGEST)),
            ready: Mutex::new(VecDeque::from([first])),
            taken: Notify::new(),
        }));
        tokio::spawn(refill(Arc::downgrade(&pool.0)));
        Ok(pool)
    }

    /// A client that no session has had, connected ahead of time if there is
    /// one.
    pub(super) async fn take(&self) -> Result<Client, Trouble> {
        let pooled = self.0.pop();
        self.0.taken.notify_one();
        if let Some(client) = pooled {
            return Ok(client);
        }
        let mut trouble = Trouble::Other;
        for attempt in 1..=TRIES {
            match connect(&self.0.network, &self.0.entry).await {
                Ok(client) => return Ok(client),
                Err(error) => trouble = error,
            }
            if attempt < TRIES {
                sleep(PAUSES.0).await;
            }
        }
        Err(trouble)
    }

    /// How the pool's clients hide their traffic.
    pub(super) fn traffic(&self) -> Traffic {
        self.0.network.traffic
    }
}

impl Inner {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Client>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pop(&self) -> Option<Client> {
        let mut ready = self.ready();
        ready.retain(Client::is_alive);
        ready.pop_front()
    }

    /// Whether clients are missing, once those that have ended are dropped.
    fn wants_more(&self) -> bool {
        let mut ready = self.ready();
        ready.retain(Client::is_alive);
        ready.len() < self.size
    }
}

/// Connects a first client, with growing pauses, until the deadline.
async fn first(
    network: &Network,
    entry: &Entry,
    deadline: Duration,
) -> Result<Client, HelperError> {
    let until = Instant::now() + deadline;
    let mut cause = Trouble::Late;
    let mut pause = PAUSES.0;
    loop {
        match timeout_at(until, connect(network, entry)).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(trouble)) => cause = trouble,
            Err(_) => break,
        }
        if Instant::now() + pause >= until {
            break;
        }
        sleep(pause).await;
        pause = longer(pause);
    }
    let within = deadline;
    Err(HelperError::Unreachable { within, cause })
}

/// Connects a client at the gateway that is kept.
async fn connect(network: &Network, entry: &Entry) -> Result<Client, Trouble> {
    let connecting = Client::connect(network, network.caller(), InMemory::new(), entry.gateway());
    let connected = connecting.await.inspect_err(|_| entry.failed())?;
    let kept = entry.worked(connected.gateway(), SystemTime::now());
    kept.map_err(|_| Trouble::Storage)?;
    Ok(connected)
}

/// Fills the pool while it exists. The first filling follows no use and needs
/// no disguise.
async fn refill(pool: Weak<Inner>) {
    let mut filled = false;
    let mut pause = PAUSES.0;
    loop {
        let Some(inner) = pool.upgrade() else { return };
        if !inner.wants_more() {
            filled = true;
            let taken = inner.taken.notified();
            let _due = tokio::time::timeout(SWEEP, taken).await;
            continue;
        }
        if filled && inner.network.traffic == Traffic::Standard {
            sleep(chance::exponential(REFILL_AFTER)).await;
        }
        match connect(&inner.network, &inner.entry).await {
            Ok(client) => {
                inner.ready().push_back(client);
                pause = PAUSES.0;
            }
            Err(trouble) => {
                tracing::info!(%trouble, "no client for the pool");
                drop(inner);
                sleep(pause).await;
                pause = longer(pause);
            }
        }
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSES.1)
}
