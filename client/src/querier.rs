//! One call from start to end: connect, verify, seal, exchange, try again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dlambda_privacy::clock::Clock;
use dlambda_privacy::exchange::{acknowledge, exchange, receive_advert};
use dlambda_privacy::os_rng;
use dlambda_privacy::seal::SealedCall;
use dlambda_privacy::transport::Transport;
use dlambda_proto::{
    Advert, Completion, Epoch, FunctionId, FunctionSource, Plan, ProviderId, Reply, Request,
    Verified, encode,
};
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::{Answer, Call, CallError, FunctionName, Stages, Traffic};

/// Circuits that one call may try.
const MAX_ATTEMPTS: u32 = 3;

/// For the advert once a stream is open: it comes unasked, so a circuit that
/// brings none in this time is broken and another one better.
const ADVERT: Duration = Duration::from_secs(20);

/// Calls functions. Keeps nothing that two calls share but the fingerprints
/// of adverts, to notice a provider that shows different ones.
pub struct Querier {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    adverts: Mutex<HashMap<(ProviderId, Epoch), [u8; 32]>>,
    closing: TaskTracker,
}

/// How far a call has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Building a circuit, for this many attempts now.
    Connecting {
        /// 1 for the first.
        attempt: u32,
    },
    /// The stream is open; waiting for the advert.
    Verifying,
    /// The call is on its way; waiting for the reply.
    Running {
        /// Whether the function travels with the call.
        attached: bool,
    },
}

/// What one circuit brought.
struct Try {
    consistent: bool,
    seed: [u8; 32],
    reply: Reply,
    advert: Verified<Advert>,
    plan: Plan,
    function: FunctionId,
    stages: Stages,
    traffic: Traffic,
}

