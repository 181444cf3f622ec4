//! Waiting for files and processes, always with a deadline.

use std::time::{Duration, Instant};

use super::TestnetError;

/// How often conditions are looked at.
pub(super) const POLL: Duration = Duration::from_millis(40);

/// The moment by which something must be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    pub(super) fn after(duration: Duration) -> Self {
        Self(Instant::now() + duration)
    }

    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The earlier of this deadline and `duration` from now.
    pub(super) fn at_most(self, duration: Duration) -> Self {
        Self(self.0.min(Instant::now() + duration))
    }

    pub(super) fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}

/// Polls `done` until it says yes, fails, or the deadline passes.
pub(super) async fn until(
    deadline: Deadline,
    doing: &'static str,
    mut done: impl FnMut() -> Result<bool, TestnetError>,
) -> Result<(), TestnetError> {
    while !done()? {
        if deadline.has_passed() {
            return Err(TestnetError::Timeout(doing));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}
