//! One provider's part of a call: one token, and circuits until one brings a reply.

use std::time::Duration;

use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::exchange::{VerifiedGreeting, acknowledge, exchange, receive_greeting};
use dlambda_privacy::transport::{BoxStream, Connection, Service};
use dlambda_privacy::{TransportError, os_rng};
use dlambda_proto::{
    Advert, Authentic, Completion, EquivocationProof, FunctionId, FunctionSource, Plan, PlanName,
    Receipt, ReceiptError, ReceiptEvidence, Reply, Request, RequestDigest, SealingKey, UnixSeconds,
    Verified,
};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::hedge::coarse;
use super::options::{Call, Candidate, FunctionName};
use super::outcome::CallOutcome;
use super::output::{Stages, Traffic};
use super::payment::Payment;
use super::progress::{Progress, Watch};
use crate::patience::{Patience, Wire};
use crate::wallet::ReservedToken;
use crate::{CallError, ListingMismatch, Querier};

/// Circuits that one attempt may use.
const MAX_CIRCUITS: u32 = 3;

/// For the advert once a stream is open: it comes unasked, so a circuit that
/// brings none in this time is broken and another one better.
const ADVERT: Duration = Duration::from_secs(20);

/// How long an answer may take while it is not known how long answers usually take.
const HEDGE_AFTER: Duration = Duration::from_secs(3);

/// One provider, one token.
pub(super) struct Attempt<'a> {
    querier: &'a Querier,
    call: &'a Call,
    candidate: Candidate,
    patience: Patience,
    /// Two circuits may work on it at once.
    state: Mutex<State>,
}

/// What all circuits of an attempt share, so that they carry one request.
struct State {
    payment: Payment,
    /// What an alias stands for is settled once.
    resolved: Option<FunctionId>,
    /// Whether the function travels with the call.
    attach: bool,
}

/// A provider that answered and may have the call.
pub(super) struct Reached {
    stream: BoxStream,
    max_frame: usize,
    wire: Wire,
    /// When its greeting was verified.
    at: UnixSeconds,
    advert: Verified<Advert>,
    sealing: SealingKey,
    plan: Plan,
    equivocation: Option<EquivocationProof>,
    stages: Stages,
}

impl<'a> Attempt<'a> {
    pub(super) fn new(
        querier: &'a Querier,
        call: &'a Call,
        candidate: Candidate,
        patience: Patience,
    ) -> Self {
        let now = querier.clock().now();
        let state = State {
            payment: Payment::new(querier.wallet(), call, &candidate.endpoint, now),
            resolved: candidate.function,
            attach: false,
        };
        Self {
            querier,
            call,
            candidate,
            patience,
            state: Mutex::new(state),
        }
    }

    pub(super) fn into_payment(self) -> Payment {
        self.state.into_inner().payment
    }

    /// After an error, or before an end: a token that never left is as good as new.
    pub(super) async fn give_up(self, error: Option<&CallError>) {
        let payment = self.into_payment();
        match error {
            // Another call must not be made with its token.
            Some(CallError::Receipt(_)) => payment.end(false).await,
            _ => payment.give_up().await,
        }
    }

