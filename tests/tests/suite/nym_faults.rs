//! What goes wrong on a mixnet, and what calls make of it.

use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, CallOutcome, FunctionName, Querier};
use dlambda_proto::{Endpoint, ErrorKind, HasKind as _};
use dlambda_provider::ProviderConfig;
use dlambda_tests::mixnet::{Mixnet, MixnetOptions, Traffic, helpers};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use crate::nym::NymWorld;
use crate::support::wat;
use crate::tor::SLOW;

/// For one call with faults, on a busy machine.
const MINUTES: Duration = Duration::from_secs(200);

/// When a call that takes six seconds is running.
const UNDERWAY: Duration = Duration::from_secs(2);

/// The last plan is on real time, where sleeping takes as long as it says.
fn config() -> ProviderConfig {
    let mut config = ProviderConfig::without_tokens();
    config.plans.last_mut().expect("a menu").deterministic = false;
    config
}

async fn world() -> NymWorld {
    Box::pin(NymWorld::open(config(), Traffic::FAST)).await
}

/// A call of six seconds.
fn slow_call(endpoint: Endpoint) -> Call {
    let call = Call::new(endpoint, wat(SLOW));
    call.plan("large".parse().expect("a plan"))
}

/// The provider has the function and has compiled it.
async fn warm_up(querier: &Querier, call: &Call) {
    let warm = querier.call_outcome(call, MINUTES, |_| {}).await;
    assert!(warm.expect("a reply").into_output().is_ok());
}

async fn perform(querier: &Querier, call: &Call) -> CallOutcome {
    let performed = Box::pin(querier.call_outcome(call, MINUTES, |_| {})).await;
    performed.expect("a reply all the same")
}

#[tokio::test(flavor = "multi_thread")]
async fn gateways_that_restart_in_mid_call_cost_no_answer() {
    let mut world = world().await;
    let querier = world.caller("caller").await;
    let call = slow_call(world.endpoint);
    warm_up(&querier, &call).await;
    let restarting = async {
        sleep(UNDERWAY).await;
        restart_gateways(&mut world.mixnet).await;
    };
    let (ended, ()) = tokio::join!(perform(&querier, &call), restarting);
    println!("answered after {} attempts", ended.attempts);
    assert!(ended.into_output().is_ok());
    // And so is what comes afterwards.
    let next = perform(&querier, &world.call("still there?")).await;
    assert_eq!(next.into_output().expect("well").stdout, b"STILL THERE?");
    world.close().await;
}

/// Both gateways are down for a while.
async fn restart_gateways(mixnet: &mut Mixnet) {
    for what in ["stop", "restart"] {
        for gateway in 0..2 {
            let told = mixnet.command(&format!("{what} {gateway}")).await;
            told.expect("it can be told");
        }
        sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_get_through_though_a_tenth_is_lost_at_every_hop() {
    let options = MixnetOptions {
        loss: 0.1,
        ..MixnetOptions::default()
    };
    let world = NymWorld::with(config(), Traffic::FAST, options);
    let mut world = Box::pin(world).await;
    let querier = world.caller("caller").await;
    for call in 0..6 {
        let ended = perform(&querier, &world.call(format!("call {call}"))).await;
        let answer = ended.into_output().expect("an answer");
        assert_eq!(answer.stdout, format!("CALL {call}").as_bytes());
    }
    let counters = world.mixnet.counters().await.expect("counters");
    let mixes = counters["mixes"].as_array().expect("mixes").iter();
    let lost: u64 = mixes.filter_map(|mix| mix["dropped"].as_u64()).sum();
    assert!(lost > 20, "{lost} packets were lost");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_whose_helper_is_killed_gets_its_answer_by_another() {
    let world = world().await;
    let providers = the_providers_helper().await;
    let querier = world.caller("caller").await;
    let call = slow_call(world.endpoint);
    warm_up(&querier, &call).await;
    let mut own = helpers();
    own.retain(|helper| *helper != providers);
    assert_eq!(own.len(), 1);
    let ended = perform_and_kill(&querier, &call, own[0]).await;
    assert_eq!(ended.attempts, 2, "one retry, by a fresh client");
    assert!(ended.into_output().is_ok());
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_whose_helper_is_killed_comes_back_at_its_address() {
    let world = world().await;
    let own = the_providers_helper().await;
    let querier = world.caller("caller").await;
    let call = slow_call(world.endpoint);
    warm_up(&querier, &call).await;
    let ended = perform_and_kill(&querier, &call, own).await;
    assert_eq!(ended.attempts, 2, "what was underway is made again");
    assert!(ended.into_output().is_ok());
    world.close().await;
}

/// It had another for a moment, to call itself.
async fn the_providers_helper() -> u32 {
    loop {
        if let [only] = helpers()[..] {
            return only;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// A call during which a helper is killed.
async fn perform_and_kill(querier: &Querier, call: &Call, helper: u32) -> CallOutcome {
    let killing = async {
        sleep(UNDERWAY).await;
        let pid = Pid::from_raw(helper.cast_signed()).expect("a process");
        kill_process(pid, Signal::KILL).expect("it was alive");
    };
    tokio::join!(perform(querier, call), killing).0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_while_the_provider_was_down_is_answered() {
    let mut world = world().await;
    let querier = world.caller("caller").await;
    let call = world.call("knock knock");
    world.stop_provider().await;
    let restarting = async {
        sleep(UNDERWAY).await;
        world.start_provider().await;
    };
    let (ended, ()) = tokio::join!(perform(&querier, &call), restarting);
    assert_eq!(ended.attempts, 1, "its first message was waiting");
    let answer = ended.into_output().expect("an answer");
    assert_eq!(answer.stdout, b"KNOCK KNOCK");
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mebibyte_comes_back_and_more_than_a_session_carries_is_refused() {
    let world = world().await;
    let querier = world.caller("caller").await;
    let large = "large".parse().expect("a plan");
    let call = world.call(vec![b'x'; 1 << 20]).plan(large);
    let answer = perform(&querier, &call).await.into_output();
    assert!(answer.expect("an answer").stdout == vec![b'X'; 1 << 20]);

    let question = world
        .call(vec![b'x'; 5 << 20])
        .plan("large".parse().expect("a plan"));
    let refused = querier.call_outcome(&question, MINUTES, |_| {}).await;
    assert_refused(refused, "larger than");

    let five = Call::new(world.endpoint, FunctionName::Wasm(five_mebibytes()));
    let five = five.plan("large".parse().expect("a plan"));
    let refused = querier.call_outcome(&five, MINUTES, |_| {}).await;
    assert_refused(refused, "larger than");
    world.close().await;
}

fn assert_refused(result: Result<CallOutcome, CallError>, words: &str) {
    let Err(error) = result else {
        panic!("it was answered");
    };
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// Writes five times a mebibyte.
fn five_mebibytes() -> Arc<[u8]> {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 20)
        (func (export "_start") (local $left i32)
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1048576))
            (local.set $left (i32.const 5))
            (loop $again
                (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
                (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                (br_if $again (local.get $left)))))"#;
    wat::parse_str(text).expect("good WAT").into()
}
