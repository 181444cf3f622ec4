//! Two circuits for one call: those that stall cost little time, and no second token.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_client::{Call, Querier, Wallet};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_proto::{BatchSize, FunctionId};
use dlambda_tests::anonymity_set::Dice;
use tokio::time::Instant;

use super::scripted::{Act, Scripted};
use super::stalls::{Fault, Faulty};
use crate::support::{LONG, NOW, alias};

const CALLS: usize = 200;
const ANYWHERE: [Fault; 3] = [Fault::NoCircuit, Fault::NoGreeting, Fault::NoAnswer];

/// What 200 calls over circuits came to, a tenth of which stall in one of these ways.
struct Measured {
    /// In order.
    times: Vec<Duration>,
    answered: usize,
    /// At the provider.
    tokens: usize,
    requests: usize,
    /// In the wallet.
    spent: usize,
}

impl Measured {
    fn percentile(&self, percent: usize) -> Duration {
        self.times[(self.times.len() * percent).div_ceil(100) - 1]
    }

    fn ratio(&self) -> f64 {
        self.percentile(95).as_secs_f64() / self.percentile(50).as_secs_f64()
    }

    fn print(&self, what: &str) {
        println!(
            "{what}: p50 {:.2} s, p95 {:.2} s, ratio {:.2}; {} of {CALLS} answered; {} requests \
             with {} tokens",
            self.percentile(50).as_secs_f64(),
            self.percentile(95).as_secs_f64(),
            self.ratio(),
            self.answered,
            self.requests,
            self.tokens,
        );
    }
}

/// Under virtual time, with the delays of a Tor circuit.
async fn measure(hedge: bool, faults: &'static [Fault], seed: u64) -> Measured {
    let ms = Duration::from_millis;
    let network = MemoryNetwork::new(ms(1_500)).with_message_delay(ms(150)..=ms(400));
    let function = FunctionId::of(b"upper");
    let provider = Scripted::start_slow(&network, 1, function, Act::Answer, ms(100)).await;
    let dir = tempfile::tempdir().expect("a directory");
    let wallet = Wallet::open(&dir.path().join("wallet")).expect("a wallet");
    for _ in 0..2 {
        provider.sell(&wallet, BatchSize::Calls128);
    }
    let dice = Mutex::new(Dice::new(seed));
    let choose = move |_: &_| {
        let mut dice = dice.lock().expect("not poisoned");
        match dice.below(10) {
            0 => faults[dice.below(faults.len())],
            _ => Fault::None,
        }
    };
    let transport = Faulty::new(network.transport([2; 32]), Box::new(choose));
    let clock = Arc::new(FakeClock::at(NOW)) as Arc<dyn Clock>;
    let querier = Querier::new(Arc::new(transport), clock).with_wallet(wallet.clone());
    let (mut times, mut answered) = (Vec::new(), 0);
    for number in 0..CALLS {
        let call = Call::new(provider.endpoint, alias("upper")).input(format!("call {number}"));
        let call = match hedge {
            true => call.hedge(),
            false => call,
        };
        let began = Instant::now();
        let ended = querier.call(&call, LONG, |_| {}).await;
        times.push(began.elapsed());
        answered += usize::from(ended.is_ok());
    }
    times.sort();
    let listing = wallet.contracts(NOW).expect("readable").contracts;
    Measured {
        times,
        answered,
        tokens: provider.tokens(),
        requests: provider.requests().len(),
        spent: listing.iter().map(|it| it.spent).sum(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_hedged_call_is_quick_though_a_tenth_of_the_circuits_stall() {
    let hedged = measure(true, &ANYWHERE, 1).await;
    hedged.print("hedged, circuits stall anywhere");
    assert!(hedged.ratio() < 1.5, "{}", hedged.ratio());
    assert!(
        hedged.answered >= CALLS - 8,
        "both circuits stall once in a hundred calls"
    );
    assert_eq!(hedged.spent, hedged.answered, "one token each");
    // Calls that were not answered may have left a token there.
    assert!((hedged.answered..=CALLS).contains(&hedged.tokens));
    let late = measure(true, &[Fault::NoAnswer], 2).await;
    late.print("hedged, circuits stall after the request");
    assert_eq!(late.spent, late.answered, "one token each");
    assert!((late.answered..=CALLS).contains(&late.tokens));
}

/// The control.
#[tokio::test(start_paused = true)]
async fn without_a_second_circuit_stalls_are_waited_for() {
    let single = measure(false, &ANYWHERE, 1).await;
    single.print("one circuit, circuits stall anywhere");
    assert!(single.ratio() > 1.5, "{}", single.ratio());
}
