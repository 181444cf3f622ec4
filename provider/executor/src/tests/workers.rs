//! Workers that die, hang and are replaced.

use std::io::{BufRead as _, BufReader, Seek as _, SeekFrom};
use std::process::{Command, Stdio};
use std::time::Duration;

use dlambda_proto::{Status, StopKind};
use rustix::process::Signal;

use super::processes::{eventually, lives, signal};
use super::{command, component, config, deadline, executor, prepare, run};
use crate::{
    CodeCacheConfig, Executor, ExecutorConfig, ExecutorError, Invocation, Isolation, Limits,
    Outcome, executor_program,
};

const SPIN: &str = "(loop (br 0))";

type Ended = Result<Outcome, ExecutorError>;

async fn all_ready(executor: &Executor) {
    executor.ready().await.unwrap();
    eventually("two workers", || executor.processes().len() == 2).await;
}

/// Calls of a spinner that end at their deadline.
async fn spinners(
    executor: &Executor,
    count: usize,
    milliseconds: u64,
) -> Vec<tokio::task::JoinHandle<Ended>> {
    let spinner = prepare(executor, command(SPIN)).await;
    let calls = (0..count).map(|_| {
        let (executor, spinner) = (executor.clone(), spinner.clone());
        tokio::spawn(async move {
            executor
                .run(&spinner, Invocation::default(), &deadline(milliseconds))
                .await
        })
    });
    let calls = calls.collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    calls
}

async fn sorted(calls: Vec<tokio::task::JoinHandle<Ended>>) -> (usize, usize) {
    let (mut cut, mut died) = (0, 0);
    for call in calls {
        match call.await.unwrap() {
            Ok(outcome) if outcome.status == Status::Stopped(StopKind::Deadline) => cut += 1,
            Err(ExecutorError::WorkerDied) => died += 1,
            other => panic!("{other:?}"),
        }
    }
    (cut, died)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_dies_takes_only_its_calls_with_it() {
    let executor = executor();
    all_ready(&executor).await;
    let workers = executor.processes();
    let calls = spinners(&executor, 6, 1_500).await;
    signal(workers[0], Signal::KILL);
    let (cut, died) = sorted(calls).await;
    assert!(
        cut > 0 && died > 0,
        "both workers had calls: {cut} cut, {died} died"
    );
    eventually("a new worker", || executor.processes().len() == 2).await;
    let now = executor.processes();
    assert!(
        !now.contains(&workers[0]) && now.contains(&workers[1]),
        "{workers:?} {now:?}"
    );
    for _ in 0..10 {
        let outcome = run(&executor, command(""), &Limits::default()).await;
        assert_eq!(outcome.status, Status::Exited(0));
    }
    assert_eq!(executor.counts().workers_lost, 1);
}

/// Takes ten seconds: the time after which a worker counts as lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_hangs_is_replaced_once() {
    let executor = executor();
    all_ready(&executor).await;
    let workers = executor.processes();
    let calls = spinners(&executor, 6, 600).await;
    signal(workers[1], Signal::STOP);
    let (cut, died) = sorted(calls).await;
    assert!(
        cut > 0 && died > 0,
        "both workers had calls: {cut} cut, {died} died"
    );
    eventually("the hanging worker's end", || !lives(workers[1])).await;
    eventually("a new worker", || executor.processes().len() == 2).await;
    // All its calls gave it up; its successor is not to suffer for that.
    let calls = spinners(&executor, 6, 600).await;
    assert_eq!(sorted(calls).await, (6, 0));
    assert_eq!(executor.counts().workers_lost, 1);
}

