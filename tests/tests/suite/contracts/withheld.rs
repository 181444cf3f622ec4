//! Tokens that do not leave, or are nobody's business.

use std::time::Duration;

use dlambda_client::CallError;
use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::clock::Clock as _;
use dlambda_privacy::exchange::{acknowledge, exchange};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::Service;
use dlambda_privacy::transport::Transport as _;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{BatchSize, ErrorKind, HasKind as _, TokenProblem};
use dlambda_provider::ProviderConfig;

use super::market::{Cut, Market, Outcome, Relay};
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

/// A provider that hangs up without a word has not seen the token.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_never_left_is_there_for_any_call() {
    let market = Market::open().await;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls8).await;
    let silent = MemoryNetwork::new(Duration::ZERO);
    let mut listener = silent
        .transport([1; 32])
        .listen(Service::Calls)
        .await
        .expect("listens");
    let hanging_up = tokio::spawn(async move { while listener.accept().await.is_some() {} });
    let waiting = crate::support::querier(&silent, &market.clock);
    let waiting = waiting.with_wallet(market.wallet("anne"));
    for i in 0..3 {
        let call = market.call(format!("call {i}"));
        let called = waiting.call(&call, LONG, |_| {}).await;
        assert!(matches!(called, Err(CallError::Exchange(_))), "{called:?}");
    }
    hanging_up.abort();
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
    let sealed = SealedCall::seal(&welcome.sealing, &free, &request, &mut os_rng());
    let exchanged = exchange(&mut *stream, sealed.expect("seals"), LONG).await;
    assert!(exchanged.is_ok());
    acknowledge(stream).await;
    market.records(3).await;
    assert_eq!(market.try_for(&paid).await, ran, "it is not closed");
}

/// A wallet's owner cannot tell a provider that lies about a token from somebody else who has the
/// same token. Only if the token was sent before may the provider be right, for all that the owner
/// knows.
#[tokio::test(flavor = "multi_thread")]
async fn a_good_token_that_is_refused_is_the_providers_fault_unless_it_was_sent_before() {
    let market = Market::open().await;
    let anne = market.customer("anne");
    market.buy(&anne, BatchSize::Calls8).await;
    market.copy_wallet("anne", "copy");
    let relay = Relay::start(&market, [Cut::Request { after: 0 }; 3]).await;
    let copy = relay.customer(market.wallet("copy"));
    // The request never arrives; the token may have been sent for all that the caller knows.
    let lost = copy.call(&market.call("lost"), LONG, |_| {}).await;
    assert!(matches!(lost, Err(CallError::Exchange(_))), "{lost:?}");
    for i in 0..8 {
        let call = market.call(format!("call {i}"));
        anne.call(&call, LONG, |_| {}).await.expect("an answer");
    }
    anne.flush_acks().await;
    let spent = TokenProblem::Spent;
    let resumed = copy.call(&market.call("lost"), LONG, |_| {}).await;
    let error = resumed.expect_err("it is spent");
    assert!(
        matches!(error, CallError::Unpaid(it) if it == spent),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Refused);
    let fresh = copy.call(&market.call("another"), LONG, |_| {}).await;
    let error = fresh.expect_err("it is spent");
    assert!(
        matches!(error, CallError::TokenRefused(it) if it == spent),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
}

/// As the owner of a clock that makes the same call again and again.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_call_is_not_taken_up_later_unless_that_is_asked_for() {
    let market = Market::open().await;
    let relay = Relay::start(&market, []).await;
    let querier = relay.customer(market.wallet("anne"));
    market.buy(&querier, BatchSize::Calls8).await;
    for _ in 0..3 {
        relay.cut(Cut::Answer { after: 0 });
    }
    let call = market.call("every five minutes");
    let lost = querier.call(&call, LONG, |_| {}).await;
    assert!(matches!(lost, Err(CallError::Exchange(_))), "{lost:?}");
    market
        .clock
        .advance(dlambda_proto::ANSWER_KEPT_SECONDS + 12);
    querier.call(&call, LONG, |_| {}).await.expect("an answer");
    let counts = || {
        let wallet = querier.wallet().expect("a wallet");
        let listing = wallet.contracts(market.clock.now()).expect("readable");
        let it = &listing.contracts[0];
        (it.fresh, it.interrupted, it.spent)
    };
    assert_eq!(counts(), (6, 1, 1), "it was a call like any other");
    // The provider keeps answers by its own clock, on which no time has passed.
    let answer = querier.call(&call.clone().resume(), LONG, |_| {}).await;
    assert!(answer.is_ok(), "{answer:?}");
    assert_eq!(counts(), (6, 0, 2));
    let none = querier.call(&call.resume(), LONG, |_| {}).await;
    assert!(matches!(none, Err(CallError::NothingToResume)), "{none:?}");
    assert_eq!(counts(), (6, 0, 2));
}
