//! From the words of a call to those of this crate, and back: what a plan allows, what a request asks for, and what is
//! said of how it ended.
//!
//! A receipt commits to the whole [`Completion`], so whoever runs a call again must arrive at the provider's, byte for
//! byte. That is why the provider, its auditors and arbiters all come here. What is changed here, a single word of a
//! reason included, makes honest providers of the version before look like liars, unless the engine gets another
//! [`fingerprint`](crate::fingerprint) with it.

use std::time::Duration;

use bytes::Bytes;
use dlambda_proto::{
    Completion, FunctionSource, HttpError, HttpField, HttpResponse, Plan, Request, StopKind,
};

use crate::{
    Executor, ExecutorError, HttpRequest, Invocation, Limits, Outcome, Status, TrapKind, Usage,
};

/// Standard error that is kept and sent back, in bytes; the rest is dropped.
pub const STDERR_BYTES: usize = 16 << 10;

/// What a call came to when it was run again.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replayed {
    /// What an honest provider answers.
    pub completion: Completion,
    /// Fuel that the call takes; of a call that was cut at its deadline, not more than it had taken by then.
    pub fuel: u64,
    /// Largest size of all its memories and tables together, in bytes.
    pub peak_memory_bytes: u64,
    /// Whether every run of the call on an engine of the same fingerprint gives all of this again: the plan is
    /// deterministic, and the end did not depend on the machine. Otherwise, this run says nothing about another.
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
/// An executor that is to agree with a provider's needs the value of the provider's whole menu: a guest that asks for
/// more than its plan allows can tell how much less that was than this.
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
        http: request.http.as_ref().map(http_request),
    };
    (request.function, invocation)
}

/// What is answered to the caller of a function that ran on this plan.
#[must_use]
pub fn completion(outcome: Outcome, plan: &Plan) -> Completion {
    let stderr: Vec<u8> = outcome.stderr.into();
    let stopped = |kind, reason, stderr| Completion::Stopped {
        reason,
        stderr,
        kind,
    };
    let http = match outcome.http.map(http_response).transpose() {
        Ok(http) => http,
        Err(error) => {
            let reason = format!("its response has a head that cannot be sent: {error}");
            return stopped(StopKind::NoResponse, reason, stderr);
        }
    };
    match exit_status(outcome.status, plan) {
        Ok(status) => Completion::Exited {
            status,
            stdout: outcome.stdout.into(),
            stderr,
            http,
        },
        Err((kind, reason)) => stopped(kind, reason, stderr),
    }
}

/// Whether a function that ended like this on a deterministic plan ends like this wherever it is run again.
///
/// Never of what is no end of a function, such as [`Completion::Busy`].
#[must_use]
pub fn is_reproducible(completion: &Completion) -> bool {
    match completion {
        Completion::Exited { .. }
        | Completion::Stopped {
            kind:
                StopKind::Fuel
                | StopKind::Memory
                | StopKind::NoResponse
                | StopKind::Output
                | StopKind::Trap,
            ..
        } => true,
        // Deadline, Machine, and what a later version may add.
        _ => false,
    }
}

/// Runs a request, its function attached, as a provider with this plan does, however large its input.
///
/// To agree with a provider, the executor must have [`max_memory_bytes`] of the provider's menu, and its
/// [`fingerprint`](crate::fingerprint). A plan with a longer `wall_ms` gives the same, unless the deadline strikes.
///
/// # Errors
///
/// [`ExecutorError::BadInvocation`] if the function is not attached, and those of [`Executor::prepare`] and
/// [`Executor::run`].
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
        http: request.http.as_ref().map(http_request),
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

fn http_request(request: &dlambda_proto::HttpRequest) -> HttpRequest {
    let fields = request.fields().iter();
    HttpRequest {
        method: request.method().to_owned(),
        path: request.path().to_owned(),
        fields: fields
            .map(|field| (field.name().to_owned(), field.value().to_vec()))
            .collect(),
    }
}

fn http_response(response: crate::HttpResponse) -> Result<HttpResponse, HttpError> {
    let fields = response
        .fields
        .iter()
        .map(|(name, value)| HttpField::new(name, value));
    HttpResponse::new(response.status, fields.collect::<Result<_, _>>()?)
}

