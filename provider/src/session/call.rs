//! A call: opened, its token verified and spent, its function found and run, and the outcome
//! made into a signed reply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_crypto::SealError;
use dlambda_crypto::seal::OpenedCall;
use dlambda_executor::{
    CallQueue, ErrorKind, Executor, ExecutorError, Function, Invocation, fingerprint, replay,
};
use dlambda_proto::{
    self as proto, CallEnvelope, Completion, Frame, FunctionId, FunctionSource, Plan, PlanName,
    Receipt, Refusal, Reply, Request, RequestDigest, Start, Usage, decode,
};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::epoch::Epochs;
use crate::epoch::keys::EpochKeysRef;
use crate::session::admission::{StreamPermit, StreamState};
use crate::session::redemption::{self, RedeemError, Redeemer, Redemption};
use crate::state::demand::DemandCounts;
use crate::state::functions::FunctionStore;
use crate::status::UsageCounters;

/// Steps of the time after which a caller that found us busy should try again, in seconds.
const RETRY_STEP: u64 = 5;

/// Serves calls that are here whole.
pub(crate) struct CallHandler {
    pub(crate) executor: Executor,
    /// By plan.
    pub(crate) queues: Arc<HashMap<PlanName, CallQueue>>,
    pub(crate) functions: Arc<FunctionStore>,
    pub(crate) redeemer: Redeemer,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) usage: Arc<UsageCounters>,
    pub(crate) demand: Arc<DemandCounts>,
    /// Largest function that a call may bring, in bytes.
    pub(crate) max_function_bytes: u32,
    /// For a function to be compiled and given a turn.
    pub(crate) prepare_within: Duration,
}

/// A call that was opened.
pub(crate) struct Opened {
    pub(crate) call: OpenedCall,
    pub(crate) encapsulated_key: [u8; 32],
    pub(crate) plan: Plan,
    pub(crate) keys: EpochKeysRef,
}

/// What a receipt says of a request.
struct RequestFacts {
    function: FunctionId,
    digest: RequestDigest,
    seed: [u8; 32],
}

impl CallHandler {
    /// Opens a call on a blocking thread: a large one takes a while.
    ///
    /// # Errors
    ///
    /// The refusal to send instead of a reply.
    pub(crate) async fn open(&self, frame: Frame) -> Result<Opened, Refusal> {
        let epochs = Arc::clone(&self.epochs);
        let opening = spawn_blocking(move || open(&epochs, frame));
        opening.await.unwrap_or(Err(Refusal::Busy))
    }

    /// Runs an opened call, whatever its outcome.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a running function is ended. A token may have been spent on
    /// the request, which may then come again.
    pub(crate) async fn run(
        &self,
        request: Request,
        plan: &Plan,
        keys: &EpochKeysRef,
        arrived: Instant,
        permit: &StreamPermit,
    ) -> Reply {
        let mut usage = Usage::default();
        let token = match redemption::verify(&self.epochs, plan, request.token) {
            Ok(token) => token,
            Err(problem) => return reply(Completion::Unpaid(problem), usage),
        };
        let (facts, request) = match self.check(request, plan).await {
            Ok(checked) => checked,
            Err(completion) => return reply(completion, usage),
        };
        let mut redemption = None;
        if let Some(token) = token {
            redemption = match self.redeemer.receive(token, facts.digest).await {
                Ok(redemption) => Some(redemption),
                Err(error) => return reply(unredeemed(error), usage),
            };
            // Not before other copies of the call have ended: they must not hold a permit each.
            let _ = permit.enter(StreamState::Paid);
        }
        let cached = redemption.as_ref().and_then(Redemption::cached_reply);
        let mut answer = if let Some(cached) = cached {
            Reply::clone(&cached)
        } else {
            let served = self.serve(request, plan, &mut redemption, arrived, &mut usage);
            let completion = served.await.unwrap_or_else(|completion| completion);
            let fresh = reply(completion, usage);
            if let Some(redemption) = &mut redemption {
                redemption.cache(&fresh);
            }
            fresh
        };
        answer.receipt = facts.receipt(&answer, plan, keys);
        answer
    }

    /// Refuses what is too large, and works out what a receipt says of the rest.
    async fn check(
        &self,
        request: Request,
        plan: &Plan,
    ) -> Result<(RequestFacts, Request), Completion> {
        if !replay::fits(&request, plan) {
            return Err(Completion::TooLarge);
        }
        if let FunctionSource::Attached(wasm) = &request.function
            && wasm.len() as u64 > u64::from(self.max_function_bytes)
        {
            return Err(Completion::TooLarge);
        }
        // Some milliseconds for a large input or function.
        blocking(move || {
            let function = match &request.function {
                FunctionSource::Known(id) => *id,
                FunctionSource::Attached(wasm) => FunctionId::of(wasm),
            };
            let facts = RequestFacts {
                function,
                digest: request.digest(&function),
                seed: request.seed,
            };
            (facts, request)
        })
        .await
    }

