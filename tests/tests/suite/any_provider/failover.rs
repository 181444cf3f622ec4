//! A call goes on to another provider, and is paid once where it is answered.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, FunctionName, Querier, Target, Wallet};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{BatchSize, Endpoint, FunctionId, Request, Requirements, decode};

use super::scripted::{Act, Scripted};
use super::stalls::{Fault, Faulty};
use super::{World, any, tokens};
use crate::support::{LONG, NOW};

/// Three slots: a silent provider is joined by another one after ten seconds.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);

/// Calls until this provider was drawn first and failed; returns how many calls were made.
async fn call_until_it_fails(world: &World, name: &str, failing: &Scripted) -> usize {
    let wallet = world.wallet(name);
    let querier = world.querier(&wallet);
    let bound = || querier.experience().lower_bound(&failing.endpoint);
    let before = bound();
    for made in 1..=30 {
        let called = querier
            .call(&any(format!("{name} {made}")), HALF_A_MINUTE, |_| {})
            .await;
        let answer = called.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(
            answer.stdout,
            format!("{name} {made}").to_ascii_uppercase().as_bytes()
        );
        if bound() < before {
            querier.flush_acks().await;
            return made;
        }
    }
    panic!("{name}: it was never asked");
}

async fn assert_another_answers(acts: &[(&str, Act, [usize; 3])]) {
    let world = World::new(1).await;
    let live = &world.providers[0];
    for (key, (name, act, expected)) in (51..).zip(acts) {
        let wallet = world.wallet(name);
        let failing = Scripted::start(&world.network, key, world.upper, *act).await;
        failing.sell(&wallet, BatchSize::Calls8);
        world.buy(&wallet, &live.endpoint, BatchSize::Calls32).await;
        let before = tokens(live).len();
        let made = call_until_it_fails(&world, name, &failing).await;
        let at_live = world.held(&wallet, &live.endpoint);
        assert_eq!((at_live.spent, at_live.fresh), (made, 32 - made), "{name}");
        let seen = live.recorder.wait_for(0).await.len();
        live.recorder.wait_for(seen).await;
        assert_eq!(
            tokens(live).len() - before,
            made,
            "{name}: one token a call"
        );
        let it = world.held(&wallet, &failing.endpoint);
        assert_eq!([it.fresh, it.interrupted, it.spent], *expected, "{name}");
        assert_eq!(it.in_use, 0, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_refuses_or_lies_about_its_receipt_is_followed_by_another() {
    assert_another_answers(&[
        ("busy", Act::Busy, [7, 1, 0]),
        ("wrong receipt", Act::WrongReceipt, [7, 1, 0]),
    ])
    .await;
}

/// Its token will never pay for anything: it is not kept for the same call.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_refused_is_not_sent_again() {
    assert_another_answers(&[("unpaid", Act::Unpaid, [7, 0, 1])]).await;
}

/// Otherwise one provider could end every call that it is drawn for.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_nothing_can_be_sealed_to_is_followed_by_another() {
    assert_another_answers(&[("bad key", Act::BadKey, [8, 0, 0])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_provider_is_joined_by_another_and_its_token_is_kept_for_this_call() {
    assert_another_answers(&[("silent", Act::Silent, [7, 1, 0])]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_gone_is_followed_by_another() {
    let world = World::new(1).await;
    let (wallet, live) = (world.wallet("anne"), &world.providers[0]);
    let gone = Scripted::start(&world.network, 51, world.upper, Act::Answer).await;
    gone.sell(&wallet, BatchSize::Calls8);
    world.buy(&wallet, &live.endpoint, BatchSize::Calls32).await;
    gone.stop().await;
    let made = call_until_it_fails(&world, "anne", &gone).await;
    assert_eq!(world.held(&wallet, &live.endpoint).spent, made);
    assert_eq!(world.held(&wallet, &gone.endpoint).fresh, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_of_two_functions_is_refused_and_a_cid_is_not() {
    let world = World::new(0).await;
    let wallet = world.wallet("anne");
    let ids = [FunctionId::of(b"one"), FunctionId::of(b"other")];
    let mut providers = Vec::new();
    for (key, id) in (51..).zip(ids) {
        let provider = Scripted::start(&world.network, key, id, Act::Answer).await;
        provider.sell(&wallet, BatchSize::Calls8);
        providers.push(provider);
    }
    let querier = world.querier(&wallet);
    let called = querier.call(&any("a"), LONG, |_| {}).await;
    let Err(CallError::AmbiguousAlias { ids: mut named }) = called else {
        panic!("{called:?}");
    };
    let mut ids = ids;
    named.sort();
    ids.sort();
    assert_eq!(named, ids);
    assert!(providers.iter().all(|it| it.requests().is_empty()));
    let by_cid = Call::new(
        Target::Any(Requirements::default()),
        FunctionName::Id(ids[0]),
    );
    let answer = querier.call(&by_cid.input("a"), LONG, |_| {}).await;
    assert_eq!(answer.expect("an answer").stdout, b"A");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_queriers_with_one_wallet_never_use_a_token_twice() {
    let world = World::new(2).await;
    let wallets = [world.wallet("anne"), world.wallet("anne")];
    for provider in &world.providers {
        world
            .buy(&wallets[0], &provider.endpoint, BatchSize::Calls32)
            .await;
    }
    let queriers = wallets.each_ref().map(|it| Arc::new(world.querier(it)));
    let mut calls = Vec::new();
    for number in 0..32 {
        let querier = Arc::clone(&queriers[number % 2]);
        // Each call is made four times at once.
        let call = any(format!("call {}", number / 4));
        calls.push(tokio::spawn(async move {
            querier.call(&call, LONG, |_| {}).await.map(|_| ())
        }));
    }
    for call in calls {
        call.await.expect("ends").expect("an answer");
    }
    for querier in &queriers {
        querier.flush_acks().await;
    }
    let listing = wallets[0].contracts(NOW).expect("readable").contracts;
    assert_eq!(listing.iter().map(|it| it.spent).sum::<usize>(), 32);
    let mut seen = HashMap::new();
    for provider in &world.providers {
        provider.recorder.wait_for(32).await;
        for record in provider.recorder.records() {
            let request = record.request.and_then(|it| decode::<Request>(&it).ok());
            if let Some(request) = request
                && let Some(token) = request.token
            {
                let before = seen.insert(token.nonce, request.seed);
                assert!(
                    before.is_none_or(|it| it == request.seed),
                    "a token for two calls"
                );
            }
        }
    }
    assert!(seen.len() >= 32, "{} tokens", seen.len());
}

/// Two providers that collude would see it otherwise: one is silent, the other cannot be reached.
#[tokio::test(start_paused = true)]
async fn how_long_a_caller_waits_does_not_show_when_another_provider_is_gone() {
    let network = MemoryNetwork::new(Duration::from_millis(1));
    let function = FunctionId::of(b"upper");
    let silent = Scripted::start(&network, 51, function, Act::Silent).await;
    let away = Scripted::start(&network, 52, function, Act::Answer).await;
    let dir = tempfile::tempdir().expect("a directory");
    let wallet = Wallet::open(&dir.path().join("wallet")).expect("a wallet");
    silent.sell(&wallet, BatchSize::Calls8);
    away.sell(&wallet, BatchSize::Calls8);
    let gone = away.endpoint;
    let choose = move |it: &Endpoint| [Fault::None, Fault::NoCircuit][usize::from(*it == gone)];
    let transport = Faulty::new(network.transport([2; 32]), Box::new(choose));
    let clock = Arc::new(FakeClock::at(NOW)) as Arc<dyn Clock>;
    let querier = Querier::new(Arc::new(transport), clock).with_wallet(wallet);
    let call = any("a");
    let called = querier.call(&call, Duration::from_secs(100), |_| {});
    let error = called.await.expect_err("no answer");
    assert!(matches!(error, CallError::Deadline(100)), "{error}");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let held = silent.held();
    assert_eq!(held.len(), 1);
    let over = held[0].as_millis() % dlambda_client::WIRE_STEP.as_millis();
    assert!(!(50..=29_950).contains(&over), "{held:?}");
}

/// Otherwise a provider would get a token on each circuit.
#[tokio::test]
async fn a_call_that_was_sent_has_no_second_token_at_its_provider() {
    let world = World::new(0).await;
    let wallet = world.wallet("anne");
    let greedy = Scripted::start(&world.network, 51, world.upper, Act::OtherPlans).await;
    greedy.sell(&wallet, BatchSize::Calls8);
    greedy.sell_last_plan(&wallet, BatchSize::Calls8);
    let called = world.querier(&wallet).call(&any("a"), LONG, |_| {}).await;
    assert!(matches!(called, Err(CallError::NoToken(_))), "{called:?}");
    let listing = wallet.contracts(NOW).expect("readable").contracts;
    let fresh: usize = listing.iter().map(|it| it.fresh).sum();
    let interrupted: usize = listing.iter().map(|it| it.interrupted).sum();
    assert_eq!((fresh, interrupted, greedy.tokens()), (15, 1, 1));
}
