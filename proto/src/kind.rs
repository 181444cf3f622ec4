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
    /// It may work later, at a time of the caller's choice, or after the cause was mended. At once would
    /// be recognised as a second try.
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
            Self::NoProvider | Self::NetworkDown | Self::Refused | Self::Deadline | Self::Local => {
                Retry::Later
            }
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
            Self::NoProvider => "check the address; the provider may be down, so ask another one",
            Self::Refused => {
                "read the provider's reason; ask another provider, or this one at another time"
            }
            Self::NetworkDown => "run `dlambda doctor` to see which part of the network is missing",
            Self::Deadline => "allow more time with --max-time, or ask another provider",
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever follows such advice makes calls that are known as one caller's by their time or content, or asks in
    /// person about a call that was anonymous.
    #[test]
    fn no_hint_advises_what_links_calls() {
        use ErrorKind as Kind;
        let all = [
            Kind::FunctionFailed,
            Kind::Usage,
            Kind::NoProvider,
            Kind::Refused,
            Kind::NetworkDown,
            Kind::Deadline,
            Kind::ProviderMisbehaved,
            Kind::Local,
            Kind::Bug,
        ];
        for kind in all {
            for word in ["again", "retry", "operator"] {
                assert!(!kind.hint().contains(word), "{kind:?}: {}", kind.hint());
            }
        }
    }
}
