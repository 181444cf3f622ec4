//! So many at once, and so many more a second.

use std::time::Instant;

/// A token bucket.
pub(crate) struct Bucket {
    left: f64,
    size: f64,
    rate: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket of `size`, to which `rate` a second are added.
    pub(crate) fn new(size: f64, rate: f64, now: Instant) -> Self {
        Self {
            left: size,
            size,
            rate,
            at: now,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        self.take_many(1.0, now)
    }

    /// Takes `amount`, if there is so much.
    pub(crate) fn take_many(&mut self, amount: f64, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = self.size.min(self.left + since * self.rate);
        self.at = now;
        let has = self.left >= amount;
        if has {
            self.left -= amount;
        }
        has
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bucket_gives_its_size_at_once_and_then_its_rate() {
        let begun = Instant::now();
        let mut bucket = Bucket::new(3.0, 0.5, begun);
        let taken = (0..10).filter(|_| bucket.take(begun)).count();
        assert_eq!(taken, 3);
        assert!(!bucket.take(begun + Duration::from_secs(1)));
        assert!(bucket.take(begun + Duration::from_secs(2)));
        let later = begun + Duration::from_secs(1000);
        let taken = (0..10).filter(|_| bucket.take(later)).count();
        assert_eq!(taken, 3);
        let later = later + Duration::from_secs(1000);
        assert!(!bucket.take_many(3.5, later) && bucket.take_many(2.5, later));
        assert!(!bucket.take(later));
    }
}
