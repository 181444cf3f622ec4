//! Time as a value: nothing in this crate reads a clock.

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

/// Seconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, CborLen, Serialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct UnixSeconds(#[n(0)] pub u64);

/// How far off a clock is taken to be when an edge of a validity is looked at, in seconds.
///
/// The side that sets the edge sees whether the other one goes on. With a clock that is read to the
/// second, this would tell the clock to the second, which is as good as a name. So adverts are to
/// be valid for so much longer at both ends than they are needed.
pub const CLOCK_BLUR_SECONDS: u64 = 1800;

impl UnixSeconds {
    /// This time, up to [`CLOCK_BLUR_SECONDS`] earlier or later: uniform if `random` is. To be
    /// drawn anew for each look.
    #[must_use]
    pub fn blurred(self, random: u64) -> Self {
        let offset = random % (2 * CLOCK_BLUR_SECONDS + 1);
        Self(
            self.0
                .saturating_add(offset)
                .saturating_sub(CLOCK_BLUR_SECONDS),
        )
    }

    /// This time plus `seconds`, saturating.
    #[must_use]
    pub fn plus(self, seconds: u64) -> Self {
        Self(self.0.saturating_add(seconds))
    }
}

/// A half-open span of time: valid from `from`, no longer at `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Validity {
    /// First second at which it holds.
    #[n(0)]
    pub from: UnixSeconds,
    /// First second at which it no longer holds.
    #[n(1)]
    pub until: UnixSeconds,
}

impl Validity {
    /// Whether `now` lies within the span.
    #[must_use]
    pub fn contains(self, now: UnixSeconds) -> bool {
        self.from <= now && now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One second more or less on a clock changes the share of accepted adverts by one in 3,601.
    #[test]
    fn a_blurred_edge_tells_a_second_of_the_clock_by_one_case_in_thousands() {
        let edge = UnixSeconds(1_800_000_000);
        let accepted = |clock: u64| {
            let draws = 0..=2 * CLOCK_BLUR_SECONDS;
            draws
                .filter(|draw| UnixSeconds(clock).blurred(*draw) < edge)
                .count()
        };
        for offset in -3..=3_i64 {
            let clock = edge.0.saturating_add_signed(offset);
            assert_eq!(accepted(clock).abs_diff(accepted(clock + 1)), 1);
        }
        assert_eq!(accepted(edge.0 + CLOCK_BLUR_SECONDS), 0);
        assert_eq!(accepted(edge.0 - CLOCK_BLUR_SECONDS - 1), 3601);
    }
}
