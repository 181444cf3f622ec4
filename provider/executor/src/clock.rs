//! Clocks that show a guest the same times in every run.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// One call's virtual time: each reading of either clock moves both by a microsecond, [`STEP`].
#[derive(Clone, Default)]
pub(crate) struct VirtualClock {
    readings: Arc<AtomicU64>,
}

const STEP: Duration = Duration::from_micros(1);

/// Where the wall clock starts: 2000-01-01T00:00:00Z, so that dates look like dates and nobody takes them for today's.
const WALL_START: Duration = Duration::from_secs(946_684_800);

impl VirtualClock {
    fn elapsed(&self) -> Duration {
        Duration::from_micros(self.readings.fetch_add(1, Ordering::Relaxed))
    }
}

impl HostWallClock for VirtualClock {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        WALL_START.saturating_add(self.elapsed())
    }
}

impl HostMonotonicClock for VirtualClock {
    fn resolution(&self) -> u64 {
        nanoseconds(STEP)
    }

    fn now(&self) -> u64 {
        nanoseconds(self.elapsed())
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_share_one_time() {
        let clock = VirtualClock::default();
        let (wall, monotonic): (&dyn HostWallClock, &dyn HostMonotonicClock) = (&clock, &clock);
        assert_eq!(wall.now(), WALL_START);
        assert_eq!(monotonic.now(), 1_000);
        assert_eq!(wall.now(), WALL_START + 2 * STEP);
    }
}
