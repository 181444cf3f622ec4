//! Calls as they should go, on a network in memory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dlambda_client::{Call, CallError, FunctionName, Querier};
use dlambda_privacy::TransportError;
use dlambda_privacy::transport::{
    Connection, DangerouslyDirect, Listener, MultiTransport, Service, Transport,
};
use dlambda_proto::{Advert, Endpoint, ErrorKind, FunctionId, HasKind as _, Start};
use dlambda_provider::{DataDir, ProviderConfig, ProviderError};

use crate::support::{LONG, World, alias, functions};

#[tokio::test(flavor = "multi_thread")]
async fn by_alias_by_cid_and_by_bytes() {
    let world = World::new().await;
    let wasm = std::fs::read(functions().join("upper.wasm")).expect("an example");
    let id = FunctionId::of(&wasm);
    for function in [
        alias("upper"),
        FunctionName::Id(id),
        FunctionName::Wasm(wasm.into()),
    ] {
        let answer = world.call(function, b"hello").await.expect("an answer");
        assert_eq!(answer.stdout, b"HELLO");
        assert_eq!(answer.function, id);
        assert!(!answer.attached, "the provider publishes it");
        assert!(answer.usage.fuel > 0 && answer.usage.peak_memory_bytes > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_of_ones_own_travels_once() {
    let world = World::new().await;
    let own = || {
        crate::support::wat("(module (memory (export \"memory\") 1) (func (export \"_start\")))")
    };
    let first = world.call(own(), b"").await.expect("an answer");
    assert!(first.attached && first.usage.start == Start::Compiled);
    let second = world.call(own(), b"").await.expect("an answer");
    assert!(!second.attached && second.usage.start == Start::Warm);
}

#[tokio::test(flavor = "multi_thread")]
async fn arguments_and_large_inputs_arrive() {
    let world = World::new().await;
    let call = Call::new(world.endpoint(), alias("args-echo")).args(["one", "two words", "ü"]);
    let answer = world
        .querier()
        .call(&call, LONG, |_| {})
        .await
        .expect("an answer");
    assert_eq!(answer.stdout, "function\none\ntwo words\nü\n".as_bytes());
    let input = vec![b'a'; 900_000];
    let answer = world.call(alias("upper"), &input).await.expect("an answer");
    assert_eq!(answer.stdout, vec![b'A'; 900_000]);
    let bucket = 1 << 20;
    for bytes in [answer.traffic.sent_bytes, answer.traffic.received_bytes] {
        assert!(
            (bucket..bucket + 100).contains(&bytes),
            "{bytes} is one bucket"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_said_clearly() {
    let world = World::new().await;
    let unknown_alias = world
        .call(alias("no-such"), b"")
        .await
        .expect_err("unknown");
    assert!(matches!(&unknown_alias, CallError::UnknownAlias { known } if known.len() >= 4));
    assert_eq!(unknown_alias.kind(), ErrorKind::Refused);
    let unknown_id = FunctionName::Id(FunctionId::of(b"nothing like it"));
    let unknown_id = world.call(unknown_id, b"").await.expect_err("unknown");
    assert!(matches!(unknown_id, CallError::FunctionMissing));
    let call = Call::new(world.endpoint(), alias("upper")).plan("gold".parse().expect("a name"));
    let unknown_plan = world
        .querier()
        .call(&call, LONG, |_| {})
        .await
        .expect_err("unknown");
    assert!(matches!(unknown_plan, CallError::UnknownPlan { known } if known[0] == "small"));
}

#[tokio::test(flavor = "multi_thread")]
async fn more_input_than_the_plan_allows_is_refused_by_the_provider() {
    let world = World::new().await;
    let input = vec![0; (1 << 20) + 1];
    let error = world
        .call(alias("upper"), &input)
        .await
        .expect_err("too large");
    assert!(matches!(error, CallError::TooLarge));
    let call = Call::new(world.endpoint(), alias("upper"))
        .plan("medium".parse().expect("a name"))
        .input(input);
    assert!(world.querier().call(&call, LONG, |_| {}).await.is_ok());
}

/// A transport whose streams carry less than the smallest call.
struct Narrow<T>(T);

#[async_trait]
impl<T: Transport> Transport for Narrow<T> {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        let dialled = self.0.dial(endpoint, service).await?;
        Ok(Connection::limited(dialled.stream, 1000))
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(service).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_transport_of_a_call_limits_its_size() {
    let world = World::new().await;
    let call = Call::new(world.endpoint(), alias("upper")).input("hello");
    let over = |transport: Arc<dyn Transport>| Querier::new(transport, world.clock.clone());
    let wide = world.network.transport([2; 32]);
    let both = over(Arc::new(MultiTransport::new(vec![
        Arc::new(Narrow(DangerouslyDirect::new())),
        Arc::new(wide.clone()),
    ])));
    both.call(&call, LONG, |_| {}).await.expect("an answer");

    let narrow = over(Arc::new(Narrow(wide)));
    let error = narrow.call(&call, LONG, |_| {}).await.expect_err("refused");
    let limit = TransportError::TooLarge(1000).to_string();
    assert_eq!(error.to_string(), limit);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_epochs_change() {
    let mut config = ProviderConfig::without_tokens();
    config.epoch = Duration::from_secs(Advert::MIN_EPOCH_SECONDS);
    let world = World::with(config).await;
    let first = world.call(alias("upper"), b"a").await.expect("an answer");
    let mut latest = first.epoch;
    for _ in 0..3 {
        world.clock.advance(Advert::MIN_EPOCH_SECONDS + 1);
        while latest
            == world
                .call(alias("upper"), b"a")
                .await
                .expect("an answer")
                .epoch
        {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        latest = latest.next();
    }
    let last = world.call(alias("upper"), b"a").await.expect("an answer");
    assert_eq!(last.epoch.0, first.epoch.0 + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_finishes_running_calls_and_takes_no_more() {
    let world = World::new().await;
    let slow = crate::support::wat(crate::hostile_functions::LOOP);
    let call = Call::new(world.endpoint(), slow);
    let querier = world.querier();
    let running = tokio::spawn(async move { querier.call(&call, LONG, |_| {}).await });
    // Long enough to be running, far less than the plan's limit.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let querier = world.querier();
    let call = Call::new(world.endpoint(), alias("upper"));
    world.provider.stop().await.expect("stops");
    let ended = running.await.expect("no panic").expect_err("it loops");
    assert!(
        matches!(ended, CallError::FunctionStopped { .. }),
        "an answer, not a lost connection"
    );
    assert!(
        querier
            .call(&call, Duration::from_secs(5), |_| {})
            .await
            .is_err()
    );
}

/// Another provider on it would use the same store, and make epochs of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_data_directory_is_in_use_until_running_calls_have_ended() {
    let world = World::new().await;
    let data = world.data();
    let slow = crate::support::wat(crate::hostile_functions::LOOP);
    // A quick machine comes to the end of the small plan's fuel too soon.
    let medium = "medium".parse().expect("a name");
    let call = Call::new(world.endpoint(), slow).plan(medium);
    let querier = world.querier();
    let running = tokio::spawn(async move { querier.call(&call, LONG, |_| {}).await });
    // Long enough to be running, far less than the plan's limit.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let stopping = tokio::spawn(world.provider.stop());
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!stopping.is_finished(), "a call is running");
    assert!(matches!(DataDir::open(&data), Err(ProviderError::InUse(_))));
    stopping.await.expect("no panic").expect("stops");
    let _ = running.await;
    DataDir::open(&data).expect("it is free");
}
