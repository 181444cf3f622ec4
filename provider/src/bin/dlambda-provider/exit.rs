//! What a command ends with: an exit code for scripts, and a hint for people.

use std::process::ExitCode;

use dlambda_proto::{ErrorKind, Report};

/// The exit code of a command that ends with this kind of error: the same as `dlambda` has.
pub(crate) fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(kind.exit_code())
}

/// The report with a hint.
pub(crate) fn with_hint(report: Report) -> Report {
    let hint = match report.kind {
        ErrorKind::Usage => "see --help, and `dlambda-provider config` for every setting",
        ErrorKind::NoProvider => "is the provider running on this data directory?",
        ErrorKind::NetworkDown => "check the network file and the connection of this machine",
        ErrorKind::Deadline => "the network is slow or blocked; the next start may be faster",
        ErrorKind::Local => "check that the named file or directory exists and is yours alone",
        ErrorKind::FunctionFailed | ErrorKind::Refused | ErrorKind::ProviderMisbehaved => {
            "see the message"
        }
        _ => "this is a fault in D-Lambda: please report the message",
    };
    report.or_hint(hint)
}
