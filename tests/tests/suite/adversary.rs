//! Whether a provider can tell under which contract a call was made; on a
//! network in memory, and with callers built to leak. `tor_contracts.rs` asks
//! the same on Tor.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dlambda_client::wallet::{Draft, Taking};
use dlambda_client::{Call, ContractProgress, Offered, Querier, Wallet};
use dlambda_privacy::clock::Clock;
use dlambda_privacy::exchange::{
    Welcome, acknowledge, exchange, exchange_contract, receive_greeting,
};
use dlambda_privacy::negotiation::{Negotiation, Wish};
use dlambda_privacy::os_rng;
use dlambda_privacy::seal::{SealedCall, SealedContractRequest};
use dlambda_privacy::transport::{BoxStream, Transport};
use dlambda_proto::{
    BatchSize, ContractAnswer, ContractId, ContractRequest, Endpoint, FunctionSource, Request,
    SignedContract,
};
use dlambda_provider::{ProviderConfig, SessionRecord};
use dlambda_tests::adversary::{Adversary, Score, chance};
use dlambda_tests::crowd::{Customers, Dice, simulate};
use dlambda_tests::local::Recorder;
use rand_core::Rng as _;

use crate::support::{LONG, World, alias};

/// Calls of each of the two customers.
pub(crate) const EACH: usize = 20;

/// A caller with a contract for 32 calls.
pub(crate) struct Customer {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    endpoint: Endpoint,
    querier: Querier,
    pub(crate) contract: SignedContract,
}

impl Customer {
    pub(crate) async fn sign_up(
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
        endpoint: Endpoint,
        wallet: &Path,
    ) -> Self {
        let wallet = Wallet::open(wallet).expect("a wallet");
        let querier = Querier::new(Arc::clone(&transport), Arc::clone(&clock));
        let querier = querier.with_wallet(wallet.clone());
        let wish = Wish {
            plan: None,
            calls: BatchSize::Calls32,
            service: None,
            deterministic: true,
            invitation: None,
        };
        let mut draft = None;
        let look = |progress| {
            if progress == ContractProgress::Proposing {
                draft = wallet.drafts().expect("a wallet").pop();
            }
        };
        let offered = querier.contract(&endpoint, &wish, LONG, |_| true, look);
        let Offered::Signed(contract) = Box::pin(offered).await.expect("an answer") else {
            panic!("countered");
        };
        let customer = Self {
            transport,
            clock,
            endpoint,
            querier,
            contract: *contract,
        };
        customer.propose_again(draft.expect("proposed")).await;
        customer
    }

    /// As if the answer had been lost. The record of a session keeps its last
    /// request, which was the confirmation; so it holds the proposal and the
    /// grant, too, which are the same as before.
    async fn propose_again(&self, draft: Draft) {
        let (mut stream, welcome) = self.greet().await;
        let advert = draft.advert.authenticate().expect("an advert");
        let (contract, seed) = (draft.contract, draft.seed.into());
        let negotiation = Negotiation::resume(advert, contract, seed, draft.invitation);
        let (proposal, _) = negotiation.expect("ours").propose().expect("blinds");
        let request = ContractRequest::Propose(Box::new(proposal));
        let sealed = SealedContractRequest::seal(&welcome.advert, &request, &mut os_rng());
        let answer = exchange_contract(&mut *stream, sealed.expect("seals"), LONG).await;
        let ContractAnswer::Granted(grant) = answer.expect("an answer") else {
            panic!("not granted");
        };
        assert_eq!(grant.signature, self.contract.provider_signature);
        acknowledge(stream).await;
    }

    async fn greet(&self) -> (BoxStream, Welcome) {
        // A circuit may fail.
        for _ in 0..3 {
            let Ok(mut stream) = self.transport.dial(&self.endpoint).await else {
                continue;
            };
            let now = self.clock.now();
            let greeted = receive_greeting(&mut *stream, &self.endpoint, now, LONG).await;
            if let Ok(welcome) = greeted {
                return (stream, welcome);
            }
        }
        panic!("the provider cannot be reached");
    }

