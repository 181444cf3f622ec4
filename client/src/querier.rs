//! One call from start to end: connect, verify, seal, exchange, try again.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::exchange::{Welcome, acknowledge, exchange, receive_greeting};
use dlambda_privacy::transport::{BoxStream, Transport};
use dlambda_privacy::{TransportError, os_rng};
use dlambda_proto::{
    Advert, Completion, EquivocationProof, FunctionId, FunctionSource, Plan, PlanName, Receipt,
    ReceiptError, ReceiptEvidence, Reply, Request, RequestDigest, Sighting, SignedAdvert,
};
use futures::future::BoxFuture;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;

use crate::consistency::{MAX_EARLY_ENDS, Seen};
use crate::patience::Patience;
use crate::payment::{Payment, is_over};
use crate::wallet::{HeldToken, Wallet};
use crate::{Answer, Call, CallError, Ended, FunctionName, Stages, Traffic};

/// Circuits that one call may try.
const MAX_ATTEMPTS: u32 = 3;

/// For the advert once a stream is open: it comes unasked, so a circuit that
/// brings none in this time is broken and another one better.
const ADVERT: Duration = Duration::from_secs(20);

/// Calls functions. Keeps nothing that two calls share but the adverts that it
/// has seen, to notice a provider that shows different ones.
pub struct Querier {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    seen: Seen,
    max_early_ends: usize,
    closing: TaskTracker,
    wallet: Option<Wallet>,
}

/// Hears how far a call has come.
type Watch<'a> = dyn FnMut(Progress) + Send + 'a;

