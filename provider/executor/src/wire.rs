//! How this process and its helpers write errors, limits and outcomes to each other.
//!
//! Both ends are one version of one program. A helper may be under a stranger's control all the same, so what comes
//! back from it is bounded and decoded like a stranger's.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::{
    Abi, Cost, ExecutorError, HttpRequest, HttpResponse, Invocation, Limits, Measure, Outcome,
    Status, TrapKind, Usage,
};

/// An [`ExecutorError`]. Faults lose their text, which is for this side's log only.
#[derive(Encode, Decode)]
pub(crate) enum WireError {
    #[n(0)]
    BadRequest,
    #[n(1)]
    Fault,
    #[n(2)]
    Malformed(#[n(0)] String),
    #[n(3)]
    NoEntryPoint,
    #[n(4)]
    TooLarge(#[n(0)] u8, #[n(1)] u64, #[n(2)] u64),
    #[n(5)]
    TooMuchMemory,
    #[n(6)]
    TooMuchTime,
    #[n(7)]
    Unsupported,
    #[n(8)]
    UnsupportedImport(#[n(0)] String),
}

/// A header field.
type Field = (String, minicbor::bytes::ByteVec);

/// A call, on its way to a worker.
#[derive(Encode, Decode)]
pub(crate) struct WireCall {
    #[n(0)]
    args: Vec<String>,
    #[cbor(n(1), with = "minicbor::bytes")]
    input: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    seed: [u8; 32],
    #[n(3)]
    http: Option<(String, String, Vec<Field>)>,
    #[n(4)]
    limits: WireLimits,
}

#[derive(Encode, Decode)]
struct WireLimits {
    #[n(0)]
    memory_bytes: u64,
    #[n(1)]
    fuel: u64,
    #[n(2)]
    wall_us: u64,
    #[n(3)]
    output_bytes: u64,
    #[n(4)]
    stderr_bytes: u64,
    #[n(5)]
    deterministic: bool,
}

/// What came of it, on its way back.
#[derive(Encode, Decode)]
pub(crate) struct WireOutcome {
    #[n(0)]
    status: (u8, i32),
    #[cbor(n(1), with = "minicbor::bytes")]
    stdout: Vec<u8>,
    #[cbor(n(2), with = "minicbor::bytes")]
    stderr: Vec<u8>,
    #[n(3)]
    stderr_truncated: bool,
    #[n(4)]
    http: Option<(u16, Vec<Field>)>,
    /// Fuel, peak memory, microseconds to instantiate and in all.
    #[n(5)]
    usage: (u64, u64, u64, u64),
}

impl WireCall {
    pub(crate) fn new(invocation: Invocation, limits: &Limits) -> Self {
        let http = invocation
            .http
            .map(|http| (http.method, http.path, to_fields(http.fields)));
        Self {
            args: invocation.args,
            input: invocation.input.into(),
            seed: invocation.seed,
            http,
            limits: WireLimits {
                memory_bytes: limits.memory_bytes,
                fuel: limits.fuel,
                wall_us: micros(limits.wall_time),
                output_bytes: limits.output_bytes as u64,
                stderr_bytes: limits.stderr_bytes as u64,
                deterministic: limits.deterministic,
            },
        }
    }

    pub(crate) fn into_parts(self) -> (Invocation, Limits) {
        let limits = Limits {
            memory_bytes: self.limits.memory_bytes,
            fuel: self.limits.fuel,
            wall_time: Duration::from_micros(self.limits.wall_us),
            output_bytes: size(self.limits.output_bytes),
            stderr_bytes: size(self.limits.stderr_bytes),
            deterministic: self.limits.deterministic,
        };
        let invocation = Invocation {
            args: self.args,
            input: self.input.into(),
            seed: self.seed,
            http: self.http.map(|(method, path, fields)| HttpRequest {
                method,
                path,
                fields: from_fields(fields),
            }),
        };
        (invocation, limits)
    }
}

impl WireOutcome {
    pub(crate) fn new(outcome: Outcome) -> Self {
        let usage = &outcome.usage;
        Self {
            status: status_code(outcome.status),
            usage: (
                usage.fuel,
                usage.peak_memory,
                micros(usage.instantiate),
                micros(usage.wall),
            ),
            stdout: outcome.stdout.into(),
            stderr: outcome.stderr.into(),
            stderr_truncated: outcome.stderr_truncated,
            http: outcome
                .http
                .map(|http| (http.status, to_fields(http.fields))),
        }
    }

    /// Nothing unless it keeps to the limits that the call was given.
    pub(crate) fn into_outcome(self, limits: &Limits) -> Option<Outcome> {
        let (fuel, peak_memory, instantiate, wall) = self.usage;
        let kept = self.stdout.len() <= limits.output_bytes
            && self.stderr.len() <= limits.stderr_bytes
            && fuel <= limits.fuel
            && peak_memory <= limits.memory_bytes;
        kept.then_some(())?;
        Some(Outcome {
            status: status(self.status)?,
            stdout: self.stdout.into(),
            stderr: self.stderr.into(),
            stderr_truncated: self.stderr_truncated,
            http: self.http.map(|(status, fields)| HttpResponse {
                status,
                fields: from_fields(fields),
            }),
            usage: Usage {
                fuel,
                peak_memory,
                instantiate: Duration::from_micros(instantiate),
                wall: Duration::from_micros(wall),
            },
        })
    }
}

impl From<ExecutorError> for WireError {
    fn from(error: ExecutorError) -> Self {
        match error {
            ExecutorError::BadInvocation(_) => Self::BadRequest,
            ExecutorError::Malformed { reason } => Self::Malformed(reason),
            ExecutorError::NoEntryPoint => Self::NoEntryPoint,
            ExecutorError::TooCostly(Cost::Memory) => Self::TooMuchMemory,
            ExecutorError::TooCostly(Cost::Time) => Self::TooMuchTime,
            ExecutorError::TooLarge {
                measure,
                found,
                limit,
            } => {
                let measure = Measure::ALL.iter().position(|other| *other == measure);
                Self::TooLarge(
                    u8::try_from(measure.unwrap_or(0)).unwrap_or(0),
                    found,
                    limit,
                )
            }
            ExecutorError::Unsupported => Self::Unsupported,
            ExecutorError::UnsupportedImport { import } => Self::UnsupportedImport(import),
            _ => Self::Fault,
        }
    }
}

impl From<WireError> for ExecutorError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::BadRequest => Self::BadInvocation("not a valid HTTP request"),
            WireError::Fault => Self::Fault("in a helper process"),
            WireError::Malformed(reason) => Self::Malformed {
                reason: printable(&reason),
            },
            WireError::NoEntryPoint => Self::NoEntryPoint,
            WireError::TooLarge(measure, found, limit) => {
                let measure = Measure::ALL.get(usize::from(measure)).copied();
                Self::TooLarge {
                    measure: measure.unwrap_or(Measure::ModuleBytes),
                    found,
                    limit,
                }
            }
            WireError::TooMuchMemory => Self::TooCostly(Cost::Memory),
            WireError::TooMuchTime => Self::TooCostly(Cost::Time),
            WireError::Unsupported => Self::Unsupported,
            WireError::UnsupportedImport(import) => Self::UnsupportedImport {
                import: printable(&import),
            },
        }
    }
}

