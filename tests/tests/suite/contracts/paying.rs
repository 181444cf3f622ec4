//! What a token pays for: one request, once, however often it comes.

use std::collections::HashSet;
use std::time::Duration;

use dlambda_client::{Call, CallError};
use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::clock::Clock as _;
use dlambda_privacy::exchange::{acknowledge, exchange};
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Advert, BatchSize, CLOCK_BLUR_SECONDS, Completion, FunctionId, FunctionSource, Request,
    TokenProblem, decode,
};
use dlambda_provider::{ProviderConfig, SessionRecord};
use futures::future::join_all;

use super::market::{Cut, Market, Outcome, Relay, SPENT, receive, seal, seed, send};
use crate::support::{LONG, wat};

const LOST: Cut = Cut::Answer { after: 0 };

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_again() {
    let market = Market::open().await;
    let relay = Relay::start(&market, []).await;
    for (name, cut) in [
        ("answer", LOST),
        ("stream", Cut::Stream { after: 0 }),
        ("request", Cut::Request { after: 0 }),
    ] {
        let querier = relay.customer(market.wallet(name));
        let wallet = querier.wallet().expect("a wallet");
        market.buy(&querier, BatchSize::Calls8).await;
        let runs = market.runs().await;
        relay.cut(cut);
        let called = querier.call(&market.call(name), LONG, |_| {}).await;
        let answer = called.expect("an answer");
        assert_eq!((answer.attempts, relay.cuts_left()), (2, 0));
        assert_eq!(answer.stdout, name.to_uppercase().into_bytes());
        querier.flush_acks().await;
        let listing = wallet.contracts(market.clock.now()).expect("readable");
        let contract = &listing.contracts[0];
        assert_eq!((contract.fresh, contract.spent), (7, 1), "{name}");
        let again = market.runs().await - runs;
        match cut {
            // It ran already.
            Cut::Answer { .. } | Cut::Request { .. } => assert_eq!(again, 1),
            // It may have been ended before its end.
            Cut::Stream { .. } => assert!((1..=2).contains(&again)),
        }
    }
    // Whatever came twice was the same request with the same token, and was
    // answered with the same words.
    let records = market.provider().recorder.records();
    let lost = calls(&records);
    assert_eq!(
        lost.iter()
            .map(|(it, _)| &it.seed)
            .collect::<HashSet<_>>()
            .len(),
        3
    );
    for (request, reply) in &lost {
        for (other, other_reply) in &lost {
            let same = request.seed == other.seed;
            assert!((request == other) == same && (request.token == other.token) == same);
            assert!(!same || reply.is_none() || other_reply.is_none() || reply == other_reply);
        }
    }
}

