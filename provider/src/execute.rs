//! An opened call: take its token, find its function, run it, say what came of
//! it and sign that.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_executor::{ErrorKind, ExecutorError, Function, Invocation, fingerprint, replay};
use dlambda_proto::{
    self as proto, Completion, FunctionId, FunctionSource, Plan, Receipt, Reply, Request,
    RequestDigest, Start, TokenProblem, Usage,
};
use tokio::time::timeout;

use crate::keyring::Opening;
use crate::places::{Place, Standing};
use crate::redeem::{NotNow, Turn};
use crate::service::Shared;

/// Steps of the time after which a caller that found us busy should try again, in seconds.
const RETRY_STEP: u64 = 5;

/// What a request comes down to.
struct Asked {
    function: FunctionId,
    digest: RequestDigest,
    seed: [u8; 32],
}

/// Runs an opened call, whatever comes of it.
///
/// # Cancel safety
///
/// Cancel safe: a running function is ended. A token may have been spent on
/// the request, which may then come again.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    request: Request,
    plan: &Plan,
    keys: &Opening,
    arrived: Instant,
    place: &Place,
) -> Reply {
    let mut usage = Usage::default();
    let checked = match pays(shared, &request, plan) {
        Ok(()) => check(shared, request, plan).await,
        Err(problem) => Err(Completion::Unpaid(problem)),
    };
    let (asked, request) = match checked {
        Ok(checked) => checked,
        Err(completion) => return reply(completion, usage),
    };
    let mut turn = match take_token(shared, &request, &asked, plan).await {
        Ok(turn) => turn,
        Err(completion) => return reply(completion, usage),
    };
    // Not before it is this token's turn: copies of one call must not hold a place each.
    if turn.is_some() {
        let _ = place.comes_to(Standing::Paid);
    }
    let kept = turn.as_ref().and_then(Turn::answer);
    let mut answer = if let Some(kept) = kept {
        Reply::clone(&kept)
    } else {
        let served = serve(shared, request, plan, &mut turn, arrived, &mut usage);
        let completion = served.await.unwrap_or_else(|completion| completion);
        let fresh = reply(completion, usage);
        if let Some(turn) = &mut turn {
            shared.desk.keep(turn, &fresh);
        }
        fresh
    };
    answer.receipt = asked.receipt(&answer, plan, keys);
    answer
}

impl Asked {
    fn receipt(&self, answer: &Reply, plan: &Plan, keys: &Opening) -> Option<proto::SignedReceipt> {
        let receipt = Receipt::of(
            answer,
            keys.advert.provider,
            keys.advert.epoch,
            plan.name.clone(),
            self.function,
            self.digest,
            &self.seed,
        );
        receipt.map(|receipt| receipt.sign(&keys.receipts))
    }
}

fn reply(completion: Completion, usage: Usage) -> Reply {
    Reply {
        completion,
        // Whoever calls must not see how long the calls of others take.
        usage: usage.coarse(),
        engine: fingerprint(),
        receipt: None,
    }
}

/// Refuses what is too large, and works out what the rest is.
async fn check(
    shared: &Arc<Shared>,
    request: Request,
    plan: &Plan,
) -> Result<(Asked, Request), Completion> {
    if !replay::fits(&request, plan) {
        return Err(Completion::TooLarge);
    }
    if let FunctionSource::Attached(wasm) = &request.function
        && wasm.len() as u64 > u64::from(shared.config.max_function_bytes)
    {
        return Err(Completion::TooLarge);
    }
    // Some milliseconds for a large input or function.
    blocking(move || {
        let function = match &request.function {
            FunctionSource::Known(id) => *id,
            FunctionSource::Attached(wasm) => FunctionId::of(wasm),
        };
        let asked = Asked {
            function,
            digest: request.digest(&function),
            seed: request.seed,
        };
        (asked, request)
    })
    .await
}

