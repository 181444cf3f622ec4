//! Runs a call's attempts, as its race says.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dlambda_privacy::exchange::acknowledge;
use dlambda_privacy::transport::BoxStream;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::attempt::Attempt;
use super::options::{Call, Candidate};
use super::outcome::CallOutcome;
use super::output::Output;
use super::payment::{Payment, is_final};
use super::progress::{Progress, Watch};
use super::race::{End, Policy, Race, Step, Verdict};
use super::replicas::digest;
use crate::patience::Patience;
use crate::{CallEnd, CallError, Querier};

/// The acknowledgement of a call that was answered, until it is sent.
#[must_use = "a call that is not acknowledged keeps its token"]
pub struct PendingAck {
    payment: Payment,
    is_final: bool,
    stream: BoxStream,
}

impl Querier {
    /// Makes one call, and expects its function to succeed. Every circuit has
    /// a key of its own.
    ///
    /// # Errors
    ///
    /// [`CallError`]; after `max_time` it is [`CallError::Deadline`]: up to
    /// [`WIRE_STEP`](crate::WIRE_STEP) later if a stream is open, for the provider
    /// would see the time in which it is given up. An answer that comes by then counts.
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
    ) -> Result<Output, CallError> {
        Box::pin(self.call_outcome(call, max_time, progress))
            .await?
            .into_output()
    }

    /// Makes one call, and returns its outcome, whatever it is, with the
    /// provider's proof. The token is spent by then:
    /// [`Querier::call_unacknowledged`] is for programs that must not lose the
    /// outcome when they crash.
    ///
    /// # Errors
    ///
    /// [`CallError`] if there is no reply, or one that must not be believed.
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::call`].
    pub async fn call_outcome(
        &self,
        call: &Call,
        max_time: Duration,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<CallOutcome, CallError> {
        let (outcome, ack) = self.call_unacknowledged(call, max_time, progress).await?;
        self.acknowledge(ack).await;
        Ok(outcome)
    }

    /// The same without acknowledging the reply. Until [`Querier::acknowledge`],
    /// the same call made again, also after a crash, has the same token and the
    /// same outcome.
    ///
    /// # Errors
    ///
    /// Those of [`Querier::call_outcome`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::call`].
    pub async fn call_unacknowledged(
        &self,
        call: &Call,
        max_time: Duration,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<(CallOutcome, PendingAck), CallError> {
        let policy = Policy {
            max_time,
            replicas: 1,
            agree: 1,
        };
        let raced = self.race_boxed(call, policy, Patience::new(max_time), progress);
        let raced = raced.await?;
        Box::pin(self.one_of(raced)).await
    }

    /// Marks the token spent, then acknowledges the reply. Call it once the
    /// outcome is safe.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the call is then acknowledged, or can be made again.
    pub async fn acknowledge(&self, ack: PendingAck) {
        let PendingAck {
            payment,
            is_final,
            stream,
        } = ack;
        payment.end(is_final).await;
        self.closing().spawn(acknowledge(stream));
    }

    /// Waits until the acknowledgements of calls that were answered have left,
    /// for at most ten seconds. A program that ends without waiting leaves its
    /// providers to find out by themselves that the call is over.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn flush_acks(&self) {
        self.closing().close();
        let _ = timeout(Duration::from_secs(10), self.closing().wait()).await;
        self.closing().reopen();
    }

    /// Boxed, so that it is compiled here, and not again in every crate that calls.
    pub(super) fn race_boxed<'a>(
        &'a self,
        call: &'a Call,
        policy: Policy,
        patience: Patience,
        progress: impl FnMut(Progress) + Send + 'a,
    ) -> BoxFuture<'a, Result<Raced, CallError>> {
        let progress = Mutex::new(progress);
        let tell = move |step| {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            (*progress)(step);
        };
        Box::pin(async move {
            let candidates = self.candidates(call).await?;
            Ok(self.race(call, &candidates, policy, patience, &tell).await)
        })
    }

    /// The answer that counts; or else what the last provider said. The others are acknowledged: a
    /// token that was refused is not kept, and one that came late is paid.
    async fn one_of(&self, raced: Raced) -> Ended {
        let Raced { verdict, mut ended } = raced;
        let counts = ended
            .iter()
            .position(|(index, ..)| verdict == Verdict::Answered(*index));
        let counts = counts.unwrap_or_else(|| ended.len().saturating_sub(1));
        if counts >= ended.len() {
            return Err(CallError::NoCandidate);
        }
        let (_, _, counted) = ended.swap_remove(counts);
        for (_, _, end) in ended {
            if let Ok((_, ack)) = end {
                self.acknowledge(ack).await;
            }
        }
        counted
    }

    /// Asks candidates as the race says, until it is over.
    async fn race(
        &self,
        call: &Call,
        candidates: &[Candidate],
        policy: Policy,
        patience: Patience,
        progress: &Watch<'_>,
    ) -> Raced {
        let started = Instant::now();
        let mut race = Race::new(policy, candidates.len());
        let over = CancellationToken::new();
        let mut running = FuturesUnordered::new();
        let mut ended = Vec::new();
        let verdict = loop {
            let until = match race.next(started.elapsed()) {
                Step::Over(verdict) => break verdict,
                Step::Start(index) => {
                    let Some(candidate) = candidates.get(index).copied() else {
                        break Verdict::Failed;
                    };
                    let attempt = Attempt::new(self, call, candidate, patience);
                    let over = over.clone();
                    running.push(async move {
                        let end = perform(attempt, &over, progress).await;
                        (index, candidate, end)
                    });
                    continue;
                }
                Step::Wait(until) => until.map(|it| started + it),
            };
            let next = match until {
                None => running.next().await,
                Some(until) => timeout_at(until, running.next()).await.unwrap_or(None),
            };
            if let Some((index, candidate, Some(end))) = next {
                let now = started.elapsed();
                self.note(&candidate, &end);
                race.ended(index, classify(&end, policy), now);
                ended.push((index, candidate, end));
            }
        };
        over.cancel();
        while let Some((index, candidate, end)) = running.next().await {
            match end {
                // It came in at the last moment.
                Some(end) => ended.push((index, candidate, end)),
                None if race.is_overdue(index, started.elapsed()) => {
                    (self.experience()).note(&candidate.endpoint, CallEnd::Failed);
                }
                None => {}
            }
        }
        drop(running);
        Raced { verdict, ended }
    }

    /// Remembers what became of a call at a provider.
    fn note(&self, candidate: &Candidate, end: &Ended) {
        let end = match end {
            Ok((outcome, _)) if outcome.is_answer() => {
                Some(CallEnd::Answered(outcome.stages.round_trip))
            }
            Ok((outcome, _)) => outcome.is_refusal().then_some(CallEnd::Failed),
            Err(CallError::Receipt(_) | CallError::Equivocation(_)) => Some(CallEnd::Misbehaved),
            Err(error) => error.is_of_the_provider().then_some(CallEnd::Failed),
        };
        if let Some(end) = end {
            self.experience().note(&candidate.endpoint, end);
        }
    }
}

