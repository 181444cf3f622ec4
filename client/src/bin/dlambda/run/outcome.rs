//! What a run came to, as a caller of a provider would be told.

use dlambda_client::{CallError, stop_reason};
use dlambda_executor::{Outcome, replay};
use dlambda_proto::{Plan, Report, Status, StopKind};

/// What went wrong, if anything did.
pub(super) fn failure(status: Status, plan: &Plan) -> Option<Report> {
    let error = match status {
        Status::Exited(0) => return None,
        Status::Exited(status) => CallError::FunctionFailed {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
        },
        Status::Stopped(kind) => CallError::FunctionStopped {
            reason: stop_reason(kind, replay::limit(kind, plan), &plan.name),
            stderr: Vec::new(),
        },
    };
    Some(Report::from(error))
}

/// A word for machines.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Exited(_) => "exited",
        Status::Stopped(StopKind::BadResponse) => "bad-response",
        Status::Stopped(StopKind::Deadline) => "deadline-exceeded",
        Status::Stopped(StopKind::Fuel) => "fuel-exhausted",
        Status::Stopped(StopKind::Memory) => "memory-exceeded",
        Status::Stopped(StopKind::NoResponse) => "no-response",
        Status::Stopped(StopKind::Output) => "output-exceeded",
        Status::Stopped(kind) if kind.is_trap() => "trapped",
        Status::Stopped(_) => "other",
    }
}

/// What of two runs is not the same, if anything: times may differ.
pub(super) fn difference(one: &Outcome, other: &Outcome) -> Option<&'static str> {
    let same = [
        ("end", one.status == other.status),
        ("output", one.stdout == other.stdout),
        ("HTTP response", one.http == other.http),
        ("standard error", one.stderr == other.stderr),
        ("fuel", one.usage.fuel == other.usage.fuel),
        (
            "peak memory",
            one.usage.peak_memory == other.usage.peak_memory,
        ),
    ];
    same.into_iter()
        .find(|(_, same)| !same)
        .map(|(what, _)| what)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dlambda_executor::Usage;

    use super::*;

    fn outcome(status: Status) -> Outcome {
        Outcome {
            status,
            stdout: "out".into(),
            http: None,
            stderr: "err".into(),
            stderr_truncated: false,
            usage: Usage {
                fuel: 7,
                peak_memory: 65_536,
                instantiate: Duration::from_micros(10),
                wall: Duration::from_micros(100),
            },
        }
    }

    #[test]
    fn every_end_but_success_is_a_failure_of_the_function() {
        let plan = &Plan::standard_menu()[0];
        let stops = StopKind::ALL.iter().copied().map(Status::Stopped);
        for status in stops.chain([Status::Exited(1), Status::Exited(255)]) {
            let failure = failure(status, plan).expect("it failed");
            assert_eq!(failure.kind.exit_code(), 1);
            assert_ne!(word(status), "other");
        }
        assert!(failure(Status::Exited(0), plan).is_none());
    }

    #[test]
    fn runs_may_differ_in_time_only() {
        let one = outcome(Status::Exited(0));
        let mut other = one.clone();
        other.usage.wall = Duration::from_secs(1);
        assert_eq!(difference(&one, &other), None);
        other.usage.fuel = 8;
        assert_eq!(difference(&one, &other), Some("fuel"));
        other.stdout = "other".into();
        assert_eq!(difference(&one, &other), Some("output"));
        other.status = Status::Exited(1);
        assert_eq!(difference(&one, &other), Some("end"));
    }
}
