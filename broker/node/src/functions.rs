//! Functions that nodes hand on: whole, from one node, checked at the end.

use dlambda_proto::{ErrorKind, FunctionId, HasKind, Retry};
use thiserror::Error;

/// The functions that a node's owner publishes: nothing else is handed on.
///
/// Called from the task that all of a node's connections share: an answer should take microseconds.
pub trait PublishedFunctions: Send + Sync + 'static {
    /// The bytes of a published function from `offset` on, at most `most` of them; `None` if it is
    /// not published, or has no byte there.
    fn part(&self, function: &FunctionId, offset: u32, most: usize) -> Option<FunctionPart>;
}

/// Some bytes of a function.
#[derive(Clone, PartialEq, Eq)]
pub struct FunctionPart {
    /// Bytes of the whole function.
    pub size: u32,
    /// Those that were asked for.
    pub bytes: Vec<u8>,
}

/// Why a function was not fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Another fetch goes on: there is one at a time.
    #[error("another function is being fetched")]
    Occupied,
    /// No node is reached at the address.
    #[error("the node cannot be reached")]
    Unreachable,
    /// The node has sent wrong bytes before, and is not asked again for some time.
    #[error("the node has sent wrong bytes before")]
    LeftAlone,
    /// The node speaks no protocol for functions.
    #[error("the node hands on no functions")]
    Unsupported,
    /// The node gives nothing now.
    #[error("the node is busy")]
    Busy,
    /// The node does not publish the function.
    #[error("the node does not publish the function")]
    Missing,
    /// The function is larger than asked for.
    #[error("the function is too large")]
    TooLarge,
    /// What the node sent breaks the protocol.
    #[error("the node breaks the protocol")]
    Malformed,
    /// The bytes are not those of the function.
    #[error("the node sent other bytes than the function's")]
    WrongBytes,
    /// The connection was lost.
    #[error("the connection to the node was lost")]
    Lost,
    /// It took too long.
    #[error("the node did not send the function in time")]
    Deadline,
    /// Our own node has ended.
    #[error("the node has ended")]
    Ended,
}

impl FetchError {
    /// The reason's name, for counters and for JSON.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Occupied => "occupied",
            Self::Unreachable => "unreachable",
            Self::LeftAlone => "left-alone",
            Self::Unsupported => "unsupported",
            Self::Busy => "busy",
            Self::Missing => "missing",
            Self::TooLarge => "too-large",
            Self::Malformed => "malformed",
            Self::WrongBytes => "wrong-bytes",
            Self::Lost => "lost",
            Self::Deadline => "deadline",
            Self::Ended => "ended",
        }
    }

    /// Whether the node that was asked has broken the protocol.
    #[must_use]
    pub fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::Malformed | Self::WrongBytes)
    }
}

impl HasKind for FetchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unreachable | Self::Lost => ErrorKind::NoProvider,
            Self::LeftAlone | Self::Malformed | Self::WrongBytes => ErrorKind::ProviderMisbehaved,
            Self::Occupied | Self::Ended => ErrorKind::Local,
            Self::Unsupported | Self::Busy | Self::Missing | Self::TooLarge => ErrorKind::Refused,
            Self::Deadline => ErrorKind::Deadline,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Occupied | Self::Busy | Self::Unreachable | Self::Lost | Self::Deadline => {
                Retry::Later
            }
            _ => Retry::Never,
        }
    }
}

impl std::fmt::Debug for FunctionPart {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FunctionPart([scrubbed])")
    }
}
