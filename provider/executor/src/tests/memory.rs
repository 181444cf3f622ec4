//! The memory limit counts everything, and its refusals are told from other failures.

use super::{command, component, config, executor, run, wat};
use crate::{ExecutorConfig, Limits, Outcome};
use dlambda_proto::{Status, StopKind};

/// Grows until it is refused, then executes `after`.
fn eat(grow: &str, after: &str) -> bytes::Bytes {
    command(&format!(
        "(loop (br_if 0 (i32.ne ({grow}) (i32.const -1)))) {after}"
    ))
}

const PAGES: &str = "memory.grow (i32.const 16)";
const ELEMENTS: &str = "table.grow $table (ref.null func) (i32.const 4096)";

async fn with_memory(wasm: bytes::Bytes, memory_bytes: u64) -> Outcome {
    run(
        &executor(),
        wasm,
        &Limits {
            memory_bytes,
            ..Limits::default()
        },
    )
    .await
}

#[tokio::test]
async fn eaters_that_abort_have_exceeded_their_memory() {
    for grow in [PAGES, ELEMENTS] {
        for wasm in [
            eat(grow, "unreachable"),
            component(&eat(grow, "unreachable")),
        ] {
            let outcome = with_memory(wasm, 4 << 20).await;
            assert_eq!(outcome.status, Status::Stopped(StopKind::Memory), "{grow}");
            assert!(
                outcome.usage.peak_memory <= 4 << 20,
                "{}",
                outcome.usage.peak_memory
            );
        }
    }
}

#[tokio::test]
async fn eaters_that_cope_are_well() {
    let outcome = with_memory(eat(PAGES, ""), 4 << 20).await;
    assert_eq!(outcome.status, Status::Exited(0));
    let outcome = with_memory(eat(PAGES, "(call $exit (i32.const 7))"), 4 << 20).await;
    assert_eq!(outcome.status, Status::Exited(7));
}

#[tokio::test]
async fn memories_and_tables_are_counted_together() {
    let both =
        format!("(drop ({PAGES})) (if (i32.eq ({ELEMENTS}) (i32.const -1)) (then unreachable))");
    // 17 pages, and 4,097 elements of 8 bytes.
    let all = 17 * 65_536 + 4_097 * 8;
    let outcome = with_memory(command(&both), all).await;
    assert_eq!(
        (outcome.status, outcome.usage.peak_memory),
        (Status::Exited(0), all)
    );
    let outcome = with_memory(command(&both), all - 1).await;
    assert_eq!(outcome.status, Status::Stopped(StopKind::Memory));
}

#[tokio::test]
async fn initial_sizes_count() {
    let wasm = wat("(module (memory 160) (func (export \"_start\")))");
    let outcome = with_memory(wasm.clone(), 10 << 20).await;
    assert_eq!(
        (outcome.status, outcome.usage.peak_memory),
        (Status::Exited(0), 10 << 20)
    );
    let outcome = with_memory(wasm, (10 << 20) - 1).await;
    assert_eq!(
        (outcome.status, outcome.usage.peak_memory),
        (Status::Stopped(StopKind::Memory), 0)
    );
}

#[tokio::test]
async fn the_memories_of_a_component_are_counted_together() {
    let wasm = component(&eat(PAGES, "unreachable"));
    let adapter_and_tables = with_memory(wasm.clone(), 3 << 20).await.usage.peak_memory;
    assert!(adapter_and_tables > 2 << 20 && adapter_and_tables <= 3 << 20);
}

#[tokio::test]
async fn one_memory_never_passes_the_executors_bound() {
    let executor = crate::Executor::new(ExecutorConfig {
        max_concurrent: 2,
        max_memory_bytes: 2 << 20,
        ..config()
    })
    .unwrap();
    let outcome = run(&executor, eat(PAGES, "unreachable"), &Limits::default()).await;
    assert_eq!(outcome.status, Status::Stopped(StopKind::Memory));
    assert!(
        outcome.usage.peak_memory <= 3 << 20,
        "{}",
        outcome.usage.peak_memory
    );
}

#[tokio::test]
async fn a_declared_maximum_is_the_guests_own_business() {
    let wasm = wat(r#"(module (memory 1 2)
            (func (export "_start")
                (if (i32.eq (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))))"#);
    let outcome = with_memory(wasm, 4 << 20).await;
    assert_eq!(outcome.status, Status::Stopped(StopKind::Unreachable));
}
