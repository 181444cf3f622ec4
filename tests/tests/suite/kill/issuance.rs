//! Kills while a contract is made.

use std::collections::HashSet;
use std::process::Output;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::{Client, stderr, was_killed};
use super::moments::Moments;
use super::shop::Shop;
use super::{Hits, Victim};
use crate::support::AT_ONCE;

const ROUNDS: usize = 50;
const CALLS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn no_contract_is_lost_when_the_provider_is_killed() {
    contracts_survive(Victim::Provider).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_contract_is_lost_when_the_client_is_killed() {
    contracts_survive(Victim::Client).await;
}

async fn contracts_survive(victim: Victim) {
    let mut moments = Moments::new();
    let mut shop = Shop::open().await;
    let client = shop.client();
    let mut agreed = HashSet::new();
    let usual = usual_time(&shop, &client, &mut agreed).await;
    let mut hits = Hits::default();
    for _ in 0..ROUNDS {
        let output = propose(&mut shop, &client, victim, moments.of(usual)).await;
        if output.status.success() {
            agreed.insert(contract_of(&output));
        }
        hits.kills += 1;
        hits.failed += usize::from(!output.status.success());
        let contracts = client.contracts().await;
        let is_open = |it: &Value| it["stage"] != "confirmed";
        hits.underway += usize::from(contracts.iter().any(is_open));
        client.settle().await;
    }
    assert_both_have_the_same(&shop, &client, &agreed).await;
    shop.crash_after(Duration::ZERO).await;
    assert_both_have_the_same(&shop, &client, &agreed).await;
    assert_tokens_work(&shop, &client).await;
    println!("{} contracts, usually made in {usual:?}", agreed.len());
    hits.assert_many();
}

/// The median of three contracts that nobody interrupts.
async fn usual_time(shop: &Shop, client: &Client, agreed: &mut HashSet<String>) -> Duration {
    let mut times = Vec::new();
    for _ in 0..3 {
        let started = Instant::now();
        let output = client.run(&wanted(shop), b"").await;
        times.push(started.elapsed());
        assert!(output.status.success(), "{}", stderr(&output));
        agreed.insert(contract_of(&output));
    }
    times.sort_unstable();
    times[1]
}

fn wanted(shop: &Shop) -> [&str; 6] {
    ["contract", &shop.address, "--calls", "8", "--yes", AT_ONCE]
}

fn contract_of(output: &Output) -> String {
    let contract: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    contract["contract"].as_str().expect("a name").to_owned()
}

/// Makes a contract, unless somebody is killed before.
async fn propose(shop: &mut Shop, client: &Client, victim: Victim, moment: Duration) -> Output {
    let address = shop.address.clone();
    let args = ["contract", &address, "--calls", "8", "--yes", AT_ONCE];
    match victim {
        Victim::Client => {
            let output = client.run_until(&args, b"", moment).await;
            let ended_well = output.status.success() || was_killed(&output);
            assert!(ended_well, "{}", stderr(&output));
            output
        }
        Victim::Provider => {
            let proposing = client.run(&args, b"");
            tokio::join!(proposing, shop.crash_after(moment)).0
        }
    }
}

/// Every contract that either side knows, both know; it is signed by both and
/// has its tokens, and the provider has issued no others.
async fn assert_both_have_the_same(shop: &Shop, client: &Client, agreed: &HashSet<String>) {
    let mut held = HashSet::new();
    for contract in client.contracts().await {
        assert_eq!(contract["stage"], "confirmed", "{contract}");
        assert_eq!(contract["fresh"], CALLS, "{contract}");
        assert_eq!(contract["calls"], CALLS, "{contract}");
        held.insert(contract["contract"].as_str().expect("a name").to_owned());
    }
    assert!(agreed.is_subset(&held), "a contract was lost");
    let status = shop.status().await;
    let mut granted = HashSet::new();
    for contract in status["latest_contracts"].as_array().expect("contracts") {
        assert_eq!(contract["confirmed"], true, "{contract}");
        granted.insert(contract["id"].as_str().expect("a name").to_owned());
    }
    assert_eq!(granted, held, "paid for, and not in the wallet");
    let totals = status["contracts"].as_array().expect("totals");
    let sum = |key: &str| {
        let counts = totals.iter().map(|it| it[key].as_u64());
        counts.map(|count| count.expect("a number")).sum::<u64>()
    };
    let contracts = u64::try_from(held.len()).expect("few");
    let issued = ["granted", "confirmed", "calls_issued"].map(sum);
    assert_eq!(issued, [contracts, contracts, contracts * CALLS]);
}

/// As many calls as some contracts have tokens, from different epochs.
async fn assert_tokens_work(shop: &Shop, client: &Client) {
    let before = client.tokens().await;
    let calls = CALLS * 3;
    for number in 0..calls {
        let input = format!("call {number}");
        let args = ["invoke", &shop.address, "upper"];
        let output = client.run(&args, input.as_bytes()).await;
        assert_eq!(
            output.stdout,
            input.to_uppercase().as_bytes(),
            "{}",
            stderr(&output)
        );
    }
    let after = client.tokens().await;
    assert_eq!(
        (after.spent, after.fresh),
        (calls, before.fresh - calls),
        "{after:?}"
    );
    assert_eq!(shop.redeemed().await, calls);
}
