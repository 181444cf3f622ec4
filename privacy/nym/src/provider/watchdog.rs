//! Whether the provider's client still hears.
//!
//! The SDK's tasks can die, or go round for ever, on what a stranger sends, and
//! nothing says so: the client stays connected and is deaf. So a provider writes
//! to itself now and then. When it hears nothing at all for too long, or has
//! grown too large, the helper ends, and is started again at the same address.

use std::time::Duration;

use rand::RngCore as _;
use rand::rngs::OsRng;
use tokio::time::Instant;

use crate::error::HelperError;
use crate::process;

/// How often it writes to itself.
const WRITE: Duration = Duration::from_secs(30);

/// After so long without a message it is deaf. The SDK needs 45 s to notice
/// that its gateway is gone.
const DEAF: Duration = Duration::from_secs(180);

/// Bytes of memory that are more than 4,096 sessions take.
const LARGEST: u64 = 1 << 30;

/// Watches one client.
pub(super) struct Watchdog {
    /// What it writes: nobody else knows it.
    note: [u8; 32],
    heard: Instant,
    wrote: Instant,
}

impl Watchdog {
    /// A client that has just been connected.
    pub(super) fn new(now: Instant) -> Self {
        let mut note = [0; 32];
        OsRng.fill_bytes(&mut note);
        Self {
            note,
            heard: now,
            wrote: now,
        }
    }

    /// A message has come; whether it is one of our own.
    pub(super) fn hear(&mut self, message: &[u8], now: Instant) -> bool {
        self.heard = now;
        message == self.note
    }

    /// There is another client, or none for now.
    pub(super) fn begin_again(&mut self, now: Instant) {
        self.heard = now;
        self.wrote = now;
    }

    /// What to write to oneself, when it is time.
    pub(super) fn note(&mut self, now: Instant) -> Option<[u8; 32]> {
        if now.duration_since(self.wrote) < WRITE {
            return None;
        }
        self.wrote = now;
        Some(self.note)
    }

    /// Whether all is well.
    ///
    /// # Errors
    ///
    /// Why the helper must be started again.
    pub(super) fn check(&self, now: Instant) -> Result<(), HelperError> {
        if process::has_panicked() {
            return Err(HelperError::Panicked);
        }
        if now.duration_since(self.heard) > DEAF {
            return Err(HelperError::Deaf);
        }
        if process::memory().is_some_and(|bytes| bytes > LARGEST) {
            return Err(HelperError::Grown);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_hears_nothing_is_deaf_and_who_hears_is_not() {
        let start = Instant::now();
        let mut watchdog = Watchdog::new(start);
        assert_eq!(watchdog.note(start), None);
        let note = watchdog.note(start + WRITE).expect("it is time");
        assert_eq!(watchdog.note(start + WRITE), None);
        let late = start + DEAF + Duration::from_secs(1);
        assert!(matches!(watchdog.check(late), Err(HelperError::Deaf)));
        assert!(watchdog.hear(&note, late));
        assert!(!watchdog.hear(b"somebody else's", late));
        assert!(watchdog.check(late).is_ok());
        watchdog.begin_again(late + DEAF);
        assert!(watchdog.check(late + DEAF).is_ok());
    }

    #[test]
    fn memory_is_measured() {
        let bytes = process::memory().expect("Linux");
        assert!((1 << 20..LARGEST).contains(&bytes), "{bytes}");
    }
}
