//! Kills while a call is paid for and made.

use std::process::Output;
use std::time::{Duration, Instant};

use super::client::{Client, Tokens, stderr};
use super::moments::Moments;
use super::shop::Shop;
use super::{Hits, Victim};
use crate::support::AT_ONCE;

const ROUNDS: usize = 50;
const BOUGHT: u64 = 128;
/// Exit code when a token is refused that is good for all that its owner knows.
const REFUSED: i32 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_lost_or_works_twice_when_the_provider_is_killed() {
    tokens_survive(Victim::Provider).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_token_is_lost_or_works_twice_when_the_client_is_killed() {
    tokens_survive(Victim::Client).await;
}

async fn tokens_survive(victim: Victim) {
    let mut moments = Moments::new();
    let mut shop = Shop::open().await;
    let client = shop.client();
    let agree = [
        "contract",
        &shop.address,
        "--calls",
        "128",
        "--yes",
        AT_ONCE,
    ];
    client.json(&agree).await;
    let thieves = ["thief", "late"].map(|name| client.copy(shop.path(name)));
    let mut calls = Calls::default();
    let usual = calls.usual_time(&shop, &client).await;
    let mut hits = Hits::default();
    for _ in 0..ROUNDS {
        let moment = moments.of(usual);
        calls
            .interrupted(&mut shop, &client, victim, moment, &mut hits)
            .await;
    }
    println!(
        "{} calls, usually made in {usual:?}; {} were repeated",
        calls.made, calls.repeated
    );
    let tokens = client.tokens().await;
    let expected = Tokens {
        bought: BOUGHT,
        fresh: BOUGHT - calls.made,
        in_flight: 0,
        spent: calls.made,
    };
    assert_eq!(tokens, expected, "one token a call");
    assert_eq!(shop.redeemed().await, calls.made);
    let [thief, late] = thieves;
    assert_gets_nothing(&shop, &thief, calls.made).await;
    shop.crash_after(Duration::ZERO).await;
    assert_gets_nothing(&shop, &late, calls.made).await;
    assert_eq!(shop.redeemed().await, calls.made);
    // The next token of the copy is one that was never spent.
    let output = call(&late, &shop.address, calls.made).await;
    assert_eq!(
        output.stdout,
        answer(calls.made),
        "tokens are refused because they are spent: {}",
        stderr(&output)
    );
    hits.assert_many();
}

/// The calls of one client, each with an input of its own.
#[derive(Default)]
struct Calls {
    made: u64,
    repeated: usize,
}

impl Calls {
    /// The median of five calls that nobody interrupts.
    async fn usual_time(&mut self, shop: &Shop, client: &Client) -> Duration {
        let mut times = Vec::new();
        for _ in 0..5 {
            let started = Instant::now();
            let output = call(client, &shop.address, self.made).await;
            times.push(started.elapsed());
            assert_eq!(output.stdout, answer(self.made), "{}", stderr(&output));
            self.made += 1;
        }
        times.sort_unstable();
        times[2]
    }

    /// Makes a call during which somebody is killed, and makes it again until
    /// it is answered.
    async fn interrupted(
        &mut self,
        shop: &mut Shop,
        client: &Client,
        victim: Victim,
        moment: Duration,
        hits: &mut Hits,
    ) {
        let number = self.made;
        self.made += 1;
        let address = shop.address.clone();
        let (args, input) = (["invoke", &address, "upper"], input(number));
        let first = match victim {
            Victim::Client => client.run_until(&args, &input, moment).await,
            Victim::Provider => {
                let calling = client.run(&args, &input);
                tokio::join!(calling, shop.crash_after(moment)).0
            }
        };
        let in_flight = client.tokens().await.in_flight;
        hits.kills += 1;
        hits.failed += usize::from(!first.status.success());
        hits.underway += usize::from(in_flight > 0);
        // Whoever has the answer and no token in flight has nothing to repeat.
        let told = format!("killed after {moment:?}: {first:?}, {in_flight} in flight");
        let mut output = first;
        while output.stdout != answer(number) || client.tokens().await.in_flight > 0 {
            self.repeated += 1;
            assert!(self.repeated < 5 * ROUNDS, "a token stays in flight");
            output = call(client, &address, number).await;
            assert!(
                output.status.success(),
                "call {number}: {}",
                stderr(&output)
            );
        }
        let spent = client.tokens().await.spent;
        assert_eq!(spent, self.made, "call {number}, {told}");
    }
}

/// Calls with a copy of the wallet from before, for the same answers.
async fn assert_gets_nothing(shop: &Shop, thief: &Client, spent: u64) {
    for number in 0..spent {
        let output = call(thief, &shop.address, number).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(REFUSED), "{said}");
        let is_spent = said.contains("another call was made with it");
        assert!(output.stdout.is_empty() && is_spent, "{said}");
    }
}

async fn call(client: &Client, address: &str, number: u64) -> Output {
    let args = ["invoke", address, "upper"];
    client.run(&args, &input(number)).await
}

fn input(number: u64) -> Vec<u8> {
    format!("call {number}").into_bytes()
}

fn answer(number: u64) -> Vec<u8> {
    input(number).to_ascii_uppercase()
}
