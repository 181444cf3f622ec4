//! Pauses by which what one caller does next to each other cannot be tied together.

use std::time::Duration;

use dlambda_privacy::os_rng;
use rand_core::Rng as _;

/// A random wait between `least` and `most`, uniform.
pub(crate) fn random_wait(least: Duration, most: Duration) -> Duration {
    let span = most.saturating_sub(least);
    let part = f64::from(os_rng().next_u32()) / f64::from(u32::MAX);
    least + span.mul_f64(part)
}
