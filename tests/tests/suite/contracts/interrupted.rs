//! Contracts whose messages are lost on the way: both sides end up with the
//! same contract, or with none.

use dlambda_client::{ContractError, ProposalOutcome, Querier, RecoveryReport};
use dlambda_privacy::clock::Clock as _;
use dlambda_proto::{BatchSize, UnixSeconds};

use super::market::{Cut, Market, Relay, wish};
use crate::support::{LONG, skip_second_look};

const ANSWER: Cut = Cut::Answer { after: 0 };
const REQUEST: Cut = Cut::Request { after: 0 };

/// Drafts, contracts without a known confirmation, and fresh tokens.
fn in_wallet(market: &Market, querier: &Querier) -> (usize, usize, usize) {
    let wallet = querier.wallet().expect("a wallet");
    let drafts = wallet.drafts().expect("readable").len();
    let unconfirmed = wallet.unconfirmed(UnixSeconds(0)).expect("readable").len();
    let now = market.clock.now();
    let listing = wallet.contracts(now).expect("readable").contracts;
    let fresh = listing.iter().map(|contract| contract.fresh).sum();
    (drafts, unconfirmed, fresh)
}

async fn settle(querier: &Querier) -> RecoveryReport {
    let settled = querier.recover(LONG).await.expect("settles");
    skip_second_look(querier.wallet().expect("a wallet"));
    settled
}

