//! Tests that compile and run real WebAssembly.

mod bad_functions;
mod confinement;
mod determinism;
mod fairness;
mod hostile;
mod limits;
mod long;
mod memory;
mod prepare;
mod processes;
mod programs;
mod workers;

use std::time::Duration;

use bytes::Bytes;
use wit_component::ComponentEncoder;

use crate::{
    Executor, ExecutorConfig, Function, Invocation, Isolation, Limits, Outcome, executor_program,
};

/// With worker processes, as for real.
fn config() -> ExecutorConfig {
    let program = executor_program().expect("cargo builds dlambda-executor beside the tests");
    let isolation = Isolation::Processes {
        program,
        workers: 2,
    };
    ExecutorConfig::new(isolation)
}

/// Small enough to make one per test.
fn executor() -> Executor {
    Executor::new(ExecutorConfig {
        max_concurrent: 8,
        ..config()
    })
    .unwrap()
}

/// The same without processes.
fn executor_here() -> Executor {
    Executor::new(ExecutorConfig {
        max_concurrent: 8,
        ..ExecutorConfig::dangerously_in_process()
    })
    .unwrap()
}

fn wat(text: &str) -> Bytes {
    wat::parse_str(text).unwrap().into()
}

/// A preview 1 command around the body of `_start`.
///
/// At 0 its memory has an iovec for the 4,096 bytes at 16, which begin with `partial output`.
fn command(body: &str) -> Bytes {
    wat(&format!(
        r#"(module
            (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
            (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
            (memory (export "memory") 1)
            (data (i32.const 0) "\10\00\00\00\00\10\00\00")
            (data (i32.const 16) "partial output")
            (table $table 1 funcref)
            (func $recurse (param i32) (result i32)
                (i32.add (i32.const 1) (call $recurse (i32.add (local.get 0) (i32.const 1)))))
            (func (export "_start") {body}))"#
    ))
}

/// The same program as a preview 2 component.
fn component(module: &[u8]) -> Bytes {
    use wasi_preview1_component_adapter_provider::{
        WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME as NAME,
        WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER as ADAPTER,
    };
    let encoder = ComponentEncoder::default().module(module).unwrap();
    encoder
        .adapter(NAME, ADAPTER)
        .unwrap()
        .encode()
        .unwrap()
        .into()
}

async fn prepare(executor: &Executor, wasm: Bytes) -> Function {
    executor.prepare(wasm).await.unwrap().0
}

async fn run(executor: &Executor, wasm: Bytes, limits: &Limits) -> Outcome {
    let function = prepare(executor, wasm).await;
    executor
        .run(&function, Invocation::default(), limits)
        .await
        .unwrap()
}

/// Fuel without end, so that only the deadline can end a spinner.
fn deadline(milliseconds: u64) -> Limits {
    Limits {
        fuel: u64::MAX,
        wall_time: Duration::from_millis(milliseconds),
        ..Limits::default()
    }
}