/// A call that was answered, and whose provider does not know that yet.
#[must_use = "a call that is not concluded keeps its token"]
pub struct Unconcluded {
    payment: Payment,
    is_over: bool,
    stream: BoxStream,
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

impl Querier {
    /// A querier on this transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            seen: Seen::default(),
            max_early_ends: MAX_EARLY_ENDS,
            closing: TaskTracker::new(),
            wallet: None,
        }
    }

    /// With a wallet, from which calls are paid and into which contracts go.
    #[must_use]
    pub fn with_wallet(self, wallet: Wallet) -> Self {
        Self {
            wallet: Some(wallet),
            ..self
        }
    }

    /// With another bound for the epochs that a provider may have ended early
    /// before this querier buys nothing and spends no token there; 1 unless set.
    /// The more it is, the smaller the crowd may be that a call hides in.
    #[must_use]
    pub fn dangerously_allowing_early_ends(self, most: usize) -> Self {
        Self {
            max_early_ends: most,
            ..self
        }
    }

    /// The wallet.
    #[must_use]
    pub fn wallet(&self) -> Option<&Wallet> {
        self.wallet.as_ref()
    }

    /// Makes one call, and expects its function to succeed. Every attempt has a
    /// circuit and a key of its own.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after `max_time` it is [`CallError::Deadline`]: up to [`WIRE_STEP`](crate::WIRE_STEP) later if a
    /// stream is open, for the provider would see the time in which it is given up. An answer that comes by then counts.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe for the caller; the provider may or may not have run the
    /// function, and a token that was sent is kept for the same call.
    pub async fn call(
        &self,
        call: &Call,
        max_time: Duration,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Answer, CallError> {
        Box::pin(self.perform(call, max_time, progress))
            .await?
            .into_answer()
    }

    /// Makes one call, and returns whatever it came to, with the provider's
    /// proof. The token is struck out by then: [`Querier::perform_held`] is for
    /// those who must not lose the answer when they crash.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no reply, or one that must not be believed.
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::call`].
    pub async fn perform(
        &self,
        call: &Call,
        max_time: Duration,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Ended, CallError> {
        let (ended, held) = self.perform_held(call, max_time, progress).await?;
        self.conclude(held).await;
        Ok(ended)
    }

    /// The same, without concluding the call: until [`Querier::conclude`], whoever
    /// makes it again, also after a crash, gets the same answer for the same token.
    ///
    /// # Errors
    ///
    /// Those of [`Querier::perform`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::call`].
    pub async fn perform_held(
        &self,
        call: &Call,
        max_time: Duration,
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(Ended, Unconcluded), CallError> {
        let patience = Patience::new(max_time);
        let mut payment = Payment::new(self.wallet.as_ref(), call, self.clock.now());
        let attempts = self.attempts_boxed(call, patience, &mut payment, &mut progress);
        match attempts.await {
            Ok((ended, stream)) => {
                let is_over = is_over(&ended.reply.completion);
                let held = Unconcluded {
                    payment,
                    is_over,
                    stream,
                };
                Ok((ended, held))
            }
            Err(error) => {
                match &error {
                    // Another call must not be made with its token.
                    CallError::Receipt(_) => payment.end(false).await,
                    _ => payment.give_up().await,
                }
                Err(error)
            }
        }
    }

    /// Strikes out the token, and then tells the provider that the answer is
    /// here: to be done once nobody can lose it any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the call is then concluded, or can be made again.
    pub async fn conclude(&self, held: Unconcluded) {
        let Unconcluded {
            payment,
            is_over,
            stream,
        } = held;
        payment.end(is_over).await;
        self.closing.spawn(acknowledge(stream));
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

    /// Boxed, so that it is compiled here, and not again in every crate that calls.
    fn attempts_boxed<'a>(
        &'a self,
        call: &'a Call,
        patience: Patience,
        payment: &'a mut Payment,
        progress: &'a mut Watch<'_>,
    ) -> BoxFuture<'a, Result<(Ended, BoxStream), CallError>> {
        Box::pin(self.attempts(call, patience, payment, progress))
    }

    async fn attempts(
        &self,
        call: &Call,
        patience: Patience,
        payment: &mut Payment,
        progress: &mut Watch<'_>,
    ) -> Result<(Ended, BoxStream), CallError> {
        let started = Instant::now();
        let mut failures = 0;
        let mut attach = false;
        // What an alias stands for is settled once: all attempts are one request.
        let mut resolved = None;
        loop {
            let attempt = failures + 1 + u32::from(attach);
            progress(Progress::Connecting { attempt });
            let tried = self.attempt(call, attach, patience, payment, &mut resolved, progress);
            match tried.await {
                Ok((ended, stream)) => {
                    let is_missing = ended.reply.completion == Completion::FunctionMissing;
                    match &call.function {
                        // A fresh circuit and key for the second part, too.
                        FunctionName::Wasm(_) if is_missing && !attach => {
                            self.closing.spawn(acknowledge(stream));
                            attach = true;
                        }
                        _ => return Ok((ended.after(attempt, started.elapsed()), stream)),
                    }
                }
                Err(error) if error.is_worth_another_circuit() && failures + 1 < MAX_ATTEMPTS => {
                    if error.is_refusal() {
                        patience.pause().await;
                    }
                    if patience.is_over() {
                        return Err(CallError::Deadline(patience.seconds()));
                    }
                    if !payment.may_be_sent_again(self.clock.now()) {
                        return Err(error);
                    }
                    tracing::info!(attempt, "trying again on another circuit");
                    failures += 1;
                }
                Err(error) if error.is_worth_another_circuit() && patience.is_over() => {
                    return Err(CallError::Deadline(patience.seconds()));
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn attempt(
        &self,
        call: &Call,
        attach: bool,
        patience: Patience,
        payment: &mut Payment,
        resolved: &mut Option<FunctionId>,
        progress: &mut Watch<'_>,
    ) -> Result<(Ended, BoxStream), CallError> {
        let mut stages = Stages::default();
        let mut since = Instant::now();
        let mut stage = || std::mem::replace(&mut since, Instant::now()).elapsed();
        let dialling = self.transport.dial(&call.provider);
        let opening = async { tokio::join!(dialling, payment.prepare()) };
        let Some((dialled, prepared)) = patience.before_opening(opening).await else {
            return Err(CallError::Deadline(patience.seconds()));
        };
        let mut stream = dialled?;
        let wire = patience.on_the_wire();
        prepared?;
        stages.connect = stage();
        progress(Progress::Verifying);
        let now = self.clock.now();
        let welcome = receive_greeting(&mut *stream, &call.provider, now, ADVERT).await?;
        stages.advert = stage();
        let Welcome {
            advert,
            signed,
            sealing,
            ..
        } = welcome;
        let plan = choose_plan(call, &advert)?.clone();
        payment.settle_on(&advert.provider, &plan).await?;
        let shown = Sighting::verified(&advert, &signed);
        let contradiction = self.remember(&shown);
        if payment.held().is_some() {
            self.check_consistency(&shown, contradiction.as_ref(), payment)
                .await?;
        }
        let (source, function) = choose_source(call, &advert, attach, *resolved)?;
        *resolved = Some(function);
        let request = request(call, source, payment);
        let (input_bytes, seed) = (request.input_len(), request.seed);
        let digest = request.digest(&function);
        let sealed = SealedCall::seal(&sealing, &plan.name, &request, &mut os_rng())?;
        drop(request);
        let largest = self.transport.largest_frame();
        if sealed.frame().body().len() > largest {
            return Err(TransportError::TooLarge(largest).into());
        }
        progress(Progress::Running { attached: attach });
        payment.is_about_to_leave(self.clock.now());
        let exchanged = exchange(&mut *stream, sealed, wire.left()).await?;
        stages.round_trip = stage();
        let reply = exchanged.reply;
        let receipt = check_receipt(&reply, &advert, &function, &plan.name, &digest, &seed)?;
        if let Some(other) = contradiction {
            self.closing.spawn(acknowledge(stream));
            return Err(equivocation(signed, other));
        }
        let ended = Ended {
            refused_a_good_token: payment.was_wrongly_refused(&reply.completion, now),
            evidence: reply.receipt.clone().map(|receipt| ReceiptEvidence {
                advert: signed,
                receipt,
            }),
            receipt,
            seed,
            traffic: Traffic {
                input_bytes,
                output_bytes: 0,
                sent_bytes: exchanged.sent_bytes,
                received_bytes: exchanged.received_bytes,
            },
            reply,
            advert,
            plan,
            function,
            stages,
            attempts: 0,
            attached: attach,
        };
        Ok((ended, stream))
    }

    /// A token says under which key it was issued, and in which epoch. If these
    /// are not everybody's, it says whose it is: then it must not leave.
    async fn check_consistency(
        &self,
        shown: &Sighting,
        contradiction: Option<&SignedAdvert>,
        payment: &mut Payment,
    ) -> Result<(), CallError> {
        let bought_under = payment.contradiction(shown).await?;
        if let Some(other) = bought_under.or_else(|| contradiction.cloned()) {
            return Err(equivocation(shown.signed().clone(), other));
        }
        let early_ends = shown.advert().early_ends();
        if early_ends > 0 {
            payment.note_early_ends(shown).await?;
        }
        if early_ends > self.max_early_ends {
            return Err(CallError::EarlyEnds(early_ends));
        }
        payment.check_listed(shown).await
    }

    pub(crate) fn seen(&self) -> &Seen {
        &self.seen
    }

    pub(crate) fn max_early_ends(&self) -> usize {
        self.max_early_ends
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }
}

fn equivocation(one: SignedAdvert, other: SignedAdvert) -> CallError {
    CallError::Equivocation(Box::new(EquivocationProof { one, other }))
}

/// A function that ran has a receipt, and the receipt says what the reply says.
fn check_receipt(
    reply: &Reply,
    advert: &Advert,
    function: &FunctionId,
    plan: &PlanName,
    digest: &RequestDigest,
    seed: &[u8; 32],
) -> Result<Option<Receipt>, ReceiptError> {
    let Some(signed) = &reply.receipt else {
        return match reply.completion.status() {
            Some(_) => Err(ReceiptError::Missing),
            None => Ok(None),
        };
    };
    let receipt = signed.verify(advert)?;
    receipt.matches(function, plan, digest, seed, reply)?;
    Ok(Some(receipt))
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
    resolved: Option<FunctionId>,
) -> Result<(FunctionSource, FunctionId), CallError> {
    let id = match (&call.function, resolved) {
        (FunctionName::Alias(_), Some(id)) => id,
        (FunctionName::Alias(alias), None) => {
            let unknown = || CallError::UnknownAlias {
                known: advert.functions.iter().map(|f| f.alias.clone()).collect(),
            };
            advert.function_by_alias(alias).ok_or_else(unknown)?.id
        }
        (FunctionName::Id(id), _) => *id,
        (FunctionName::Wasm(wasm), _) => {
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

fn request(call: &Call, function: FunctionSource, payment: &Payment) -> Request {
    Request {
        function,
        args: call.args.clone(),
        input: call.input.clone(),
        seed: payment.seed(),
        http: call.http.clone(),
        token: payment.held().map(HeldToken::token),
    }
}

impl fmt::Debug for Unconcluded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unconcluded")
    }
}

impl fmt::Debug for Querier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Querier")
    }
}
