//! The real programs, killed at random moments of issuance and redemption: no
//! token works twice, and none that was paid for is lost.
//!
//! A moment is drawn between the start of a command and a little after it would
//! have ended, by a clock that the same run has measured. What the kills hit is
//! counted, so that a test which no longer hits anything fails.

pub(crate) mod client;
mod issuance;
mod moments;
mod redemption;
pub(crate) mod shop;

use std::time::Duration;

/// For one command, or one start of a provider.
const DEADLINE: Duration = Duration::from_secs(60);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Client,
    Provider,
}

/// What the kills of one test have hit.
#[derive(Debug, Default)]
struct Hits {
    kills: usize,
    /// Commands that were killed, or failed because the provider was.
    failed: usize,
    /// Kills that left a draft, an unconfirmed contract or a token in flight.
    underway: usize,
}

impl Hits {
    /// Kills that hit nothing show nothing.
    fn assert_many(&self) {
        let Self {
            kills,
            failed,
            underway,
        } = self;
        println!("{kills} kills: {failed} commands failed, {underway} left something underway");
        // A client whose provider comes back soon enough notices little.
        assert!(
            (failed + underway) * 10 >= *kills,
            "the kills miss: {self:?}"
        );
    }
}
