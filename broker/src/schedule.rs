//! When a guest syncs: at random times that depend on nothing.
//!
//! The times are a Poisson process: knowing all syncs so far tells nothing of the next, and calls
//! neither cause nor delay one.

use std::time::Duration;

const MEAN: Duration = Duration::from_secs(6 * 3600);
const LEAST: Duration = Duration::from_secs(60);
const MOST: Duration = Duration::from_secs(24 * 3600);
const FIRST_MEAN: Duration = Duration::from_secs(60);
const FIRST_LEAST: Duration = Duration::from_secs(10);
const FIRST_MOST: Duration = Duration::from_secs(300);

/// Time until the next sync: exponential with a mean of 6 hours, between 1 minute and 24 hours.
/// `random` is uniform, and drawn anew for each sync.
#[must_use]
pub fn until_next_sync(random: u64) -> Duration {
    MEAN.mul_f64(exponential(random)).clamp(LEAST, MOST)
}

/// Time to wait after a sync that could not be avoided, before anything that it was for: otherwise
/// its end tells when a call comes. Exponential with a mean of 1 minute, between 10 seconds and 5
/// minutes.
#[must_use]
pub fn after_first_sync(random: u64) -> Duration {
    let wait = FIRST_MEAN.mul_f64(exponential(random));
    wait.clamp(FIRST_LEAST, FIRST_MOST)
}

/// Time until the next of events that depend on nothing, `mean` apart: exponential, cut at four
/// times the mean.
#[must_use]
pub fn until_next(mean: Duration, random: u64) -> Duration {
    mean.mul_f64(exponential(random).min(4.0))
}

/// An exponential variable with mean 1 from a uniform one; between 0 and 37.
pub(crate) fn exponential(random: u64) -> f64 {
    -fraction(random).ln()
}

/// A uniform integer as a fraction of its range: above 0, at most 1.
pub(crate) fn fraction(random: u64) -> f64 {
    // The 53 bits that a double holds; never 0, whose logarithm is infinite.
    let high = u32::try_from(random >> 32).unwrap_or(u32::MAX);
    let low = u32::try_from((random >> 11) & 0x1f_ffff).unwrap_or(0);
    let bits = f64::from(high) * f64::from(1_u32 << 21) + f64::from(low);
    (bits + 0.5) / (f64::from(1_u32 << 27) * f64::from(1_u32 << 26))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{Rng as _, SeedableRng as _};

    use super::*;

    #[test]
    fn times_are_exponential_and_bounded() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let hours = |it: Duration| it.as_secs_f64() / 3600.0;
        let drawn: Vec<_> = (0..20_000)
            .map(|_| hours(until_next_sync(rng.next_u64())))
            .collect();
        let mean = drawn.iter().sum::<f64>() / 20_000.0;
        // Cut at four times the mean, it is 6 (1 - exp(-4)).
        assert!((mean - 5.89).abs() < 0.15, "{mean}");
        let share = |least: f64| drawn.iter().filter(|it| **it > least).count();
        let (three, six, nine) = (share(3.0), share(6.0), share(9.0));
        // No memory: as many of those that waited for 3 hours wait for 3 more.
        assert!((six * 20_000).abs_diff(three * three) < 20_000 * 400);
        assert!((nine * 20_000).abs_diff(three * six) < 20_000 * 400);
        for extreme in [0, u64::MAX] {
            assert!((LEAST..=MOST).contains(&until_next_sync(extreme)));
            assert!((FIRST_LEAST..=FIRST_MOST).contains(&after_first_sync(extreme)));
        }
        assert_eq!(until_next_sync(0), MOST);
        assert_eq!(until_next_sync(u64::MAX), LEAST);
    }
}
