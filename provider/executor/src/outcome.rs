//! What came of a call.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::Trap;

use crate::HttpResponse;

/// The end of a call, whichever way it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: Status,
    /// What it wrote to standard output (the response's body for an HTTP function), also if it failed later; at most [`Limits::output_bytes`].
    ///
    /// [`Limits::output_bytes`]: crate::Limits::output_bytes
    pub stdout: Bytes,
    /// How an HTTP function answered, if it did.
    pub http: Option<HttpResponse>,
    /// The beginning of what it wrote to standard error; at most [`Limits::stderr_bytes`].
    ///
    /// [`Limits::stderr_bytes`]: crate::Limits::stderr_bytes
    pub stderr: Bytes,
    /// Whether it wrote more to standard error than was kept.
    pub stderr_truncated: bool,
    /// What it used.
    pub usage: Usage,
}

/// What a call used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Fuel: one unit for an executed instruction, for a byte that the host copied, and for a byte or table element
    /// of a bulk operation; 50 for a read, a write or a look at a clock; 255 for a new page of memory.
    /// After [`Status::DeadlineExceeded`] this is a lower bound.
    pub fuel: u64,
    /// Largest total size of all its memories and tables, in bytes.
    pub peak_memory: u64,
    /// Time to make a fresh instance, on this machine's clock; part of `wall`.
    pub instantiate: Duration,
    /// Time from the first step of instantiation to the end, on this machine's clock.
    pub wall: Duration,
}

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// Cut at [`Limits::wall_time`](crate::Limits::wall_time).
    DeadlineExceeded,
    /// It ended by itself with this status, 0 to 255 (larger statuses are given as 255). 0 is success.
    /// A preview 2 component can only say 0 or 1.
    Exited(i32),
    /// Cut at [`Limits::fuel`](crate::Limits::fuel).
    FuelExhausted,
    /// It was refused memory and then trapped. A guest that copes with the refusal, or exits because of it,
    /// has [`Status::Exited`].
    MemoryExceeded,
    /// An HTTP function that returned without a complete response.
    NoResponse,
    /// Cut when it wrote more to standard output than [`Limits::output_bytes`](crate::Limits::output_bytes).
    OutputExceeded,
    /// It trapped.
    Trapped(TrapKind),
}

/// What a guest did to trap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TrapKind {
    /// Called a table entry of another signature.
    BadSignature,
    /// Misused the host: a bad pointer or handle, or more of a host resource than it may have.
    HostCall,
    /// Called an empty table entry.
    IndirectCallToNull,
    /// Divided by zero.
    IntegerDivisionByZero,
    /// Overflowed an integer division or a conversion.
    IntegerOverflow,
    /// Converted a NaN to an integer.
    InvalidConversion,
    /// Touched memory beyond its end.
    MemoryOutOfBounds,
    /// Anything else.
    Other,
    /// Called too deep. How deep that is depends on the machine and on the engine's version.
    StackOverflow,
    /// Touched a table beyond its end.
    TableOutOfBounds,
    /// Executed `unreachable`: how compiled languages abort.
    Unreachable,
}

impl Status {
    /// Whether a second deterministic run anywhere must end the same way, with the same output, fuel and peak memory.
    pub fn is_reproducible(&self) -> bool {
        match self {
            Self::DeadlineExceeded | Self::Trapped(TrapKind::StackOverflow) => false,
            Self::Exited(_)
            | Self::FuelExhausted
            | Self::MemoryExceeded
            | Self::NoResponse
            | Self::OutputExceeded
            | Self::Trapped(_) => true,
        }
    }

    /// Whether the guest ended by itself and said that all is well.
    pub fn is_success(&self) -> bool {
        *self == Self::Exited(0)
    }
}

impl fmt::Display for TrapKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BadSignature => "a table entry of another signature was called",
            Self::HostCall => "a host function was misused",
            Self::IndirectCallToNull => "an empty table entry was called",
            Self::IntegerDivisionByZero => "integer division by zero",
            Self::IntegerOverflow => "integer overflow",
            Self::InvalidConversion => "a NaN was converted to an integer",
            Self::MemoryOutOfBounds => "memory was touched beyond its end",
            Self::Other => "another trap",
            Self::StackOverflow => "stack overflow",
            Self::TableOutOfBounds => "a table was touched beyond its end",
            Self::Unreachable => "`unreachable` was executed",
        })
    }
}

impl TrapKind {
    pub(crate) const ALL: [Self; 11] = [
        Self::BadSignature,
        Self::HostCall,
        Self::IndirectCallToNull,
        Self::IntegerDivisionByZero,
        Self::IntegerOverflow,
        Self::InvalidConversion,
        Self::MemoryOutOfBounds,
        Self::Other,
        Self::StackOverflow,
        Self::TableOutOfBounds,
        Self::Unreachable,
    ];

    pub(crate) fn new(trap: Trap) -> Self {
        match trap {
            Trap::BadSignature => Self::BadSignature,
            Trap::IndirectCallToNull => Self::IndirectCallToNull,
            Trap::IntegerDivisionByZero => Self::IntegerDivisionByZero,
            Trap::IntegerOverflow => Self::IntegerOverflow,
            Trap::BadConversionToInteger => Self::InvalidConversion,
            Trap::MemoryOutOfBounds => Self::MemoryOutOfBounds,
            Trap::StackOverflow => Self::StackOverflow,
            Trap::TableOutOfBounds => Self::TableOutOfBounds,
            Trap::UnreachableCodeReached => Self::Unreachable,
            _ => Self::Other,
        }
    }

    /// Whether a guest that was refused memory may end like this for that reason.
    pub(crate) fn may_follow_refusal(self) -> bool {
        matches!(
            self,
            Self::HostCall | Self::MemoryOutOfBounds | Self::TableOutOfBounds | Self::Unreachable
        )
    }
}
