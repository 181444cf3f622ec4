//! Why a provider turns a call away.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::ErrorKind;

/// Why a provider turns a call away before opening it. Codes only: a text
/// could carry a mark or a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(array)]
#[non_exhaustive]
pub enum Refusal {
    /// The frame or envelope cannot be read.
    #[n(0)]
    Malformed,
    /// The frame is of a version that the provider does not speak.
    #[n(1)]
    UnsupportedVersion,
    /// The frame is longer than allowed.
    #[n(2)]
    TooLong,
    /// The epoch's key is gone, or never was.
    #[n(3)]
    UnknownEpoch,
    /// No such plan on the menu.
    #[n(4)]
    UnknownPlan,
    /// The key of the epoch does not open it.
    #[n(5)]
    CannotOpen,
    /// This very call was received before.
    #[n(6)]
    Replayed,
    /// Too much to do; try again a little later.
    #[n(7)]
    Busy,
    /// The call did not arrive in time.
    #[n(8)]
    TooSlow,
    /// A contract takes more work than was done.
    #[n(9)]
    TooLittleWork,
    /// The answer is larger than the transport carries. The same call over
    /// another transport gets it, and is not paid again.
    #[n(10)]
    AnswerTooLarge,
}

impl Refusal {
    /// Whether the fault lies with this client, this moment or this provider.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        ErrorKind::Refused
    }

    /// Whether the same request, freshly sealed on a new circuit, may do better.
    #[must_use]
    pub fn is_transient(self) -> bool {
        matches!(self, Self::UnknownEpoch | Self::Busy | Self::TooSlow)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the provider could not read the call",
            Self::UnsupportedVersion => "the provider does not speak this version of the protocol",
            Self::TooLong => "the call is longer than the provider allows",
            Self::UnknownEpoch => "the provider no longer has the key that the call was sealed to",
            Self::UnknownPlan => "the provider does not offer this plan",
            Self::CannotOpen => "the provider could not open the call with its key",
            Self::Replayed => "the provider has seen this very call before",
            Self::Busy => "the provider has too much to do",
            Self::TooSlow => "the call did not reach the provider in time",
            Self::AnswerTooLarge => {
                "the answer is larger than this transport carries; the same call over Tor gets it"
            }
            Self::TooLittleWork => "the provider asks for more work before it makes a contract",
        })
    }
}
