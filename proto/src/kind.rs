//! One closed list of error kinds, by which the receiver decides what to do next.
//!
//! Kinds are split by *place* (here, the anonymity network, the provider, the
//! function) and by *what the receiver can do*; never by code path. Each has an
//! exit code; programs have a hint for each.

use serde::Serialize;

/// What went wrong, as seen by the one who has to act on it.
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

impl ErrorKind {
    /// The exit code of a program that ends with this kind of error.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::FunctionFailed => 1,
            Self::Usage => 2,
            Self::NoProvider => 3,
            Self::Refused => 4,
            Self::NetworkDown => 5,
            Self::Deadline => 6,
            Self::ProviderMisbehaved => 7,
            Self::Local => 8,
            // EX_SOFTWARE of sysexits.h.
            Self::Bug => 70,
        }
    }
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

#[cfg(test)]
mod tests {
    use super::ErrorKind;

    #[test]
    fn every_kind_has_an_exit_code_of_its_own() {
        let codes = [
            ErrorKind::FunctionFailed,
            ErrorKind::Usage,
            ErrorKind::NoProvider,
            ErrorKind::Refused,
            ErrorKind::NetworkDown,
            ErrorKind::Deadline,
            ErrorKind::ProviderMisbehaved,
            ErrorKind::Local,
            ErrorKind::Bug,
        ]
        .map(ErrorKind::exit_code);
        assert_eq!(codes, [1, 2, 3, 4, 5, 6, 7, 8, 70]);
    }
}
