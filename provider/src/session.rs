//! One session: one stream, one call, one reply.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_executor::{ErrorKind, ExecutorError, Function, Invocation, Limits, Start, Status};
use dlambda_privacy::seal::OpenedCall;
use dlambda_privacy::transport::Incoming;
use dlambda_privacy::wire::{Reservation, read_frame, write_frame};
use dlambda_privacy::{SealError, WireError, os_rng, padding};
use dlambda_proto::{
    CallEnvelope, Completion, Frame, FrameError, FrameKind, FunctionId, FunctionSource, Plan,
    Refusal, Reply, Request, Usage, decode, encode,
};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::observe::{SessionRecord, Tee};
use crate::service::Shared;
use crate::status::Ending;

/// Standard error that is kept and sent back, in bytes.
const STDERR_BYTES: usize = 16 << 10;

/// Seconds after which a caller that found us busy should try again.
const RETRY_SECONDS: u32 = 5;

/// Serves one stream to its end.
///
/// # Cancel safety
///
/// Cancel safe: a running function is ended, the stream closed.
pub(crate) async fn serve(shared: &Arc<Shared>, incoming: Incoming) {
    let observer = shared.observer();
    let mut tee = Tee {
        stream: incoming.stream,
        record: observer
            .is_some()
            .then(|| SessionRecord::new(incoming.circuit)),
    };
    let ending = converse(shared, &mut tee).await;
    shared.counters.count(ending);
    if let (Some(observer), Some(mut record)) = (observer, tee.record) {
        record.ended = std::time::SystemTime::now();
        observer.session_ended(record);
    }
}

/// The whole conversation. What the caller did wrong is answered with a
/// refusal where that makes sense; a caller that vanished is let go.
async fn converse(shared: &Arc<Shared>, tee: &mut Tee) -> Ending {
    let deadlines = &shared.config.deadlines;
    let advert = shared.keyring().advert();
    if write_frame(tee, &advert, deadlines.advert).await.is_err() {
        return Ending::Vanished;
    }
    let budget = &shared.receive_budget;
    let call = read_frame(tee, &[FrameKind::Call], deadlines.call, budget);
    let received = tokio::select! {
        received = call => received,
        // Only calls that are here already are finished when we stop.
        () = shared.stop.cancelled() => return Ending::Vanished,
    };
    let (frame, _reservation) = match received {
        Ok(received) => received,
        Err(WireError::Lost(_)) => return Ending::Vanished,
        Err(error) => return refuse(shared, tee, refusal_for(&error)).await,
    };
    let _running = shared.counters.start_call();
    let arrived = Instant::now();
    let (opened, plan) = match open(shared, frame).await {
        Ok(opened) => opened,
        Err(refusal) => return refuse(shared, tee, refusal).await,
    };
    if let Some(record) = &mut tee.record {
        record.reply_secret = Some(opened.call.replier.dangerously_reveal());
        record.encapsulated_key = Some(opened.encapsulated_key);
        record.request = Some(encode(&opened.call.request));
    }
    let OpenedCall { request, replier } = opened.call;
    let mut answer = tokio::select! {
        reply = run(shared, request, &plan, arrived) => reply,
        () = hang_up(tee) => return Ending::Vanished,
    };
    // Many callers who take their time to take large replies must not fill
    // our memory: what is over the budget becomes a short "busy".
    let _sending = reserve_reply(shared, &mut answer);
    if let Some(record) = &mut tee.record {
        record.reply = Some(encode(&answer));
    }
    let ending = Ending::of(&answer);
    let sealing = tokio::task::spawn_blocking(move || {
        let body = replier.seal(&answer, &mut os_rng()).ok()?;
        Frame::new(FrameKind::Reply, body).ok()
    });
    let Ok(Some(frame)) = sealing.await else {
        return Ending::Fault;
    };
    if write_frame(tee, &frame, deadlines.reply).await.is_err() {
        return Ending::Vanished;
    }
    // The acknowledgement closes the call; without one, time does.
    let _ = read_frame(tee, &[FrameKind::Ack], deadlines.ack, budget).await;
    ending
}

fn reserve_reply(shared: &Shared, answer: &mut Reply) -> Option<Reservation> {
    let weight = match &answer.completion {
        Completion::Exited { stdout, stderr, .. } => stdout.len() + stderr.len() + 1024,
        _ => return None,
    };
    // The answer and its sealed copy, as large as its bucket.
    let needed = weight + padding::bucket(weight).unwrap_or(weight);
    let reserved = shared.send_budget.reserve(needed);
    if reserved.is_none() {
        answer.completion = busy();
    }
    reserved
}

struct Opened {
    call: OpenedCall,
    encapsulated_key: [u8; 32],
}

