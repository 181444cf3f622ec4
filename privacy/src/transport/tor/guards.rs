//! Entry guards are on disk before they are used.
//!
//! Guards protect those who call for a long time: a client that always enters the network by the
//! same relay does not, sooner or later, enter it by one that belongs to an adversary. arti writes
//! them down once a minute, and when a client is dropped in order; a command lives for a second and
//! can be killed. So arti connects through a [`Gate`]: a relay that is neither among the guards on
//! disk nor a directory of the configuration has to wait until it is on disk. Waking up arti's
//! periodic tasks makes it write at once.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arti_client::{DormantMode, TorClient, TorClientConfig};
use async_trait::async_trait;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};
use tor_dircommon::fallback::FallbackList;
use tor_linkspec::HasAddrs;
use tor_rtcompat::{CompoundRuntime, NetStreamProvider, PreferredRuntime, RuntimeSubstExt as _};

use crate::TransportError;

/// Where arti keeps guards, below its directory of state.
const FILE: &str = "state/guards.json";
/// For a write, which takes milliseconds.
const WRITE: Duration = Duration::from_secs(10);
/// The same, where nothing depends on it.
const CONFIRM: Duration = Duration::from_millis(500);
const LOOK: Duration = Duration::from_millis(3);
/// Between two requests to write.
const AGAIN: Duration = Duration::from_millis(60);

type Tokio = PreferredRuntime;

/// What arti runs on: tokio, and connections through the gate.
pub(super) type Runtime = CompoundRuntime<Tokio, Tokio, Tokio, Gate, Tokio, Tokio, Tokio>;

/// The guards of one client.
pub(super) struct Guards {
    file: PathBuf,
    /// What everybody connects to who knows no relay yet.
    directories: HashSet<SocketAddr>,
    /// Makes arti write its state.
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Whether the disk was given its moment to hold one that has worked.
    confirmed: AtomicBool,
}

/// Connects to relays, of which guards are on disk.
#[derive(Clone)]
pub(super) struct Gate {
    inner: Tokio,
    guards: Arc<Guards>,
}

/// What the disk holds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// Where the guards are that were chosen.
    addresses: Vec<SocketAddr>,
    /// Whether one of them has worked.
    confirmed: bool,
}

impl Guards {
    pub(super) fn new(state: &Path, config: &TorClientConfig) -> Arc<Self> {
        let directories: &FallbackList = config.as_ref();
        Self::below(state, directories.iter().flat_map(HasAddrs::addrs))
    }

    fn below(state: &Path, directories: impl IntoIterator<Item = SocketAddr>) -> Arc<Self> {
        Arc::new(Self {
            file: state.join(FILE),
            directories: directories.into_iter().collect(),
            wake: OnceLock::new(),
            confirmed: AtomicBool::new(false),
        })
    }

    /// The runtime for arti to run on.
    ///
    /// # Errors
    ///
    /// If there is no tokio runtime.
    pub(super) fn runtime(self: &Arc<Self>) -> io::Result<Runtime> {
        let inner = Tokio::current()?;
        let gate = Gate {
            inner: inner.clone(),
            guards: Arc::clone(self),
        };
        Ok(inner.with_tcp_provider(gate))
    }

    /// Whose guards they are.
    pub(super) fn belong_to(&self, client: &Arc<TorClient<Runtime>>) {
        let client = Arc::downgrade(client);
        let wake = move || {
            if let Some(client) = client.upgrade() {
                client.set_dormant(DormantMode::Normal);
            }
        };
        let _ = self.wake.set(Box::new(wake));
    }

    /// Waits until guards are on disk. Takes no time but at the first start.
    ///
    /// # Errors
    ///
    /// [`TransportError::Local`] if they cannot be stored: then nothing may be sent through them.
    pub(super) async fn stored(&self) -> Result<(), TransportError> {
        let stored = self.wait(|kept| !kept.addresses.is_empty()).await;
        stored.map_err(|error| TransportError::Local(error.into()))
    }

    /// After a circuit has worked: gives the disk a moment to say which guard did.
    ///
    /// Not longer, and no error: the guards are there, and in order, so that the next start begins
    /// with the same one; and another process of this home may be the one that writes.
    pub(super) async fn confirmed(&self) {
        if !self.confirmed.load(Ordering::Relaxed) {
            let _ = timeout(CONFIRM, self.wait(|kept| kept.confirmed)).await;
            self.confirmed.store(true, Ordering::Relaxed);
        }
    }

    /// Waits until the relay may be connected to.
    async fn admit(&self, relay: &SocketAddr) -> io::Result<()> {
        if self.directories.contains(relay) {
            return Ok(());
        }
        self.wait(|kept| kept.addresses.contains(relay)).await
    }

