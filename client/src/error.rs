//! Why a call brought no answer.

use dlambda_privacy::{ExchangeError, SealError, TransportError, WireError};
use dlambda_proto::{ErrorKind, HasKind};
use thiserror::Error;

/// Why a call brought no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection to the provider.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The conversation with the provider went wrong.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// The call cannot be sealed.
    #[error("the call cannot be sealed: {0}")]
    Seal(#[from] SealError),
    /// The time for the call is over.
    #[error("the call did not end within {0} seconds")]
    Deadline(u64),
    /// The provider's advert has no function of this name.
    #[error("the provider publishes no function of this name (it publishes: {})", .known.join(", "))]
    UnknownAlias {
        /// What it does publish.
        known: Vec<String>,
    },
    /// The provider offers no such plan.
    #[error("the provider offers no such plan (it offers: {})", .known.join(", "))]
    UnknownPlan {
        /// What it does offer.
        known: Vec<String>,
    },
    /// The provider does not have the function, and we have only its name.
    #[error("the provider does not have this function; give a path to its .wasm file to send it")]
    FunctionMissing,
    /// The provider does not run this function.
    #[error("the provider does not take this function: {0}")]
    FunctionUnusable(String),
    /// The input or the function is larger than the plan or provider allows.
    #[error("the input or the function is larger than the provider allows; try a larger plan")]
    TooLarge,
    /// The provider has too much to do.
    #[error("the provider has too much to do; it suggests trying again in {0} seconds")]
    Busy(u32),
    /// The provider failed at its own task.
    #[error("the provider failed to run the function; the function is not at fault")]
    ProviderFault,
    /// The function ended with a failure of its own.
    #[error("the function ended with exit status {status}")]
    FunctionFailed {
        /// Its exit status, 1 to 255.
        status: u8,
        /// Its standard output until then.
        stdout: Vec<u8>,
        /// Its standard error.
        stderr: Vec<u8>,
    },
    /// The function was ended: a trap, or a limit of the plan.
    #[error("the function was ended: {reason}")]
    FunctionStopped {
        /// Why, in the provider's words.
        reason: String,
        /// Its standard error until then.
        stderr: Vec<u8>,
    },
    /// The provider showed us two adverts for one epoch: the way to tag callers.
    #[error("the provider shows different keys to different visitors in one epoch")]
    Equivocation,
    /// The provider speaks a later dialect of this protocol version.
    #[error("the provider's answer is of a kind that we do not know")]
    UnknownAnswer,
}

impl CallError {
    /// Whether a fresh try on another circuit may do better, without asking anybody.
    pub(crate) fn is_worth_another_circuit(&self) -> bool {
        match self {
            Self::Transport(TransportError::Unreachable(_) | TransportError::Deadline(_))
            | Self::Exchange(ExchangeError::Wire(WireError::Lost(_) | WireError::Deadline)) => true,
            Self::Exchange(ExchangeError::Refused(refusal)) => refusal.is_transient(),
            _ => false,
        }
    }
}

impl HasKind for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Transport(error) => error.kind(),
            Self::Exchange(error) => error.kind(),
            Self::Seal(SealError::BadKey) | Self::Equivocation | Self::UnknownAnswer => {
                ErrorKind::ProviderMisbehaved
            }
            Self::Seal(_) => ErrorKind::Usage,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Busy(_)
            | Self::FunctionMissing
            | Self::FunctionUnusable(_)
            | Self::ProviderFault
            | Self::TooLarge
            | Self::UnknownAlias { .. }
            | Self::UnknownPlan { .. } => ErrorKind::Refused,
            Self::FunctionFailed { .. } | Self::FunctionStopped { .. } => ErrorKind::FunctionFailed,
        }
    }
}
