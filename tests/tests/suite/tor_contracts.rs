//! On a private network of real Tor relays: calls cannot be tied to contracts,
//! nor to each other.

use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::clock::{Clock, SystemClock};
use dlambda_privacy::os_rng;
use dlambda_provider::{ProviderConfig, SessionRecord};
use dlambda_tests::adversary::Adversary;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::shared::tor_network;
use dlambda_tests::tor::participant;
use rand_core::Rng as _;
use tempfile::TempDir;

use crate::adversary::customers::{
    Customer, EACH, Script, assert_no_better_than_chance, records_of, report,
};
use crate::support::functions;

/// Calls of each customer that have a contract's id in them.
const LEAKS: usize = 5;

/// A network, a provider whose calls take tokens, and two customers, each with
/// a Tor client of its own.
struct Market {
    provider: LocalProvider,
    customers: [Customer; 2],
    _dir: TempDir,
}

impl Market {
    async fn open() -> Self {
        let network = tor_network().await.expect("a network");
        let dir = tempfile::tempdir().expect("a directory");
        let network = network.as_path();
        let (published, data) = (functions(), dir.path().join("provider"));
        let tor = participant(network, &dir.path().join("provider-tor")).await;
        let provider = LocalProvider::start(
            ProviderConfig::default(),
            &published,
            &data,
            tor.expect("Tor starts"),
            Arc::new(SystemClock::default()),
        );
        let provider = Box::pin(provider).await.expect("the provider starts");
        let endpoint = provider.endpoint;
        let sign_up = async |name: &str| {
            let tor = participant(network, &dir.path().join(name)).await;
            let clock = Arc::new(SystemClock::default()) as Arc<dyn Clock>;
            let wallet = dir.path().join(name).join("wallet");
            let tor = tor.expect("Tor starts");
            Box::pin(Customer::sign_up(tor, clock, endpoint, &wallet)).await
        };
        let customers = [
            Box::pin(sign_up("first")).await,
            Box::pin(sign_up("second")).await,
        ];
        Self {
            provider,
            customers,
            _dir: dir,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_calls_under_two_contracts_cannot_be_assigned_and_a_leak_is_found() {
    let seed = os_rng().next_u64();
    println!("order and pauses from seed {seed}");
    let market = Market::open().await;
    let mut script = Script::new(EACH, seed);
    let mut circuits = 0;
    for caller in script.order.clone() {
        let pause = Duration::from_millis(script.dice.below(500) as u64);
        tokio::time::sleep(pause).await;
        let customer = &market.customers[caller];
        let input = script.input(customer);
        circuits += Box::pin(customer.call(input, &[])).await;
    }
    let records = records_of(&market.provider.recorder, 2 * EACH).await;
    let adversary = Adversary::new(&records);
    let scores = script.scores(&adversary);
    println!(
        "{} calls, none failed, {circuits} circuits",
        adversary.calls()
    );
    report("without a leak", &scores);
    assert_eq!(adversary.calls(), 2 * EACH);
    assert_no_better_than_chance(&adversary, &scores);
    assert_inputs_are_sealed(&records, &script);
    Box::pin(the_leak_is_found(&market, seed)).await;
    market.provider.stop().await.expect("stops");
}

/// What callers put in is in opened requests and nowhere else.
fn assert_inputs_are_sealed(records: &[SessionRecord], script: &Script) {
    let mut opened = 0;
    for input in script.inputs() {
        let canary = &input[..16];
        let holds = |bytes: &[u8]| bytes.windows(canary.len()).any(|window| window == canary);
        for record in records {
            let SessionRecord {
                circuit,
                received,
                sent,
                request,
                reply,
                ..
            } = record;
            let reply = reply.as_deref().unwrap_or_default();
            for bytes in [&circuit.opening, received, sent, reply] {
                assert!(!holds(bytes), "an input outside a request");
            }
            opened += usize::from(request.as_deref().is_some_and(holds));
        }
    }
    // A call whose circuit broke may have come twice.
    assert!(opened >= 2 * EACH, "{opened}");
}

/// The same adversary, with the same record of contracts, and calls that say
/// which they are under.
async fn the_leak_is_found(market: &Market, seed: u64) {
    let mut script = Script::new(LEAKS, seed);
    let honest = market.provider.recorder.records().len();
    for caller in script.order.clone() {
        let customer = &market.customers[caller];
        let input = script.input(customer);
        Box::pin(customer.call(input, &[customer.id()])).await;
    }
    let mut records = records_of(&market.provider.recorder, 2 * (EACH + LEAKS)).await;
    let leaks = records.split_off(honest);
    // Contracts, and calls with the leak.
    let is_contract = |record: &SessionRecord| {
        Adversary::new(std::slice::from_ref(record))
            .contracts()
            .len()
            == 1
    };
    records.retain(is_contract);
    records.extend(leaks);
    let scores = script.scores(&Adversary::new(&records));
    report("with a contract's id in the call", &scores);
    let score = &scores[0];
    assert_eq!(score.strategy, "a string of a contract");
    assert_eq!((score.guessed, score.right), (2 * LEAKS, 2 * LEAKS));
    // Ten calls prove less than forty: 2 in 252.
    assert!(score.chance < 0.01, "{score:?}");
}