/// The calls in a provider's records, with their replies.
fn calls(records: &[SessionRecord]) -> Vec<(Request, Option<Vec<u8>>)> {
    let call = |record: &SessionRecord| {
        let request = decode::<Request>(record.request.as_ref()?).ok()?;
        Some((request, record.reply.clone()))
    };
    records.iter().filter_map(call).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_too_large_to_keep_is_made_again() {
    let market = Market::open().await;
    let relay = Relay::start(&market, []).await;
    let querier = relay.customer(market.wallet("anne"));
    market.buy(&querier, BatchSize::Calls8).await;
    relay.cut(LOST);
    let runs = market.runs().await;
    let call = market.call(vec![b'x'; 300 << 10]);
    let answer = querier.call(&call, LONG, |_| {}).await.expect("an answer");
    assert_eq!((answer.attempts, answer.stdout.len()), (2, 300 << 10));
    assert_eq!(market.runs().await - runs, 2);
    let wallet = querier.wallet().expect("a wallet");
    assert_eq!(market.tokens_left(wallet), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_is_taken_up_with_its_token() {
    let market = Market::open().await;
    let relay = Relay::start(&market, []).await;
    let querier = relay.customer(market.wallet("anne"));
    let wallet = querier.wallet().expect("a wallet");
    market.buy(&querier, BatchSize::Calls8).await;
    let (one, other) = (market.call("one"), market.call("other"));
    for _ in 0..3 {
        relay.cut(LOST);
    }
    let failed = querier.call(&one, LONG, |_| {}).await;
    assert!(matches!(failed, Err(CallError::Exchange(_))), "{failed:?}");
    let counts = || {
        let listing = wallet.contracts(market.clock.now()).expect("readable");
        let it = &listing.contracts[0];
        (it.fresh, it.interrupted, it.spent)
    };
    assert_eq!(counts(), (7, 1, 0));
    assert!(querier.call(&other, LONG, |_| {}).await.is_ok());
    assert_eq!(counts(), (6, 1, 1), "another call has another token");
    assert!(querier.call(&one, LONG, |_| {}).await.is_ok());
    assert_eq!(counts(), (6, 0, 2), "the same call has its own");
    querier.flush_acks().await;
    let records = market.provider().recorder.records();
    let tokens = calls(&records).into_iter().filter_map(|(it, _)| it.token);
    let tokens: HashSet<_> = tokens.map(|token| token.nonce).collect();
    assert_eq!(tokens.len(), 2);
    assert_eq!(market.runs().await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_failed_is_taken_up_after_a_restart_of_both() {
    let mut market = Market::open().await;
    market
        .buy(&market.customer("anne"), BatchSize::Calls8)
        .await;
    let relay = Relay::start(&market, [LOST; 3]).await;
    let querier = relay.customer(market.wallet("anne"));
    let failed = querier.call(&market.call("once"), LONG, |_| {}).await;
    assert!(matches!(failed, Err(CallError::Exchange(_))), "{failed:?}");
    drop((querier, relay));
    let before = market.provider().recorder.records();
    market.restart().await;
    let querier = market.customer("anne");
    let called = querier.call(&market.call("once"), LONG, |_| {}).await;
    assert_eq!(called.expect("an answer").stdout, b"ONCE");
    querier.flush_acks().await;
    let records = [before, market.records(1).await].concat();
    let tokens = calls(&records).into_iter().map(|(it, _)| it.token);
    let tokens: HashSet<_> = tokens.map(|token| token.map(|it| it.nonce)).collect();
    assert_eq!(tokens.len(), 1);
    let wallet = querier.wallet().expect("a wallet");
    assert_eq!(market.tokens_left(wallet), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_sealed_call_has_one_sealed_reply() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let request = market.request(token, b"once");
    let sealed = seal(&market.greet().await.1, &request);
    let frame = sealed.frame().clone();
    let (stream, first) = market.deliver(&frame).await;
    drop(stream);
    let (stream, second) = market.deliver(&frame).await;
    assert_eq!(first.body(), second.body());
    drop(stream);
    let copies = join_all((0..20).map(|_| market.deliver(&frame))).await;
    for (_, copy) in &copies {
        assert_eq!(first.body(), copy.body());
    }
    drop(copies);
    assert_eq!(market.runs().await, 1);
    // Under another key it reads differently and says the same.
    let (stream, completion) = market.ask_for(&request).await;
    let opened = sealed.open(first.body()).expect("it opens");
    assert!(opened.completion == completion);
    acknowledge(stream).await;
    assert_eq!(market.try_for(&request).await, SPENT, "it is closed");
    let (_, late) = market.deliver(&frame).await;
    assert!(late.body() != first.body());
    assert_eq!(market.runs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_call_that_comes_twenty_times_at_once_runs_once() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let sealed = seal(&market.greet().await.1, &market.request(token, b"once"));
    let copies = join_all((0..20).map(|_| market.deliver(sealed.frame()))).await;
    for (_, copy) in &copies {
        assert_eq!(copies[0].1.body(), copy.body());
    }
    assert_eq!(market.runs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_pays_for_one_request() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let (one, other) = (
        market.request(token, b"one"),
        market.request(token, b"other"),
    );
    let ran = Outcome::Ran(b"ONE".to_vec());
    assert_eq!(market.try_for(&one).await, ran);
    assert_eq!(market.try_for(&other).await, SPENT);
    // Neither another seed nor another input is the same request.
    let reseeded = Request {
        seed: seed(),
        ..one.clone()
    };
    assert_eq!(market.try_for(&reseeded).await, SPENT);
    let (stream, completion) = market.ask_for(&one).await;
    assert_eq!(Outcome::of(&completion), ran, "not yet closed");
    acknowledge(stream).await;
    for request in [&one, &other] {
        assert_eq!(market.try_for(request).await, SPENT);
    }
    assert_eq!(market.runs().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_requests_that_race_for_a_token_one_runs() {
    let market = Market::open().await;
    let tokens = market.tokens(BatchSize::Calls32).await;
    for (round, token) in tokens[..20].iter().enumerate() {
        let requests = [b"one", b"two"].map(|input| market.request(*token, input));
        let outcomes = join_all(requests.iter().map(|it| market.try_for(it))).await;
        assert_one_ran(&outcomes);
        assert_eq!(market.runs().await, 1 + round as u64);
    }
    // Twenty at once, all different.
    let inputs = (0..20).map(|i| market.request(tokens[20], &[b'a' + i]));
    let requests: Vec<_> = inputs.collect();
    let outcomes = join_all(requests.iter().map(|it| market.try_for(it))).await;
    assert_one_ran(&outcomes);
    assert_eq!(market.runs().await, 21);
}

fn assert_one_ran(outcomes: &[Outcome]) {
    let ran = outcomes.iter().filter(|it| matches!(it, Outcome::Ran(_)));
    let refused = outcomes.iter().filter(|it| **it == SPENT);
    let counts = (ran.count(), refused.count());
    assert_eq!(counts, (1, outcomes.len() - 1), "{outcomes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_good_for_its_plan_and_as_it_was_made() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let good = market.request(token, b"good");
    let mut forged = good.clone();
    forged.token.as_mut().expect("one").authenticator[0] ^= 1;
    let mut renamed = good.clone();
    renamed.token.as_mut().expect("one").nonce[0] ^= 1;
    let mut future = good.clone();
    future.token.as_mut().expect("one").epoch = token.epoch.next();
    let unpaid = Request {
        token: None,
        ..good.clone()
    };
    for (request, problem) in [
        (forged, TokenProblem::Invalid),
        (renamed, TokenProblem::Invalid),
        (future, TokenProblem::Expired),
        (unpaid, TokenProblem::Missing),
    ] {
        assert_eq!(market.try_for(&request).await, Outcome::Unpaid(problem));
    }
    let (mut stream, welcome) = market.greet().await;
    let medium = &welcome.advert.plans[1].name;
    let sealed = SealedCall::seal(&welcome.sealing, medium, &good, &mut os_rng()).expect("seals");
    let reply = exchange(&mut *stream, sealed, LONG)
        .await
        .expect("a reply")
        .reply;
    let invalid = Outcome::Unpaid(TokenProblem::Invalid);
    assert_eq!(Outcome::of(&reply.completion), invalid);
    assert_eq!(market.runs().await, 0);
    assert_eq!(
        market.try_for(&good).await,
        Outcome::Ran(b"GOOD".to_vec()),
        "not spent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_function_follows_with_the_same_token() {
    let market = Market::open().await;
    let querier = market.customer("anne");
    let wallet = querier.wallet().expect("a wallet");
    market.buy(&querier, BatchSize::Calls8).await;
    let new = wat("(module (memory 1) (func (export \"_start\")))");
    let call = Call::new(market.endpoint(), new).input("to nobody");
    let answer = querier.call(&call, LONG, |_| {}).await.expect("an answer");
    assert!(answer.attached && answer.attempts == 2);
    assert_eq!(market.tokens_left(wallet), 7);
    querier.flush_acks().await;
    let records = market.records(3).await;
    let calls = calls(&records);
    let [(first, _), (second, _)] = &calls[..] else {
        panic!("{} calls", calls.len());
    };
    assert!(matches!(first.function, FunctionSource::Known(_)));
    assert!(matches!(second.function, FunctionSource::Attached(_)));
    assert!(first.token.is_some() && first.token == second.token);
    assert!(first.seed == second.seed && first.input == second.input);
    // Now it is there.
    let answer = querier.call(&call, LONG, |_| {}).await.expect("an answer");
    assert!(!answer.attached && answer.attempts == 1);
    assert_eq!(market.tokens_left(wallet), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_whose_function_is_missing_is_not_spent() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let missing = Request {
        function: FunctionSource::Known(FunctionId::of(b"nothing")),
        ..market.request(token, b"")
    };
    let (stream, completion) = market.ask_for(&missing).await;
    assert!(completion == Completion::FunctionMissing);
    acknowledge(stream).await;
    let ran = market.try_for(&market.request(token, b"good")).await;
    assert_eq!(ran, Outcome::Ran(b"GOOD".to_vec()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_survive_a_restart_and_the_spent_stay_spent() {
    let mut market = Market::open().await;
    let tokens = market.tokens(BatchSize::Calls8).await;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls8).await;
    let closed = market.request(tokens[0], b"closed");
    let (stream, _) = market.ask_for(&closed).await;
    acknowledge(stream).await;
    let open = market.request(tokens[1], b"open");
    let ran = Outcome::Ran(b"OPEN".to_vec());
    assert_eq!(market.try_for(&open).await, ran);
    let before = market.status().await.epoch;
    market.restart().await;
    assert_eq!(market.status().await.epoch, before, "it goes on");
    let others = [tokens[0], tokens[1]].map(|token| market.request(token, b"other"));
    for request in [&closed, &others[0], &others[1]] {
        assert_eq!(market.try_for(request).await, SPENT);
    }
    assert_eq!(market.runs().await, 0);
    assert_eq!(market.try_for(&open).await, ran, "it was not acknowledged");
    let fresh = market.request(tokens[2], b"fresh");
    assert_eq!(
        market.try_for(&fresh).await,
        Outcome::Ran(b"FRESH".to_vec())
    );
    for _ in 0..8 {
        let called = querier.call(&market.call("a call"), LONG, |_| {}).await;
        assert!(called.is_ok(), "{called:?}");
    }
    let wallet = querier.wallet().expect("a wallet");
    assert_eq!(market.tokens_left(wallet), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_their_epoch_but_not_their_validity() {
    let mut config = ProviderConfig::default();
    config.epoch = Duration::from_secs(Advert::MIN_EPOCH_SECONDS);
    config.overlap = Duration::from_secs(100);
    let market = Market::with(config).await;
    let tokens = market.tokens(BatchSize::Calls8).await;
    let querier = market.customer("anne");
    let contract = market.buy(&querier, BatchSize::Calls8).await.contract;
    let wallet = querier.wallet().expect("a wallet");
    let spent = market.request(tokens[0], b"spent");
    let ran = |input: &[u8]| Outcome::Ran(input.to_vec());
    assert_eq!(market.try_for(&spent).await, ran(b"SPENT"));
    // The last hours of the tokens' validity: their epoch is over.
    let rest = contract.validity.until.0 - market.clock.now().0;
    market.clock.advance(rest - 2 * CLOCK_BLUR_SECONDS - 1);
    assert!(market.epoch_after(contract.epoch).await > contract.epoch);
    assert!(market.greet().await.1.advert.epoch > contract.epoch);
    let called = querier.call(&market.call("late"), LONG, |_| {}).await;
    assert!(called.is_ok(), "{called:?}");
    // The last second. Callers leave tokens alone before that, which the provider would know by its
    // clock.
    market.clock.advance(2 * CLOCK_BLUR_SECONDS);
    let late = market.request(tokens[1], b"late");
    assert_eq!(market.try_for(&late).await, ran(b"LATE"));
    let other = market.request(tokens[0], b"other");
    assert_eq!(
        market.try_for(&other).await,
        SPENT,
        "also in the next epoch"
    );
    market.clock.advance(1);
    let expired = Outcome::Unpaid(TokenProblem::Expired);
    for token in &tokens[..3] {
        let request = market.request(*token, b"too late");
        assert_eq!(market.try_for(&request).await, expired);
    }
    assert_eq!(market.tokens_left(wallet), 0);
    let called = querier.call(&market.call("too late"), LONG, |_| {}).await;
    assert!(matches!(called, Err(CallError::NoToken(_))), "{called:?}");
    // What is bought now is good now.
    market.buy(&querier, BatchSize::Calls8).await;
    assert!(
        querier
            .call(&market.call("new"), LONG, |_| {})
            .await
            .is_ok()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_serves_one_call() {
    let market = Market::open().await;
    let tokens = market.tokens(BatchSize::Calls8).await;
    let (mut stream, welcome) = market.greet().await;
    for (token, is_served) in [(tokens[0], true), (tokens[1], false)] {
        let sealed = seal(&welcome, &market.request(token, b"a call"));
        send(&mut stream, sealed.frame()).await;
        assert_eq!(receive(&mut stream).await.is_some(), is_served);
    }
    assert_eq!(market.runs().await, 1);
}

/// Two calls of different input with one token, whose function travels along.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_travels_is_paid_for_too() {
    let market = Market::open().await;
    let token = market.tokens(BatchSize::Calls8).await[0];
    let travelling = |input: &[u8]| Request {
        function: FunctionSource::Attached(
            wat::parse_str("(module (func (export \"_start\")))").expect("good WAT"),
        ),
        ..market.request(token, input)
    };
    let (_stream, first) = market.ask_for(&travelling(b"one")).await;
    assert!(matches!(first, Completion::Exited { .. }), "{first:?}");
    let (_stream, second) = market.ask_for(&travelling(b"two")).await;
    assert_eq!(second, Completion::Unpaid(TokenProblem::Spent));
}

/// A provider that gives away what it sold before gets no token for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_became_free_is_sent_no_token() {
    let mut market = Market::open().await;
    let anne = market.customer("anne");
    market.buy(&anne, BatchSize::Calls8).await;
    for plan in &mut market.config.plans {
        plan.needs_token = false;
    }
    market.restart().await;
    let called = anne.call(&market.call("gratis"), LONG, |_| {}).await;
    assert_eq!(called.expect("an answer").stdout, b"GRATIS");
    anne.flush_acks().await;
    let records = market.records(1).await;
    let made = calls(&records);
    assert_eq!(made.len(), 1);
    assert!(made.iter().all(|(request, _)| request.token.is_none()));
    assert_eq!(market.tokens_left(anne.wallet().expect("a wallet")), 8);
}