pub(crate) fn abi_code(abi: Abi) -> u8 {
    match abi {
        Abi::Preview1 => 1,
        Abi::Preview2 => 2,
        Abi::Http => 3,
    }
}

pub(crate) fn abi(code: u8) -> Option<Abi> {
    Some(match code {
        1 => Abi::Preview1,
        2 => Abi::Preview2,
        3 => Abi::Http,
        _ => return None,
    })
}

fn status_code(status: Status) -> (u8, i32) {
    match status {
        Status::Exited(code) => (0, code),
        Status::DeadlineExceeded => (1, 0),
        Status::FuelExhausted => (2, 0),
        Status::MemoryExceeded => (3, 0),
        Status::NoResponse => (4, 0),
        Status::OutputExceeded => (5, 0),
        Status::Trapped(kind) => {
            let kind = TrapKind::ALL.iter().position(|other| *other == kind);
            (6, i32::try_from(kind.unwrap_or(0)).unwrap_or(0))
        }
    }
}

fn status((code, detail): (u8, i32)) -> Option<Status> {
    Some(match code {
        0 if (0..=255).contains(&detail) => Status::Exited(detail),
        1 => Status::DeadlineExceeded,
        2 => Status::FuelExhausted,
        3 => Status::MemoryExceeded,
        4 => Status::NoResponse,
        5 => Status::OutputExceeded,
        6 => Status::Trapped(*TrapKind::ALL.get(usize::try_from(detail).ok()?)?),
        _ => return None,
    })
}

