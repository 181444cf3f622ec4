//! Functions that misbehave end in a typed error, and nobody else notices.

use dlambda_client::{Call, CallError};
use dlambda_proto::{ErrorKind, HasKind as _};
use dlambda_provider::ProviderConfig;

use crate::support::{LONG, World, alias, wat};

/// Never ends.
pub(crate) const LOOP: &str = "(module (func (export \"_start\") (loop $l (br $l))))";

const DEEP: &str = "(module (func $f (call $f) (call $f)) (func (export \"_start\") (call $f)))";

const MEMORY: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")
    (loop $l (br_if $l (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable))";

const PRINTS: &str = "(module
    (import \"wasi_snapshot_preview1\" \"fd_write\"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export \"memory\") 2)
    (func (export \"_start\")
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 60000))
        (loop $l (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (br $l))))";

const TRAP: &str = "(module (func (export \"_start\") unreachable))";

const IMPORT: &str = "(module (import \"env\" \"steal\" (func)) (func (export \"_start\")))";

const EXIT_3: &str = "(module
    (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
    (memory (export \"memory\") 1)
    (func (export \"_start\") (call $exit (i32.const 3))))";

#[tokio::test(flavor = "multi_thread")]
async fn each_ends_with_its_reason() {
    let mut config = ProviderConfig::without_tokens();
    // So little that a slow machine gets there before the plan's 10 seconds.
    config.plans[0].fuel = 50_000_000;
    config.plans[0].wall_ms = 100_000;
    let world = World::with(config).await;
    for (text, reason) in [
        (LOOP, "fuel"),
        (DEEP, "stack overflow"),
        (MEMORY, "memory of plan small"),
        (PRINTS, "output of plan small"),
        (TRAP, "unreachable"),
    ] {
        let error = world.call(wat(text), b"").await.expect_err("it misbehaves");
        let CallError::FunctionStopped { reason: said, .. } = &error else {
            panic!("{reason}: {error}");
        };
        assert!(said.contains(reason), "{said}");
        assert_eq!(error.kind(), ErrorKind::FunctionFailed);
        world.assert_alive().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn time_runs_out_too() {
    let mut config = ProviderConfig::without_tokens();
    config.plans[0].fuel = u64::MAX / 2;
    config.plans[0].wall_ms = 300;
    let world = World::with(config).await;
    let error = world.call(wat(LOOP), b"").await.expect_err("it loops");
    assert!(
        error.to_string().contains("longer than the 300 ms"),
        "{error}"
    );
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_its_own_keeps_its_exit_status() {
    let world = World::new().await;
    let error = world.call(wat(EXIT_3), b"").await.expect_err("it fails");
    assert!(matches!(error, CallError::FunctionFailed { status: 3, .. }));
    assert_eq!(error.kind(), ErrorKind::FunctionFailed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_is_refused_with_the_reason() {
    let world = World::new().await;
    let broken = dlambda_client::FunctionName::Wasm((*b"\0asm\x01\0\0\0garbage").into());
    let text = dlambda_client::FunctionName::Wasm((*b"#!/bin/sh").into());
    for (function, reason) in [
        (wat(IMPORT), "env::steal"),
        (wat("(module)"), "entry point"),
        (broken, "not a valid WebAssembly"),
        (text, "not a valid WebAssembly"),
    ] {
        let error = world.call(function, b"").await.expect_err("unusable");
        let CallError::FunctionUnusable(said) = &error else {
            panic!("{reason}: {error}");
        };
        assert!(said.contains(reason), "{said}");
        assert_eq!(error.kind(), ErrorKind::Refused);
    }
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_served_meanwhile() {
    let world = World::new().await;
    let querier = world.querier();
    let call = Call::new(world.endpoint(), wat(LOOP)).plan("medium".parse().expect("a name"));
    let endless = tokio::spawn(async move { querier.call(&call, LONG, |_| {}).await.map(|_| ()) });
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for _ in 0..5 {
        world.call(alias("upper"), b"x").await.expect("an answer");
    }
    assert!(!endless.is_finished(), "it was running all the time");
    endless.abort();
}
