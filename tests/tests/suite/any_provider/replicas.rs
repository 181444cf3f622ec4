//! What several providers answer, compared: who lies is named, and proven to lie.

use std::time::Duration;

use dlambda_client::{Agreement, CallOutcome, Replicas};
use dlambda_executor::Isolation;
use dlambda_proto::{BatchSize, Evidence, Finding, FraudProof, FunctionSource, Request};
use dlambda_reputation::Arbiter;

use super::scripted::{Act, Scripted};
use super::{World, any};
use crate::support::LONG;

const MOST: Duration = Duration::from_secs(600);

/// What an arbiter says of an answer to this input.
async fn judge(world: &World, outcome: &CallOutcome, input: &[u8]) -> Finding {
    let evidence = Evidence::Fraud(Box::new(FraudProof {
        evidence: outcome.evidence.clone().expect("a receipt"),
        request: Request {
            function: FunctionSource::Attached(world.wasm.clone()),
            args: vec![],
            input: input.to_vec(),
            seed: outcome.seed,
            http: None,
            token: None,
        },
    }));
    let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, MOST);
    arbiter.judge(&evidence).await.expect("it can run").finding
}

async fn call(world: &World, name: &str, input: &str) -> Agreement {
    let querier = world.querier(&world.wallet(name));
    let replicas = Replicas::new(3, 2).expect("sound");
    let call = any(input);
    let called = querier.call_replicas(&call, replicas, LONG, |_| {});
    let (error, _) = match Box::pin(called).await {
        Ok(agreement) => return agreement,
        Err(failed) => failed,
    };
    panic!("{input}: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_provider_of_three_that_lies_is_named_every_time() {
    let world = World::new(2).await;
    let wallet = world.wallet("anne");
    let liar = Scripted::start(&world.network, 51, world.upper, Act::Lie).await;
    liar.sell(&wallet, BatchSize::Calls32);
    for provider in &world.providers {
        world
            .buy(&wallet, &provider.endpoint, BatchSize::Calls32)
            .await;
    }
    for number in 0..20 {
        let input = format!("call {number}");
        let agreement = call(&world, "anne", &input).await;
        let [liars, others] = [false, true].map(|agrees| {
            let others = agreement.others.iter();
            others.filter(|it| it.agrees == agrees).collect::<Vec<_>>()
        });
        assert_eq!((liars.len(), others.len()), (1, 1), "{input}");
        assert_eq!(liars[0].candidate.endpoint, liar.endpoint, "{input}");
        let lie = liars[0].end.as_ref().expect("it answered");
        if number == 0 {
            let found = judge(&world, lie, input.as_bytes()).await;
            assert_eq!(found, Finding::ProviderAtFault);
            let found = judge(&world, &agreement.outcome, input.as_bytes()).await;
            assert_eq!(found, Finding::Unproven);
        }
        let answer = agreement.outcome.into_output().expect("an answer");
        assert_eq!(answer.stdout, input.to_ascii_uppercase().as_bytes());
    }
    assert_eq!(liar.tokens(), 20);
}

/// What most say is what the call returns; that they lie is proven by running it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_of_two_against_one_is_returned_and_proven() {
    let world = World::new(1).await;
    let wallet = world.wallet("anne");
    let honest = &world.providers[0];
    world
        .buy(&wallet, &honest.endpoint, BatchSize::Calls8)
        .await;
    let mut liars = Vec::new();
    for key in [51, 52] {
        let liar = Scripted::start(&world.network, key, world.upper, Act::Lie).await;
        liar.sell(&wallet, BatchSize::Calls8);
        liars.push(liar);
    }
    let agreement = call(&world, "anne", "hello").await;
    let found = judge(&world, &agreement.outcome, b"hello").await;
    assert_eq!(found, Finding::ProviderAtFault);
    let different = agreement.others.iter().filter(|it| !it.agrees);
    let different: Vec<_> = different.collect();
    assert_eq!(different.len(), 1);
    assert_eq!(different[0].candidate.endpoint, honest.endpoint);
    let right = different[0].end.as_ref().expect("it answered");
    assert_eq!(judge(&world, right, b"hello").await, Finding::Unproven);
    let answer = agreement.outcome.into_output().expect("an answer");
    assert_eq!(answer.stdout, b"a lie");
}

/// A provider that was reached at one address under two names would agree with itself.
#[tokio::test(flavor = "multi_thread")]
async fn one_address_is_one_replica_whatever_it_calls_itself() {
    let world = World::new(1).await;
    let wallet = world.wallet("anne");
    let honest = &world.providers[0];
    world
        .buy(&wallet, &honest.endpoint, BatchSize::Calls8)
        .await;
    let liar = Scripted::start(&world.network, 51, world.upper, Act::Lie).await;
    liar.sell(&wallet, BatchSize::Calls8);
    liar.sell_as(52, &wallet, BatchSize::Calls8);
    let querier = world.querier(&wallet);
    let replicas = Replicas::new(3, 2).expect("sound");
    let call = any("hello");
    let called = querier.call_replicas(&call, replicas, LONG, |_| {});
    let (error, ended) = Box::pin(called).await.expect_err("no two agree");
    assert!(
        matches!(
            error,
            dlambda_client::CallError::Disagreement {
                answers: 2,
                equal: 1
            }
        ),
        "{error}"
    );
    assert_eq!(ended.len(), 2);
}
