//! What came of a call.

use std::time::Duration;

use bytes::Bytes;
use dlambda_proto::{HttpResponse, Status, StopKind};
use minicbor::{Decode, Encode};

use crate::Limits;

/// The end of a call, whichever way it ended.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Outcome {
    /// How it ended.
    #[n(0)]
    pub status: Status,
    /// What it wrote to standard output (the response's body for an HTTP function), also if it
    /// failed later; at most [`Limits::output_bytes`].
    ///
    /// [`Limits::output_bytes`]: crate::Limits::output_bytes
    #[cbor(n(1), with = "crate::helper::ipc::octets")]
    pub stdout: Bytes,
    /// How an HTTP function answered, if it did.
    #[n(2)]
    pub http: Option<HttpResponse>,
    /// The beginning of what it wrote to standard error; at most [`Limits::stderr_bytes`].
    ///
    /// [`Limits::stderr_bytes`]: crate::Limits::stderr_bytes
    #[cbor(n(3), with = "crate::helper::ipc::octets")]
    pub stderr: Bytes,
    /// Whether it wrote more to standard error than was kept.
    #[n(4)]
    pub stderr_truncated: bool,
    /// What it used.
    #[n(5)]
    pub usage: Usage,
}

/// What a call used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Usage {
    /// Fuel: one unit for an executed instruction, for a byte that the host copied, and for a byte
    /// or table element of a bulk operation; 50 for a read, a write or a look at a clock; 255 for a
    /// new page of memory. After [`StopKind::Deadline`] this is a lower bound.
    #[n(0)]
    pub fuel: u64,
    /// Largest total size of all its memories and tables, in bytes.
    #[n(1)]
    pub peak_memory: u64,
    /// Time to make a fresh instance, on this machine's clock; part of `wall`.
    #[cbor(n(2), with = "crate::helper::ipc::micros")]
    pub instantiate: Duration,
    /// Time from the first step of instantiation to the end, on this machine's clock.
    #[cbor(n(3), with = "crate::helper::ipc::micros")]
    pub wall: Duration,
}

impl Outcome {
    /// Whether it keeps to the limits that the call was given, and ended in a way that this version
    /// knows. What a worker says is believed only then.
    pub(crate) fn keeps_to(&self, limits: &Limits) -> bool {
        self.stdout.len() <= limits.output_bytes
            && self.stderr.len() <= limits.stderr_bytes
            && self.usage.fuel <= limits.fuel
            && self.usage.peak_memory <= limits.memory_bytes
            && !matches!(self.status, Status::Stopped(StopKind::Other(_)))
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{HttpField, HttpResponse};

    use super::*;

    fn outcome(status: Status) -> Outcome {
        let field = HttpField::new("a", b"b").unwrap();
        Outcome {
            status,
            stdout: "out".into(),
            stderr: "err".into(),
            stderr_truncated: true,
            http: Some(HttpResponse::new(404, vec![field]).unwrap()),
            usage: Usage {
                fuel: 1,
                peak_memory: 2,
                instantiate: Duration::from_micros(3),
                wall: Duration::from_micros(4),
            },
        }
    }

    #[test]
    fn every_outcome_survives_the_way_from_a_worker() {
        let mut all = vec![Status::Exited(0), Status::Exited(255)];
        all.extend(StopKind::ALL.iter().copied().map(Status::Stopped));
        for status in all {
            let bytes = minicbor::to_vec(outcome(status)).unwrap();
            let back: Outcome = minicbor::decode(&bytes).unwrap();
            assert!(back.keeps_to(&Limits::default()));
            assert_eq!(back, outcome(status));
        }
    }

    #[test]
    fn an_outcome_beyond_the_limits_is_not_believed() {
        let believed = |limits: Limits| outcome(Status::Exited(0)).keeps_to(&limits);
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
        let unknown = outcome(Status::Stopped(StopKind::Other(999)));
        assert!(!unknown.keeps_to(&Limits::default()));
        let mut bytes = minicbor::to_vec(Status::Exited(255)).unwrap();
        assert_eq!(bytes.pop(), Some(255));
        bytes.pop();
        bytes.extend([0x19, 1, 0]);
        assert!(
            minicbor::decode::<Status>(&bytes).is_err(),
            "exit status 256"
        );
    }
}
