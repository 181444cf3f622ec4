//! What a run came to, in the words of a provider.

use dlambda_client::CallError;
use dlambda_executor::{Outcome, Status};
use dlambda_proto::{HttpError, HttpField, HttpResponse, Plan, Report};

/// How a run ended.
pub(super) struct Ending {
    pub(super) http: Option<HttpResponse>,
    /// `None` if it ended well.
    pub(super) failure: Option<Report>,
}

pub(super) fn ending(outcome: &Outcome, plan: &Plan) -> Ending {
    let (http, unfit) = match outcome.http.as_ref().map(response).transpose() {
        Ok(http) => (http, None),
        Err(error) => {
            let reason = format!("its response has a head that cannot be sent: {error}");
            (None, Some(stopped(reason)))
        }
    };
    let failure = match outcome.status {
        Status::Exited(0) => None,
        Status::Exited(status) => Some(CallError::FunctionFailed {
            status: u8::try_from(status).unwrap_or(u8::MAX),
            stdout: Vec::new(),
            stderr: Vec::new(),
        }),
        status => Some(stopped(stop_reason(status, plan))),
    };
    Ending {
        http,
        failure: unfit.or(failure).map(Report::from),
    }
}

fn response(response: &dlambda_executor::HttpResponse) -> Result<HttpResponse, HttpError> {
    let fields = response
        .fields
        .iter()
        .map(|(name, value)| HttpField::new(name, value));
    HttpResponse::new(response.status, fields.collect::<Result<_, _>>()?)
}

fn stopped(reason: String) -> CallError {
    CallError::FunctionStopped {
        reason,
        stderr: Vec::new(),
    }
}

fn stop_reason(status: Status, plan: &Plan) -> String {
    let Plan { name, .. } = plan;
    match status {
        Status::DeadlineExceeded => {
            format!("it ran longer than the {} ms of plan {name}", plan.wall_ms)
        }
        Status::FuelExhausted => format!("it used up the {} fuel of plan {name}", plan.fuel),
        Status::MemoryExceeded => {
            let bytes = plan.memory_bytes;
            format!("it needed more than the {bytes} bytes of memory of plan {name}")
        }
        Status::OutputExceeded => {
            let bytes = plan.output_bytes;
            format!("it wrote more than the {bytes} bytes of output of plan {name}")
        }
        Status::NoResponse => "it returned without a complete HTTP response".to_owned(),
        Status::Trapped(trap) => format!("it trapped: {trap}"),
        _ => "it was ended".to_owned(),
    }
}

/// A word for machines.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::DeadlineExceeded => "deadline-exceeded",
        Status::Exited(_) => "exited",
        Status::FuelExhausted => "fuel-exhausted",
        Status::MemoryExceeded => "memory-exceeded",
        Status::NoResponse => "no-response",
        Status::OutputExceeded => "output-exceeded",
        Status::Trapped(_) => "trapped",
        _ => "other",
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

    use dlambda_executor::{TrapKind, Usage};

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
    fn limits_are_named_with_their_value() {
        let plan = &Plan::standard_menu()[0];
        for (status, said) in [
            (Status::DeadlineExceeded, "the 10000 ms of plan small"),
            (Status::FuelExhausted, "the 5000000000 fuel of plan small"),
            (
                Status::MemoryExceeded,
                "the 67108864 bytes of memory of plan small",
            ),
            (
                Status::OutputExceeded,
                "the 1048576 bytes of output of plan small",
            ),
            (Status::NoResponse, "without a complete HTTP response"),
            (Status::Trapped(TrapKind::Unreachable), "unreachable"),
            (Status::Exited(300), "exit status 255"),
        ] {
            let failure = ending(&outcome(status), plan).failure.expect("it failed");
            assert!(failure.message.contains(said), "{}", failure.message);
            assert_eq!(crate::exit::code(failure.kind), 1);
        }
        assert!(ending(&outcome(Status::Exited(0)), plan).failure.is_none());
    }

    #[test]
    fn a_response_that_no_reply_can_carry_is_a_failure() {
        let mut outcome = outcome(Status::Exited(0));
        outcome.http = Some(dlambda_executor::HttpResponse {
            status: 200,
            fields: vec![("x".to_owned(), b"y".to_vec()); 65],
        });
        let ending = ending(&outcome, &Plan::standard_menu()[0]);
        assert!(ending.http.is_none());
        let failure = ending.failure.expect("too many fields");
        assert!(
            failure.message.contains("cannot be sent"),
            "{}",
            failure.message
        );
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
