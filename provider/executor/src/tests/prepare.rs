//! Compiling once, keeping what fits, and staying within one executor.

use std::collections::HashSet;

use bytes::Bytes;
use dlambda_proto::{FunctionProblem, Start};

use super::{command, config, executor, wat};
use crate::{ErrorKind, Executor, ExecutorConfig, ExecutorError, Invocation, Limits};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_of_one_new_function_compile_it_once() {
    let executor = executor();
    let wasm: Bytes =
        include_bytes!("../../../../tests/examples/functions/wordfreq.wasm")[..].into();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (executor, wasm) = (executor.clone(), wasm.clone());
        callers.spawn(async move { executor.prepare(wasm).await.unwrap() });
    }
    let prepared = callers.join_all().await;
    assert_eq!(
        prepared
            .iter()
            .filter(|(_, start)| *start == Start::Compiled)
            .count(),
        1
    );
    let code: HashSet<_> = prepared
        .iter()
        .map(|(function, _)| std::ptr::from_ref(function.image()))
        .collect();
    assert_eq!(code.len(), 1, "all have the same compiled code");
    assert_eq!(executor.prepare(wasm).await.unwrap().1, Start::Warm);
}

#[tokio::test]
async fn a_compilation_outlives_its_caller() {
    let executor = executor();
    let wasm = command("unreachable");
    let digest = dlambda_proto::FunctionId::of(&wasm);
    {
        let mut caller = Box::pin(executor.prepare(wasm));
        assert!(poll_once(caller.as_mut()).await.is_none());
    }
    for _ in 0..1_000 {
        if executor.prepared(&digest).is_some() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("never compiled");
}

/// The output of a future that is ready at once.
async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(context) {
            std::task::Poll::Ready(output) => Some(output),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn a_bad_function_can_be_tried_again() {
    let executor = executor();
    for _ in 0..2 {
        let error = executor.prepare(wat("(module)")).await.unwrap_err();
        assert_eq!(
            error,
            ExecutorError::BadFunction(FunctionProblem::NoEntryPoint)
        );
    }
}

#[tokio::test]
async fn what_is_used_least_is_let_go() {
    let programs: Vec<Bytes> = (0..6)
        .map(|i| command(&format!("(drop (i32.const {i}))")))
        .collect();
    let one = executor()
        .prepare(programs[0].clone())
        .await
        .unwrap()
        .0
        .compiled_bytes();
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 1,
        warm_bytes: usize::try_from(3 * one + one / 2).unwrap(),
        ..config()
    })
    .unwrap();
    let mut digests = Vec::new();
    for program in &programs[..3] {
        digests.push(executor.prepare(program.clone()).await.unwrap().0.id());
    }
    for used in [0, 2] {
        assert!(executor.prepared(&digests[used]).is_some());
    }
    let (evictor, start) = executor.prepare(programs[3].clone()).await.unwrap();
    assert_eq!(start, Start::Compiled);
    let kept: Vec<bool> = digests
        .iter()
        .map(|digest| executor.prepared(digest).is_some())
        .collect();
    assert_eq!(kept, [true, false, true]);
    assert!(executor.prepared(&evictor.id()).is_some());
    assert_eq!(
        executor.prepare(programs[1].clone()).await.unwrap().1,
        Start::Compiled
    );
}

#[tokio::test]
async fn what_is_larger_than_the_cache_still_runs() {
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 1,
        warm_bytes: 0,
        ..config()
    })
    .unwrap();
    for _ in 0..2 {
        let (function, start) = executor.prepare(command("")).await.unwrap();
        assert_eq!(start, Start::Compiled);
        let outcome = executor
            .run(&function, Invocation::default(), &Limits::default())
            .await
            .unwrap();
        assert!(outcome.status.is_success());
    }
}

#[tokio::test]
async fn a_function_belongs_to_its_executor() {
    let (function, _) = executor().prepare(command("")).await.unwrap();
    let error = executor()
        .run(&function, Invocation::default(), &Limits::default())
        .await
        .unwrap_err();
    assert_eq!(error, ExecutorError::WrongExecutor);
    assert_eq!(error.kind(), ErrorKind::Internal);
}