    /// Has guards written until the disk holds what is wanted.
    async fn wait(&self, enough: impl Fn(&Kept) -> bool) -> io::Result<()> {
        let begun = Instant::now();
        let mut asked: Option<Instant> = None;
        while !enough(&self.kept()) {
            if begun.elapsed() > WRITE {
                return Err(io::Error::other("Tor's entry guards cannot be stored"));
            }
            // Once in a while again: what is to be written may only just have happened.
            if asked.is_none_or(|asked| asked.elapsed() >= AGAIN) {
                if let Some(wake) = self.wake.get() {
                    wake();
                }
                asked = Some(Instant::now());
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    fn kept(&self) -> Kept {
        let text = std::fs::read(&self.file).unwrap_or_default();
        let value = serde_json::from_slice(&text).unwrap_or(Value::Null);
        let mut kept = Kept {
            addresses: Vec::new(),
            confirmed: false,
        };
        kept.collect(&value);
        kept
    }
}

#[async_trait]
impl NetStreamProvider for Gate {
    type Stream = <Tokio as NetStreamProvider>::Stream;
    type Listener = <Tokio as NetStreamProvider>::Listener;
    type ConnectOptions = <Tokio as NetStreamProvider>::ConnectOptions;
    type ListenOptions = <Tokio as NetStreamProvider>::ListenOptions;

    async fn connect(
        &self,
        addr: &SocketAddr,
        options: &Self::ConnectOptions,
    ) -> io::Result<Self::Stream> {
        self.guards.admit(addr).await?;
        self.inner.connect(addr, options).await
    }

    async fn listen(
        &self,
        addr: &SocketAddr,
        options: &Self::ListenOptions,
    ) -> io::Result<Self::Listener> {
        self.inner.listen(addr, options).await
    }
}

impl Kept {
    /// From all sets of guards, of which there is one for each kind of use.
    fn collect(&mut self, value: &Value) {
        let Value::Object(fields) = value else {
            return;
        };
        let list = |name: &str| fields.get(name).and_then(Value::as_array);
        for guard in list("guards").into_iter().flatten() {
            let addresses = guard["orports"].as_array().into_iter().flatten();
            let addresses =
                addresses.filter_map(|address| address.as_str()?.parse::<SocketAddr>().ok());
            self.addresses.extend(addresses);
            // In some of arti's versions beside the list of those that have worked.
            self.confirmed |= guard["confirmed_at"].is_string();
        }
        self.confirmed |= list("confirmed").is_some_and(|confirmed| !confirmed.is_empty());
        fields.values().for_each(|value| self.collect(value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECTORY: &str = "192.0.2.3:9001";

    fn with(text: &str) -> (tempfile::TempDir, Arc<Guards>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("state")).unwrap();
        std::fs::write(dir.path().join(FILE), text).unwrap();
        let guards = Guards::below(dir.path(), [DIRECTORY.parse().unwrap()]);
        (dir, guards)
    }

    const ONE: &str = r#"{"default": {
        "guards": [{"id": 1, "orports": ["192.0.2.1:9001", "[2001:db8::1]:9001"], "confirmed_at": null}],
        "confirmed": []}}"#;

    #[test]
    fn guards_are_found_in_whatever_set_they_are() {
        let none = Kept {
            addresses: Vec::new(),
            confirmed: false,
        };
        for text in [
            "",
            "{",
            "[]",
            r#"{"guards": [], "confirmed": []}"#,
            r#"{"default": {"guards": [], "confirmed": []}}"#,
        ] {
            assert_eq!(with(text).1.kept(), none, "{text}");
        }
        let one = with(ONE).1.kept();
        assert_eq!(one.addresses.len(), 2);
        assert!(!one.confirmed);
        let worked = ONE.replace("null", "\"2026-11-20T23:46:00Z\"");
        assert!(with(&worked).1.kept().confirmed);
        assert_eq!(Guards::below(Path::new("/nowhere"), []).kept(), none);
    }

    #[tokio::test(start_paused = true)]
    async fn a_relay_is_let_through_once_it_is_on_disk() {
        let (dir, guards) = with(ONE);
        let other: SocketAddr = "192.0.2.2:9001".parse().unwrap();
        guards
            .admit(&"192.0.2.1:9001".parse().unwrap())
            .await
            .unwrap();
        assert!(guards.admit(&other).await.is_err(), "it never gets there");
        let file = dir.path().join(FILE);
        let wake = move || std::fs::write(&file, ONE.replace("2.1:", "2.2:")).unwrap();
        assert!(guards.wake.set(Box::new(wake)).is_ok());
        guards.admit(&other).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn before_there_are_guards_only_directories_are_let_through() {
        for text in ["{}", ONE] {
            let (_dir, guards) = with(text);
            let directory = DIRECTORY.parse().unwrap();
            guards.admit(&directory).await.unwrap();
            // However long its guards take to be written: a relay is no directory.
            let relay = "192.0.2.4:9001".parse().unwrap();
            assert!(guards.admit(&relay).await.is_err());
        }
    }
}
