//! From the words of a call to those of this crate, and back: what a plan allows, what a request
//! asks for, and what is said of how it ended.
//!
//! A receipt commits to the whole [`Completion`], so another run of a call must arrive at the
//! provider's, byte for byte. That is why the provider, its auditors and arbiters all come here. A
//! completion holds numbers and the function's own bytes, and no sentence of ours. A change of what
//! a call comes to takes another [`fingerprint`](crate::fingerprint), so that honest providers of
//! the version before do not look like liars.

use std::time::Duration;

use bytes::Bytes;
use dlambda_proto::{Completion, FunctionSource, Plan, Request, Status, StopKind};

use crate::engine::bounds::STDERR_BYTES;
use crate::{Executor, ExecutorError, Invocation, Limits, Outcome, Usage};

/// What a call came to when it was run again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// What an honest provider answers.
    pub completion: Completion,
    /// Fuel that the call takes; of a call that was cut at its deadline, not more than it had taken
    /// by then.
    pub fuel: u64,
    /// Largest size of all its memories and tables together, in bytes.
    pub peak_memory_bytes: u64,
    /// Whether every run of the call on an engine of the same fingerprint gives all of this again:
    /// the plan is deterministic, and the end did not depend on the machine. Otherwise, this run
    /// says nothing about another.
    pub reproducible: bool,
}

/// What a call on this plan may use.
#[must_use]
pub fn limits(plan: &Plan) -> Limits {
    Limits {
        memory_bytes: plan.memory_bytes,
        fuel: plan.fuel,
        wall_time: Duration::from_millis(plan.wall_ms.into()),
        output_bytes: plan.output_bytes as usize,
        stderr_bytes: STDERR_BYTES,
        deterministic: plan.deterministic,
    }
}

/// [`ExecutorConfig::max_memory_bytes`] for all plans of a menu.
///
/// An executor that is to agree with a provider's needs the value of the provider's whole menu: a
/// guest that asks for more than its plan allows can tell how much less that was than this.
///
/// [`ExecutorConfig::max_memory_bytes`]: crate::ExecutorConfig::max_memory_bytes
#[must_use]
pub fn max_memory_bytes(menu: &[Plan]) -> usize {
    let largest = menu.iter().map(|plan| plan.memory_bytes).max();
    usize::try_from(largest.unwrap_or(0)).unwrap_or(usize::MAX)
}

/// Whether a provider runs this request at all on this plan, or answers [`Completion::TooLarge`].
#[must_use]
pub fn fits(request: &Request, plan: &Plan) -> bool {
    request.input_len() <= u64::from(plan.input_bytes) && request.args.len() <= Request::MAX_ARGS
}

/// What a request asks for: the function, and what it is called with.
#[must_use]
pub fn invocation(request: Request) -> (FunctionSource, Invocation) {
    let invocation = Invocation {
        args: request.args,
        input: request.input.into(),
        seed: request.seed,
        http: request.http,
    };
    (request.function, invocation)
}

/// What is answered to the caller of a function that ran on this plan.
#[must_use]
pub fn completion(outcome: Outcome, plan: &Plan) -> Completion {
    let stderr: Vec<u8> = outcome.stderr.into();
    match outcome.status {
        Status::Exited(status) => Completion::Exited {
            status,
            stdout: outcome.stdout.into(),
            stderr,
            http: outcome.http,
        },
        Status::Stopped(kind) => Completion::Stopped {
            kind,
            limit: limit(kind, plan),
            stderr,
        },
    }
}

/// The limit of the plan that a function reached which was stopped like this, if any: fuel,
/// milliseconds or bytes.
#[must_use]
pub fn limit(kind: StopKind, plan: &Plan) -> Option<u64> {
    match kind {
        StopKind::Fuel => Some(plan.fuel),
        StopKind::Deadline => Some(plan.wall_ms.into()),
        StopKind::Memory => Some(plan.memory_bytes),
        StopKind::Output => Some(plan.output_bytes.into()),
        _ => None,
    }
}

/// Whether a function that ended like this on a deterministic plan ends like this wherever it is
/// run again.
///
/// Never of what is no end of a function, such as [`Completion::Busy`].
#[must_use]
pub fn is_reproducible(completion: &Completion) -> bool {
    completion.status().is_some_and(Status::is_reproducible)
}

/// Runs a request, its function attached, as a provider with this plan does, however large its
/// input.
///
/// To agree with a provider, the executor must have [`max_memory_bytes`] of the provider's menu,
/// and its [`fingerprint`](crate::fingerprint). A plan with a longer `wall_ms` gives the same,
/// unless the deadline strikes.
///
/// # Errors
///
/// [`ExecutorError::BadInvocation`] if the function is not attached, and those of
/// [`Executor::prepare`] and [`Executor::run`].
///
/// # Cancel safety
///
/// Cancel safe: a running function is ended. A compilation that has been started goes on.
pub async fn replay(
    executor: &Executor,
    request: &Request,
    plan: &Plan,
) -> Result<Replayed, ExecutorError> {
    let FunctionSource::Attached(wasm) = &request.function else {
        return Err(ExecutorError::BadInvocation("the function is not attached"));
    };
    let (function, _) = executor.prepare(Bytes::copy_from_slice(wasm)).await?;
    let invocation = Invocation {
        args: request.args.clone(),
        input: Bytes::copy_from_slice(&request.input),
        seed: request.seed,
        http: request.http.clone(),
    };
    let outcome = executor.run(&function, invocation, &limits(plan)).await?;
    let Usage {
        fuel, peak_memory, ..
    } = outcome.usage;
    let completion = completion(outcome, plan);
    Ok(Replayed {
        reproducible: plan.deterministic && is_reproducible(&completion),
        completion,
        fuel,
        peak_memory_bytes: peak_memory,
    })
}

