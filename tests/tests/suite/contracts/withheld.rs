//! Tokens that do not leave, or are nobody's business.

use std::time::Duration;

use dlambda_client::CallError;
use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::exchange::{acknowledge, exchange};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::Transport as _;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::BatchSize;
use dlambda_provider::ProviderConfig;

use super::market::{Market, Outcome};
use crate::support::LONG;

/// By the key that a token is good under, somebody who shows each customer
/// another identity would know whose it is.
#[tokio::test(flavor = "multi_thread")]
async fn another_identity_at_the_same_address_gets_no_token() {
    let mut market = Market::open().await;
    let querier = market.customer("anne");
    let wallet = querier.wallet().expect("a wallet").clone();
    market.buy(&querier, BatchSize::Calls8).await;
    market.become_another().await;
    let called = querier.call(&market.call("hello"), LONG, |_| {}).await;
    assert!(
        matches!(called, Err(CallError::OtherProvider)),
        "{called:?}"
    );
    assert_eq!(market.tokens_left(&wallet), 8, "none is used up");
    let records = market.records(1).await;
    assert_eq!(records[0].received, b"", "none has left");
    // Who trusts the newcomer pays it with its own tokens.
    market.buy(&querier, BatchSize::Calls8).await;
    let called = querier.call(&market.call("hello"), LONG, |_| {}).await;
    assert_eq!(called.expect("an answer").stdout, b"HELLO");
    assert_eq!(market.tokens_left(&wallet), 15);
}

/// A provider that says nothing has not seen the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_never_left_is_there_for_any_call() {
    let market = Market::open().await;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls8).await;
    let silent = MemoryNetwork::new(Duration::ZERO);
    let mut listener = silent.transport([1; 32]).listen().await.expect("listens");
    let keeping = tokio::spawn(async move {
        let mut streams = Vec::new();
        while let Some(incoming) = listener.accept().await {
            streams.push(incoming);
        }
    });
    let waiting = crate::support::querier(&silent, &market.clock);
    let waiting = waiting.with_wallet(market.wallet("anne"));
    for i in 0..3 {
        let call = market.call(format!("call {i}"));
        let called = waiting
            .call(&call, Duration::from_millis(300), |_| {})
            .await;
        assert!(matches!(called, Err(CallError::Deadline(_))), "{called:?}");
    }
    keeping.abort();
    let wallet = market.wallet("anne");
    assert_eq!(market.tokens_left(&wallet), 8);
}

/// On a plan for everybody, a token is not looked at, and so not closed.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_on_a_plan_for_everybody_is_nobodys_business() {
    let mut config = ProviderConfig::default();
    config.plans[1].needs_token = false;
    let free = config.plans[1].name.clone();
    let market = Market::with(config).await;
    let token = market.tokens(BatchSize::Calls8).await.pop();
    let paid = market.request(token.expect("a token"), b"paid");
    let ran = Outcome::Ran(b"PAID".to_vec());
    // Its caller did not get the answer, so to say.
    assert_eq!(market.try_for(&paid).await, ran);
    let request = market.request(token.expect("a token"), b"free");
    let (mut stream, welcome) = market.greet().await;
    let sealed = SealedCall::seal(&welcome.advert, &free, &request, &mut os_rng());
    let exchanged = exchange(&mut *stream, sealed.expect("seals"), LONG).await;
    assert!(exchanged.is_ok());
    acknowledge(stream).await;
    market.records(3).await;
    assert_eq!(market.try_for(&paid).await, ran, "it is not closed");
}
