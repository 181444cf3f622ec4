//! Tor, in process, through arti.

mod config;
mod errors;
mod guards;
mod service;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arti_client::config::BoolOrAuto;
use arti_client::{DataStream, ErrorKind, HasKind as _, IsolationToken, StreamPrefs, TorClient};
use async_trait::async_trait;
use dlambda_proto::Endpoint;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout};

use self::guards::{Guards, Runtime};
use super::{Connection, Listener, Service, Transport};
use crate::TransportError;
use crate::network::Network;

/// Longest time to build the circuits to an onion service. Tor itself takes
/// 0.3 s to 10 s; what takes longer is better tried again on other relays.
const DIAL: Duration = Duration::from_secs(45);

/// For arti to choose its vanguards after its start, which takes milliseconds on an idle machine.
const VANGUARDS: Duration = Duration::from_secs(15);
/// Between two attempts meanwhile.
const AGAIN: Duration = Duration::from_millis(20);

/// Where Tor keeps its files. Both directories must be readable by their owner
/// only; arti checks them with `fs-mistrust`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TorDirectories {
    /// Guards and onion keys: losing it changes who one is.
    pub state: PathBuf,
    /// The directory of relays: losing it costs a download.
    pub cache: PathBuf,
}

/// How far the start of Tor has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BootstrapProgress {
    /// From 0 (just started) to 100 (ready).
    pub percent: u8,
    /// What it is stuck at, if it seems stuck.
    pub blocked: Option<String>,
}

/// A Tor client and, once it listens, an onion service for calls, and one for the overlay and its
/// guests.
pub struct TorTransport {
    client: Arc<TorClient<Runtime>>,
    guards: Arc<Guards>,
    services: service::Services,
}

impl TorDirectories {
    /// These directories.
    #[must_use]
    pub fn new(state: PathBuf, cache: PathBuf) -> Self {
        Self { state, cache }
    }
}

impl TorTransport {
    /// Starts Tor and waits until it can build circuits.
    ///
    /// # Errors
    ///
    /// [`TransportError::NetworkDown`] if the network does not answer or
    /// `deadline` passes, [`TransportError::Local`] if files or configuration
    /// are at fault.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was downloaded stays in the cache.
    pub async fn bootstrap(
        network: &Network,
        directories: &TorDirectories,
        deadline: Duration,
        mut progress: impl FnMut(BootstrapProgress) + Send,
    ) -> Result<Self, TransportError> {
        Self::bootstrap_boxed(network, directories, deadline, &mut progress).await
    }

    /// Boxed, so that arti's futures are compiled here, and not again in every crate that starts
    /// Tor.
    fn bootstrap_boxed<'a>(
        network: &'a Network,
        directories: &'a TorDirectories,
        deadline: Duration,
        progress: &'a mut (dyn FnMut(BootstrapProgress) + Send),
    ) -> BoxFuture<'a, Result<Self, TransportError>> {
        Box::pin(Self::bootstrap_here(
            network,
            directories,
            deadline,
            progress,
        ))
    }

    async fn bootstrap_here(
        network: &Network,
        directories: &TorDirectories,
        deadline: Duration,
        progress: &mut (dyn FnMut(BootstrapProgress) + Send),
    ) -> Result<Self, TransportError> {
        // Arti leaves the choice to the program; a second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = config::build(network, directories)?;
        if network.has_own_authorities() {
            forget_circuit_times(directories);
        }
        let guards = Guards::new(&directories.state, &config);
        let runtime = guards.runtime();
        let runtime = runtime.map_err(|error| TransportError::Local(error.into()))?;
        let client = TorClient::with_runtime(runtime)
            .config(config)
            .create_unbootstrapped()
            .map_err(errors::starting)?;
        guards.belong_to(&client);
        let mut events = client.bootstrap_events();
        let mut last_blockage = None;
        let bootstrap = client.bootstrap();
        let report = async {
            while let Some(status) = events.next().await {
                last_blockage = status.blocked().map(|b| b.message().to_string());
                progress(BootstrapProgress {
                    percent: percent(status.as_frac()),
                    blocked: last_blockage.clone(),
                });
            }
            std::future::pending().await
        };
        let outcome = timeout(deadline, async {
            tokio::select! {
                result = bootstrap => result,
                never = report => never,
            }
        })
        .await;
        match outcome {
            Ok(Ok(())) => {
                guards.stored().await?;
                let services = service::Services::default();
                Ok(Self {
                    client,
                    guards,
                    services,
                })
            }
            Ok(Err(error)) => Err(errors::starting(error)),
            Err(_) => {
                let why = last_blockage.unwrap_or_else(|| "no relay answered in time".to_owned());
                Err(TransportError::NetworkDown(why.into()))
            }
        }
    }

    /// Connects, once the vanguards are chosen: arti chooses them some moments after it says that
    /// it is ready.
    async fn connect(
        &self,
        target: (String, u16),
        prefs: &StreamPrefs,
    ) -> arti_client::Result<DataStream> {
        let begun = Instant::now();
        loop {
            let (address, port) = &target;
            let connected = (self.client)
                .connect_with_prefs((address.as_str(), *port), prefs)
                .await;
            match connected {
                Err(error)
                    if error.kind() == ErrorKind::BootstrapRequired
                        && begun.elapsed() < VANGUARDS =>
                {
                    sleep(AGAIN).await;
                }
                connected => return connected,
            }
        }
    }

    /// Preferences for one stream: a circuit that nothing else may use.
    fn isolated() -> StreamPrefs {
        let mut prefs = StreamPrefs::new();
        prefs.connect_to_onion_services(BoolOrAuto::Explicit(true));
        prefs.set_isolation(IsolationToken::new());
        prefs
    }
}

/// Forgets how long circuits took on a private network.
///
/// There they take some hundredths of a second while the machine is idle, which it soon is not. The
/// consensus has a lower bound for it, but arti 0.47 applies that to neither the client that reads
/// another process's estimate nor the first estimate after a start, so that a second command of the
/// same home gave up circuits that were fine.
fn forget_circuit_times(directories: &TorDirectories) {
    // One that is not there is forgotten already.
    let _ = std::fs::remove_file(directories.state.join("state/circuit_timeouts.json"));
}

#[async_trait]
impl Transport for TorTransport {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        let Endpoint::Onion(address) = endpoint else {
            return Err(TransportError::WrongEndpoint);
        };
        let target = (address.unredacted(), service::port(service));
        let prefs = Self::isolated();
        let stream = timeout(DIAL, self.connect(target, &prefs))
            .await
            .map_err(|_| TransportError::Unreachable("no circuit in time".into()))?
            .map_err(errors::dialling)?;
        self.guards.confirmed().await;
        Ok(Connection::new(stream))
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        Ok(Box::new(self.services.listen(&self.client, service)?))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0..=100 before"
)]
fn percent(fraction: f32) -> u8 {
    (fraction * 100.0).clamp(0.0, 100.0) as u8
}

impl fmt::Debug for TorTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TorTransport")
    }
}