    /// A call as it should be; returns how many circuits it took.
    pub(crate) async fn call(&self, input: Vec<u8>, args: &[String]) -> u32 {
        let expected = dlambda_proto::FunctionId::of(&input);
        let expected = data_encoding::HEXLOWER.encode(expected.digest()) + "\n";
        let call = Call::new(self.endpoint, alias("sha256")).input(input);
        let call = call.args(args);
        let answer = self.querier.call(&call, LONG, |_| {}).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.stdout, expected.as_bytes());
        answer.attempts
    }

    /// A call with something wrong in it.
    async fn call_with(&self, input: Vec<u8>, change: impl FnOnce(&mut Request)) {
        let (mut stream, Welcome { advert, .. }) = self.greet().await;
        let mut call = [0; 32];
        os_rng().fill_bytes(&mut call);
        let taking = Taking {
            endpoint: self.endpoint,
            plan: None,
            call,
            now: self.clock.now(),
        };
        let wallet = self.querier.wallet().expect("a wallet");
        let held = wallet.take(&taking).expect("a wallet").expect("a token");
        let function = advert.function_by_alias("sha256").expect("published");
        let mut request = Request {
            function: FunctionSource::Known(function.id),
            args: vec![],
            input,
            seed: *held.seed(),
            http: None,
            token: Some(held.token()),
        };
        change(&mut request);
        let plan = &advert.plans[0].name;
        let sealed = SealedCall::seal(&advert, plan, &request, &mut os_rng()).expect("seals");
        // A token that was tampered with pays for nothing; it is recorded all
        // the same.
        let answered = exchange(&mut *stream, sealed, LONG).await;
        answered.expect("a reply");
        acknowledge(stream).await;
        held.spend().expect("a wallet");
    }
}

/// Who calls when, and what the caller alone knows.
pub(crate) struct Plan {
    /// Which customer makes each call.
    pub(crate) order: Vec<usize>,
    pub(crate) dice: Dice,
    /// Whose input it was.
    owners: HashMap<Vec<u8>, ContractId>,
}

impl Plan {
    /// So many calls of each of two customers, in random order.
    pub(crate) fn new(each: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut order: Vec<usize> = (0..2 * each).map(|call| call % 2).collect();
        dice.shuffle(&mut order);
        Self {
            order,
            dice,
            owners: HashMap::new(),
        }
    }

    /// A fresh input, whose size says nothing of who it is from.
    pub(crate) fn input(&mut self, customer: &Customer) -> Vec<u8> {
        let mut input = vec![0; 100 + self.dice.below(1000)];
        os_rng().fill_bytes(&mut input);
        self.owners
            .insert(input.clone(), customer.contract.contract.id());
        input
    }

    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.owners.keys()
    }

    pub(crate) fn scores(&self, adversary: &Adversary) -> Vec<Score> {
        adversary.best_guesses(|request| self.owners[&request.input])
    }
}