/// Proposes through a relay that loses all three attempts in this way.
async fn lose_a_proposal(market: &Market, cut: Cut) {
    let relay = Relay::start(market, [cut; 3]).await;
    let querier = relay.customer(market.wallet("anne"));
    let (endpoint, wish) = (market.endpoint(), wish(BatchSize::Calls32));
    let offered = querier.contract(&endpoint, &wish, LONG, |_| true, |_| {});
    let error = offered.await.expect_err("the answer is lost");
    assert!(matches!(error, ContractError::Exchange(_)), "{error}");
    assert_eq!(relay.cuts_left(), 0);
    assert_eq!(in_wallet(market, &querier), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_given_on_the_next_circuit() {
    let market = Market::open().await;
    let relay = Relay::start(&market, [ANSWER, Cut::Stream { after: 0 }]).await;
    let querier = relay.customer(market.wallet("anne"));
    market.buy(&querier, BatchSize::Calls32).await;
    assert_eq!(in_wallet(&market, &querier), (0, 0, 32));
    assert_eq!(relay.cuts_left(), 0);
    assert_eq!(market.contracts().await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_lost_is_fetched_later() {
    let market = Market::open().await;
    lose_a_proposal(&market, ANSWER).await;
    assert_eq!(market.contracts().await, (1, 0));
    let querier = market.customer("anne");
    let settled = settle(&querier).await;
    assert_eq!((settled.granted, settled.lapsed, settled.left), (1, 0, 0));
    assert_eq!(in_wallet(&market, &querier), (0, 0, 32));
    assert_eq!(market.contracts().await, (1, 1), "it is one contract");
    let totals = market.status().await.contracts;
    assert_eq!(totals[0].calls_issued, 32);
    let called = querier.call(&market.call("paid"), LONG, |_| {}).await;
    assert!(called.is_ok(), "{called:?}");
    assert_eq!(settle(&querier).await, RecoveryReport::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_may_fetch_it_at_once() {
    let market = Market::open().await;
    lose_a_proposal(&market, ANSWER).await;
    let (one, other) = (market.customer("anne"), market.customer("anne"));
    let (settled, too) = tokio::join!(settle(&one), settle(&other));
    assert!(settled.granted + too.granted >= 1 && settled.left + too.left == 0);
    assert_eq!(in_wallet(&market, &one), (0, 0, 32));
    assert_eq!(market.contracts().await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_lost_is_fetched_from_the_restarted_provider() {
    let mut market = Market::open().await;
    lose_a_proposal(&market, ANSWER).await;
    let before = market.greet().await.1;
    market.restart().await;
    let after = market.greet().await.1;
    assert!(before.advert == after.advert && before.sealing != after.sealing);
    let querier = market.customer("anne");
    assert_eq!(settle(&querier).await.granted, 1);
    assert_eq!(in_wallet(&market, &querier), (0, 0, 32));
    assert_eq!(market.contracts().await, (1, 1));
    for _ in 0..3 {
        let called = querier.call(&market.call("paid"), LONG, |_| {}).await;
        assert!(called.is_ok(), "{called:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_never_arrived_is_made_again() {
    let market = Market::open().await;
    lose_a_proposal(&market, REQUEST).await;
    assert_eq!(market.contracts().await, (0, 0));
    let querier = market.customer("anne");
    assert_eq!(settle(&querier).await.granted, 1);
    assert_eq!(in_wallet(&market, &querier), (0, 0, 32));
    assert_eq!(market.contracts().await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proposal_that_never_arrived_lapses_with_its_keys() {
    let market = Market::open().await;
    lose_a_proposal(&market, REQUEST).await;
    market.next_epoch().await;
    let querier = market.customer("anne");
    let settled = settle(&querier).await;
    assert_eq!((settled.granted, settled.lapsed, settled.left), (0, 1, 0));
    assert_eq!(in_wallet(&market, &querier), (0, 0, 0));
    assert_eq!(market.contracts().await, (0, 0));
    market.buy(&querier, BatchSize::Calls8).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_given_up_while_the_provider_is_away() {
    let mut market = Market::open().await;
    lose_a_proposal(&market, ANSWER).await;
    let querier = market.customer("anne");
    market.stop().await;
    assert_eq!(settle(&querier).await.left, 1);
    assert_eq!(in_wallet(&market, &querier), (1, 0, 0));
    market.start().await;
    assert_eq!(settle(&querier).await.granted, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_confirmation_is_sent_again() {
    let mut market = Market::open().await;
    for (name, cut, confirmed) in [
        ("not arrived", Cut::Request { after: 1 }, 0),
        ("not answered", Cut::Answer { after: 1 }, 2),
    ] {
        let relay = Relay::start(&market, [cut]).await;
        let querier = relay.customer(market.wallet(name));
        let offered = market
            .propose_to_buy(&querier, &wish(BatchSize::Calls8))
            .await;
        assert!(matches!(offered, ProposalOutcome::Signed(_)), "{offered:?}");
        assert_eq!(relay.cuts_left(), 0);
        assert_eq!(in_wallet(&market, &querier), (0, 1, 8), "{name}");
        assert_eq!(market.contracts().await.1, confirmed, "{name}");
        let called = querier.call(&market.call("before"), LONG, |_| {}).await;
        assert!(called.is_ok(), "it pays already: {called:?}");
        querier.flush_acks().await;
        drop((querier, relay));
        // Also by a provider whose keys have changed since.
        market.restart().await;
        let querier = market.customer(name);
        assert_eq!(settle(&querier).await.confirmed, 1, "{name}");
        assert_eq!(in_wallet(&market, &querier), (0, 0, 7), "{name}");
        let (granted, confirmed) = market.contracts().await;
        assert_eq!(granted, confirmed, "{name}");
        assert_eq!(settle(&querier).await, RecoveryReport::default());
    }
    assert_eq!(market.contracts().await, (2, 2));
}

/// Two that are finished one after the other would have one owner.
#[tokio::test(flavor = "multi_thread")]
async fn contracts_of_one_provider_are_finished_one_at_a_time() {
    let market = Market::open().await;
    let cut = Cut::Request { after: 1 };
    let relay = Relay::start(&market, [cut; 2]).await;
    let querier = relay.customer(market.wallet("anne"));
    for _ in 0..2 {
        let offered = market
            .propose_to_buy(&querier, &wish(BatchSize::Calls8))
            .await;
        assert!(matches!(offered, ProposalOutcome::Signed(_)), "{offered:?}");
    }
    assert_eq!(in_wallet(&market, &querier), (0, 2, 16));
    let querier = market.customer("anne");
    for left in [1, 0] {
        let settled = settle(&querier).await;
        assert_eq!((settled.confirmed, settled.left), (1, left));
    }
}
