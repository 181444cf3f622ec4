use std::sync::Arc;

use async_trait::async_trait;
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::transport::{Connection, Listener, Service, Transport};
use dlambda_proto::{Endpoint, OnionAddress, Requirements, UnixSeconds};

use super::*;
use crate::{FunctionName, Target};

const LONG: Duration = Duration::from_secs(1_000);

/// Reaches nobody.
#[derive(Default)]
struct Nowhere(Mutex<Vec<Endpoint>>);

#[async_trait]
impl Transport for Nowhere {
    async fn dial(&self, endpoint: &Endpoint, _: Service) -> Result<Connection, TransportError> {
        self.0.lock().unwrap().push(*endpoint);
        Err(TransportError::Unreachable("nobody".into()))
    }

    async fn listen(&self, _: Service) -> Result<Box<dyn Listener>, TransportError> {
        Err(TransportError::WrongService)
    }
}

fn endpoint(byte: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([byte; 32]))
}

fn querier(transport: &Arc<Nowhere>) -> Querier {
    let clock = Arc::new(FakeClock::at(UnixSeconds(1_000)));
    Querier::new(Arc::clone(transport) as Arc<dyn Transport>, clock)
}

fn call(target: impl Into<Target>) -> Call {
    Call::new(target, FunctionName::Alias("f".into()))
}

fn policy(max_time: Duration) -> Policy {
    Policy {
        max_time,
        replicas: 1,
        agree: 1,
    }
}

async fn race(transport: &Arc<Nowhere>, providers: &[u8], max_time: Duration) -> Ended {
    let candidates: Vec<_> = (providers.iter())
        .map(|byte| Candidate::at(endpoint(*byte)))
        .collect();
    let (querier, call) = (querier(transport), call(endpoint(1)));
    let patience = Patience::new(max_time);
    let policy = policy(max_time);
    let raced = querier.race(&call, &candidates, policy, patience, &|_| {});
    let raced = raced.await;
    querier.one_of(raced).await
}

#[tokio::test(start_paused = true)]
async fn a_candidate_that_cannot_be_reached_is_followed_by_the_next() {
    let transport = Arc::new(Nowhere::default());
    let ended = race(&transport, &[1, 2], LONG).await;
    assert!(matches!(ended, Err(CallError::Transport(_))));
    let dialled = transport.0.lock().unwrap().clone();
    assert_eq!(dialled, [1, 1, 1, 2, 2, 2].map(endpoint));
}

#[tokio::test(start_paused = true)]
async fn no_candidate_is_asked_after_the_time_is_over() {
    let transport = Arc::new(Nowhere::default());
    let ended = race(&transport, &[1, 2], Duration::ZERO).await;
    assert!(matches!(ended, Err(CallError::Deadline(0))));
    assert!(!transport.0.lock().unwrap().contains(&endpoint(2)));
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_not_reached_is_remembered() {
    let transport = Arc::new(Nowhere::default());
    let (querier, call) = (querier(&transport), call(endpoint(1)));
    let before = querier.experience().lower_bound(&endpoint(1));
    assert!(querier.call(&call, LONG, |_| {}).await.is_err());
    assert!(querier.experience().lower_bound(&endpoint(1)) < before);
}

#[tokio::test]
async fn without_a_token_no_provider_is_asked() {
    let transport = Arc::new(Nowhere::default());
    let call = call(Target::Any(Requirements::default()));
    let ended = querier(&transport).call(&call, LONG, |_| {}).await;
    assert!(matches!(ended, Err(CallError::NoCandidate)));
    assert!(transport.0.lock().unwrap().is_empty());
}
