//! Calls that may go to any provider that the wallet holds tokens of: real providers, and some
//! that follow a script.

mod colluding;
mod failover;
mod hedging;
mod replicas;
mod scripted;
mod stalls;
mod telling;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::wallet::ContractSummary;
use dlambda_client::{Call, ProposalOutcome, Querier, Target, Wallet};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{BatchSize, Endpoint, FunctionId, Request, Requirements, decode};
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use tempfile::TempDir;

use crate::contracts::market::wish;
use crate::support::{LONG, NOW, alias, functions, querier, skip_second_look};

/// A network with providers that sell calls of `upper`.
struct World {
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    upper: FunctionId,
    wasm: Vec<u8>,
    providers: Vec<LocalProvider>,
    dir: TempDir,
}

impl World {
    /// With so many real providers.
    async fn new(providers: u8) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let published = dir.path().join("functions");
        std::fs::create_dir(&published).expect("created");
        let wasm = std::fs::read(functions().join("upper.wasm")).expect("an example");
        std::fs::write(published.join("upper.wasm"), &wasm).expect("written");
        let mut world = Self {
            network: MemoryNetwork::new(Duration::from_millis(1)),
            clock: Arc::new(FakeClock::at(NOW)),
            upper: FunctionId::of(&wasm),
            wasm,
            providers: Vec::new(),
            dir,
        };
        let starting = (1..=providers).map(|key| world.start(key));
        world.providers = futures::future::join_all(starting).await;
        world
    }

    async fn start(&self, key: u8) -> LocalProvider {
        let mut config = ProviderConfig::default();
        config.execution.workers = 1;
        let transport = Arc::new(self.network.transport([key; 32]));
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let (published, data) = (self.dir.path().join("functions"), self.data(key));
        let started = LocalProvider::start(config, &published, &data, transport, clock);
        Box::pin(started).await.expect("the provider starts")
    }

    fn data(&self, key: u8) -> PathBuf {
        self.dir.path().join(format!("provider-{key}"))
    }

    fn wallet(&self, name: &str) -> Wallet {
        Wallet::open(&self.dir.path().join("wallets").join(name)).expect("a wallet")
    }

    fn querier(&self, wallet: &Wallet) -> Querier {
        querier(&self.network, &self.clock).with_wallet(wallet.clone())
    }

    /// Buys calls of the real provider at this endpoint.
    async fn buy(&self, wallet: &Wallet, endpoint: &Endpoint, calls: BatchSize) {
        let (querier, wish) = (self.querier(wallet), wish(calls));
        let offered = querier.contract(endpoint, &wish, LONG, |_| true, |_| {});
        let offered = Box::pin(offered).await.expect("an offer");
        assert!(matches!(offered, ProposalOutcome::Signed(_)), "{offered:?}");
        querier.flush_acks().await;
        skip_second_look(wallet);
    }

    /// What the wallet holds of this endpoint's provider.
    fn held(&self, wallet: &Wallet, endpoint: &Endpoint) -> ContractSummary {
        let listing = wallet.contracts(NOW).expect("readable").contracts;
        let mut found = listing.into_iter().filter(|it| it.endpoint == *endpoint);
        found.next().expect("a contract")
    }
}

/// A call of `upper` wherever there are tokens.
fn any(input: impl Into<Vec<u8>>) -> Call {
    Call::new(Target::Any(Requirements::default()), alias("upper")).input(input)
}

/// The different tokens that calls came with, over all sessions that have ended.
fn tokens(provider: &LocalProvider) -> HashSet<[u8; 32]> {
    let records = provider.recorder.records();
    let requests = records.iter().filter_map(|it| it.request.as_ref());
    let tokens = requests.filter_map(|it| decode::<Request>(it).ok()?.token);
    tokens.map(|token| token.nonce).collect()
}