fn to_fields(fields: Vec<(String, Vec<u8>)>) -> Vec<Field> {
    fields
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

fn from_fields(fields: Vec<Field>) -> Vec<(String, Vec<u8>)> {
    fields
        .into_iter()
        .map(|(name, value)| (name, value.into()))
        .collect()
}

/// Text that has been made fit for a log already, unless the helper has fallen.
fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let fit = text.chars().filter(|character| !character.is_control());
    fit.take(LONGEST).collect()
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(status: Status) -> Outcome {
        Outcome {
            status,
            stdout: "out".into(),
            stderr: "err".into(),
            stderr_truncated: true,
            http: Some(HttpResponse {
                status: 404,
                fields: vec![("a".into(), b"b".to_vec())],
            }),
            usage: Usage {
                fuel: 1,
                peak_memory: 2,
                instantiate: Duration::from_micros(3),
                wall: Duration::from_micros(4),
            },
        }
    }

    #[test]
    fn every_outcome_survives() {
        let mut all = vec![
            Status::Exited(0),
            Status::Exited(255),
            Status::DeadlineExceeded,
            Status::FuelExhausted,
            Status::MemoryExceeded,
            Status::NoResponse,
            Status::OutputExceeded,
        ];
        all.extend(TrapKind::ALL.map(Status::Trapped));
        for status in all {
            let bytes = minicbor::to_vec(WireOutcome::new(outcome(status))).unwrap();
            let back: WireOutcome = minicbor::decode(&bytes).unwrap();
            assert_eq!(back.into_outcome(&Limits::default()), Some(outcome(status)));
        }
    }

    #[test]
    fn what_breaks_the_limits_is_not_believed() {
        let believed = |limits: Limits| {
            WireOutcome::new(outcome(Status::Exited(0)))
                .into_outcome(&limits)
                .is_some()
        };
        assert!(believed(Limits::default()));
        assert!(!believed(Limits {
            output_bytes: 2,
            ..Limits::default()
        }));
        assert!(!believed(Limits {
            stderr_bytes: 2,
            ..Limits::default()
        }));
        assert!(!believed(Limits {
            fuel: 0,
            ..Limits::default()
        }));
        assert!(!believed(Limits {
            memory_bytes: 1,
            ..Limits::default()
        }));
        let mut wire = WireOutcome::new(outcome(Status::Exited(0)));
        wire.status = (0, 256);
        assert!(wire.into_outcome(&Limits::default()).is_none());
    }

    #[test]
    fn what_a_fallen_helper_says_is_fit_for_a_log() {
        let lie = WireError::Malformed(format!("\u{1b}[2J\n{}", "x".repeat(10_000)));
        let ExecutorError::Malformed { reason } = lie.into() else {
            panic!("another error");
        };
        assert!(reason.starts_with("[2Jxxx") && reason.len() == 400);
    }

    #[test]
    fn errors_about_functions_survive() {
        for error in [
            ExecutorError::Malformed { reason: "x".into() },
            ExecutorError::NoEntryPoint,
            ExecutorError::TooCostly(Cost::Memory),
            ExecutorError::TooCostly(Cost::Time),
            ExecutorError::TooLarge {
                measure: Measure::Functions,
                found: 2,
                limit: 1,
            },
            ExecutorError::Unsupported,
            ExecutorError::UnsupportedImport {
                import: "a::b".into(),
            },
        ] {
            let bytes = minicbor::to_vec(WireError::from(error.clone())).unwrap();
            let back: WireError = minicbor::decode(&bytes).unwrap();
            assert_eq!(ExecutorError::from(back), error);
        }
    }
}
