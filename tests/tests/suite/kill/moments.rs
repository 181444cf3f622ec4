//! Random moments, which whoever has the seed can repeat.

use std::time::Duration;

use dlambda_privacy::os_rng;
use rand_core::Rng as _;

/// Set to the number that a test printed, it draws the same moments again.
const SEED: &str = "DLAMBDA_TEST_SEED";

/// Draws moments.
pub(super) struct Moments(u64);

impl Moments {
    pub(super) fn new() -> Self {
        let given = std::env::var(SEED).ok();
        let seed = given.map_or_else(|| os_rng().next_u64(), |it| it.parse().expect("a number"));
        println!("moments of {SEED}={seed}");
        Self(seed)
    }

    /// A moment from the start of what usually takes so long until a little
    /// after its end.
    pub(super) fn of(&mut self, usual: Duration) -> Duration {
        let most = usual.mul_f64(1.3).as_micros();
        let most = u64::try_from(most).expect("not that long");
        Duration::from_micros(self.next() % (most + 1))
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}
