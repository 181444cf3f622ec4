//! Modules that cost little to send and much to compile.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_proto::{FunctionProblem, Measure, Status};

use super::super::processes::{alone, children, eventually, resident};
use super::super::{command, component, config, prepare, wat};
use crate::{
    CompileLimits, Executor, ExecutorConfig, ExecutorError, Invocation, Limits, inspect_function,
};

const MEMORY: u64 = 256 << 20;
const CPU: Duration = Duration::from_secs(3);

/// A compiler with little memory and little time.
const COMPILE: CompileLimits = CompileLimits {
    memory_bytes: MEMORY,
    cpu_time: CPU,
    wall_time: Duration::from_secs(40),
};

fn small() -> Executor {
    Executor::new(ExecutorConfig {
        max_concurrent: 8,
        compile: COMPILE,
        ..config()
    })
    .unwrap()
}

/// Each loop changes a local, and each local is asked for at the end: the compiler has to keep all
/// of them apart in every loop.
fn loops(locals: usize, loops: usize) -> Bytes {
    let all: String = (0..locals)
        .map(|local| {
            format!(
                "(local.set {local} (i64.add (local.get {local}) (local.get {})))",
                (local + 1) % locals
            )
        })
        .collect();
    let each: String = (0..loops)
        .map(|number| {
            let local = number % locals;
            format!("(loop (local.set {local} (i64.add (local.get {local}) (i64.const 1))) (br_if 0 (i64.eqz (local.get {local}))))")
        })
        .collect();
    wat(&format!(
        "(module (memory (export \"memory\") 1) (func (export \"_start\") (local{}) {each} {all}))",
        " i64".repeat(locals)
    ))
}

fn bombs() -> Vec<(&'static str, Bytes)> {
    let straight = format!(
        "(func {})",
        "(drop (i64.div_u (i64.const 7) (i64.const 3)))".repeat(120_000)
    );
    let nested = format!("{}{}", "(loop ".repeat(900), ")".repeat(900));
    let nested = format!(
        "(func (param i64) (local{}) {} {nested})",
        " i64".repeat(900),
        (0..900)
            .map(|local| format!("(local.set {local} (local.get {}))", local + 1))
            .collect::<String>()
    );
    let memories = format!(
        "(func (param i32) {})",
        "(i32.store (i32.load (local.get 0)) (i32.load (i32.load (local.get 0))))".repeat(20_000)
    );
    let module = |fields: &str| wat(&format!("(module {fields} (func (export \"_start\")))"));
    vec![
        ("1,000 locals in 2,000 loops", loops(1_000, 2_000)),
        (
            "1,000 locals in 2,000 loops, in a component",
            component(&loops(1_000, 2_000)),
        ),
        (
            "a long straight line, twenty times",
            module(&straight.repeat(20)),
        ),
        ("900 loops in each other, often", module(&nested.repeat(60))),
        (
            "memory accesses",
            module(&format!("(memory 1) {}", memories.repeat(8))),
        ),
        (
            "90,000 functions",
            module(
                &"(func (param i64) (result i64) (i64.mul (local.get 0) (local.get 0)))"
                    .repeat(90_000),
            ),
        ),
    ]
}

/// Processor time of the processes that this one has waited for (proc(5): cutime, cstime).
fn children_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(16 - 3);
    let ticks: u64 = fields
        .take(2)
        .map(|field| field.parse::<u64>().unwrap())
        .sum();
    let second = u32::try_from(rustix::param::clock_ticks_per_second()).unwrap();
    Duration::from_secs(ticks) / second
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compile_bombs_are_refused_and_hurt_nobody() {
    let executor = small();
    let quick = prepare(&executor, command("")).await;
    eventually("two workers", || executor.processes().len() == 2).await;
    let workers = executor.processes();
    // To write them down takes more memory than to have them refused.
    let bombs = bombs();
    let before = resident(std::process::id());
    let mut wrong = Vec::new();
    for (name, wasm) in bombs {
        let (begun, used, mut calls) = (Instant::now(), children_time(), 0);
        let bomb = executor.prepare(wasm);
        tokio::pin!(bomb);
        let ended = loop {
            tokio::select! {
                ended = &mut bomb => break ended,
                () = tokio::time::sleep(Duration::from_millis(20)) => {}
            }
            let outcome = executor
                .run(&quick, Invocation::default(), &Limits::default())
                .await
                .unwrap();
            assert_eq!(outcome.status, Status::Exited(0));
            calls += 1;
        };
        let (took, used) = (begun.elapsed(), children_time() - used);
        let refused = matches!(
            ended,
            Err(ExecutorError::BadFunction(FunctionProblem::TooCostly(_))
                | ExecutorError::BadFunction(FunctionProblem::TooLarge {
                    measure: Measure::FunctionBytes,
                    ..
                }))
        );
        println!(
            "{name}: {:?} after {took:?}, {used:?} of a processor, {calls} calls meanwhile",
            ended
                .as_ref()
                .map(|(function, _)| function.compiled_bytes())
        );
        // On a machine that is fast enough some of them are within the limits.
        if (!refused && ended.is_err()) || used > CPU + Duration::from_secs(2) {
            wrong.push(format!("{name}: {ended:?} after {used:?}"));
        }
        // If calls had to wait for the bomb, there would be one.
        if took > Duration::from_secs(5) && calls < 3 {
            wrong.push(format!("{name}: {calls} calls in {took:?}"));
        }
        if name.starts_with("1,000 locals") && !refused {
            wrong.push(format!("{name}: {ended:?}"));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    let grown = resident(std::process::id()).saturating_sub(before);
    assert!(!alone() || grown < 96 << 20, "{grown}");
    assert_eq!(executor.processes(), workers);
    let left = children(std::process::id()).into_iter().filter(|child| {
        std::fs::read(format!("/proc/{child}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).nth(1) == Some(b"compile")
                && line
                    .windows(9)
                    .any(|part| part == MEMORY.to_string().as_bytes())
        })
    });
    assert_eq!(left.count(), 0, "compilers are gone");
    let good = executor
        .prepare(command("(drop (i32.const 1))"))
        .await
        .unwrap();
    let outcome = executor
        .run(&good.0, Invocation::default(), &Limits::default())
        .await
        .unwrap();
    assert_eq!(outcome.status, Status::Exited(0));
    assert_eq!(executor.counts().workers_lost, 0);
}

/// Inspecting is for functions that somebody else wrote, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inspecting_a_compile_bomb_is_bounded_in_memory_and_time() {
    let bomb = loops(1_000, 2_000);
    let before = resident(std::process::id());
    let begun = Instant::now();
    let config = ExecutorConfig {
        compile: COMPILE,
        ..config()
    };
    let inspection = inspect_function(bomb, &config).await.unwrap();
    let took = begun.elapsed();
    assert!(
        matches!(
            inspection.verdict,
            Err(ExecutorError::BadFunction(FunctionProblem::TooCostly(_)))
        ),
        "{:?}",
        inspection.verdict
    );
    assert_eq!((inspection.functions, inspection.exports.len()), (1, 2));
    let grown = resident(std::process::id()).saturating_sub(before);
    assert!(!alone() || grown < 32 << 20, "{grown}");
    assert!(took < COMPILE.wall_time, "{took:?}");
}