    async fn serve(
        &self,
        request: Request,
        plan: &Plan,
        redemption: &mut Option<Redemption>,
        arrived: Instant,
        usage: &mut Usage,
    ) -> Result<Completion, Completion> {
        let (source, invocation) = replay::invocation(request);
        let prepared = timeout(self.prepare_within, self.prepare(source, redemption));
        let prepared = prepared.await.unwrap_or_else(|_| Err(busy()));
        usage.queue_us = micros(arrived.elapsed());
        let (function, start) = prepared?;
        usage.start = start;
        Ok(self.execute(&function, invocation, plan, usage).await)
    }

    /// The function, compiled: from the cache, from the store, or from the call.
    /// The token is spent as soon as it is clear that there is a function, and
    /// before it costs more than looking.
    async fn prepare(
        &self,
        source: FunctionSource,
        redemption: &mut Option<Redemption>,
    ) -> Result<(Function, Start), Completion> {
        match source {
            FunctionSource::Known(id) => {
                if let Some(found) = self.executor.find(&id).await {
                    spend(redemption).await?;
                    return Ok(found);
                }
                let functions = Arc::clone(&self.functions);
                let wasm = blocking(move || functions.get(&id)).await?;
                let wasm = wasm.ok_or(Completion::FunctionMissing)?;
                spend(redemption).await?;
                self.executor.prepare(wasm).await.map_err(unusable)
            }
            FunctionSource::Attached(wasm) => {
                spend(redemption).await?;
                let wasm = Bytes::from(wasm);
                let prepared = self.executor.prepare(wasm.clone()).await;
                let prepared = prepared.map_err(unusable)?;
                let functions = Arc::clone(&self.functions);
                blocking(move || functions.put(FunctionId::of(&wasm), &wasm)).await?;
                Ok(prepared)
            }
        }
    }

    async fn execute(
        &self,
        function: &Function,
        invocation: Invocation,
        plan: &Plan,
        usage: &mut Usage,
    ) -> Completion {
        let limits = replay::limits(plan);
        usage.deterministic = plan.deterministic;
        let called = Instant::now();
        let Some(queue) = self.queues.get(&plan.name) else {
            return Completion::ProviderFault;
        };
        let running = self.executor.run_in(queue, function, invocation, &limits);
        let outcome = match running.await {
            Ok(outcome) => outcome,
            Err(error) => return unusable(error),
        };
        self.usage.count(&function.id(), &outcome.usage);
        self.demand.count(&function.id(), self.epochs.now());
        let waited = called.elapsed().saturating_sub(outcome.usage.wall);
        usage.queue_us = usage.queue_us.saturating_add(micros(waited));
        usage.execute_us = micros(outcome.usage.wall);
        usage.fuel = outcome.usage.fuel;
        usage.peak_memory_bytes = outcome.usage.peak_memory;
        replay::completion(outcome, plan)
    }
}

impl RequestFacts {
    fn receipt(
        &self,
        answer: &Reply,
        plan: &Plan,
        keys: &EpochKeysRef,
    ) -> Option<proto::SignedReceipt> {
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

/// Blocks, on the processor.
fn open(epochs: &Epochs, frame: Frame) -> Result<Opened, Refusal> {
    let envelope: CallEnvelope = decode(&frame.into_body()).map_err(|_| Refusal::Malformed)?;
    let plan = epochs.plan(&envelope).ok_or(Refusal::UnknownPlan)?;
    let keys = epochs.keys(envelope.header.epoch)?;
    let call = keys.secret.open(&envelope).map_err(|error| match error {
        SealError::Open | SealError::BadKey => Refusal::CannotOpen,
        _ => Refusal::Malformed,
    })?;
    // A call with a token is known by its token.
    if !plan.needs_token {
        epochs.remember(envelope.header.epoch, &envelope.encapsulated_key)?;
    }
    Ok(Opened {
        call,
        encapsulated_key: envelope.encapsulated_key,
        plan,
        keys,
    })
}

fn reply(completion: Completion, usage: Usage) -> Reply {
    Reply {
        completion,
        // A caller must not see how long the calls of others take.
        usage: usage.coarse(),
        engine: fingerprint(),
        receipt: None,
    }
}

async fn spend(redemption: &mut Option<Redemption>) -> Result<(), Completion> {
    match redemption {
        Some(redemption) => redemption.spend().await.map_err(unredeemed),
        None => Ok(()),
    }
}

fn unredeemed(error: RedeemError) -> Completion {
    match error {
        RedeemError::Unpaid(problem) => Completion::Unpaid(problem),
        RedeemError::Busy => busy(),
        RedeemError::Fault => Completion::ProviderFault,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Completion> {
    spawn_blocking(work)
        .await
        .map_err(|_| Completion::ProviderFault)
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

/// Rounded up to a step, so that the reply tells little about other callers.
fn busy_for(wait: Duration) -> Completion {
    let steps = wait.as_secs().div_ceil(RETRY_STEP).clamp(1, 60);
    Completion::Busy {
        retry_seconds: u32::try_from(steps * RETRY_STEP).unwrap_or(u32::MAX),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