/// Whether the token is one of ours, on a plan that needs one. It may be spent.
fn pays(shared: &Shared, request: &Request, plan: &Plan) -> Result<(), TokenProblem> {
    if !plan.needs_token {
        return Ok(());
    }
    let token = request.token.ok_or(TokenProblem::Missing)?;
    let now = shared.clock.now();
    let issuers = shared.keyring().token_issuers(token.epoch, now);
    let issuers = issuers.ok_or(TokenProblem::Expired)?;
    let issuer = issuers.calls.get(&plan.name);
    if issuer.is_some_and(|issuer| issuer.recognises(&token)) {
        Ok(())
    } else {
        Err(TokenProblem::Invalid)
    }
}

/// A turn for the call's token, which [`pays`]. Nothing is spent yet.
async fn take_token(
    shared: &Arc<Shared>,
    request: &Request,
    asked: &Asked,
    plan: &Plan,
) -> Result<Option<Turn>, Completion> {
    let Some(token) = request.token.filter(|_| plan.needs_token) else {
        return Ok(None);
    };
    let turn = shared.desk.receive(token, asked.digest).await;
    turn.map(Some).map_err(not_now)
}

async fn serve(
    shared: &Arc<Shared>,
    request: Request,
    plan: &Plan,
    turn: &mut Option<Turn>,
    arrived: Instant,
    usage: &mut Usage,
) -> Result<Completion, Completion> {
    let (source, invocation) = replay::invocation(request);
    let prepared = timeout(
        shared.config.deadlines.prepare,
        prepare(shared, source, turn),
    );
    let prepared = prepared.await.unwrap_or_else(|_| Err(busy()));
    usage.queue_us = micros(arrived.elapsed());
    let (function, start) = prepared?;
    usage.start = start;
    Ok(execute(shared, &function, invocation, plan, usage).await)
}

/// The function, compiled: from the cache, from the store, or from the call.
/// The token is spent as soon as it is clear that there is a function, and
/// before it costs more than looking.
async fn prepare(
    shared: &Arc<Shared>,
    source: FunctionSource,
    turn: &mut Option<Turn>,
) -> Result<(Function, Start), Completion> {
    match source {
        FunctionSource::Known(id) => {
            if let Some(found) = shared.executor.find(&id).await {
                spend(shared, turn).await?;
                return Ok(found);
            }
            let store = Arc::clone(shared);
            let wasm = blocking(move || store.functions.get(&id)).await?;
            let wasm = wasm.ok_or(Completion::FunctionMissing)?;
            spend(shared, turn).await?;
            shared.executor.prepare(wasm).await.map_err(unusable)
        }
        FunctionSource::Attached(wasm) => {
            spend(shared, turn).await?;
            let wasm = Bytes::from(wasm);
            let prepared = shared.executor.prepare(wasm.clone()).await;
            let prepared = prepared.map_err(unusable)?;
            let store = Arc::clone(shared);
            blocking(move || store.functions.put(FunctionId::of(&wasm), &wasm)).await?;
            Ok(prepared)
        }
    }
}

async fn spend(shared: &Shared, turn: &mut Option<Turn>) -> Result<(), Completion> {
    match turn {
        Some(turn) => shared.desk.spend(turn).await.map_err(not_now),
        None => Ok(()),
    }
}

fn not_now(reason: NotNow) -> Completion {
    match reason {
        NotNow::Unpaid(problem) => Completion::Unpaid(problem),
        NotNow::Busy => busy(),
        NotNow::Fault => Completion::ProviderFault,
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
    let limits = replay::limits(plan);
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
    shared.work.count(&function.id(), &outcome.usage);
    let waited = called.elapsed().saturating_sub(outcome.usage.wall);
    usage.queue_us = usage.queue_us.saturating_add(micros(waited));
    usage.execute_us = micros(outcome.usage.wall);
    usage.fuel = outcome.usage.fuel;
    usage.peak_memory_bytes = outcome.usage.peak_memory;
    replay::completion(outcome, plan)
}

fn unusable(error: ExecutorError) -> Completion {
    if let Some(problem) = error.problem() {
        return Completion::FunctionUnusable(problem);
    }
    match error.kind() {
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
