//! Two of four providers keep everything that they see of calls to any provider, and pool it.
//!
//! They know one call's records by their content. What counts is whether they know two different
//! calls of one caller: by a string in both, or by which of them, and how often, a call came to.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_client::wallet::{Resuming, TokenQuery};
use dlambda_client::{Querier, Replicas, Wallet};
use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::exchange::{exchange, receive_greeting};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{Service, Transport as _};
use dlambda_proto::{BatchSize, Endpoint, FunctionSource, Request, decode};
use dlambda_provider::SessionRecord;
use dlambda_tests::adversary::Adversary;
use dlambda_tests::anonymity_set::Dice;
use dlambda_tests::local::LocalProvider;
use rand_core::Rng as _;
use tokio::time::sleep;

use super::stalls::{Fault, Faulty};
use super::telling::{Told, set, tell};
use super::{World, any};
use crate::support::{LONG, NOW};

const CALLS: usize = 500;
const CALLERS: usize = 6;
/// The first two of four.
const COLLUDING: usize = 2;
/// Of each caller, by number, if they do not all hold tokens of all four.
const SETS: [&[usize]; CALLERS] = [
    &[0, 1, 2],
    &[0, 1, 3],
    &[0, 2, 3],
    &[0, 2, 3],
    &[1, 2, 3],
    &[1, 2, 3],
];
const ALL: [&[usize]; CALLERS] = [&[0, 1, 2, 3]; CALLERS];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// A tenth of a call's providers lose its answers.
    Failover,
    /// Two circuits, of which a tenth lose their answers.
    Hedged,
    /// Three providers.
    Replicas,
}

/// One call as the two providers saw it.
pub(super) struct Seen {
    /// At which, in order.
    pub(super) at: Vec<usize>,
    pub(super) owner: usize,
    record: SessionRecord,
}

/// All calls of one run.
struct Run {
    seen: Vec<Seen>,
    all: Vec<SessionRecord>,
}

struct Callers {
    queriers: Vec<Querier>,
    wallets: Vec<Wallet>,
    down: Arc<Mutex<HashSet<Endpoint>>>,
}

impl Callers {
    /// With tokens of the providers in their sets.
    async fn new(world: &World, name: &str, sets: &[&[usize]], way: Way) -> Self {
        let down = Arc::new(Mutex::new(HashSet::new()));
        let (mut queriers, mut wallets) = (Vec::new(), Vec::new());
        for (number, set) in sets.iter().enumerate() {
            let wallet = world.wallet(&format!("{name}-{number}"));
            for provider in *set {
                let endpoint = world.providers[*provider].endpoint;
                world.buy(&wallet, &endpoint, BatchSize::Calls128).await;
            }
            let (dice, down) = (Mutex::new(Dice::new(7)), Arc::clone(&down));
            let choose = move |endpoint: &Endpoint| {
                let is_down = match way {
                    Way::Failover => down.lock().expect("not poisoned").contains(endpoint),
                    Way::Hedged => dice.lock().expect("not poisoned").below(10) == 0,
                    Way::Replicas => false,
                };
                [Fault::None, Fault::LostAnswer][usize::from(is_down)]
            };
            queriers.push(querier(
                &world.network,
                &world.clock,
                Box::new(choose),
                &wallet,
            ));
            wallets.push(wallet);
        }
        Self {
            queriers,
            wallets,
            down,
        }
    }

    /// A call of one of them; whether it was answered.
    async fn call(&self, owner: usize, input: &[u8], way: Way) -> bool {
        let querier = &self.queriers[owner];
        let call = any(input);
        match way {
            Way::Failover => querier.call(&call, LONG, |_| {}).await.is_ok(),
            Way::Hedged => querier.call(&call.hedge(), LONG, |_| {}).await.is_ok(),
            Way::Replicas => {
                let replicas = Replicas::new(3, 2).expect("sound");
                match querier.call_replicas(&call, replicas, LONG, |_| {}).await {
                    Ok(agreement) => {
                        querier.acknowledge(agreement.ack).await;
                        true
                    }
                    Err(_) => false,
                }
            }
        }
    }
}

