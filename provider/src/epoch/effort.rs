//! The effort of a contract's proof of work: it rises and falls with the load.
//!
//! Sans-I/O: the caller passes the time.

use std::time::Duration;

/// How often the effort is looked at again.
const WINDOW: Duration = Duration::from_secs(5);
/// Share of the time spent on issuance above which the effort rises by one step
/// (a factor of two for the callers).
const HIGH: f64 = 0.5;
/// And below which it falls.
const LOW: f64 = 0.1;

/// The effort asked for now.
#[derive(Debug)]
pub(crate) struct Effort {
    least: u8,
    most: u8,
    now: u8,
    window: Duration,
    busy: Duration,
}

impl Effort {
    /// Starts with the least.
    pub(crate) fn new(least: u8, most: u8) -> Self {
        Self {
            least,
            most: most.max(least),
            now: least,
            window: Duration::ZERO,
            busy: Duration::ZERO,
        }
    }

    /// What to ask for at `now`, a time since some fixed moment.
    pub(crate) fn at(&mut self, now: Duration) -> u8 {
        while now >= self.window + WINDOW {
            let share = self.busy.as_secs_f64() / WINDOW.as_secs_f64();
            if share > HIGH {
                self.now = (self.now + 1).min(self.most);
            } else if share < LOW {
                self.now = self.now.saturating_sub(1).max(self.least);
            }
            self.busy = Duration::ZERO;
            self.window += WINDOW;
            if self.now == self.least {
                // A long quiet time changes nothing more.
                let windows = now.as_secs() / WINDOW.as_secs();
                self.window = self
                    .window
                    .max(WINDOW.saturating_mul(u32::try_from(windows).unwrap_or(u32::MAX)));
            }
        }
        self.now
    }

    /// Counts time that was spent on a proposal.
    pub(crate) fn spent(&mut self, now: Duration, time: Duration) {
        self.at(now);
        self.busy += time;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn effort_rises_with_the_load_and_falls_back() {
        let mut effort = Effort::new(2, 6);
        assert_eq!(effort.at(SECOND), 2);
        let mut now = Duration::ZERO;
        for _ in 0..100 {
            now += SECOND;
            effort.spent(now, SECOND * 4 / 5);
        }
        assert_eq!(effort.at(now), 6, "no higher than the most");
        assert_eq!(effort.at(now + SECOND * 10), 5);
        assert_eq!(effort.at(now + SECOND * 60), 2, "no lower than the least");
    }

    #[test]
    fn a_moderate_load_changes_nothing() {
        let mut effort = Effort::new(1, 9);
        let mut now = Duration::ZERO;
        for _ in 0..10 {
            now += SECOND;
            effort.spent(now, SECOND);
        }
        let risen = effort.at(now);
        assert!(risen > 1);
        for _ in 0..50 {
            now += SECOND;
            effort.spent(now, SECOND / 4);
        }
        assert_eq!(effort.at(now), risen);
    }

    #[test]
    fn years_of_quiet_cost_nothing() {
        let mut effort = Effort::new(0, 9);
        assert_eq!(effort.at(SECOND * 1_000_000_000), 0);
    }
}
