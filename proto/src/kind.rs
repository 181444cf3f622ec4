//! One closed list of error kinds, for whoever has to decide what to do next.
//!
//! Kinds are split by *place* (here, the anonymity network, the provider, the
//! function) and by *what the receiver can do*; never by code path. Programs
//! have an exit code and a hint for each.

use serde::Serialize;

/// What went wrong, as seen by whoever has to act on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The function ran and failed, or broke a limit of its plan.
    FunctionFailed,
    /// What was asked for cannot be done as it was asked.
    Usage,
    /// The provider cannot be reached through a working network.
    NoProvider,
    /// The provider understood the call and declined it.
    Refused,
    /// The anonymity network cannot be used from here.
    NetworkDown,
    /// The time given for the call ran out.
    Deadline,
    /// The provider broke the protocol or lied.
    ProviderMisbehaved,
    /// A file, a permission or another resource of this machine.
    Local,
    /// A fault in D-Lambda itself.
    Bug,
}

/// When the same may succeed.
///
/// What has reached a provider is recognised by its content when it comes
/// again: `Now` is said only of what has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "retry", rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retry {
    /// At once.
    Now,
    /// Not before so many seconds have passed, and at a random time after that:
    /// the provider chose the number, and would know a call that comes just then.
    After {
        /// Seconds.
        #[serde(rename = "retry_after_seconds")]
        seconds: u32,
    },
    /// At a time of the caller's choice, or after the cause was mended.
    Later,
    /// It will fail the same way.
    Never,
}

/// An error that says what its receiver can do.
pub trait HasKind {
    /// What went wrong, and where.
    fn kind(&self) -> ErrorKind;

    /// When the same may succeed.
    fn retry(&self) -> Retry;
}
