//! What a command ends with: an exit code for scripts, and a hint for people.

use std::process::ExitCode;

use dlambda_proto::{ErrorKind, Report};

/// The exit code of a command that ends with this kind of error.
pub(crate) fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(kind.exit_code())
}

/// The report with a hint.
pub(crate) fn with_hint(report: Report) -> Report {
    let hint = hint(report.kind);
    report.or_hint(hint)
}

fn hint(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::FunctionFailed => {
            "look at the function's own messages above, or choose a larger plan"
        }
        ErrorKind::Usage => "see --help",
        ErrorKind::NoProvider => "check the address; the provider may be down, so ask another one",
        ErrorKind::Refused => {
            "read the provider's reason; ask another provider, or this one at another time"
        }
        ErrorKind::NetworkDown => {
            "run `dlambda doctor` to see which part of the network is missing"
        }
        ErrorKind::Deadline => "allow more time with --max-time, or ask another provider",
        ErrorKind::ProviderMisbehaved => "do not use this provider; keep the message as evidence",
        ErrorKind::Local => "check that the named file or directory exists and is yours alone",
        _ => "this is a fault in D-Lambda: please report the message",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [ErrorKind; 9] = [
        ErrorKind::FunctionFailed,
        ErrorKind::Usage,
        ErrorKind::NoProvider,
        ErrorKind::Refused,
        ErrorKind::NetworkDown,
        ErrorKind::Deadline,
        ErrorKind::ProviderMisbehaved,
        ErrorKind::Local,
        ErrorKind::Bug,
    ];

    /// Such advice makes calls that are known as one caller's by their time or
    /// content, or has a person ask about a call that was anonymous.
    #[test]
    fn no_hint_advises_what_links_calls() {
        for kind in ALL {
            for word in ["again", "retry", "operator"] {
                assert!(!hint(kind).contains(word), "{kind:?}: {}", hint(kind));
            }
        }
    }
}
