//! Why there was no call. What a guest does wrong while it runs is an [`Outcome`](crate::Outcome)
//! instead.

use std::time::Duration;

use dlambda_proto::FunctionProblem;

/// Why a function could not be prepared or run.
///
/// Messages may quote names from the function itself (shortened, control characters escaped), never
/// its input, its arguments, or anything about this machine, except for [`ExecutorError::Setup`],
/// which only [`Executor::new`] returns.
///
/// [`Executor::new`]: crate::Executor::new
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutorError {
    /// The executor itself failed; another call may succeed.
    #[error("the executor failed: {0}")]
    Fault(&'static str),

    /// The function cannot be called like this.
    #[error("the function cannot be called like this: {0}")]
    BadInvocation(&'static str),

    /// The function can never run here.
    #[error("{0}")]
    BadFunction(FunctionProblem),

    /// The same as [`FunctionProblem::Malformed`], with what the validator said, for this machine's
    /// user. The text is not sent to callers.
    #[error("{}: {reason}", FunctionProblem::Malformed { offset: *offset })]
    Malformed {
        /// Where, in bytes from the beginning.
        offset: u64,
        /// What the validator said.
        reason: String,
    },

    /// Too many calls or compilations are waiting, one waited for too long, or too much compiled
    /// code is in use.
    #[error("the executor is overloaded; try again in {} s", .retry_after.as_secs().max(1))]
    Overloaded {
        /// When there is likely to be room again.
        retry_after: Duration,
    },

    /// The engine could not be set up on this machine.
    #[error("the WebAssembly engine cannot be set up: {0}")]
    Setup(String),

    /// A worker process died or hung, and took this call with it; another call may succeed.
    #[error("the worker process that ran the function died")]
    WorkerDied,

    /// The function was prepared by another executor.
    #[error("the function was prepared by another executor")]
    WrongExecutor,
}

/// What to do about an [`ExecutorError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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

impl ExecutorError {
    /// What the receiver can do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Fault(_) | Self::Setup(_) | Self::WorkerDied | Self::WrongExecutor => {
                ErrorKind::Internal
            }
            Self::BadInvocation(_) => ErrorKind::BadInvocation,
            Self::Overloaded { .. } => ErrorKind::Overloaded,
            Self::BadFunction(_) | Self::Malformed { .. } => ErrorKind::BadFunction,
        }
    }

    /// What is wrong with the function, as callers are told; `None` if it is not the function's
    /// fault.
    pub fn problem(&self) -> Option<FunctionProblem> {
        match self {
            Self::BadFunction(problem) => Some(problem.clone()),
            Self::Malformed { offset, .. } => Some(FunctionProblem::Malformed { offset: *offset }),
            Self::BadInvocation(_) => Some(FunctionProblem::BadInvocation),
            _ => None,
        }
    }
}

/// [`ExecutorError::Fault`] without its cause, which would say something about this machine, and is
/// lost between the processes anyway.
pub(crate) fn fault<E>(what: &'static str) -> impl FnOnce(E) -> ExecutorError {
    move |_| ExecutorError::Fault(what)
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
