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

impl UnixSeconds {
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
