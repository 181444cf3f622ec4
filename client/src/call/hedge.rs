//! Two circuits for one request: the second carries it when the first is late.
//!
//! Both are opened at once, since most of a call's time goes into that. The first that is ready
//! carries the request; the other one carries the very same if no answer comes in the usual time.
//! To the provider they are one call that came twice: it is answered twice, and paid once.

use std::time::Duration;

use dlambda_privacy::transport::BoxStream;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use tokio::time::{Instant, sleep_until};

use super::attempt::{Attempt, Reached};
use super::outcome::CallOutcome;
use super::progress::Watch;
use crate::CallError;

/// The least time before a second copy; the others are twice another one.
const LEAST: Duration = Duration::from_millis(500);

type Answered = Result<(CallOutcome, BoxStream), CallError>;

/// Circuits that are still of use.
struct Circuits<'a> {
    opening: FuturesUnordered<BoxFuture<'a, Result<Reached, CallError>>>,
    /// The one that is ready, should the other be late.
    standby: Option<Reached>,
    sending: FuturesUnordered<BoxFuture<'a, Answered>>,
}

impl Attempt<'_> {
    /// As on one circuit, but with a second one. Circuits that are late are dropped with the
    /// answer.
    pub(super) async fn on_two_circuits(&self, progress: &Watch<'_>) -> Answered {
        let reach = || -> BoxFuture<'_, _> { Box::pin(self.reach(progress)) };
        let send = |reached| -> BoxFuture<'_, _> { Box::pin(self.send(reached, progress)) };
        let mut circuits = Circuits {
            opening: [reach(), reach()].into_iter().collect(),
            standby: None,
            sending: FuturesUnordered::new(),
        };
        // When the second copy is due, once the first is sent.
        let mut due: Option<Instant> = None;
        loop {
            let is_due = due.is_none_or(|due| due <= Instant::now());
            // The first copy is sent at once, the second when it is due or the first has failed.
            if (is_due || circuits.sending.is_empty())
                && let Some(reached) = circuits.standby.take()
            {
                due.get_or_insert_with(|| Instant::now() + self.hedge_after());
                circuits.sending.push(send(reached));
            }
            let timer = async {
                match due.filter(|_| !is_due) {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Some(reached) = circuits.opening.next() => match reached {
                    Ok(reached) => circuits.standby = Some(reached),
                    Err(error) => circuits.check(error)?,
                },
                Some(answered) = circuits.sending.next() => match answered {
                    Ok(answered) => return Ok(answered),
                    Err(error) => circuits.check(error)?,
                },
                () = timer => {}
            }
        }
    }
}

/// Rounded up, to one of few. A provider that is late on purpose sees when the second copy comes:
/// to the millisecond it would be the caller's own.
pub(super) fn coarse(time: Duration) -> Duration {
    let mut step = LEAST;
    while step < time && step < Duration::from_secs(60) {
        step *= 2;
    }
    step
}

impl Circuits<'_> {
    /// After one circuit has failed: whether the other may do better.
    fn check(&self, error: CallError) -> Result<(), CallError> {
        let others = self.opening.len() + self.sending.len() + usize::from(self.standby.is_some());
        if others > 0 && error.is_worth_another_circuit() {
            return Ok(());
        }
        Err(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_copy_comes_after_one_of_few_times() {
        let ms = Duration::from_millis;
        for (usual, after) in [
            (0, 500),
            (500, 500),
            (501, 1_000),
            (2_317, 4_000),
            (3_999, 4_000),
            (1 << 40, 64_000),
        ] {
            assert_eq!(coarse(ms(usual)), ms(after), "{usual}");
        }
    }
}
