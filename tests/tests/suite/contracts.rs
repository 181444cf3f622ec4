//! Contracts signed by both, and the calls they give: what is agreed, and what
//! everybody has in hand afterwards.

mod attribution;
mod equivocation;
mod interrupted;
pub(crate) mod market;
mod paying;
mod receipts;
mod withheld;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_client::{Call, CallError, ContractError, ContractProgress, ProposalOutcome};
use dlambda_crypto::negotiation::{ContractOptions, Counter, Negotiation, invitation};
use dlambda_crypto::seal::SealedContractRequest;
use dlambda_crypto::{NegotiationError, pow};
use dlambda_privacy::clock::Clock as _;
use dlambda_privacy::exchange::{VerifiedGreeting, exchange_contract};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{
    Admission, BatchSize, ContractAnswer, ContractRefusal, ContractRequest, ErrorKind,
    HasKind as _, PaymentMethod, ProofOfWork, Refusal, Request, ServiceTerms, decode,
};
use dlambda_provider::ProviderConfig;

use crate::support::{LONG, alias, querier, skip_second_look};
use market::{Market, ask, draw_up, refusal, seed, wish};

#[tokio::test(flavor = "multi_thread")]
async fn each_size_gives_just_so_many_calls() {
    let market = Market::open().await;
    let mut sessions = 0;
    for size in BatchSize::ALL {
        let calls = usize::from(size.calls());
        let querier = market.customer(&format!("buyer of {calls}"));
        let wallet = querier.wallet().expect("a wallet");
        let contract = market.buy(&querier, size).await;
        assert!(contract.verify() && contract.contract.calls == size);
        assert_eq!(market.tokens_left(wallet), calls);
        for i in 0..calls {
            let call = market.call(format!("call {i}"));
            let answer = querier.call(&call, LONG, |_| {}).await.expect("an answer");
            assert_eq!(answer.stdout, format!("CALL {i}").into_bytes());
            assert_eq!(market.tokens_left(wallet), calls - 1 - i);
        }
        let error = querier.call(&market.call("too many"), LONG, |_| {}).await;
        let error = error.expect_err("no token is left");
        assert!(matches!(error, CallError::NoToken(_)), "{error}");
        assert_eq!(error.kind(), ErrorKind::Refused);
        querier.flush_acks().await;
        sessions += 1 + calls + 1;
        let records = market.records(sessions).await;
        // They are in the order in which they ended.
        let last = records.last().expect("some");
        assert_eq!(last.received, b"", "nothing was sent without a token");
        assert!(!last.sent.is_empty(), "though it was open");
    }
    let totals = market.status().await.contracts;
    let totals = totals.first().expect("some");
    assert_eq!((totals.granted, totals.confirmed), (3, 3));
    assert_eq!((totals.calls_issued, totals.ratings_issued), (168, 21));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_for_anybody_takes_no_token() {
    let mut config = ProviderConfig::default();
    config.plans[1].needs_token = false;
    let free = config.plans[1].name.clone();
    let market = Market::with(config).await;
    let call = || Call::new(market.endpoint(), alias("upper")).plan(free.clone());
    let stranger = querier(&market.network, &market.clock);
    assert!(stranger.call(&call(), LONG, |_| {}).await.is_ok());
    let customer = market.customer("anne");
    market.buy(&customer, BatchSize::Calls8).await;
    assert!(customer.call(&call(), LONG, |_| {}).await.is_ok());
    let wallet = customer.wallet().expect("a wallet");
    assert_eq!(market.tokens_left(wallet), 8);
    // And no contract can be had for it.
    let wish = ContractOptions {
        plan: Some(free),
        ..wish(BatchSize::Calls8)
    };
    let endpoint = market.endpoint();
    let offered = customer.contract(&endpoint, &wish, LONG, |_| true, |_| {});
    assert_eq!(
        offered.await.expect_err("nothing to buy").kind(),
        ErrorKind::Refused
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proposed_without_consent() {
    let market = Market::open().await;
    let querier = market.customer("anne");
    let endpoint = market.endpoint();
    let wish = wish(BatchSize::Calls8);
    let offered = querier.contract(&endpoint, &wish, LONG, |_| false, |_| {});
    let error = offered.await.expect_err("declined");
    assert!(matches!(error, ContractError::Declined), "{error}");
    assert_eq!(market.records(1).await[0].received, b"");
    let drafts = querier.wallet().expect("a wallet").drafts();
    assert!(drafts.expect("readable").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallet_goes_on_where_it_stopped() {
    let market = Market::open().await;
    let first = market.customer("anne");
    market.buy(&first, BatchSize::Calls8).await;
    for _ in 0..3 {
        let called = first.call(&market.call("first"), LONG, |_| {}).await;
        assert!(called.is_ok());
    }
    first.flush_acks().await;
    drop(first);
    let second = market.customer("anne");
    let wallet = second.wallet().expect("a wallet");
    assert_eq!(market.tokens_left(wallet), 5);
    for _ in 0..5 {
        let called = second.call(&market.call("second"), LONG, |_| {}).await;
        assert!(called.is_ok());
    }
    let error = second.call(&market.call("second"), LONG, |_| {}).await;
    assert!(matches!(error, Err(CallError::NoToken(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_queriers_with_one_wallet_never_use_a_token_twice() {
    let market = Market::open().await;
    let queriers = [market.customer("anne"), market.customer("anne")];
    market.buy(&queriers[0], BatchSize::Calls32).await;
    let queriers = queriers.map(Arc::new);
    let mut calls = Vec::new();
    for i in 0..32 {
        let querier = Arc::clone(&queriers[i % 2]);
        // Four different calls, each made eight times at once.
        let call = market.call(format!("call {}", i / 8));
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
    let records = market.records(33).await;
    let requests = records.iter().filter_map(|record| record.request.as_ref());
    let tokens = requests.filter_map(|request| decode::<Request>(request).ok()?.token);
    let tokens: HashSet<_> = tokens.map(|token| token.nonce).collect();
    assert_eq!(tokens.len(), 32);
    let wallet = queriers[0].wallet().expect("a wallet");
    let listing = wallet.contracts(market.clock.now()).expect("readable");
    assert_eq!(listing.contracts[0].spent, 32);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_countered_can_be_had_as_it_was_offered() {
    let mut config = ProviderConfig::default();
    config.contracts.max_calls = BatchSize::Calls8;
    let market = Market::with(config).await;
    let querier = market.customer("anne");
    let wallet = querier.wallet().expect("a wallet");
    let usual = market.greet().await.1.advert.service;
    let stricter = ServiceTerms {
        start_within_ms: usual.start_within_ms - 1,
    };
    let strict = ContractOptions {
        service: Some(stricter),
        ..wish(BatchSize::Calls8)
    };
    for (wish, reason) in [
        (wish(BatchSize::Calls32), ContractRefusal::TooManyCalls),
        (strict, ContractRefusal::ServiceTooGood),
    ] {
        let offered = market.propose_to_buy(&querier, &wish).await;
        let ProposalOutcome::Countered(counter) = offered else {
            panic!("{offered:?}");
        };
        let expected = Counter {
            reason,
            calls: BatchSize::Calls8,
            service: usual,
        };
        assert_eq!(counter, expected);
        assert!(wallet.drafts().expect("readable").is_empty());
        let before = market.tokens_left(wallet);
        let wish = ContractOptions {
            calls: counter.calls,
            service: Some(counter.service),
            ..wish
        };
        let offered = market.propose_to_buy(&querier, &wish).await;
        assert!(matches!(offered, ProposalOutcome::Signed(_)), "{offered:?}");
        assert_eq!(market.tokens_left(wallet), before + 8);
    }
    // Who is content with less gets what was promised.
    let patient = ContractOptions {
        service: Some(ServiceTerms {
            start_within_ms: usual.start_within_ms + 1,
        }),
        ..wish(BatchSize::Calls8)
    };
    let offered = market.propose_to_buy(&querier, &patient).await;
    assert!(matches!(offered, ProposalOutcome::Signed(_)), "{offered:?}");
    assert_eq!(market.contracts().await, (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn work_is_done_where_it_is_asked_for() {
    let market = Market::with(with_work(3)).await;
    let querier = market.customer("anne");
    let (mut efforts, mut worked) = (Vec::new(), Duration::ZERO);
    let mut began = Instant::now();
    let note = |progress| match progress {
        ContractProgress::Connecting { .. } => began = Instant::now(),
        ContractProgress::Working { effort } => efforts.push(effort),
        _ => worked = began.elapsed(),
    };
    let endpoint = market.endpoint();
    let wish = wish(BatchSize::Calls8);
    let offered = querier
        .contract(&endpoint, &wish, LONG, |_| true, note)
        .await;
    assert!(
        matches!(offered, Ok(ProposalOutcome::Signed(_))),
        "{offered:?}"
    );
    assert_eq!(efforts, [3], "once, and not for the confirmation");
    let least = pow::sending_time(3, Duration::ZERO);
    assert!(
        worked >= least,
        "the proof left when it was ready, after {worked:?}"
    );
    skip_second_look(querier.wallet().expect("a wallet"));
    let called = querier.call(&market.call("a call"), LONG, |_| {}).await;
    assert!(called.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn too_little_work_is_not_enough() {
    let market = Market::with(with_work(3)).await;
    let welcome = market.greet().await.1;
    let provider = welcome.advert.provider;
    let perform = |sealed: &SealedContractRequest, effort| {
        pow::perform(&provider, sealed.envelope(), effort, [0; 2], || false).expect("done")
    };
    let zeros = |work: &ProofOfWork| work.hash[0].leading_zeros();
    let none = fresh_proposal(&welcome);
    // Two bits too few, and not more by chance.
    let (little, work) = loop {
        let sealed = fresh_proposal(&welcome);
        let work = perform(&sealed, 1);
        if zeros(&work) < 3 {
            break (sealed, work);
        }
    };
    let little = little.with_work(work);
    let other = fresh_proposal(&welcome);
    let others = fresh_proposal(&welcome).with_work(perform(&other, 3));
    let mut unstamped = perform(&other, 3);
    unstamped.stamp ^= 1;
    let unstamped = other.with_work(unstamped);
    for (what, sealed) in [
        ("none", none),
        ("too little", little),
        ("another message's", others),
        ("without a stamp", unstamped),
    ] {
        let (mut stream, _) = market.greet().await;
        let refused = exchange_contract(&mut *stream, sealed, LONG).await;
        let Err(ExchangeError::Refused(refusal)) = refused else {
            panic!("{what}: {refused:?}");
        };
        assert_eq!(refusal, Refusal::TooLittleWork, "{what}");
    }
    let enough = fresh_proposal(&welcome);
    let work = perform(&enough, 3);
    let (mut stream, _) = market.greet().await;
    let granted = exchange_contract(&mut *stream, enough.with_work(work), LONG).await;
    assert!(
        matches!(granted, Ok(ContractAnswer::Granted(_))),
        "{granted:?}"
    );
    assert_eq!(market.contracts().await, (1, 0));
}

/// Also if nothing came of what it was done for.
#[tokio::test(flavor = "multi_thread")]
async fn work_is_good_once() {
    let market = Market::with(with_work(3)).await;
    let welcome = market.greet().await.1;
    // A confirmation of nothing: it is answered, and no contract is made.
    let nothing = ContractRequest::Confirm {
        contract: dlambda_proto::ContractId([7; 32]),
        signature: [7; 64],
    };
    let sealed =
        SealedContractRequest::seal(&welcome.sealing, &nothing, &mut os_rng()).expect("seals");
    let work = pow::perform(
        &welcome.advert.provider,
        sealed.envelope(),
        3,
        [0; 2],
        || false,
    );
    let frame = sealed.with_work(work.expect("done")).frame().expect("fits");
    let (_stream, answered) = market.deliver(&frame).await;
    assert_eq!(answered.kind(), dlambda_proto::FrameKind::ContractAnswer);
    let (_stream, again) = market.deliver(&frame).await;
    assert_eq!(refusal(&again), Some(Refusal::Replayed));
}

pub(crate) fn with_work(effort: u8) -> ProviderConfig {
    let mut config = ProviderConfig::default();
    config.contracts.admission = Admission::Pow;
    config.contracts.least_effort = effort;
    config.contracts.most_effort = effort;
    config
}

fn fresh_proposal(welcome: &VerifiedGreeting) -> SealedContractRequest {
    let (proposal, _) = draw_up(&welcome.advert, BatchSize::Calls8, seed());
    let request = ContractRequest::Propose(Box::new(proposal));
    SealedContractRequest::seal(&welcome.sealing, &request, &mut os_rng()).expect("seals")
}

const SECRET: &[u8] = b"between the two of us";

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_needed_where_it_is_asked_for() {
    let mut config = ProviderConfig::default();
    config.contracts.admission = Admission::Invite;
    config.contracts.invitations = vec![SECRET.to_vec().into(), b"another".to_vec().into()];
    config.plans[0].price = 3;
    let market = Market::with(config).await;
    let querier = market.customer("anne");
    let endpoint = market.endpoint();
    let with = |secret: Option<&[u8]>| ContractOptions {
        invitation: secret.map(|secret| secret.to_vec().into()),
        ..wish(BatchSize::Calls8)
    };
    let (wrong, none) = (with(Some(b"a guess")), with(None));
    let guessed = querier.contract(&endpoint, &wrong, LONG, |_| true, |_| {});
    let error = guessed.await.expect_err("not invited");
    assert!(
        matches!(error, ContractError::Lapsed(ContractRefusal::NotInvited)),
        "{error}"
    );
    let missing = querier.contract(&endpoint, &none, LONG, |_| true, |_| {});
    let error = missing.await.expect_err("not invited");
    let ContractError::Negotiation(NegotiationError::Unavailable(_)) = error else {
        panic!("{error}");
    };
    assert_eq!(market.contracts().await, (0, 0));
    let offered = market.propose_to_buy(&querier, &with(Some(SECRET))).await;
    let ProposalOutcome::Signed(contract) = offered else {
        panic!("{offered:?}");
    };
    let payment = contract.contract.payment;
    assert_eq!(
        (payment.total, payment.method),
        (24, PaymentMethod::Invitation)
    );
    let called = querier.call(&market.call("paid"), LONG, |_| {}).await;
    assert!(called.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invitation_is_good_for_its_contract_only() {
    let mut config = ProviderConfig::default();
    config.contracts.admission = Admission::Invite;
    config.contracts.invitations = vec![SECRET.to_vec().into()];
    let market = Market::with(config).await;
    let (_, welcome) = market.greet().await;
    let invited = ContractOptions {
        invitation: Some(SECRET.to_vec().into()),
        ..wish(BatchSize::Calls8)
    };
    let propose = |seed: [u8; 32]| {
        let drawn_up = Negotiation::begin(&welcome.advert, &invited, seed.into());
        drawn_up.expect("begins").propose().expect("proposes").0
    };
    let (one, mut other, mut none) = (propose(seed()), propose(seed()), propose(seed()));
    assert_eq!(one.invitation, Some(invitation(SECRET, &one.contract.id())));
    other.invitation = one.invitation;
    none.invitation = None;
    for (proposal, is_good) in [(other, false), (none, false), (one, true)] {
        let (mut stream, welcome) = market.greet().await;
        let request = ContractRequest::Propose(Box::new(proposal));
        let answer = ask(&mut stream, &welcome, &request).await;
        match answer.expect("an answer") {
            ContractAnswer::Granted(_) => assert!(is_good),
            ContractAnswer::Refused(ContractRefusal::NotInvited) => assert!(!is_good),
            other => panic!("{other:?}"),
        }
    }
}
