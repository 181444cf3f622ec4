//! An opened call: find its function, run it, say what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_executor::{
    ErrorKind, ExecutorError, Function, HttpRequest, Invocation, Limits, Outcome, Start, Status,
    fingerprint,
};
use dlambda_proto::{
    self as proto, Completion, FunctionId, FunctionSource, HttpError, HttpField, HttpResponse,
    Plan, Reply, Request, Usage,
};
use tokio::time::timeout;

use crate::service::Shared;

/// Standard error that is kept and sent back, in bytes.
const STDERR_BYTES: usize = 16 << 10;
/// Steps of the time after which a caller that found us busy should try again, in seconds.
const RETRY_STEP: u64 = 5;

/// Runs an opened call, whatever comes of it.
///
/// # Cancel safety
///
/// Cancel safe: a running function is ended.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    request: Request,
    plan: &Plan,
    arrived: Instant,
) -> Reply {
    let mut usage = Usage::default();
    let completion = match prepare(shared, request, plan, &mut usage).await {
        Ok((function, invocation)) => {
            usage.queue_us = micros(arrived.elapsed());
            execute(shared, &function, invocation, plan, &mut usage).await
        }
        Err(completion) => {
            usage.queue_us = micros(arrived.elapsed());
            completion
        }
    };
    Reply {
        completion,
        usage,
        engine: fingerprint(),
    }
}

async fn prepare(
    shared: &Arc<Shared>,
    request: Request,
    plan: &Plan,
    usage: &mut Usage,
) -> Result<(Function, Invocation), Completion> {
    if request.input_len() > u64::from(plan.input_bytes) || request.args.len() > Request::MAX_ARGS {
        return Err(Completion::TooLarge);
    }
    let found = timeout(
        shared.config.deadlines.prepare,
        find(shared, request.function),
    );
    let (function, start) = found.await.map_err(|_| busy())??;
    usage.start = match start {
        Start::Compiled => proto::Start::Compiled,
        Start::Cached => proto::Start::Cached,
        _ => proto::Start::Warm,
    };
    let invocation = Invocation {
        args: request.args,
        input: request.input.into(),
        seed: request.seed,
        http: request.http.map(|http| HttpRequest {
            method: http.method().to_owned(),
            path: http.path().to_owned(),
            fields: http
                .fields()
                .iter()
                .map(|field| (field.name().to_owned(), field.value().to_vec()))
                .collect(),
        }),
    };
    Ok((function, invocation))
}

/// The function, compiled: from the cache, from the store, or from the call.
async fn find(
    shared: &Arc<Shared>,
    source: FunctionSource,
) -> Result<(Function, Start), Completion> {
    match source {
        FunctionSource::Known(id) => {
            if let Some(found) = shared.executor.find(id.digest()).await {
                return Ok(found);
            }
            let store = Arc::clone(shared);
            let wasm = blocking(move || store.functions.get(&id)).await?;
            let wasm = wasm.ok_or(Completion::FunctionMissing)?;
            shared.executor.prepare(wasm).await.map_err(unusable)
        }
        FunctionSource::Attached(wasm) => {
            if wasm.len() as u64 > u64::from(shared.config.max_function_bytes) {
                return Err(Completion::TooLarge);
            }
            let wasm = Bytes::from(wasm);
            let prepared = shared.executor.prepare(wasm.clone()).await;
            let prepared = prepared.map_err(unusable)?;
            let store = Arc::clone(shared);
            blocking(move || store.functions.put(FunctionId::of(&wasm), &wasm)).await?;
            Ok(prepared)
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Completion> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| Completion::ProviderFault)
}

async fn execute(
    shared: &Arc<Shared>,
    function: &Function,
    invocation: Invocation,
    plan: &Plan,
    usage: &mut Usage,
) -> Completion {
    let limits = Limits {
        memory_bytes: plan.memory_bytes,
        fuel: plan.fuel,
        wall_time: Duration::from_millis(plan.wall_ms.into()),
        output_bytes: plan.output_bytes as usize,
        stderr_bytes: STDERR_BYTES,
        deterministic: plan.deterministic,
    };
    usage.deterministic = plan.deterministic;
    let called = Instant::now();
    let Some(lane) = shared.lanes.get(&plan.name) else {
        return Completion::ProviderFault;
    };
    let executor = &shared.executor;
    let outcome = match executor.run_in(lane, function, invocation, &limits).await {
        Ok(outcome) => outcome,
        Err(error) => return unusable(error),
    };
    shared.work.count(&function.digest(), &outcome.usage);
    let waited = called.elapsed().saturating_sub(outcome.usage.wall);
    usage.queue_us = usage.queue_us.saturating_add(micros(waited));
    usage.execute_us = micros(outcome.usage.wall);
    usage.fuel = outcome.usage.fuel;
    usage.peak_memory_bytes = outcome.usage.peak_memory;
    completion(outcome, plan)
}

fn completion(outcome: Outcome, plan: &Plan) -> Completion {
    let stderr = outcome.stderr.to_vec();
    let http = match outcome.http.map(http_response).transpose() {
        Ok(http) => http,
        Err(error) => {
            return Completion::Stopped {
                reason: format!("its response has a head that cannot be sent: {error}"),
                stderr,
            };
        }
    };
    match outcome.status {
        Status::Exited(status) => Completion::Exited {
            status: u8::try_from(status).unwrap_or(u8::MAX),
            stdout: outcome.stdout.to_vec(),
            stderr,
            http,
        },
        status => Completion::Stopped {
            reason: stop_reason(status, plan),
            stderr,
        },
    }
}

fn http_response(response: dlambda_executor::HttpResponse) -> Result<HttpResponse, HttpError> {
    let fields = response
        .fields
        .iter()
        .map(|(name, value)| HttpField::new(name, value));
    HttpResponse::new(response.status, fields.collect::<Result<_, _>>()?)
}

/// Why a function was ended, for its caller.
fn stop_reason(status: Status, plan: &Plan) -> String {
    let Plan { name, .. } = plan;
    match status {
        Status::DeadlineExceeded => {
            format!("it ran longer than the {} ms of plan {name}", plan.wall_ms)
        }
        Status::FuelExhausted => format!("it used up the {} fuel of plan {name}", plan.fuel),
        Status::MemoryExceeded => {
            format!(
                "it needed more than the {} bytes of memory of plan {name}",
                plan.memory_bytes
            )
        }
        Status::OutputExceeded => {
            format!(
                "it wrote more than the {} bytes of output of plan {name}",
                plan.output_bytes
            )
        }
        Status::NoResponse => "it returned without a complete HTTP response".to_owned(),
        Status::Trapped(trap) => format!("it trapped: {trap}"),
        _ => "it was ended".to_owned(),
    }
}

fn unusable(error: ExecutorError) -> Completion {
    match error.kind() {
        ErrorKind::BadFunction | ErrorKind::BadInvocation => Completion::FunctionUnusable {
            reason: error.to_string(),
        },
        ErrorKind::Overloaded => match error {
            ExecutorError::Overloaded { retry_after } => busy_for(retry_after),
            _ => busy(),
        },
        _ => {
            tracing::error!(%error, "the executor failed");
            Completion::ProviderFault
        }
    }
}

pub(crate) fn busy() -> Completion {
    busy_for(Duration::ZERO)
}

/// Rounded up to a step, so that the answer tells little of who else is here.
fn busy_for(wait: Duration) -> Completion {
    let steps = wait.as_secs().div_ceil(RETRY_STEP).clamp(1, 60);
    Completion::Busy {
        retry_seconds: u32::try_from(steps * RETRY_STEP).unwrap_or(u32::MAX),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