impl Querier {
    /// A querier on this transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            adverts: Mutex::default(),
            closing: TaskTracker::new(),
        }
    }

    /// Makes one call. Every attempt has a circuit, a key and a seed of its own.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after `max_time` it is [`CallError::Deadline`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe for the caller; the provider may or may not have run the function.
    pub async fn call(
        &self,
        call: &Call,
        max_time: Duration,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<Answer, CallError> {
        let attempts = Box::pin(self.call_until_answered(call, max_time, &mut progress));
        timeout(max_time, attempts)
            .await
            .map_err(|_| CallError::Deadline(max_time.as_secs()))?
    }

    /// Waits until the acknowledgements of calls that were answered have left,
    /// for at most ten seconds. A program that ends without waiting leaves its
    /// providers to find out by themselves that the call is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn settle(&self) {
        self.closing.close();
        let _ = timeout(Duration::from_secs(10), self.closing.wait()).await;
        self.closing.reopen();
    }

    async fn call_until_answered(
        &self,
        call: &Call,
        max_time: Duration,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Answer, CallError> {
        let started = Instant::now();
        let mut failures = 0;
        let mut attach = false;
        loop {
            let attempt = failures + 1 + u32::from(attach);
            progress(Progress::Connecting { attempt });
            match self.try_once(call, attach, max_time, progress).await {
                Ok(tried) if tried.reply.completion == Completion::FunctionMissing => {
                    match &call.function {
                        // A fresh circuit and key for the second part, too.
                        FunctionName::Wasm(_) if !attach => attach = true,
                        _ => return Err(CallError::FunctionMissing),
                    }
                }
                Ok(tried) if !tried.consistent => return Err(CallError::Equivocation),
                Ok(tried) => return tried.into_answer(attach, attempt, started.elapsed()),
                Err(error) if error.is_worth_another_circuit() && failures + 1 < MAX_ATTEMPTS => {
                    tracing::info!(attempt, "trying again on another circuit");
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn try_once(
        &self,
        call: &Call,
        attach: bool,
        deadline: Duration,
        progress: &mut (impl FnMut(Progress) + Send),
    ) -> Result<Try, CallError> {
        let mut stages = Stages::default();
        let mut since = Instant::now();
        let mut stage = || std::mem::replace(&mut since, Instant::now()).elapsed();
        let mut stream = self.transport.dial(&call.provider).await?;
        stages.connect = stage();
        progress(Progress::Verifying);
        let now = self.clock.now();
        let advert = receive_advert(&mut *stream, &call.provider, now, ADVERT).await?;
        let consistent = self.is_consistent(&advert);
        stages.advert = stage();
        let plan = choose_plan(call, &advert)?.clone();
        let (source, function) = choose_source(call, &advert, attach)?;
        let request = request(call, source);
        let (input_bytes, seed) = (request.input_len(), request.seed);
        let sealed = SealedCall::seal(&advert, &plan.name, &request, &mut os_rng())?;
        drop(request);
        progress(Progress::Running { attached: attach });
        let exchanged = exchange(&mut *stream, sealed, deadline).await?;
        stages.round_trip = stage();
        self.closing.spawn(acknowledge(stream));
        Ok(Try {
            consistent,
            seed,
            traffic: Traffic {
                input_bytes,
                output_bytes: 0,
                sent_bytes: exchanged.sent_bytes,
                received_bytes: exchanged.received_bytes,
            },
            reply: exchanged.reply,
            advert,
            plan,
            function,
            stages,
        })
    }

    /// Whether this provider has shown the same advert for this epoch before:
    /// keys of one's own are how it would recognise a caller.
    ///
    /// The answer must not change what is sent: a caller that hangs up when it
    /// sees a second advert tells the provider that it has seen a first one. So
    /// the call goes on, and its caller hears of it afterwards.
    fn is_consistent(&self, advert: &Verified<Advert>) -> bool {
        let fingerprint = Sha256::digest(encode(&**advert)).into();
        let mut adverts = self.adverts.lock().unwrap_or_else(PoisonError::into_inner);
        let known = adverts
            .entry((advert.provider, advert.epoch))
            .or_insert(fingerprint);
        *known == fingerprint
    }
}

impl Try {
    fn into_answer(
        self,
        attached: bool,
        attempts: u32,
        total: Duration,
    ) -> Result<Answer, CallError> {
        let (stdout, stderr, http) = match self.reply.completion {
            Completion::Exited {
                status: 0,
                stdout,
                stderr,
                http,
            } => (stdout, stderr, http),
            Completion::Exited {
                status,
                stdout,
                stderr,
                http: _,
            } => {
                return Err(CallError::FunctionFailed {
                    status,
                    stdout,
                    stderr,
                });
            }
            Completion::Stopped { reason, stderr } => {
                let reason = printable(&reason);
                return Err(CallError::FunctionStopped { reason, stderr });
            }
            Completion::FunctionMissing => return Err(CallError::FunctionMissing),
            Completion::FunctionUnusable { reason } => {
                return Err(CallError::FunctionUnusable(printable(&reason)));
            }
            Completion::TooLarge => return Err(CallError::TooLarge),
            Completion::ProviderFault => return Err(CallError::ProviderFault),
            Completion::Busy { retry_seconds } => return Err(CallError::Busy(retry_seconds)),
            _ => return Err(CallError::UnknownAnswer),
        };
        Ok(Answer {
            seed: self.seed,
            traffic: Traffic {
                output_bytes: stdout.len() as u64,
                ..self.traffic
            },
            stages: Stages {
                total,
                ..self.stages
            },
            stdout,
            stderr,
            http,
            function: self.function,
            provider: self.advert.provider,
            epoch: self.advert.epoch,
            plan: self.plan.name,
            usage: self.reply.usage,
            engine: self.reply.engine,
            attempts,
            attached,
        })
    }
}

fn choose_plan<'a>(call: &Call, advert: &'a Advert) -> Result<&'a Plan, CallError> {
    advert
        .plan(call.plan.as_ref())
        .ok_or_else(|| CallError::UnknownPlan {
            known: advert.plans.iter().map(|p| p.name.to_string()).collect(),
        })
}

fn choose_source(
    call: &Call,
    advert: &Advert,
    attach: bool,
) -> Result<(FunctionSource, FunctionId), CallError> {
    let id = match &call.function {
        FunctionName::Alias(alias) => {
            let unknown = || CallError::UnknownAlias {
                known: advert.functions.iter().map(|f| f.alias.clone()).collect(),
            };
            advert.function_by_alias(alias).ok_or_else(unknown)?.id
        }
        FunctionName::Id(id) => *id,
        FunctionName::Wasm(wasm) => {
            let id = FunctionId::of(wasm);
            if attach {
                if wasm.len() > advert.max_function_bytes as usize {
                    return Err(CallError::TooLarge);
                }
                return Ok((FunctionSource::Attached(wasm.to_vec()), id));
            }
            id
        }
    };
    Ok((FunctionSource::Known(id), id))
}

fn request(call: &Call, function: FunctionSource) -> Request {
    let mut seed = [0; 32];
    os_rng().fill_bytes(&mut seed);
    Request {
        function,
        args: call.args.clone(),
        input: call.input.clone(),
        seed,
        http: call.http.clone(),
    }
}

/// A stranger's words, safe to show: a provider must not get to write escape
/// sequences to our caller's terminal, or pages of text.
fn printable(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(300).collect()
}

impl fmt::Debug for Querier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Querier")
    }
}
