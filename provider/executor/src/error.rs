//! Why there was no call. What a guest does wrong while it runs is an [`Outcome`](crate::Outcome) instead.

use std::fmt;
use std::time::Duration;

/// Why a function could not be prepared or run.
///
/// Messages may quote names from the function itself (shortened, control characters escaped), never its input, its
/// arguments, or anything about this machine, except for [`ExecutorError::Setup`], which only [`Executor::new`] returns.
///
/// [`Executor::new`]: crate::Executor::new
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The executor itself failed; another call may succeed.
    #[error("the executor failed: {0}")]
    Fault(&'static str),

    /// The function cannot be called like this.
    #[error("the function cannot be called like this: {0}")]
    BadInvocation(&'static str),

    /// Not WebAssembly, cut short, invalid, or using a proposal that is switched off here.
    #[error("not a valid WebAssembly function: {reason}")]
    Malformed {
        /// What the validator said.
        reason: String,
    },

    /// Neither `_start: () -> ()` (preview 1) nor `wasi:cli/run` or `wasi:http/incoming-handler` (preview 2) is exported.
    #[error(
        "the function has no entry point: export `_start`, `wasi:cli/run` or `wasi:http/incoming-handler`"
    )]
    NoEntryPoint,

    /// Too many calls or compilations are waiting, one waited for too long, or too much compiled code is in use.
    #[error("the executor is overloaded; try again in {} s", .retry_after.as_secs().max(1))]
    Overloaded {
        /// When there is likely to be room again.
        retry_after: Duration,
    },

    /// The engine could not be set up on this machine.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Setup(String),

    /// A property of the function exceeds what this executor takes.
    #[error("the function is too large: {measure} {found}, at most {limit}")]
    TooLarge {
        /// What was measured.
        measure: Measure,
        /// What the function has.
        found: u64,
        /// What is allowed.
        limit: u64,
    },

    /// Compiling took more than the operator allows.
    #[error("the function costs too much {0} to compile")]
    TooCostly(Cost),

    /// Valid, but the engine cannot compile or hold it: too much memory or too large a table at the start, say.
    #[error("the function does not fit this executor's bounds")]
    Unsupported,

    /// The function needs an import that is not given here, or gives it another type.
    #[error("the function imports {import}, which is not provided here")]
    UnsupportedImport {
        /// The first such import: `module::field`, or an interface like `wasi:http/types@0.2.0`.
        import: String,
    },

    /// A worker process died or hung, and took this call with it; another call may succeed.
    #[error("the worker process that ran the function died")]
    WorkerDied,

    /// The function was prepared by another executor.
    #[error("the function was prepared by another executor")]
    WrongExecutor,
}

/// What to do about an [`ExecutorError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The function can never run here; retrying is of no use.
    BadFunction,
    /// The function may run, but not with this input.
    BadInvocation,
    /// Try again later.
    Overloaded,
    /// The host's fault.
    Internal,
}

/// What compiling had too much of, in [`ExecutorError::TooCostly`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Cost {
    /// Memory.
    Memory,
    /// Time.
    Time,
}

/// A measured property of a function, in [`ExecutorError::TooLarge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Measure {
    /// Bytes of the longest function body.
    FunctionBytes,
    /// Number of functions that the module or component defines.
    Functions,
    /// Bytes of the whole module or component.
    ModuleBytes,
}

impl ExecutorError {
    /// What the receiver can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fault(_) | Self::Setup(_) | Self::WorkerDied | Self::WrongExecutor => {
                ErrorKind::Internal
            }
            Self::BadInvocation(_) => ErrorKind::BadInvocation,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::Malformed { .. }
            | Self::NoEntryPoint
            | Self::TooCostly(_)
            | Self::TooLarge { .. }
            | Self::Unsupported
            | Self::UnsupportedImport { .. } => ErrorKind::BadFunction,
        }
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Time => "time",
        })
    }
}

impl Measure {
    pub(crate) const ALL: [Self; 3] = [Self::FunctionBytes, Self::Functions, Self::ModuleBytes];
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FunctionBytes => "bytes in one function body:",
            Self::Functions => "functions:",
            Self::ModuleBytes => "bytes:",
        })
    }
}

/// Text that came out of a stranger's module, made fit for a message or a log.
pub(crate) fn foreign_text(text: &str) -> String {
    const LONGEST: usize = 160;
    text.chars()
        .flat_map(char::escape_debug)
        .take(LONGEST)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::foreign_text;

    #[test]
    fn foreign_text_is_short_and_has_no_control_characters() {
        assert_eq!(foreign_text("a\n\u{1b}[2J"), "a\\n\\u{1b}[2J");
        assert_eq!(foreign_text(&"x".repeat(10_000)).len(), 160);
    }
}
