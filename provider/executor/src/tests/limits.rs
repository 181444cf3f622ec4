//! Guests that want more than they may have.

use std::time::Duration;

use super::{command, component, deadline, executor, prepare, run, wat};
use crate::{Invocation, Limits};
use dlambda_proto::{Status, StopKind};

const SPIN: &str = "(loop (br 0))";
/// Sleeps for an hour: one subscription of type clock at 64, to the monotonic clock.
const SLEEP: &str = "(i32.store (i32.const 80) (i32.const 1))
    (i64.store (i32.const 88) (i64.const 3600000000000))
    (drop (call $poll (i32.const 64) (i32.const 128) (i32.const 1) (i32.const 4)))";

fn flood(stream: u32) -> String {
    format!(
        "(loop (drop (call $write (i32.const {stream}) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))"
    )
}

#[tokio::test]
async fn a_spinner_runs_out_of_fuel() {
    let outcome = run(
        &executor(),
        command(SPIN),
        &Limits {
            fuel: 1_000_000,
            ..Limits::default()
        },
    )
    .await;
    assert_eq!(outcome.status, Status::Stopped(StopKind::Fuel));
    assert_eq!(outcome.usage.fuel, 1_000_000);
}

#[tokio::test]
async fn a_spinner_meets_its_deadline() {
    for wasm in [command(SPIN), component(&command(SPIN))] {
        let outcome = run(&executor(), wasm, &deadline(100)).await;
        assert_eq!(outcome.status, Status::Stopped(StopKind::Deadline));
        let wall = outcome.usage.wall;
        assert!(
            wall >= Duration::from_millis(100) && wall < Duration::from_secs(10),
            "{wall:?}"
        );
    }
}

#[tokio::test]
async fn a_sleeper_on_virtual_time_holds_nobodys_place() {
    for wasm in [command(SLEEP), component(&command(SLEEP))] {
        let outcome = run(&executor(), wasm, &deadline(60_000)).await;
        assert_eq!(outcome.status, Status::Exited(0));
    }
}

#[tokio::test]
async fn a_sleeper_meets_its_deadline() {
    for wasm in [command(SLEEP), component(&command(SLEEP))] {
        let limits = Limits {
            deterministic: false,
            ..deadline(100)
        };
        let outcome = run(&executor(), wasm, &limits).await;
        assert_eq!(outcome.status, Status::Stopped(StopKind::Deadline));
        assert!(
            outcome.usage.wall < Duration::from_secs(10),
            "{:?}",
            outcome.usage.wall
        );
    }
}

#[tokio::test]
async fn deep_recursion_traps() {
    let body = "(drop (call $recurse (i32.const 0)))";
    for wasm in [command(body), component(&command(body))] {
        let outcome = run(&executor(), wasm, &Limits::default()).await;
        assert_eq!(outcome.status, Status::Stopped(StopKind::StackOverflow));
        assert!(!outcome.status.is_reproducible());
    }
}

#[tokio::test]
async fn traps_are_told_apart() {
    for (body, kind) in [
        ("unreachable", StopKind::Unreachable),
        (
            "(drop (i32.load (i32.const 65536)))",
            StopKind::MemoryOutOfBounds,
        ),
        (
            "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
            StopKind::IntegerDivisionByZero,
        ),
        (
            "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
            StopKind::IntegerOverflow,
        ),
        (
            "(drop (i32.trunc_f32_s (f32.const nan)))",
            StopKind::InvalidConversion,
        ),
        (
            "(call_indirect (i32.const 0))",
            StopKind::IndirectCallToNull,
        ),
        ("(call_indirect (i32.const 1))", StopKind::TableOutOfBounds),
        (
            "(drop (call $random (i32.const 0) (i32.const -1)))",
            StopKind::HostCall,
        ),
    ] {
        let outcome = run(&executor(), command(body), &Limits::default()).await;
        assert_eq!(outcome.status, Status::Stopped(kind), "{body}");
    }
}

#[tokio::test]
async fn endless_output_is_cut() {
    let limits = Limits {
        output_bytes: 100_000,
        ..deadline(10_000)
    };
    for wasm in [command(&flood(1)), component(&command(&flood(1)))] {
        let outcome = run(&executor(), wasm, &limits).await;
        assert_eq!(outcome.status, Status::Stopped(StopKind::Output));
        assert_eq!(outcome.stdout.len(), 100_000);
    }
}

#[tokio::test]
async fn exactly_the_output_limit_is_no_excess() {
    let body = "(drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
    for wasm in [command(body), component(&command(body))] {
        let executor = executor();
        let outcome = run(
            &executor,
            wasm.clone(),
            &Limits {
                output_bytes: 4_096,
                ..Limits::default()
            },
        )
        .await;
        assert_eq!(
            (outcome.status, outcome.stdout.len()),
            (Status::Exited(0), 4_096)
        );
        // A write that fits in part is a short write; it is the next one that does not fit.
        let outcome = run(
            &executor,
            wasm,
            &Limits {
                output_bytes: 0,
                ..Limits::default()
            },
        )
        .await;
        assert_eq!(
            (outcome.status, outcome.stdout.len()),
            (Status::Stopped(StopKind::Output), 0)
        );
    }
}

#[tokio::test]
async fn endless_errors_are_dropped_and_cost_fuel() {
    let limits = Limits {
        stderr_bytes: 5_000,
        fuel: 200_000,
        ..Limits::default()
    };
    for wasm in [command(&flood(2)), component(&command(&flood(2)))] {
        let outcome = run(&executor(), wasm, &limits).await;
        assert_eq!(outcome.status, Status::Stopped(StopKind::Fuel));
        assert_eq!(outcome.stderr.len(), 5_000);
        assert!(outcome.stderr_truncated);
    }
}

#[tokio::test]
async fn exit_status_and_partial_output_are_kept() {
    let write = "(i32.store (i32.const 4) (i32.const 14))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))";
    for (status, preview1, preview2) in [
        (0, 0, 0),
        (3, 3, 1),
        (200, 200, 1),
        (256, 255, 1),
        (-1, 255, 1),
    ] {
        let module = command(&format!("{write} (call $exit (i32.const {status}))"));
        for (wasm, expected) in [(component(&module), preview2), (module, preview1)] {
            let outcome = run(&executor(), wasm, &Limits::default()).await;
            assert_eq!(outcome.status, Status::Exited(expected), "{status}");
            assert_eq!(outcome.status.is_success(), status == 0);
            assert_eq!(outcome.stdout, "partial output");
        }
    }
}

#[tokio::test]
async fn a_start_section_runs_under_the_limits_of_the_call() {
    let executor = executor();
    let wasm = wat("(module (func $spin (loop (br 0))) (start $spin) (func (export \"_start\")))");
    // This would never end if it ran it.
    let function = prepare(&executor, wasm).await;
    for (limits, status) in [
        (
            Limits {
                fuel: 10_000,
                ..Limits::default()
            },
            Status::Stopped(StopKind::Fuel),
        ),
        (deadline(50), Status::Stopped(StopKind::Deadline)),
    ] {
        let outcome = executor
            .run(&function, Invocation::default(), &limits)
            .await
            .unwrap();
        assert_eq!(outcome.status, status);
    }
}

#[tokio::test]
async fn a_function_without_memory_cannot_confuse_the_host() {
    let wasm = wat(
        r#"(module (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
            (func (export "_start") (drop (call $random (i32.const 0) (i32.const 1)))))"#,
    );
    let outcome = run(&executor(), wasm, &Limits::default()).await;
    assert_eq!(outcome.status, Status::Stopped(StopKind::HostCall));
}
