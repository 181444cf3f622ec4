//! Functions that cannot run here are refused when they are prepared, with a reason.

use bytes::Bytes;
use dlambda_proto::{FunctionProblem, Measure};

use super::{command, component, config, executor, wat};
use crate::{ErrorKind, Executor, ExecutorConfig, ExecutorError};

async fn refusal(wasm: impl Into<Bytes>) -> ExecutorError {
    let error = executor().prepare(wasm.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BadFunction, "{error}");
    error
}

#[tokio::test]
async fn what_is_not_webassembly() {
    for bytes in [
        &b""[..],
        b"hello",
        b"\0asm",
        b"\0asm\x07\0\0\0",
        b"#!/bin/sh\n",
        &[0xff; 100],
    ] {
        assert!(
            matches!(refusal(bytes).await, ExecutorError::Malformed { .. }),
            "{bytes:?}"
        );
    }
    // The text format is not taken for a module either.
    assert!(matches!(
        refusal("(module)").await,
        ExecutorError::Malformed { .. }
    ));
}

#[tokio::test]
async fn what_is_cut_short() {
    for whole in [command("unreachable"), component(&command("unreachable"))] {
        let executor = executor();
        for length in (0..whole.len()).step_by(whole.len() / 40) {
            let error = executor.prepare(whole.slice(..length)).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BadFunction, "{length}: {error}");
        }
    }
}

#[tokio::test]
async fn unknown_imports_are_named() {
    let start = r#"(func (export "_start"))"#;
    for (import, named) in [
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))
            (import "env" "getpwuid" (func)) (import "env" "second" (func))"#,
            "env::getpwuid",
        ),
        (
            r#"(import "wasi_unstable" "fd_write" (func))"#,
            "wasi_unstable::fd_write",
        ),
        (
            r#"(import "wasi_snapshot_preview1" "fd_write" (func))"#,
            "wasi_snapshot_preview1::fd_write",
        ),
        (r#"(import "env" "memory" (memory 1))"#, "env::memory"),
        ("(import \"a\\0a\" \"b\" (func))", "a\\n::b"),
    ] {
        let error = refusal(wat(&format!("(module {import} {start})"))).await;
        assert_eq!(
            error,
            ExecutorError::BadFunction(FunctionProblem::UnsupportedImport {
                import: named.into()
            })
        );
    }
}

#[tokio::test]
async fn unknown_interfaces_are_named() {
    let wasm =
        wat(r#"(component (import "wasi:http/types@0.2.0" (instance (export "f" (func)))))"#);
    let named = "wasi:http/types@0.2.0".into();
    assert_eq!(
        refusal(wasm).await,
        ExecutorError::BadFunction(FunctionProblem::UnsupportedImport { import: named })
    );
}

#[tokio::test]
async fn functions_need_an_entry_point() {
    for module in [
        "(module)",
        r#"(module (func (export "main")))"#,
        r#"(module (memory (export "_start") 1))"#,
        r#"(module (func (export "_start") (param i32)))"#,
        r#"(module (func (export "_start") (result i32) i32.const 0))"#,
        r#"(module (func (export "_initialize")))"#,
        "(component)",
    ] {
        assert_eq!(
            refusal(wat(module)).await,
            ExecutorError::BadFunction(FunctionProblem::NoEntryPoint),
            "{module}"
        );
    }
}

#[tokio::test]
async fn what_the_engine_cannot_hold() {
    for (module, why) in [
        (
            r#"(module (memory 65536) (func (export "_start")))"#,
            "4 GiB at the start",
        ),
        (
            r#"(module (table 1000000 funcref) (func (export "_start")))"#,
            "a million elements",
        ),
    ] {
        assert_eq!(
            refusal(wat(module)).await,
            ExecutorError::BadFunction(FunctionProblem::Unsupported),
            "{why}"
        );
    }
}

#[tokio::test]
async fn what_is_too_large() {
    let executor = Executor::new(ExecutorConfig {
        max_concurrent: 1,
        max_module_bytes: 1_000,
        ..config()
    })
    .unwrap();
    let error = executor.prepare(vec![0; 1_001].into()).await.unwrap_err();
    let expected = ExecutorError::BadFunction(FunctionProblem::TooLarge {
        measure: Measure::ModuleBytes,
        found: 1_001,
        limit: 1_000,
    });
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "the function is too large: bytes: 1001, at most 1000"
    );
}