    /// Tries circuits until one brings a reply that counts.
    pub(super) async fn run(
        &self,
        progress: &Watch<'_>,
    ) -> Result<(CallOutcome, BoxStream), CallError> {
        let started = Instant::now();
        let (mut failures, mut attach) = (0, false);
        loop {
            let attempt = failures + 1 + u32::from(attach);
            progress(Progress::Connecting { attempt });
            let ended = match self.call.hedge {
                false => self.on_one_circuit(progress).await,
                true => self.on_two_circuits(progress).await,
            };
            match ended {
                Ok((outcome, stream)) => {
                    let is_missing = outcome.reply.completion == Completion::FunctionMissing;
                    match &self.call.function {
                        // A fresh circuit and key for the second part, too.
                        FunctionName::Wasm(_) if is_missing && !attach => {
                            self.querier.closing().spawn(acknowledge(stream));
                            attach = true;
                            self.state.lock().await.attach = true;
                        }
                        _ => return Ok((outcome.after(attempt, started.elapsed()), stream)),
                    }
                }
                Err(error) if error.is_worth_another_circuit() => {
                    self.before_another_circuit(error, failures + 1).await?;
                    tracing::info!(attempt, "trying again on another circuit");
                    failures += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits as long as it takes until another circuit may be tried, if one may.
    async fn before_another_circuit(
        &self,
        error: CallError,
        failures: u32,
    ) -> Result<(), CallError> {
        if error.is_refusal() && failures < MAX_CIRCUITS {
            self.patience.pause().await;
        }
        if self.patience.is_over() {
            return Err(CallError::Deadline(self.patience.seconds()));
        }
        let now = self.querier.clock().now();
        let again = self.state.lock().await.payment.may_be_sent_again(now);
        if failures >= MAX_CIRCUITS || !again {
            return Err(error);
        }
        Ok(())
    }

    async fn on_one_circuit(
        &self,
        progress: &Watch<'_>,
    ) -> Result<(CallOutcome, BoxStream), CallError> {
        let reached = self.reach(progress).await?;
        self.send(reached, progress).await
    }

    /// How long an answer may take before the second circuit carries the same request.
    pub(super) fn hedge_after(&self) -> Duration {
        let usual = self.querier.experience().usual_longest();
        coarse(usual.unwrap_or(HEDGE_AFTER))
    }

    /// Sends the request, or the same once more, and waits for the reply.
    pub(super) async fn send(
        &self,
        reached: Reached,
        progress: &Watch<'_>,
    ) -> Result<(CallOutcome, BoxStream), CallError> {
        let Reached {
            mut stream,
            max_frame,
            wire,
            at,
            advert,
            sealing,
            plan,
            equivocation,
            mut stages,
        } = reached;
        let (call, querier) = (self.call, self.querier);
        let since = Instant::now();
        let mut state = self.state.lock().await;
        let attached = state.attach;
        let (source, function) = choose_source(call, &advert, attached, state.resolved)?;
        state.resolved = Some(function);
        let request = request(call, source, &state.payment);
        let (input_bytes, seed) = (request.input_len(), request.seed);
        let digest = request.digest(&function);
        let sealed = SealedCall::seal(&sealing, &plan.name, &request, &mut os_rng())?;
        drop(request);
        if sealed.frame().body().len() > max_frame {
            return Err(TransportError::TooLarge(max_frame).into());
        }
        progress(Progress::Running { attached });
        state.payment.is_about_to_leave(querier.clock().now());
        drop(state);
        let exchanged = exchange(&mut *stream, sealed, wire.left()).await?;
        stages.round_trip = since.elapsed();
        let reply = exchanged.reply;
        let receipt = check_receipt(&reply, &advert, &function, &plan.name, &digest, &seed)?;
        if let Some(proof) = equivocation {
            querier.closing().spawn(acknowledge(stream));
            return Err(CallError::Equivocation(Box::new(proof)));
        }
        let payment = &self.state.lock().await.payment;
        let outcome = CallOutcome {
            refused_a_good_token: payment.was_wrongly_refused(&reply.completion, at),
            evidence: reply.receipt.clone().map(|receipt| ReceiptEvidence {
                advert: advert.authentic().signed().clone(),
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
            attached,
        };
        Ok((outcome, stream))
    }

    /// Opens a stream, verifies who answers, and makes sure that the token may go there.
    pub(super) async fn reach(&self, progress: &Watch<'_>) -> Result<Reached, CallError> {
        let (patience, querier) = (self.patience, self.querier);
        let endpoint = self.candidate.endpoint;
        querier.check_endpoint(&endpoint)?;
        let mut stages = Stages::default();
        let since = Instant::now();
        let dialling = querier.transport().dial(&endpoint, Service::Calls);
        let preparing = async { self.state.lock().await.payment.prepare().await };
        let opening = async { tokio::join!(dialling, preparing) };
        let Some((dialled, prepared)) = patience.before_opening(opening).await else {
            return Err(CallError::Deadline(patience.seconds()));
        };
        let Connection {
            mut stream,
            max_frame,
            ..
        } = dialled?;
        let wire = patience.on_the_wire();
        prepared?;
        stages.connect = since.elapsed();
        progress(Progress::Verifying);
        let at = querier.clock().now();
        let greeting = receive_greeting(&mut *stream, &endpoint, at, ADVERT).await?;
        stages.advert = since.elapsed().saturating_sub(stages.connect);
        let VerifiedGreeting {
            advert, sealing, ..
        } = greeting;
        let plan = choose_plan(self.call, &advert)?.clone();
        let payment = &mut self.state.lock().await.payment;
        payment.bind_to(&advert.provider, &plan).await?;
        let shown = advert.authentic();
        let equivocation = querier.remember(shown);
        if payment.held().is_some() {
            self.check_consistency(payment, shown, equivocation.as_ref())
                .await?;
        }
        Ok(Reached {
            stream,
            max_frame,
            wire,
            at,
            advert,
            sealing,
            plan,
            equivocation,
            stages,
        })
    }

    /// A token says under which key it was issued, and in which epoch. If these
    /// are not everybody's, it says whose it is: then it must not leave.
    async fn check_consistency(
        &self,
        payment: &mut Payment,
        shown: &Authentic<Advert>,
        equivocation: Option<&EquivocationProof>,
    ) -> Result<(), CallError> {
        let bought_under = payment.equivocation(shown).await?;
        if let Some(proof) = bought_under.or_else(|| equivocation.cloned()) {
            return Err(CallError::Equivocation(Box::new(proof)));
        }
        match self.querier.check_listing(shown) {
            // Epochs turn between two syncs.
            Ok(()) | Err(ListingMismatch::Newer) => {}
            Err(mismatch) => return Err(mismatch.into()),
        }
        let early_ends = shown.early_ends();
        if early_ends > 0 {
            payment.note_early_ends(shown).await?;
        }
        if early_ends > self.querier.max_early_ends() {
            return Err(CallError::EarlyEnds(early_ends));
        }
        payment.check_listed(shown).await
    }
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
        token: payment.held().map(ReservedToken::token),
    }
}
