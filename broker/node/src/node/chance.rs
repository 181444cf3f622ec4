//! Random choices and times.

use std::time::Duration;

use rand_core::Rng;

/// A number below `bound`; 0 if there is none.
pub(super) fn below(rng: &mut impl Rng, bound: usize) -> usize {
    // Off from uniform by less than 2^-32: bounds are short.
    let scaled = u128::from(rng.next_u64()) * bound as u128;
    usize::try_from(scaled >> 64).unwrap_or(0)
}

/// One of these.
pub(super) fn pick<'a, T>(rng: &mut impl Rng, of: &'a [T]) -> Option<&'a T> {
    of.get(below(rng, of.len()))
}

/// A time until the next of events that depend on nothing, `mean` apart: exponentially
/// distributed, cut at four times the mean.
pub(super) fn wait(rng: &mut impl Rng, mean: Duration) -> Duration {
    // 53 bits, never zero.
    let uniform = ((rng.next_u64() >> 11) + 1) as f64 / (1_u64 << 53) as f64;
    mean.mul_f64((-uniform.ln()).min(4.0))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn waits_are_of_the_mean_asked_for_and_bounded() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let mean = Duration::from_secs(10);
        let waits: Vec<Duration> = (0..10_000).map(|_| wait(&mut rng, mean)).collect();
        assert!(waits.iter().all(|wait| *wait <= 4 * mean));
        let average = waits.iter().sum::<Duration>() / 10_000;
        assert!((average.as_secs_f64() - 9.8).abs() < 0.5, "{average:?}");
    }

    #[test]
    fn every_one_is_picked_about_as_often() {
        let mut rng = ChaCha8Rng::from_seed([1; 32]);
        let mut counts = [0; 5];
        for _ in 0..5_000 {
            counts[*pick(&mut rng, &[0, 1, 2, 3, 4]).expect("not empty")] += 1;
        }
        assert!(
            counts.iter().all(|count| (850..1150).contains(count)),
            "{counts:?}"
        );
        assert_eq!(pick::<u8>(&mut rng, &[]), None);
    }
}