/// The records, once they hold so many calls.
pub(crate) async fn records_of(recorder: &Recorder, calls: usize) -> Vec<SessionRecord> {
    for _ in 0..200 {
        let records = recorder.records();
        if Adversary::new(&records).calls() >= calls {
            return records;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not all calls were recorded");
}

/// Fails if the adversary knows anything. An honest run fails once in a
/// million times, all strategies together.
pub(crate) fn assert_no_better_than_chance(adversary: &Adversary, scores: &[Score]) {
    assert_eq!(adversary.contracts().len(), 2);
    let with_contracts = adversary.shared_with_contracts();
    assert!(with_contracts.is_empty(), "{with_contracts:?}");
    let by_calls = adversary.shared_by_calls();
    assert!(by_calls.is_empty(), "{by_calls:?}");
    let limit = limit(scores);
    for score in scores {
        assert!(score.chance > limit, "{score:?}, above {limit:e} by chance");
    }
}

pub(crate) fn limit(scores: &[Score]) -> f64 {
    assert!(scores.len() > 30, "too few ways were tried: {scores:?}");
    1e-6 / scores.len() as f64
}

/// The best that the adversary did with a whole assignment.
pub(crate) fn report(title: &str, scores: &[Score]) {
    let mut scores: Vec<&Score> = scores.iter().collect();
    scores.sort_by(|one, two| one.chance.total_cmp(&two.chance));
    println!("{title}: {} strategies; the best of them:", scores.len());
    for score in scores.iter().take(5) {
        let Score {
            strategy,
            guessed,
            right,
            chance,
            ..
        } = score;
        println!("  {right:2} of {guessed:2}  p = {chance:.2e}  {strategy}");
    }
}

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
        let mut plan = Plan::new(EACH, seed);
        for caller in plan.order.clone() {
            let customer = &self.customers[caller];
            let input = plan.input(customer);
            let change = |request: &mut Request| fault(customer, request);
            Box::pin(customer.call_with(input, change)).await;
        }
        let scores = plan.scores(&self.adversary().await);
        report("with a leak", &scores);
        scores
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forty_calls_under_two_contracts_cannot_be_assigned() {
    let market = Market::open().await;
    let mut plan = Plan::new(EACH, 1);
    for caller in plan.order.clone() {
        let customer = &market.customers[caller];
        let input = plan.input(customer);
        Box::pin(customer.call(input, &[])).await;
    }
    let adversary = market.adversary().await;
    let scores = plan.scores(&adversary);
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
    let mut plan = Plan::new(EACH, 2);
    for caller in (0..2 * EACH).map(|call| call % 2) {
        let customer = &market.customers[caller];
        let input = plan.input(customer);
        Box::pin(customer.call(input, &[])).await;
    }
    let scores = plan.scores(&market.adversary().await);
    all_right(&scores, "in turns of 1", 2 * EACH);
}

/// As text, as a caller would write it.
#[tokio::test(flavor = "multi_thread")]
async fn a_contract_id_in_a_call_gives_the_contract_away() {
    let market = Market::open().await;
    let scores = market
        .leak(3, |customer, request| request.args.push(id(customer)))
        .await;
    all_right(&scores, "a string of a contract", 2 * EACH);
}

pub(crate) fn id(customer: &Customer) -> String {
    data_encoding::HEXLOWER.encode(&customer.contract.contract.id().0)
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

/// Prints the table of docs/THREAT-MODEL.md.
#[test]
fn the_crowd_grows_with_customers_and_delays() {
    println!("customers | delay  | first call | later calls | blind guess | possible | effective");
    let started = SystemTime::now();
    let mut first = HashMap::new();
    for (number, days) in [(2, 400), (5, 160), (20, 40), (100, 8), (1000, 1)] {
        for (name, longest_delay) in [("none", 0.0), ("30 min", 1800.0), ("6 h", 21_600.0)] {
            let customers = Customers {
                number,
                calls_per_hour: 1.0,
                longest_delay,
            };
            let achieved = simulate(customers, days, 7);
            println!(
                "{number:9} | {name:6} | {:10.3} | {:11.3} | {:11.3} | {:8.1} | {:9.1}",
                achieved.right_first,
                achieved.right_later,
                achieved.chance,
                achieved.possible,
                achieved.effective,
            );
            // It knows how much it knows.
            assert!((achieved.right - achieved.believed).abs() < 0.05, "{achieved:?}");
            assert!(achieved.right > achieved.chance - 0.02, "{achieved:?}");
            first.insert((number, name), achieved);
        }
    }
    println!("took {:?}", started.elapsed().expect("a clock"));
    let at = |number, delay| first[&(number, delay)];
    assert!(at(2, "none").right_first > 0.95);
    assert!(at(100, "none").right_first > 2.0 * at(100, "6 h").right_first);
    assert!(at(1000, "6 h").right_first < 0.02);
    assert!(at(1000, "6 h").effective > 300.0);
    assert_eq!(
        simulate(Customers { number: 5, calls_per_hour: 1.0, longest_delay: 60.0 }, 3, 9),
        simulate(Customers { number: 5, calls_per_hour: 1.0, longest_delay: 60.0 }, 3, 9),
    );
}
