//! The same call gives the same outcome; another seed gives other random numbers; nothing is left
//! behind.

use super::{command, component, executor, prepare};
use crate::{Invocation, Limits, Outcome};
use dlambda_proto::Status;

/// Writes 16 random bytes, then four readings of each clock.
const SOURCES: &str = "
    (drop (call $random (i32.const 100) (i32.const 16)))
    (drop (call $time (i32.const 0) (i64.const 1) (i32.const 120)))
    (drop (call $time (i32.const 1) (i64.const 1) (i32.const 128)))
    (drop (call $time (i32.const 0) (i64.const 1) (i32.const 136)))
    (drop (call $time (i32.const 1) (i64.const 1) (i32.const 144)))
    (i32.store (i32.const 0) (i32.const 100)) (i32.store (i32.const 4) (i32.const 52))
    (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";

fn without_time(mut outcome: Outcome) -> Outcome {
    outcome.usage.wall = std::time::Duration::ZERO;
    outcome.usage.instantiate = std::time::Duration::ZERO;
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_runs_agree() {
    let input: bytes::Bytes = "to be or not to be that is the question "
        .repeat(500)
        .into();
    let invocation = Invocation {
        input,
        seed: [7; 32],
        ..Invocation::default()
    };
    let wordfreq = &include_bytes!("../../../../tests/examples/functions/wordfreq.wasm")[..];
    let flood = "(loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))";
    let spin = "(loop (br 0))";
    let limits = Limits {
        fuel: 20_000_000,
        ..Limits::default()
    };
    for module in [
        wordfreq.into(),
        command(SOURCES),
        command(flood),
        command(spin),
    ] {
        for wasm in [component(&module), module] {
            let mut outcomes = std::collections::HashSet::new();
            for _ in 0..2 {
                let executor = executor();
                let function = prepare(&executor, wasm.clone()).await;
                for _ in 0..10 {
                    let outcome = executor
                        .run(&function, invocation.clone(), &limits)
                        .await
                        .unwrap();
                    assert!(outcome.status.is_reproducible());
                    outcomes.insert(format!("{:?}", without_time(outcome)));
                }
            }
            assert_eq!(outcomes.len(), 1, "{outcomes:?}");
        }
    }
}

/// Ticks fall between any two instructions, in guests that the host has called back too.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ticks_do_not_change_fuel() {
    let executor = executor();
    let wordfreq = &include_bytes!("../../../../tests/examples/functions/wordfreq.wasm")[..];
    let function = prepare(&executor, component(wordfreq)).await;
    let input: bytes::Bytes = "to be or not to be that is the question "
        .repeat(500)
        .into();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..6 {
        let (executor, function, input) = (executor.clone(), function.clone(), input.clone());
        callers.spawn(async move {
            let mut fuel = std::collections::HashSet::new();
            for _ in 0..400 {
                let invocation = Invocation {
                    input: input.clone(),
                    ..Invocation::default()
                };
                let outcome = executor
                    .run(&function, invocation, &Limits::default())
                    .await
                    .unwrap();
                fuel.insert(outcome.usage.fuel);
            }
            fuel
        });
    }
    let fuel: std::collections::HashSet<u64> =
        callers.join_all().await.into_iter().flatten().collect();
    assert_eq!(fuel.len(), 1, "{fuel:?}");
}

#[tokio::test]
async fn randomness_comes_from_the_seed_alone() {
    let executor = executor();
    let function = prepare(&executor, command(SOURCES)).await;
    let mut outputs = Vec::new();
    for seed in [[0; 32], [1; 32], [0; 32]] {
        let invocation = Invocation {
            seed,
            ..Invocation::default()
        };
        let outcome = executor
            .run(&function, invocation, &Limits::default())
            .await
            .unwrap();
        assert_eq!(outcome.stdout.len(), 52);
        outputs.push(outcome.stdout);
    }
    assert_eq!(outputs[0], outputs[2]);
    assert_ne!(outputs[0][..16], outputs[1][..16]);
    assert_eq!(
        outputs[0][16..],
        outputs[1][16..],
        "clocks do not depend on the seed"
    );
}

/// Would change if random numbers or clocks were made otherwise, and receipts with it.
#[tokio::test]
async fn the_virtual_world_is_pinned() {
    let executor = executor();
    let function = prepare(&executor, command(SOURCES)).await;
    let outcome = executor
        .run(&function, Invocation::default(), &Limits::default())
        .await
        .unwrap();
    let time = |at: usize| u64::from_le_bytes(outcome.stdout[at..at + 8].try_into().unwrap());
    let wall = 946_684_800_000_000_000;
    assert_eq!(
        [time(20), time(28), time(36), time(44)],
        [wall, 1_000, wall + 2_000, 3_000]
    );
    let random: String = outcome.stdout[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(random, "76a04053bda0a88bda5177b86a15c3b2");
}

/// A guest that finds a byte of an earlier call in its memory or its table exits with 1.
#[tokio::test]
async fn nothing_is_left_of_an_earlier_call() {
    let executor = executor();
    let body = "
        (if (i32.load (i32.const 5000)) (then (call $exit (i32.const 1))))
        (if (i32.ne (memory.grow (i32.const 2)) (i32.const 1)) (then (call $exit (i32.const 2))))
        (if (i32.load (i32.const 190000)) (then (call $exit (i32.const 3))))
        (if (i32.ne (table.grow $table (ref.null func) (i32.const 5)) (i32.const 1)) (then (call $exit (i32.const 4))))
        (memory.fill (i32.const 2000) (i32.const 255) (i32.const 194000))";
    let function = prepare(&executor, command(body)).await;
    for _ in 0..50 {
        let outcome = executor
            .run(&function, Invocation::default(), &Limits::default())
            .await
            .unwrap();
        assert_eq!(outcome.status, Status::Exited(0));
    }
}
