//! When to give up and when to try again, so that neither tells whose call it is.
//!
//! How long its user waits is a caller's own. A provider that does not answer would see it in when
//! the stream is closed; so a stream, once opened, is given up at a multiple of [`WIRE_STEP`] only.

use std::future::Future;
use std::time::Duration;

use dlambda_privacy::os_rng;
use rand_core::Rng as _;
use tokio::time::{Instant, sleep, timeout_at};

/// A stream is given up at a multiple of this time after it was opened.
pub const WIRE_STEP: Duration = Duration::from_secs(30);

/// Between a refusal and the next try. The time that passes is random, and not of
/// the provider's choice.
const LEAST_PAUSE: Duration = Duration::from_secs(2);
const MOST_PAUSE: Duration = Duration::from_secs(10);

/// What is taken for no end.
const AGES: Duration = Duration::from_secs(1 << 32);

/// How long a caller waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    asked: Duration,
    until: Instant,
}

impl Patience {
    /// From now on.
    pub(crate) fn new(asked: Duration) -> Self {
        Self {
            asked,
            until: Instant::now() + asked.min(AGES),
        }
    }

    /// As it was asked for, for people.
    pub(crate) fn seconds(self) -> u64 {
        self.asked.as_secs()
    }

    /// Whether it is over, for whatever has no stream yet.
    pub(crate) fn is_over(self) -> bool {
        Instant::now() >= self.until
    }

    /// For what comes before a stream is open; nothing if there is no time left.
    ///
    /// # Cancel safety
    ///
    /// As `work`, which is dropped when the time is over.
    pub(crate) async fn before_opening<T>(self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.until, work).await.ok()
    }

    /// When a stream that opens now is given up: at the first step that is not before the end, so
    /// up to one step after it.
    pub(crate) fn on_the_wire(self) -> Wire {
        let opened = Instant::now();
        let wanted = self.until.saturating_duration_since(opened);
        Wire {
            opened,
            give_up: opened + next_step(wanted),
        }
    }

    /// Waits for a random time before the next try after a refusal; without time for it, for none.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn pause(self) {
        let part = f64::from(os_rng().next_u32()) / f64::from(u32::MAX);
        let pause = LEAST_PAUSE + (MOST_PAUSE - LEAST_PAUSE).mul_f64(part);
        self.before_opening(sleep(pause)).await;
    }
}

/// The times of one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wire {
    pub(crate) opened: Instant,
    pub(crate) give_up: Instant,
}

impl Wire {
    /// Time that is left to it.
    pub(crate) fn left(self) -> Duration {
        self.give_up.saturating_duration_since(Instant::now())
    }
}

/// One step or more, and not less than `wanted`.
fn next_step(wanted: Duration) -> Duration {
    let steps = wanted.as_nanos().div_ceil(WIRE_STEP.as_nanos()).max(1);
    WIRE_STEP * u32::try_from(steps).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_given_up_at_multiples_of_half_a_minute() {
        let ms = Duration::from_millis;
        for (wanted, given_up) in [
            (0, 30),
            (1, 30),
            (5_000, 30),
            (30_000, 30),
            (30_001, 60),
            (119_000, 120),
            (120_000, 120),
        ] {
            assert_eq!(next_step(ms(wanted)), Duration::from_secs(given_up));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_are_random_and_end_with_the_patience() {
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let started = Instant::now();
            Patience::new(Duration::from_secs(60)).pause().await;
            pauses.push(started.elapsed());
        }
        // The clock of tests counts in milliseconds.
        let slack = Duration::from_millis(2);
        let good = |pause: &Duration| (LEAST_PAUSE..=MOST_PAUSE + slack).contains(pause);
        assert!(pauses.iter().all(good), "{pauses:?}");
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 10, "{pauses:?}");
        let started = Instant::now();
        Patience::new(Duration::from_secs(1)).pause().await;
        assert!(started.elapsed() < Duration::from_millis(1_010));
    }
}
