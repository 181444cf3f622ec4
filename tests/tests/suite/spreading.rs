//! A function spreads from the provider that publishes it to one that preloads it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, FunctionName, Output};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::network::{Network, OverlayNetwork};
use dlambda_privacy::transport::Service;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{Endpoint, FunctionId, Start, UnixSeconds};
use dlambda_provider::{ProviderConfig, RunningStatus, Snapshot, query_status};
use dlambda_tests::local::LocalProvider;
use tokio::time::{sleep, timeout};

use crate::support::{LONG, functions, querier, wat};

/// Ten minutes before midnight.
const EVENING: UnixSeconds = UnixSeconds(20_834 * 86_400 - 600);

/// Calls of one day: enough to be told.
const CALLS: usize = 70;

struct World {
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    dir: tempfile::TempDir,
}

impl World {
    /// A provider that looks for functions several times a second, and publishes these.
    async fn provider(&self, number: u8, published: &[&str]) -> LocalProvider {
        let dir = self.dir.path().join(format!("functions-{number}"));
        std::fs::create_dir_all(&dir).expect("made");
        for name in published {
            std::fs::copy(functions().join(name), dir.join(name)).expect("copied");
        }
        let transport = self.network.transport([number; 32]);
        let first = self
            .network
            .transport([1; 32])
            .endpoint_of(Service::Overlay);
        let mut config = ProviderConfig::without_tokens();
        let bootstrap = (number > 1).then_some(first);
        config.overlay = Some(overlay(bootstrap));
        config.spread.preload_every = Duration::from_millis(200);
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        let data = self.data(number);
        let started = LocalProvider::start(config, &dir, &data, Arc::new(transport), clock);
        started.await.expect("the provider starts")
    }

    fn data(&self, number: u8) -> std::path::PathBuf {
        self.dir.path().join(format!("data-{number}"))
    }

    async fn call(&self, at: Endpoint, function: FunctionName) -> Result<Output, CallError> {
        let call = Call::new(at, function).input(b"hello");
        let querier = querier(&self.network, &self.clock);
        querier.call(&call, LONG, |_| {}).await
    }
}

fn overlay(bootstrap: Option<Endpoint>) -> OverlayNetwork {
    let file = "name = \"n\"\ntransport = \"tor\"\n[overlay]\n\
                id = \"07070707070707070707070707070707\"\neffort = 1\n";
    let mut overlay = Network::parse(file).expect("a network").overlay;
    let overlay_of_file = overlay.as_mut().expect("an overlay");
    overlay_of_file.bootstrap = bootstrap.into_iter().map(Into::into).collect();
    overlay.expect("an overlay")
}

/// Waits until the provider says so.
async fn until(data: &Path, what: &str, is_so: impl Fn(&Snapshot) -> bool) -> Snapshot {
    let waiting = async {
        loop {
            if let Ok(RunningStatus::Provider(status)) = query_status(data).await
                && is_so(&status)
            {
                return *status;
            }
            sleep(Duration::from_millis(200)).await;
        }
    };
    let waited = timeout(LONG, waiting).await;
    waited.unwrap_or_else(|_| panic!("it never comes about that {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_function_in_demand_is_preloaded_and_an_uploaded_one_is_not() {
    let world = World {
        network: MemoryNetwork::new(Duration::from_millis(1)),
        clock: Arc::new(FakeClock::at(EVENING)),
        dir: tempfile::tempdir().expect("a directory"),
    };
    let publisher = world.provider(1, &["upper.wasm"]).await;
    let other = world.provider(2, &[]).await;
    let wasm = std::fs::read(functions().join("upper.wasm")).expect("an example");
    let published = FunctionId::of(&wasm);
    let brought = wat("(module (memory (export \"memory\") 1) (func (export \"_start\")))");
    let FunctionName::Wasm(bytes) = &brought else {
        panic!("not a function's bytes");
    };
    let brought_id = FunctionId::of(bytes);
    for _ in 0..CALLS {
        for function in [FunctionName::Id(published), brought.clone()] {
            let answer = world.call(publisher.endpoint, function).await;
            answer.expect("an answer");
        }
    }
    for number in [1, 2] {
        until(&world.data(number), "it knows both providers", |status| {
            status.overlay.as_ref().is_some_and(|it| it.listings == 2)
        })
        .await;
    }
    let missing = FunctionName::Id(published);
    let missing = world.call(other.endpoint, missing).await;
    assert!(matches!(missing, Err(CallError::FunctionMissing)));
    // The day is over.
    world.clock.advance(1200);
    let status = until(&world.data(2), "it has the function", |status| {
        status.preload.fetched > 0
    })
    .await;
    let held = status.preload.functions.iter();
    let held: Vec<_> = held.map(|it| (it.function.clone(), it.bytes)).collect();
    assert_eq!(held, [(published.unredacted(), wasm.len() as u64)]);
    let demand = status.overlay.expect("a node").demand;
    let demand: Vec<_> = demand
        .into_iter()
        .map(|it| (it.function, it.calls))
        .collect();
    assert_eq!(demand, [(published.unredacted(), 64)]);
    let answer = world
        .call(other.endpoint, FunctionName::Id(published))
        .await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.stdout, b"HELLO");
    assert!(!answer.attached && answer.usage.start != Start::Compiled);
    let missing = FunctionName::Id(brought_id);
    let missing = world.call(other.endpoint, missing).await;
    assert!(matches!(missing, Err(CallError::FunctionMissing)));
}