/// How an attempt ended.
pub(super) type Ended = Result<(CallOutcome, PendingAck), CallError>;

/// How the attempts of one call ended, in the order in which they did, with the index of each.
pub(super) struct Raced {
    pub(super) verdict: Verdict,
    pub(super) ended: Vec<(usize, Candidate, Ended)>,
}

/// One attempt to its end, or none if it is over before.
async fn perform(
    attempt: Attempt<'_>,
    over: &CancellationToken,
    progress: &Watch<'_>,
) -> Option<Ended> {
    let ended = tokio::select! {
        biased;
        ended = attempt.run(progress) => ended,
        () = over.cancelled() => {
            attempt.give_up(None).await;
            return None;
        }
    };
    Some(match ended {
        Ok((outcome, stream)) => {
            let ack = PendingAck {
                is_final: is_final(&outcome.reply.completion),
                payment: attempt.into_payment(),
                stream,
            };
            Ok((outcome, ack))
        }
        Err(error) => {
            attempt.give_up(Some(&error)).await;
            Err(error)
        }
    })
}

fn classify(end: &Ended, policy: Policy) -> End {
    match end {
        // Nothing is compared with the answer of one.
        Ok((outcome, _)) if outcome.is_answer() && policy.replicas == 1 => End::Answer([0; 32]),
        Ok((outcome, _)) if outcome.is_answer() => End::Answer(digest(outcome)),
        Ok(_) => End::Failed,
        Err(error) if error.is_worth_another_provider() => End::Failed,
        Err(_) => End::Hopeless,
    }
}

impl fmt::Debug for PendingAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingAck")
    }
}

#[cfg(test)]
mod tests;
