//! The loop over candidates.

use std::fmt;
use std::time::Duration;

use dlambda_privacy::exchange::acknowledge;
use dlambda_privacy::transport::BoxStream;
use futures::future::BoxFuture;
use tokio::time::timeout;

use super::attempt::Attempt;
use super::options::{Call, Candidate, Target};
use super::outcome::CallOutcome;
use super::output::Output;
use super::payment::{Payment, is_final};
use super::progress::{Progress, Watch};
use crate::patience::Patience;
use crate::{CallError, Querier};

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
        mut progress: impl FnMut(Progress) + Send,
    ) -> Result<(CallOutcome, PendingAck), CallError> {
        let patience = Patience::new(max_time);
        let candidates = candidates(&call.target);
        self.drive_boxed(call, candidates, patience, &mut progress)
            .await
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
    fn drive_boxed<'a>(
        &'a self,
        call: &'a Call,
        candidates: impl Iterator<Item = Candidate> + Send + 'a,
        patience: Patience,
        progress: &'a mut Watch<'_>,
    ) -> BoxFuture<'a, Result<(CallOutcome, PendingAck), CallError>> {
        Box::pin(self.drive(call, candidates, patience, progress))
    }

    /// Asks one candidate after the other, until one of them has the call.
    async fn drive(
        &self,
        call: &Call,
        candidates: impl Iterator<Item = Candidate> + Send,
        patience: Patience,
        progress: &mut Watch<'_>,
    ) -> Result<(CallOutcome, PendingAck), CallError> {
        let mut last = CallError::NoCandidate;
        for candidate in candidates {
            let mut attempt = Attempt::new(self, call, candidate, patience);
            match attempt.run(progress).await {
                Ok((outcome, stream)) => {
                    let ack = PendingAck {
                        is_final: is_final(&outcome.reply.completion),
                        payment: attempt.into_payment(),
                        stream,
                    };
                    return Ok((outcome, ack));
                }
                Err(error) => {
                    // One call is paid once: no other provider gets it after this one may have it.
                    let goes_on = !attempt.was_sent() && error.is_worth_another_provider();
                    attempt.give_up(&error).await;
                    if !goes_on || patience.is_over() {
                        return Err(error);
                    }
                    last = error;
                }
            }
        }
        Err(last)
    }
}

/// The providers that may be asked, the best first.
fn candidates(target: &Target) -> impl Iterator<Item = Candidate> + Send + 'static {
    match target {
        Target::Provider(endpoint) => Some(Candidate {
            endpoint: *endpoint,
        }),
        // There is no catalogue to choose from.
        Target::Any(_) => None,
    }
    .into_iter()
}

impl fmt::Debug for PendingAck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PendingAck")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use dlambda_privacy::TransportError;
    use dlambda_privacy::clock::FakeClock;
    use dlambda_privacy::transport::{Connection, Listener, Service, Transport};
    use dlambda_proto::{Endpoint, OnionAddress, Requirements, UnixSeconds};

    use super::*;
    use crate::FunctionName;

    const LONG: Duration = Duration::from_secs(1_000);

    /// Reaches nobody.
    #[derive(Default)]
    struct Nowhere(Mutex<Vec<Endpoint>>);

    #[async_trait]
    impl Transport for Nowhere {
        async fn dial(
            &self,
            endpoint: &Endpoint,
            _: Service,
        ) -> Result<Connection, TransportError> {
            self.0.lock().unwrap().push(*endpoint);
            Err(TransportError::Unreachable("nobody".into()))
        }

        async fn listen(&self, _: Service) -> Result<Box<dyn Listener>, TransportError> {
            Err(TransportError::WrongService)
        }
    }

    fn endpoint(byte: u8) -> Endpoint {
        Endpoint::Onion(OnionAddress::from_public_key([byte; 32]))
    }

    fn querier(transport: &Arc<Nowhere>) -> Querier {
        let clock = Arc::new(FakeClock::at(UnixSeconds(1_000)));
        Querier::new(Arc::clone(transport) as Arc<dyn Transport>, clock)
    }

    fn call(target: impl Into<Target>) -> Call {
        Call::new(target, FunctionName::Alias("f".into()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_candidate_that_cannot_be_reached_is_followed_by_the_next() {
        let transport = Arc::new(Nowhere::default());
        let candidates = [1, 2].map(|byte| Candidate {
            endpoint: endpoint(byte),
        });
        let (querier, call) = (querier(&transport), call(endpoint(1)));
        let patience = Patience::new(LONG);
        let ended = querier
            .drive(&call, candidates.into_iter(), patience, &mut |_| {})
            .await;
        assert!(matches!(ended, Err(CallError::Transport(_))));
        let dialled = transport.0.lock().unwrap().clone();
        assert_eq!(dialled, [1, 1, 1, 2, 2, 2].map(endpoint));
    }

    #[tokio::test(start_paused = true)]
    async fn no_candidate_is_asked_after_the_time_is_over() {
        let transport = Arc::new(Nowhere::default());
        let candidates = [1, 2].map(|byte| Candidate {
            endpoint: endpoint(byte),
        });
        let (querier, call) = (querier(&transport), call(endpoint(1)));
        let patience = Patience::new(Duration::ZERO);
        let ended = querier
            .drive(&call, candidates.into_iter(), patience, &mut |_| {})
            .await;
        assert!(matches!(ended, Err(CallError::Deadline(0))));
        assert!(!transport.0.lock().unwrap().contains(&endpoint(2)));
    }

    #[tokio::test]
    async fn without_a_catalogue_no_provider_meets_requirements() {
        let transport = Arc::new(Nowhere::default());
        let call = call(Target::Any(Requirements::default()));
        let ended = querier(&transport).call(&call, LONG, |_| {}).await;
        assert!(matches!(ended, Err(CallError::NoCandidate)));
        assert!(transport.0.lock().unwrap().is_empty());
    }
}