/// The exit status, or why there is none: as a code, and in words for the caller.
fn exit_status(status: Status, plan: &Plan) -> Result<u8, (StopKind, String)> {
    let Plan { name, .. } = plan;
    Err(match status {
        Status::Exited(status) => return Ok(u8::try_from(status).unwrap_or(u8::MAX)),
        Status::DeadlineExceeded => (
            StopKind::Deadline,
            format!("it ran longer than the {} ms of plan {name}", plan.wall_ms),
        ),
        Status::FuelExhausted => (
            StopKind::Fuel,
            format!("it used up the {} fuel of plan {name}", plan.fuel),
        ),
        Status::MemoryExceeded => {
            let bytes = plan.memory_bytes;
            let reason = format!("it needed more than the {bytes} bytes of memory of plan {name}");
            (StopKind::Memory, reason)
        }
        Status::OutputExceeded => {
            let bytes = plan.output_bytes;
            let reason = format!("it wrote more than the {bytes} bytes of output of plan {name}");
            (StopKind::Output, reason)
        }
        Status::NoResponse => (
            StopKind::NoResponse,
            "it returned without a complete HTTP response".to_owned(),
        ),
        Status::Trapped(trap) => {
            let kind = match trap {
                TrapKind::StackOverflow => StopKind::Machine,
                _ => StopKind::Trap,
            };
            (kind, format!("it trapped: {trap}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{FunctionId, encode};
    use sha2::{Digest as _, Sha256};

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

    fn statuses() -> Vec<Status> {
        let mut statuses = vec![
            Status::DeadlineExceeded,
            Status::Exited(0),
            Status::Exited(255),
            Status::FuelExhausted,
            Status::MemoryExceeded,
            Status::NoResponse,
            Status::OutputExceeded,
        ];
        statuses.extend(TrapKind::ALL.map(Status::Trapped));
        statuses
    }

    #[test]
    fn what_is_reproducible_here_is_reproducible_there() {
        for status in statuses() {
            let completion = completion(outcome(status), &plan());
            assert_eq!(
                is_reproducible(&completion),
                status.is_reproducible(),
                "{status:?}"
            );
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
    fn limits_are_named_with_their_value() {
        for (status, expected, said) in [
            (
                Status::DeadlineExceeded,
                StopKind::Deadline,
                "the 10000 ms of plan small",
            ),
            (
                Status::FuelExhausted,
                StopKind::Fuel,
                "the 1000000 fuel of plan small",
            ),
            (
                Status::MemoryExceeded,
                StopKind::Memory,
                "the 67108864 bytes of memory of plan small",
            ),
            (
                Status::OutputExceeded,
                StopKind::Output,
                "the 1048576 bytes of output of plan small",
            ),
            (
                Status::NoResponse,
                StopKind::NoResponse,
                "without a complete HTTP response",
            ),
            (
                Status::Trapped(TrapKind::Unreachable),
                StopKind::Trap,
                "unreachable",
            ),
            (
                Status::Trapped(TrapKind::StackOverflow),
                StopKind::Machine,
                "stack overflow",
            ),
        ] {
            let Completion::Stopped {
                reason,
                stderr,
                kind,
            } = completion(outcome(status), &plan())
            else {
                panic!("{status:?} is no stop");
            };
            assert!(reason.contains(said), "{reason}");
            assert_eq!((kind, &stderr[..]), (expected, &b"err"[..]));
        }
    }

    #[test]
    fn a_response_that_no_reply_can_carry_is_none() {
        let mut outcome = outcome(Status::Exited(0));
        outcome.http = Some(crate::HttpResponse {
            status: 200,
            fields: vec![("x".to_owned(), b"y".to_vec()); 65],
        });
        let completion = completion(outcome, &plan());
        let Completion::Stopped { reason, kind, .. } = completion else {
            panic!("65 fields were sent");
        };
        assert_eq!(kind, StopKind::NoResponse);
        assert!(reason.contains("cannot be sent"), "{reason}");
    }

    /// If this fails, receipts of this version and of the one before commit to different words for the same end:
    /// change them back, or give the protocol's engine a new number, so that nobody compares the two.
    #[test]
    fn the_words_are_those_of_the_protocol() {
        let mut hash = Sha256::new();
        for status in statuses() {
            hash.update(encode(&completion(outcome(status), &plan())));
        }
        let mut unfit = outcome(Status::Exited(0));
        let fields = vec![("x".to_owned(), vec![b'y'; 16 << 10])];
        unfit.http = Some(crate::HttpResponse {
            status: 200,
            fields,
        });
        hash.update(encode(&completion(unfit, &plan())));
        hash.update(format!("{:?}", limits(&plan())));
        let digest: String = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(
            digest,
            "d39704de54ee62fb7cf68ef53332dbc2b6c8580c52fba4940a2a57a4720d8259"
        );
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
