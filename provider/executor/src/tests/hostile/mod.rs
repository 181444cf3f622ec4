//! Hostile functions, each of which must come to the right end, within its limits, and hurt nobody.

mod bombs;
mod compile;
mod components;
mod handlers;
mod malformed;
mod neighbours;
mod preview1;
mod smith;

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use dlambda_proto::{FunctionProblem, HttpField, HttpRequest, Measure, Status, StopKind};

use super::{command, executor, wat};
use crate::{ExecutorError, Invocation, Limits, Outcome};

/// Far longer than any of them may take, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// One function and its end.
struct Case {
    name: &'static str,
    wasm: Bytes,
    invocation: Invocation,
    limits: Limits,
    end: End,
}

/// What must come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Is(Status),
    Malformed,
    NoEntryPoint,
    TooLarge(Measure),
    Unsupported,
    UnsupportedImport,
    BadInvocation,
}

const TRAP: fn(StopKind) -> End = |kind| End::Is(Status::Stopped(kind));
const HOST_CALL: End = End::Is(Status::Stopped(StopKind::HostCall));

/// With limits that end an endless loop in about a tenth of a second.
fn case(name: &'static str, wasm: Bytes, end: End) -> Case {
    let limits = Limits {
        fuel: 100_000_000,
        ..Limits::default()
    };
    Case {
        name,
        wasm,
        invocation: Invocation::default(),
        limits,
        end,
    }
}

impl Case {
    fn fuel(mut self, fuel: u64) -> Self {
        self.limits.fuel = fuel;
        self
    }

    fn wall(mut self, milliseconds: u64) -> Self {
        self.limits.wall_time = Duration::from_millis(milliseconds);
        self.limits.fuel = u64::MAX;
        self
    }

    fn memory(mut self, mebibytes: u64) -> Self {
        self.limits.memory_bytes = mebibytes << 20;
        self
    }

    fn asks(mut self, method: &str, path: &str, fields: &[(&str, &[u8])]) -> Self {
        let fields = fields.iter();
        let fields = fields.map(|(name, value)| HttpField::new(name, value).unwrap());
        let request = HttpRequest::new(method, path).unwrap();
        self.invocation.http = Some(request.with_fields(fields).unwrap());
        self
    }
}

fn end(ended: &Result<Outcome, ExecutorError>) -> Option<End> {
    Some(match ended {
        Ok(outcome) => End::Is(outcome.status),
        Err(ExecutorError::Malformed { .. }) => End::Malformed,
        Err(ExecutorError::BadFunction(FunctionProblem::NoEntryPoint)) => End::NoEntryPoint,
        Err(ExecutorError::BadFunction(FunctionProblem::TooLarge { measure, .. })) => {
            End::TooLarge(*measure)
        }
        Err(ExecutorError::BadFunction(FunctionProblem::Unsupported)) => End::Unsupported,
        Err(ExecutorError::BadFunction(FunctionProblem::UnsupportedImport { .. })) => {
            End::UnsupportedImport
        }
        Err(ExecutorError::BadInvocation(_)) => End::BadInvocation,
        Err(_) => return None,
    })
}

/// What the outcome has beyond its limits, if anything.
fn excess(outcome: &Outcome, limits: &Limits) -> Option<&'static str> {
    let usage = &outcome.usage;
    [
        (usage.fuel > limits.fuel, "fuel"),
        (usage.peak_memory > limits.memory_bytes, "memory"),
        (outcome.stdout.len() > limits.output_bytes, "output"),
        (outcome.stderr.len() > limits.stderr_bytes, "errors"),
        // Tests share a machine that may be very busy.
        (
            usage.wall > limits.wall_time + Duration::from_secs(5),
            "time",
        ),
    ]
    .iter()
    .find_map(|(beyond, what)| beyond.then_some(*what))
}

/// Runs all of them, a few at a time on the same workers, and says which ended otherwise. The
/// workers must live on.
async fn each_ends_as_it_should(cases: Vec<Case>) {
    let executor = executor();
    let mut wrong = Vec::new();
    for case in cases {
        let Case {
            name,
            wasm,
            invocation,
            limits,
            end: expected,
        } = case;
        // A machine that is busy with other tests must not be what ends a call.
        let limits = match expected {
            End::Is(Status::Stopped(StopKind::Deadline)) => limits,
            _ => Limits {
                wall_time: limits.wall_time.max(DEADLINE),
                ..limits
            },
        };
        let call = async {
            let (function, _) = executor.prepare(wasm).await?;
            executor.run(&function, invocation, &limits).await
        };
        match tokio::time::timeout(2 * DEADLINE, call).await {
            Err(_) => wrong.push(format!("{name}: still running")),
            Ok(ended) => {
                if end(&ended) != Some(expected) {
                    wrong.push(format!("{name}: expected {expected:?}, found {ended:?}"));
                }
                let excess = ended.iter().find_map(|outcome| excess(outcome, &limits));
                wrong.extend(excess.map(|what| format!("{name}: too much {what}")));
            }
        }
    }
    let healthy = super::run(&executor, command(""), &Limits::default()).await;
    assert_eq!(healthy.status, Status::Exited(0));
    assert_eq!(executor.counts().workers_lost, 0);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn there_are_many_and_no_two_are_the_same() {
    let groups = [
        bombs::cases(),
        components::cases(),
        handlers::cases(),
        malformed::cases(),
        preview1::cases(),
    ];
    let all: Vec<Case> = groups.into_iter().flatten().collect();
    let names: HashSet<_> = all.iter().map(|case| case.name).collect();
    let modules: HashSet<_> = all
        .iter()
        .map(|case| (&case.wasm, case.invocation.http.is_some()))
        .collect();
    assert_eq!(names.len(), all.len());
    assert!(modules.len() >= 45, "{}", modules.len());
}