/// Opens a call on a blocking thread: a large one takes a while.
async fn open(shared: &Arc<Shared>, frame: Frame) -> Result<(Opened, Plan), Refusal> {
    let shared = Arc::clone(shared);
    let opening = tokio::task::spawn_blocking(move || open_blocking(&shared, frame));
    opening.await.unwrap_or(Err(Refusal::Busy))
}

fn open_blocking(shared: &Shared, frame: Frame) -> Result<(Opened, Plan), Refusal> {
    let envelope: CallEnvelope = decode(&frame.into_body()).map_err(|_| Refusal::Malformed)?;
    let plan = shared.keyring().plan(&envelope).cloned();
    let plan = plan.ok_or(Refusal::UnknownPlan)?;
    let now = shared.clock.now();
    let secret = shared.keyring().secret(envelope.header.epoch, now)?;
    let call = secret.open(&envelope).map_err(|error| match error {
        SealError::Open | SealError::BadKey => Refusal::CannotOpen,
        _ => Refusal::Malformed,
    })?;
    shared.keyring().remember(&envelope)?;
    let encapsulated_key = envelope.encapsulated_key;
    Ok((
        Opened {
            call,
            encapsulated_key,
        },
        plan,
    ))
}

fn refusal_for(error: &WireError) -> Refusal {
    match error {
        WireError::Frame(FrameError::Version { .. }) => Refusal::UnsupportedVersion,
        WireError::Frame(FrameError::TooLong { .. }) => Refusal::TooLong,
        WireError::Deadline => Refusal::TooSlow,
        WireError::NoBudget => Refusal::Busy,
        _ => Refusal::Malformed,
    }
}

/// Tells the caller why, and lets go.
async fn refuse(shared: &Shared, tee: &mut Tee, refusal: Refusal) -> Ending {
    tracing::debug!(?refusal, "call refused");
    if let Ok(frame) = Frame::new(FrameKind::Refusal, encode(&refusal)) {
        let _ = write_frame(tee, &frame, shared.config.deadlines.ack).await;
        linger(tee).await;
    }
    Ending::Refused
}

/// Closing at once while the caller still sends would destroy the refusal on
/// its way; so a bounded rest is read and thrown away.
async fn linger(tee: &mut Tee) {
    let mut sink = [0; 4096];
    let drain = async {
        for _ in 0..256 {
            if !matches!(tee.read(&mut sink).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), drain).await;
}

/// Returns when the caller closes the stream, or sends what it has no business
/// sending while its function runs.
async fn hang_up(tee: &mut Tee) {
    let _ = tee.read_u8().await;
}

/// Runs an opened call, whatever comes of it.
async fn run(shared: &Arc<Shared>, request: Request, plan: &Plan, arrived: Instant) -> Reply {
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
    Reply { completion, usage }
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
    usage.cold = start == Start::Cold;
    let invocation = Invocation {
        args: request.args,
        input: request.input.into(),
        seed: request.seed,
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
            if let Some(function) = shared.executor.prepared(id.digest()) {
                return Ok((function, Start::Warm));
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
    };
    let called = Instant::now();
    // The function's own time is bounded by its plan; the wait for a turn by us.
    let longest = shared.config.deadlines.prepare + limits.wall_time;
    let running = shared.executor.run(function, invocation, &limits);
    let outcome = match timeout(longest, running).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => return unusable(error),
        Err(_) => return busy(),
    };
    let waited = called.elapsed().saturating_sub(outcome.usage.wall);
    usage.queue_us = usage.queue_us.saturating_add(micros(waited));
    usage.execute_us = micros(outcome.usage.wall);
    usage.fuel = outcome.usage.fuel;
    usage.peak_memory_bytes = outcome.usage.peak_memory;
    let stderr = outcome.stderr.to_vec();
    match outcome.status {
        Status::Exited(status) => Completion::Exited {
            status: u8::try_from(status).unwrap_or(u8::MAX),
            stdout: outcome.stdout.to_vec(),
            stderr,
        },
        status => Completion::Stopped {
            reason: stop_reason(status, plan),
            stderr,
        },
    }
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
        Status::Trapped(trap) => format!("it trapped: {trap}"),
        _ => "it was ended".to_owned(),
    }
}

fn unusable(error: ExecutorError) -> Completion {
    match error.kind() {
        ErrorKind::BadFunction => Completion::FunctionUnusable {
            reason: error.to_string(),
        },
        ErrorKind::Overloaded => busy(),
        _ => {
            tracing::error!(%error, "the executor failed");
            Completion::ProviderFault
        }
    }
}

fn busy() -> Completion {
    Completion::Busy {
        retry_seconds: RETRY_SECONDS,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