fn querier(
    network: &MemoryNetwork,
    clock: &Arc<FakeClock>,
    choose: super::stalls::Choose,
    wallet: &Wallet,
) -> Querier {
    let transport = Arc::new(Faulty::new(network.transport([2; 32]), choose));
    Querier::new(transport, Arc::clone(clock) as Arc<dyn Clock>).with_wallet(wallet.clone())
}

fn request(record: &SessionRecord) -> Option<Request> {
    decode(record.request.as_ref()?).ok()
}

/// Calls of callers drawn at random, one after the other.
async fn run(world: &World, name: &str, sets: &[&[usize]], way: Way) -> Run {
    let callers = Callers::new(world, name, sets, way).await;
    let mut dice = Dice::new(1);
    let (mut owners, mut answered) = (HashMap::new(), 0);
    for _ in 0..CALLS {
        let owner = dice.below(CALLERS);
        let mut input = vec![0; 100 + dice.below(1_000)];
        os_rng().fill_bytes(&mut input);
        let endpoints = world.providers.iter().map(|it| it.endpoint);
        let down = endpoints.filter(|_| dice.below(10) == 0).collect();
        *callers.down.lock().expect("not poisoned") = down;
        owners.insert(input.clone(), owner);
        answered += usize::from(callers.call(owner, &input, way).await);
    }
    for querier in &callers.queriers {
        querier.flush_acks().await;
    }
    drop(callers.wallets);
    println!("{name}: {answered} of {CALLS} calls answered");
    assert!(answered >= CALLS * 9 / 10);
    collect(world, &owners).await
}

/// What the two have of these calls, put together by content.
async fn collect(world: &World, owners: &HashMap<Vec<u8>, usize>) -> Run {
    let mut all = Vec::new();
    for (provider, it) in world.providers.iter().take(COLLUDING).enumerate() {
        for record in settled(it).await {
            if let Some(request) = request(&record)
                && let Some(owner) = owners.get(&request.input)
            {
                all.push((record.opened, provider, *owner, request.input, record));
            }
        }
    }
    all.sort_by_key(|it| it.0);
    let mut seen: Vec<Seen> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut records = Vec::new();
    for (_, provider, owner, input, record) in all {
        records.push(record.clone());
        match places.get(&input) {
            Some(place) => seen[*place].at.push(provider),
            None => {
                places.insert(input, seen.len());
                let at = vec![provider];
                seen.push(Seen { at, owner, record });
            }
        }
    }
    Run { seen, all: records }
}

/// What it has once no session has ended for a while: those whose caller is gone end by themselves.
async fn settled(provider: &LocalProvider) -> Vec<SessionRecord> {
    let mut before = usize::MAX;
    loop {
        let records = provider.recorder.records();
        if records.len() == before {
            return records;
        }
        before = records.len();
        sleep(Duration::from_millis(500)).await;
    }
}

/// Seeds and tokens that came with two different calls.
fn reused(records: &[SessionRecord]) -> usize {
    let mut inputs: HashMap<[u8; 32], BTreeSet<Vec<u8>>> = HashMap::new();
    for request in records.iter().filter_map(request) {
        let token = request.token.map(|it| it.nonce);
        for mark in [Some(request.seed), token].into_iter().flatten() {
            inputs
                .entry(mark)
                .or_default()
                .insert(request.input.clone());
        }
    }
    inputs.values().filter(|it| it.len() > 1).count()
}

/// Prints what a run tells, and returns it.
fn report(name: &str, run: &Run) -> Vec<Told> {
    let share = |test: &dyn Fn(&&Seen) -> bool| {
        100.0 * run.seen.iter().filter(test).count() as f64 / CALLS as f64
    };
    println!(
        "{name}: the two saw {:.0} % of the calls, {:.0} % more than once, {:.0} % both of them",
        share(&|_| true),
        share(&|it| it.at.len() > 1),
        share(&|it| set(it).len() > 1),
    );
    let told = tell(&run.seen);
    for it in &told {
        println!(
            "  {:.3} [{:.3}, {:.3}]; chance [{:.3}, {:.3}]  {}",
            it.auc, it.interval[0], it.interval[1], it.chance[0], it.chance[1], it.way
        );
    }
    told
}

