//! A provider and callers on a network in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, FunctionName, Output, Querier, Wallet};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::exchange::{VerifiedGreeting, receive_greeting};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport};
use dlambda_proto::{Endpoint, UnixSeconds};
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use tempfile::TempDir;

/// Longest time for a call in a test: generous, for slow machines.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// The time that all clocks show.
pub(crate) const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

/// The functions that every test provider publishes.
pub(crate) fn functions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions")
}

/// A provider and a network in memory.
pub(crate) struct World {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) provider: LocalProvider,
    dir: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ProviderConfig::without_tokens()).await
    }

    pub(crate) async fn with(config: ProviderConfig) -> Self {
        let network = MemoryNetwork::new(Duration::from_millis(1));
        let clock = Arc::new(FakeClock::at(NOW));
        let dir = tempfile::tempdir().expect("a directory");
        let provider = LocalProvider::start(
            config,
            &functions(),
            &data(&dir),
            Arc::new(network.transport([1; 32])),
            Arc::clone(&clock) as Arc<dyn Clock>,
        )
        .await
        .expect("the provider starts");
        Self {
            network,
            clock,
            provider,
            dir,
        }
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.provider.endpoint
    }

    /// The provider's data directory.
    pub(crate) fn data(&self) -> PathBuf {
        data(&self.dir)
    }

    pub(crate) fn querier(&self) -> Querier {
        querier(&self.network, &self.clock)
    }

    pub(crate) async fn call(
        &self,
        function: FunctionName,
        input: &[u8],
    ) -> Result<Output, CallError> {
        let call = Call::new(self.endpoint(), function).input(input);
        self.querier().call(&call, LONG, |_| {}).await
    }

    /// A stream to the provider, its greeting read: for callers that break rules.
    pub(crate) async fn open(&self) -> (BoxStream, VerifiedGreeting) {
        let mut stream = self.dial().await;
        let welcome = receive_greeting(&mut *stream, &self.endpoint(), self.clock.now(), LONG)
            .await
            .expect("a greeting");
        (stream, welcome)
    }

    pub(crate) async fn dial(&self) -> BoxStream {
        let transport = self.network.transport([2; 32]);
        transport
            .dial(&self.endpoint(), Service::Calls)
            .await
            .expect("reachable")
            .stream
    }

    /// Asserts that the provider still serves honest callers.
    pub(crate) async fn assert_alive(&self) {
        let answer = self
            .call(alias("upper"), b"alive")
            .await
            .expect("an answer");
        assert_eq!(answer.stdout, b"ALIVE");
    }
}

fn data(dir: &TempDir) -> PathBuf {
    dir.path().join("data")
}

pub(crate) fn querier(network: &MemoryNetwork, clock: &Arc<FakeClock>) -> Querier {
    let transport = Arc::new(network.transport([2; 32]));
    Querier::new(transport, Arc::clone(clock) as Arc<dyn Clock>)
}

/// `dlambda contract` looks at the provider's keys a second time without a pause.
pub(crate) const AT_ONCE: &str = "--second-look-within=0";

/// As if the providers of all contracts had been looked at a second time. What
/// the look itself does, other tests see; here it would be one more session.
pub(crate) fn skip_second_look(wallet: &Wallet) {
    for contract in wallet.unchecked(UnixSeconds(0)).expect("readable") {
        let advert = contract.advert.clone().authenticate().expect("authentic");
        let checked = wallet.checked(&contract.id, &advert);
        checked.expect("it is its own advert");
    }
}

pub(crate) fn alias(name: &str) -> FunctionName {
    FunctionName::Alias(name.to_owned())
}

pub(crate) fn wat(text: &str) -> FunctionName {
    FunctionName::Wasm(wat::parse_str(text).expect("good WAT").into())
}