/// Nothing is kept warm, so every preparation makes an image that each worker has to load.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn workers_that_load_one_component_at_once_all_get_its_code() {
    const WORKERS: usize = 4;
    let directory = tempfile::tempdir().unwrap();
    let executor = Executor::new(ExecutorConfig {
        isolation: Isolation::Processes {
            program: executor_program().unwrap(),
            workers: WORKERS,
        },
        warm_bytes: 0,
        code_cache: Some(CodeCacheConfig {
            directory: directory.path().to_owned(),
            key: [1; 32],
            bytes: 1 << 30,
        }),
        ..config()
    })
    .unwrap();
    eventually("all workers", || executor.processes().len() == WORKERS).await;
    let wasm = component(&command(""));
    for trial in 0..40 {
        let function = prepare(&executor, wasm.clone()).await;
        let mut shared = function.image().shared();
        let calls: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (executor, function) = (executor.clone(), function.clone());
                tokio::spawn(async move {
                    executor
                        .run(&function, Invocation::default(), &Limits::default())
                        .await
                })
            })
            .collect();
        while calls.iter().any(|call| !call.is_finished()) {
            for position in 0..100 {
                shared.seek(SeekFrom::Start(position * 101)).unwrap();
            }
            tokio::task::yield_now().await;
        }
        for call in calls {
            let outcome = call.await.unwrap();
            assert!(
                matches!(&outcome, Ok(outcome) if outcome.status == Status::Exited(0)),
                "trial {trial}: {outcome:?}"
            );
        }
    }
    assert_eq!(executor.counts().compiled, 1);
    assert_eq!(executor.counts().workers_lost, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_workers_dead_is_no_end() {
    let executor = executor();
    all_ready(&executor).await;
    for _ in 0..3 {
        let workers = executor.processes();
        for worker in &workers {
            signal(*worker, Signal::KILL);
        }
        let replaced = || {
            let now = executor.processes();
            now.len() == 2 && now.iter().all(|worker| !workers.contains(worker))
        };
        eventually("new workers", replaced).await;
        let outcome = run(&executor, command(""), &Limits::default()).await;
        assert_eq!(outcome.status, Status::Exited(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_end_with_their_executor() {
    let executor = executor();
    all_ready(&executor).await;
    let workers = executor.processes();
    let calls = spinners(&executor, 4, 3_600_000).await;
    for call in &calls {
        call.abort();
    }
    drop((executor, calls));
    eventually("the workers' end", || {
        workers.iter().all(|worker| !lives(*worker))
    })
    .await;
}

#[tokio::test]
async fn a_message_too_long_for_a_worker_is_refused() {
    let executor = executor();
    let function = prepare(&executor, command("")).await;
    let invocation = Invocation {
        input: vec![0; (64 << 20) + 1].into(),
        ..Invocation::default()
    };
    let ended = executor
        .run(&function, invocation, &Limits::default())
        .await;
    assert!(
        matches!(ended, Err(ExecutorError::BadInvocation(_))),
        "{ended:?}"
    );
    let limits = Limits {
        output_bytes: (64 << 20) + 1,
        ..Limits::default()
    };
    let ended = executor
        .run(&function, Invocation::default(), &limits)
        .await;
    assert!(
        matches!(ended, Err(ExecutorError::BadInvocation(_))),
        "{ended:?}"
    );
    assert_eq!(executor.counts().workers_lost, 0);
}

/// Runs in a process of its own, below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "part of another test"]
async fn holds_workers() {
    if std::env::var_os("DLAMBDA_TEST_HOLD").is_none() {
        return;
    }
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 4,
        ..config()
    })
    .unwrap();
    all_ready(&executor).await;
    let _calls = spinners(&executor, 4, 3_600_000).await;
    println!("\nworkers {:?}", executor.processes());
    std::future::pending().await
}

#[tokio::test]
async fn workers_end_when_their_parent_is_killed() {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "tests::workers::holds_workers",
            "--ignored",
            "--nocapture",
        ])
        .env("DLAMBDA_TEST_HOLD", "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("workers "));
    let workers: Vec<u32> = line
        .unwrap()
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect();
    assert!(
        workers.len() == 2 && workers.iter().all(|worker| lives(*worker)),
        "{workers:?}"
    );
    parent.kill().unwrap();
    parent.wait().unwrap();
    eventually("the workers' end", || {
        workers.iter().all(|worker| !lives(*worker))
    })
    .await;
}