/// No string and no secret is in two calls.
fn assert_nothing_is_shared(run: &Run) {
    assert_eq!(reused(&run.all), 0);
    let some = run.seen.iter().take(60).map(|it| it.record.clone());
    let shared = Adversary::new(&some.collect::<Vec<_>>()).shared_by_calls();
    assert_eq!(shared, HashSet::new());
}

/// All wallets hold tokens of all providers: that says nothing of whose a call is.
async fn assert_unknown(way: Way) {
    let world = World::new(4).await;
    let name = format!("{way:?}, all hold tokens of all");
    let alike = run(&world, &name, &ALL, way).await;
    assert_nothing_is_shared(&alike);
    for told in report(&name, &alike) {
        // What each has met of the providers makes their choices differ a little.
        let near = (told.auc - 0.5).abs() < 0.1;
        assert!(near, "{name}: {:.3} by: {}", told.auc, told.way);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_does_not_tell_which_calls_are_of_one_caller() {
    assert_unknown(Way::Failover).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn second_circuits_do_not_tell_which_calls_are_of_one_caller() {
    assert_unknown(Way::Hedged).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_do_not_tell_which_calls_are_of_one_caller() {
    assert_unknown(Way::Replicas).await;
}

/// Each wallet holds tokens of three providers; returns how well that tells the callers.
async fn told_by_set(way: Way) -> f64 {
    let world = World::new(4).await;
    let name = format!("{way:?}, each holds tokens of three");
    let alike = run(&world, &name, &SETS, way).await;
    assert_nothing_is_shared(&alike);
    report(&name, &alike)[0].auc
}

/// A call comes to one of a wallet's providers.
#[tokio::test(flavor = "multi_thread")]
async fn single_calls_show_little_of_which_providers_a_wallet_holds() {
    for way in [Way::Failover, Way::Hedged] {
        let auc = told_by_set(way).await;
        assert!(auc < 0.75, "{auc:.3}");
    }
}

/// They come to all of them.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_show_which_providers_a_wallet_holds() {
    let auc = told_by_set(Way::Replicas).await;
    assert!(auc > 0.85, "{auc:.3}");
}

/// The control: a client that uses one token, and one seed, for two calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_comes_with_two_calls_is_found() {
    let world = World::new(1).await;
    let wallet = world.wallet("anne");
    let provider = &world.providers[0];
    world
        .buy(&wallet, &provider.endpoint, BatchSize::Calls8)
        .await;
    let query = TokenQuery {
        endpoint: provider.endpoint,
        plan: None,
        provider: None,
        call: [1; 32],
        now: NOW,
        valid_at: NOW,
        resuming: Resuming::Soon,
    };
    let held = wallet.reserve(&query).expect("readable").expect("a token");
    for number in 0..2 {
        let mut input = vec![0; 100];
        os_rng().fill_bytes(&mut input);
        let transport = world.network.transport([9; 32]);
        let dialled = transport.dial(&provider.endpoint, Service::Calls).await;
        let mut stream = dialled.expect("reachable").stream;
        let greeted = receive_greeting(&mut *stream, &provider.endpoint, NOW, LONG).await;
        let welcome = greeted.expect("a greeting");
        let request = Request {
            function: FunctionSource::Known(world.upper),
            args: vec![],
            input,
            seed: *held.seed(),
            http: None,
            // A seed alone is found as well.
            token: (number == 0).then(|| held.token()),
        };
        let plan = &welcome.advert.plans[0].name;
        let sealed = SealedCall::seal(&welcome.sealing, plan, &request, &mut os_rng());
        let _ = exchange(&mut *stream, sealed.expect("seals"), LONG).await;
    }
    let is_call = |it: &SessionRecord| request(it).is_some();
    let mut records = Vec::new();
    for _ in 0..200 {
        records = provider.recorder.records();
        records.retain(is_call);
        if records.len() >= 2 {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(reused(&records), 1);
}
