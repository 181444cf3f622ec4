//! Times that give nothing away.

use std::time::Duration;

use rand::Rng as _;
use rand::rngs::OsRng;

/// The longest time drawn, in means. One in 20,000 would be longer.
const LONGEST: f64 = 10.0;

/// A time until the next event of a Poisson process.
pub(crate) fn exponential(mean: Duration) -> Duration {
    // In (0, 1], so that the logarithm is finite.
    let uniform = 1.0 - OsRng.gen_range(0.0..1.0_f64);
    mean.mul_f64((-uniform.ln()).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_the_mean() {
        let mean = Duration::from_secs(2);
        let drawn: Vec<_> = (0..20_000).map(|_| exponential(mean)).collect();
        let average = drawn.iter().sum::<Duration>() / 20_000;
        assert!(average.abs_diff(mean) < Duration::from_millis(100));
        assert!(drawn.iter().all(|time| *time <= mean.mul_f64(LONGEST)));
    }
}