#[cfg(test)]
mod tests {
    use dlambda_proto::FunctionId;

    use super::*;
    use crate::ExecutorConfig;

    fn plan() -> Plan {
        Plan {
            fuel: 1_000_000,
            ..Plan::standard_menu().remove(0)
        }
    }

    fn outcome(status: Status) -> Outcome {
        Outcome {
            status,
            stdout: "out".into(),
            http: None,
            stderr: "err".into(),
            stderr_truncated: false,
            usage: Usage {
                fuel: 7,
                peak_memory: 65_536,
                instantiate: Duration::from_micros(10),
                wall: Duration::from_micros(100),
            },
        }
    }

    #[test]
    fn what_is_reproducible_here_is_reproducible_there() {
        let stops = StopKind::ALL.iter().copied().map(Status::Stopped);
        for status in stops.chain([Status::Exited(0), Status::Exited(255)]) {
            let completion = completion(outcome(status), &plan());
            let same = is_reproducible(&completion) == status.is_reproducible();
            assert!(same, "{status:?}");
        }
        for no_end in [
            Completion::TooLarge,
            Completion::Busy { retry_seconds: 5 },
            Completion::ProviderFault,
        ] {
            assert!(!is_reproducible(&no_end));
        }
    }

    #[test]
    fn a_stop_names_the_plans_limit_and_nothing_else() {
        for kind in StopKind::ALL.iter().copied() {
            let expected = match kind {
                StopKind::Deadline => Some(10_000),
                StopKind::Fuel => Some(1_000_000),
                StopKind::Memory => Some(67_108_864),
                StopKind::Output => Some(1_048_576),
                _ => None,
            };
            assert!(
                completion(outcome(Status::Stopped(kind)), &plan())
                    == Completion::Stopped {
                        kind,
                        limit: expected,
                        stderr: b"err".to_vec(),
                    },
                "{kind:?}"
            );
        }
    }

    /// Writes what is on standard input, and a random byte.
    const ECHO: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\05\00\00\00")
        (func (export "_start")
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $random (i32.const 20) (i32.const 1)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

    fn request(wat: &str, input: &str) -> Request {
        Request {
            function: FunctionSource::Attached(wat::parse_str(wat).unwrap()),
            args: vec!["argument".to_owned()],
            input: input.into(),
            seed: [7; 32],
            http: None,
            token: None,
        }
    }

    fn executor() -> Executor {
        Executor::new(ExecutorConfig {
            max_concurrent: 1,
            max_memory_bytes: max_memory_bytes(&Plan::standard_menu()),
            ..ExecutorConfig::dangerously_in_process()
        })
        .unwrap()
    }

    #[tokio::test]
    async fn a_call_that_is_replayed_is_the_call() {
        let executor = executor();
        let request = request(ECHO, "ping");
        let replayed = replay(&executor, &request, &plan()).await.unwrap();

        let (source, invocation) = invocation(request.clone());
        let FunctionSource::Attached(wasm) = source else {
            panic!("the function was attached");
        };
        let (function, _) = executor.prepare(wasm.into()).await.unwrap();
        let limits = limits(&plan());
        let running = executor.run(&function, invocation, &limits);
        let outcome = running.await.unwrap();
        let Completion::Exited { stdout, .. } = &replayed.completion else {
            panic!("it did not end well");
        };
        assert_eq!((&stdout[..4], stdout.len()), (&b"ping"[..], 5));
        assert!(replayed.reproducible && replayed.fuel > 100);
        assert_eq!(replayed.fuel, outcome.usage.fuel);
        assert_eq!(replayed.peak_memory_bytes, outcome.usage.peak_memory);
        assert_eq!(replayed.completion, completion(outcome, &plan()));
    }

    #[tokio::test]
    async fn a_run_says_nothing_of_others_where_machines_differ() {
        let executor = executor();
        let recursion = "(module (memory (export \"memory\") 1)
            (func $f (param i32) (result i32) (i32.add (i32.const 1) (call $f (local.get 0))))
            (func (export \"_start\") (drop (call $f (i32.const 0)))))";
        let varying = Plan {
            deterministic: false,
            ..plan()
        };
        for (wat, plan) in [(recursion, &plan()), (ECHO, &varying)] {
            let replayed = replay(&executor, &request(wat, ""), plan).await.unwrap();
            assert!(!replayed.reproducible);
        }
    }

    #[tokio::test]
    async fn without_the_function_there_is_nothing_to_replay() {
        let mut request = request(ECHO, "");
        request.function = FunctionSource::Known(FunctionId::of(b""));
        let replayed = replay(&executor(), &request, &plan()).await;
        assert!(matches!(replayed, Err(ExecutorError::BadInvocation(_))));
    }

    #[test]
    fn arguments_input_and_head_share_one_limit() {
        let mut request = request("(module)", "");
        request.http = Some(dlambda_proto::HttpRequest::new("GET", "/").unwrap());
        request.input = vec![0; plan().input_bytes as usize - "argumentGET/".len()];
        assert!(fits(&request, &plan()));
        request.input.push(0);
        assert!(!fits(&request, &plan()));
        request.input.clear();
        request.args = vec![String::new(); Request::MAX_ARGS + 1];
        assert!(!fits(&request, &plan()));
    }
}
