//! One closed list of error kinds, for whoever has to decide what to do next.
//!
//! Kinds are split by *place* (here, the anonymity network, the provider, the
//! function) and by *what the receiver can do*; never by code path. Exit codes
//! are a function of the kind, so that scripts can rely on them.

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

/// Whether trying again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Retry {
    /// A second try, on a fresh circuit, may well work at once.
    Now,
    /// It may work later, or after the cause was mended.
    Later,
    /// The same call will fail the same way.
    Never,
}

impl ErrorKind {
    /// The exit code of a command that ends with this kind.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::FunctionFailed => 1,
            Self::Usage => 2,
            Self::NoProvider => 3,
            Self::Refused => 4,
            Self::NetworkDown => 5,
            Self::Deadline => 6,
            Self::ProviderMisbehaved => 7,
            Self::Local => 8,
            Self::Bug => 70,
        }
    }

    /// Whether trying again can help.
    #[must_use]
    pub fn retry(self) -> Retry {
        match self {
            Self::Deadline => Retry::Now,
            Self::NoProvider | Self::NetworkDown | Self::Refused | Self::Local => Retry::Later,
            Self::FunctionFailed | Self::Usage | Self::ProviderMisbehaved | Self::Bug => {
                Retry::Never
            }
        }
    }

    /// What to do next, in a sentence.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::FunctionFailed => {
                "look at the function's own messages above, or choose a larger plan"
            }
            Self::Usage => "see --help",
            Self::NoProvider => {
                "check the address, and ask the provider's operator whether it is up"
            }
            Self::Refused => "read the provider's reason; try again later or ask another provider",
            Self::NetworkDown => "run `dlambda doctor` to see which part of the network is missing",
            Self::Deadline => "try again, or allow more time with --max-time",
            Self::ProviderMisbehaved => "do not use this provider; keep the message as evidence",
            Self::Local => "check that the named file or directory exists and is yours alone",
            Self::Bug => "this is a fault in D-Lambda: please report the message",
        }
    }
}

/// An error that can tell its kind.
pub trait HasKind {
    /// The kind of this error.
    fn kind(&self) -> ErrorKind;
}
