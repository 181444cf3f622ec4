//! Neighbours: guests that hog, wait, or are abandoned.

use std::time::{Duration, Instant};

use super::{command, config, deadline, executor, prepare};
use crate::{Executor, ExecutorConfig, ExecutorError, Invocation, Limits, QueueConfig};
use dlambda_proto::{Status, StopKind};

const SPIN: &str = "(loop (br 0))";

/// On one thread, so that a guest which does not yield would stop everybody.
#[tokio::test(flavor = "current_thread")]
async fn a_spinner_does_not_stop_its_neighbours() {
    let executor = executor();
    let spinner = prepare(&executor, command(SPIN)).await;
    let neighbour = prepare(&executor, command("")).await;
    let limits = deadline(30_000);
    let spinning = executor.run(&spinner, Invocation::default(), &limits);
    let quick = async {
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            let outcome = executor
                .run(&neighbour, Invocation::default(), &Limits::default())
                .await;
            assert_eq!(outcome.unwrap().status, Status::Exited(0));
        }
    };
    tokio::select! {
        biased;
        _ = spinning => panic!("the neighbour had to wait for the spinner's deadline"),
        () = quick => {}
    }
}

#[tokio::test]
async fn an_abandoned_call_gives_its_place_back() {
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 1,
        ..config()
    })
    .unwrap();
    let spinner = prepare(&executor, command(SPIN)).await;
    let neighbour = prepare(&executor, command("")).await;
    let limits = deadline(3_600_000);
    let abandoned = executor.run(&spinner, Invocation::default(), &limits);
    assert!(
        tokio::time::timeout(Duration::from_millis(50), abandoned)
            .await
            .is_err()
    );
    let limits = Limits::default();
    let next = executor.run(&neighbour, Invocation::default(), &limits);
    let outcome = tokio::time::timeout(Duration::from_secs(30), next)
        .await
        .expect("a free place");
    assert_eq!(outcome.unwrap().status, Status::Exited(0));
}

#[tokio::test]
async fn the_queue_is_bounded() {
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 2,
        max_queued: 3,
        ..config()
    })
    .unwrap();
    let spinner = prepare(&executor, command(SPIN)).await;
    let limits = deadline(1_000);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..9 {
        let (executor, spinner, limits) = (executor.clone(), spinner.clone(), limits.clone());
        calls.spawn(async move { executor.run(&spinner, Invocation::default(), &limits).await });
    }
    let (ran, refused): (Vec<_>, Vec<_>) =
        calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(ran.len(), 5);
    assert!(
        refused
            .iter()
            .all(|refused| matches!(refused, Err(ExecutorError::Overloaded { .. })))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_house_of_components_fits_the_pool() {
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 12,
        ..config()
    })
    .unwrap();
    let wasm = super::component(&command("(memory.grow (i32.const 10)) drop"));
    let function = prepare(&executor, wasm).await;
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let (executor, function) = (executor.clone(), function.clone());
        calls.spawn(async move {
            executor
                .run(&function, Invocation::default(), &Limits::default())
                .await
        });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap().status, Status::Exited(0));
    }
}

/// Of two plans. One large call runs, another waits; small ones have room beside the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_of_a_small_plan_does_not_wait_for_the_memory_of_a_large_one() {
    let executor = Executor::new(ExecutorConfig {
        memory_budget: 1_100 << 20,
        ..config()
    })
    .unwrap();
    let queue = |concurrent| {
        executor.queue(QueueConfig {
            concurrent,
            queued: 8,
            max_wait: Duration::from_secs(60),
        })
    };
    let (large, small) = (queue(4), queue(4));
    let spinner = prepare(&executor, command(SPIN)).await;
    let quick = prepare(&executor, command("")).await;
    let limits = Limits {
        memory_bytes: 1 << 30,
        ..deadline(3_000)
    };
    let mut spinning = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (executor, spinner) = (executor.clone(), spinner.clone());
        let (large, limits) = (large.clone(), limits.clone());
        spinning.spawn(async move {
            executor
                .run_in(&large, &spinner, Invocation::default(), &limits)
                .await
        });
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut slowest = Duration::ZERO;
    while spinning.try_join_next().is_none() {
        let begun = Instant::now();
        let outcome = executor
            .run_in(&small, &quick, Invocation::default(), &Limits::default())
            .await;
        assert_eq!(outcome.unwrap().status, Status::Exited(0));
        slowest = slowest.max(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
    let second = spinning.join_next().await.unwrap().unwrap().unwrap();
    assert_eq!(second.status, Status::Stopped(StopKind::Deadline));
}
