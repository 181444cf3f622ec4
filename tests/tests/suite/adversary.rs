//! Whether a provider can tell under which contract a call was made; on a
//! network in memory, and with callers built to leak. `tor_contracts.rs` asks
//! the same on Tor.

pub(crate) mod customers;

use std::sync::Arc;

use dlambda_privacy::clock::Clock;
use dlambda_proto::Request;
use dlambda_provider::ProviderConfig;
use dlambda_tests::adversary::{Adversary, Score, chance};
use dlambda_tests::anonymity_set::{Achieved, Customers, simulate};

use crate::support::World;
use customers::{Customer, EACH, Script, assert_no_better_than_chance, limit, records_of, report};

fn all_right(scores: &[Score], strategy: &str, calls: usize) {
    let score = scores.iter().find(|score| score.strategy == strategy);
    let score = score.expect("this strategy");
    assert_eq!((score.guessed, score.right), (calls, calls), "{score:?}");
    assert!(score.chance < limit(scores), "{score:?}");
}

/// A provider in memory, and two customers.
struct Market {
    world: World,
    customers: [Customer; 2],
    _wallets: tempfile::TempDir,
}

impl Market {
    async fn open() -> Self {
        let world = World::with(ProviderConfig::default()).await;
        let wallets = tempfile::tempdir().expect("a directory");
        let sign_up = |number: u8| {
            let transport = Arc::new(world.network.transport([10 + number; 32]));
            let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
            let wallet = wallets.path().join(number.to_string());
            let endpoint = world.endpoint();
            async move { Customer::sign_up(transport, clock, endpoint, &wallet).await }
        };
        let customers = [Box::pin(sign_up(0)).await, Box::pin(sign_up(1)).await];
        Self {
            world,
            customers,
            _wallets: wallets,
        }
    }

    async fn adversary(&self) -> Adversary {
        Adversary::new(&records_of(&self.world.provider.recorder, 2 * EACH).await)
    }

    /// Forty calls that all have the same fault.
    async fn leak(&self, seed: u64, fault: impl Fn(&Customer, &mut Request)) -> Vec<Score> {
        let mut script = Script::new(EACH, seed);
        for caller in script.order.clone() {
            let customer = &self.customers[caller];
            let input = script.input(customer);
            let change = |request: &mut Request| fault(customer, request);
            Box::pin(customer.call_with(input, change)).await;
        }
        let scores = script.scores(&self.adversary().await);
        report("with a leak", &scores);
        scores
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_calls_under_two_contracts_cannot_be_assigned() {
    let market = Market::open().await;
    let mut script = Script::new(EACH, 1);
    for caller in script.order.clone() {
        let customer = &market.customers[caller];
        let input = script.input(customer);
        Box::pin(customer.call(input, &[])).await;
    }
    let adversary = market.adversary().await;
    let scores = script.scores(&adversary);
    report("without a leak", &scores);
    assert_no_better_than_chance(&adversary, &scores);
    // The same record would give callers away who differ in what it shows.
    let first = adversary.contracts()[0];
    let second = adversary.contracts()[1];
    let by_size = adversary.best_guesses(|request| match request.input.len() {
        ..600 => first,
        _ => second,
    });
    let best = by_size.iter().map(|score| score.right).max();
    assert!(best >= Some(2 * EACH - 3), "{by_size:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_who_take_turns_are_told_apart() {
    let market = Market::open().await;
    let mut script = Script::new(EACH, 2);
    for caller in (0..2 * EACH).map(|call| call % 2) {
        let customer = &market.customers[caller];
        let input = script.input(customer);
        Box::pin(customer.call(input, &[])).await;
    }
    let scores = script.scores(&market.adversary().await);
    all_right(&scores, "in turns of 1", 2 * EACH);
}

/// As text, as a caller would write it.
#[tokio::test(flavor = "multi_thread")]
async fn a_contract_id_in_a_call_gives_the_contract_away() {
    let market = Market::open().await;
    let scores = market
        .leak(3, |customer, request| request.args.push(customer.id()))
        .await;
    all_right(&scores, "a string of a contract", 2 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_key_as_a_seed_gives_the_contract_away() {
    let market = Market::open().await;
    let scores = market
        .leak(4, |customer, request| {
            request.seed = *customer.contract.contract.client.as_bytes();
        })
        .await;
    all_right(&scores, "a string of a contract", 2 * EACH);
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_that_begin_alike_give_their_caller_away() {
    let market = Market::open().await;
    let scores = market
        .leak(5, |customer, request| {
            let token = request.token.as_mut().expect("a token");
            // Nothing that the provider has seen at the contract.
            token.nonce[..8].copy_from_slice(&customer.contract.client_signature[..8]);
            token.nonce[..8].rotate_left(3);
        })
        .await;
    all_right(&scores, "a string of another call", 2 * EACH);
}

#[test]
fn chance_is_counted_exactly() {
    // Two calls each: of six orders, one divides them just so, and one the
    // other way round.
    assert!((chance(4, 2, 2, 4) - 2.0 / 6.0).abs() < 1e-12);
    assert!((chance(4, 2, 2, 2) - 1.0).abs() < 1e-12);
    // A guess that puts all on one side is always half right.
    assert!((chance(40, 20, 0, 20) - 1.0).abs() < 1e-12);
    assert!(chance(40, 20, 0, 21).abs() < 1e-12);
    // What a test of forty strategies accepts: 36 right of 40, but not 38.
    assert!(chance(40, 20, 20, 36) > 1e-6 / 40.0);
    assert!(chance(40, 20, 20, 38) < 1e-6 / 40.0);
}

/// Prints the tables of docs/THREAT-MODEL.md.
#[test]
fn the_anonymity_set_grows_with_customers_and_delays() {
    println!("customers | an hour | delay  | first | later | blind | possible | effective");
    let hour = 3600.0;
    let delays = [("none", 0.0), ("30 min", hour / 2.0), ("6 h", 6.0 * hour)];
    for (number, days) in [(2, 400), (5, 160), (20, 40), (100, 8), (1000, 1)] {
        let row = delays.map(|(name, delay)| achieved(number, 1.0, name, delay, days));
        assert!(row[0].right_first > 0.9, "{row:?}");
        assert!(row[2].right_first < 0.7 * row[0].right_first, "{row:?}");
        assert!(row[2].effective > row[0].effective, "{row:?}");
    }
    for calls_per_hour in [0.1, 10.0] {
        let row = delays.map(|(name, delay)| achieved(100, calls_per_hour, name, delay, 3));
        assert!(row[2].right_first < 0.2, "{row:?}");
    }
}

fn achieved(
    number: usize,
    calls_per_hour: f64,
    name: &str,
    longest_delay: f64,
    days: usize,
) -> Achieved {
    let customers = Customers {
        number,
        calls_per_hour,
        longest_delay,
    };
    let achieved = simulate(customers, days, 7);
    println!(
        "{number:9} | {calls_per_hour:7.1} | {name:6} | {:.3} | {:.3} | {:.3} | {:8.1} | {:9.1}",
        achieved.right_first,
        achieved.right_later,
        achieved.chance,
        achieved.possible,
        achieved.effective,
    );
    // It knows how much it knows, and is no worse than blind.
    let surprise = (achieved.right - achieved.believed).abs();
    assert!(surprise < 0.03, "{achieved:?}");
    assert!(achieved.right > achieved.chance, "{achieved:?}");
    achieved
}
