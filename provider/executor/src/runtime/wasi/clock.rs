//! The clocks of one call: virtual ones that show the same times in every run, or this machine's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::runtime::metering::HostFuel;
use crate::runtime::scheduler::RunSlot;

/// A monotonic clock that starts at zero, and a wall clock. Clones share them.
#[derive(Clone)]
pub(crate) struct GuestClock {
    time: Time,
    host_fuel: HostFuel,
}

#[derive(Clone)]
enum Time {
    /// Nanoseconds. Each reading of either clock moves both by a microsecond, [`STEP`], and a sleep
    /// moves them by its length. Saturates after 584 years.
    Virtual(Arc<AtomicU64>),
    /// A guest that sleeps gives up its slot.
    Real(Instant, RunSlot),
}

const STEP: Duration = Duration::from_micros(1);

/// Where the virtual wall clock starts: 2000-01-01T00:00:00Z, so that dates look like dates and
/// are not taken for today's.
const WALL_START: Duration = Duration::from_secs(946_684_800);

impl GuestClock {
    pub(crate) fn deterministic(host_fuel: HostFuel) -> Self {
        Self {
            time: Time::Virtual(Arc::default()),
            host_fuel,
        }
    }

    pub(crate) fn real(host_fuel: HostFuel, slot: RunSlot) -> Self {
        Self {
            time: Time::Real(Instant::now(), slot),
            host_fuel,
        }
    }

    /// Nanoseconds since the start of the call, without moving the clock.
    pub(crate) fn elapsed(&self) -> u64 {
        match &self.time {
            Time::Virtual(time) => time.load(Ordering::Relaxed),
            Time::Real(start, _) => nanoseconds(start.elapsed()),
        }
    }

    /// Nanoseconds of the wall clock since 1970, without moving it.
    pub(crate) fn wall(&self) -> u64 {
        match &self.time {
            Time::Virtual(_) => nanoseconds(WALL_START).saturating_add(self.elapsed()),
            Time::Real(..) => nanoseconds(
                SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .unwrap_or_default(),
            ),
        }
    }

    /// Sleeps until this many nanoseconds since the start. Virtual time just moves on: a sleeper
    /// holds no slot, and a guest that waits for a time to come sees it come.
    pub(crate) async fn sleep_until(&self, until: u64) {
        match &self.time {
            Time::Virtual(time) => {
                time.fetch_max(until, Ordering::Relaxed);
            }
            Time::Real(_, slot) => {
                slot.release();
                let left = Duration::from_nanos(until.saturating_sub(self.elapsed()));
                // Times too far away for the timer are cut to some years; the call ends long
                // before.
                tokio::time::sleep(left).await;
            }
        }
    }

    fn read(&self) -> u64 {
        self.host_fuel.charge_call(0);
        let now = self.elapsed();
        if let Time::Virtual(time) = &self.time {
            time.fetch_max(now.saturating_add(nanoseconds(STEP)), Ordering::Relaxed);
        }
        now
    }
}

impl HostWallClock for GuestClock {
    fn resolution(&self) -> Duration {
        STEP
    }

    fn now(&self) -> Duration {
        let wall = self.wall();
        self.read();
        Duration::from_nanos(wall)
    }
}

impl HostMonotonicClock for GuestClock {
    fn resolution(&self) -> u64 {
        nanoseconds(STEP)
    }

    fn now(&self) -> u64 {
        self.read()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scheduler::Scheduler;

    #[test]
    fn both_clocks_share_one_time() {
        let clock = GuestClock::deterministic(HostFuel::default());
        let (wall, monotonic): (&dyn HostWallClock, &dyn HostMonotonicClock) = (&clock, &clock);
        assert_eq!(wall.now(), WALL_START);
        assert_eq!(monotonic.now(), 1_000);
        assert_eq!(wall.now(), WALL_START + 2 * STEP);
    }

    #[tokio::test]
    async fn virtual_sleep_takes_no_time_and_never_goes_back() {
        let clock = GuestClock::deterministic(HostFuel::default());
        clock.sleep_until(3_600_000_000_000).await;
        clock.sleep_until(1).await;
        assert_eq!(HostMonotonicClock::now(&clock), 3_600_000_000_000);
        clock.sleep_until(u64::MAX).await;
        HostMonotonicClock::now(&clock);
        assert_eq!(clock.elapsed(), u64::MAX);
    }

    #[tokio::test]
    async fn real_sleep_takes_its_time() {
        let clock = GuestClock::real(HostFuel::default(), Scheduler::new(1).register());
        clock.sleep_until(5_000_000).await;
        assert!(clock.elapsed() >= 5_000_000);
        assert!(clock.wall() > nanoseconds(WALL_START));
    }
}
