//! How this process and its helpers, which compile and run functions, write to each other.
//!
//! Both ends are one version of one program. A helper may be under a stranger's control all the
//! same, so what comes back from it is bounded and decoded like a stranger's.

use std::io;

use dlambda_proto::FunctionProblem;
use minicbor::{Decode, Encode};

use crate::ExecutorError;

/// Reads a message. A function that has broken out of a helper writes what it likes.
///
/// # Errors
///
/// [`io::ErrorKind::InvalidData`], before anything is allocated that is larger than the message.
pub(crate) fn read<T: for<'b> Decode<'b, ()>>(message: &[u8]) -> io::Result<T> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
    dlambda_proto::check_shape(message).map_err(invalid)?;
    minicbor::decode(message).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// What a helper says of an [`ExecutorError`]. Faults lose their text, which is for this side's
/// log only.
#[derive(Encode, Decode)]
pub(crate) enum HelperError {
    #[n(0)]
    Fault,
    #[n(1)]
    BadInvocation,
    #[n(2)]
    Malformed {
        #[n(0)]
        offset: u64,
        #[n(1)]
        reason: String,
    },
    #[n(3)]
    BadFunction(#[n(0)] FunctionProblem),
}

impl From<ExecutorError> for HelperError {
    fn from(error: ExecutorError) -> Self {
        match error {
            ExecutorError::BadInvocation(_) => Self::BadInvocation,
            ExecutorError::Malformed { offset, reason } => Self::Malformed { offset, reason },
            ExecutorError::BadFunction(problem) => Self::BadFunction(problem),
            _ => Self::Fault,
        }
    }
}

impl From<HelperError> for ExecutorError {
    fn from(error: HelperError) -> Self {
        match error {
            HelperError::Fault => Self::Fault("in a helper process"),
            HelperError::BadInvocation => Self::BadInvocation("not a valid HTTP request"),
            HelperError::Malformed { offset, reason } => Self::Malformed {
                offset,
                reason: printable(&reason),
            },
            HelperError::BadFunction(FunctionProblem::UnsupportedImport { import }) => {
                Self::BadFunction(FunctionProblem::UnsupportedImport {
                    import: printable(&import),
                })
            }
            HelperError::BadFunction(problem) => Self::BadFunction(problem),
        }
    }
}

/// Text that has been made fit for a log already, unless the helper has fallen.
fn printable(text: &str) -> String {
    const LONGEST: usize = 400;
    let fit = text.chars().filter(|character| !character.is_control());
    fit.take(LONGEST).collect()
}

/// [`bytes::Bytes`] as a byte string.
pub(crate) mod octets {
    use bytes::Bytes;
    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::Error as EncodeError;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(crate) fn encode<C, W: Write>(
        bytes: &Bytes,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Bytes, DecodeError> {
        d.bytes().map(Bytes::copy_from_slice)
    }
}

/// [`std::time::Duration`] in microseconds.
pub(crate) mod micros {
    use std::time::Duration;

    use minicbor::decode::Error as DecodeError;
    use minicbor::encode::Error as EncodeError;
    use minicbor::encode::Write;
    use minicbor::{Decoder, Encoder};

    pub(crate) fn encode<C, W: Write>(
        time: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), EncodeError<W::Error>> {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        e.u64(micros)?.ok()
    }

    pub(crate) fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Duration, DecodeError> {
        d.u64().map(Duration::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{Cost, Measure};

    use super::*;

    #[test]
    fn what_a_fallen_helper_says_is_fit_for_a_log() {
        let lie = format!("\u{1b}[2J\n{}", "x".repeat(10_000));
        let malformed = HelperError::Malformed {
            offset: 0,
            reason: lie.clone(),
        };
        let ExecutorError::Malformed { reason, .. } = malformed.into() else {
            panic!("another error");
        };
        assert!(reason.starts_with("[2Jxxx") && reason.len() == 400);
        let import = FunctionProblem::UnsupportedImport { import: lie };
        let ExecutorError::BadFunction(FunctionProblem::UnsupportedImport { import }) =
            HelperError::BadFunction(import).into()
        else {
            panic!("another error");
        };
        assert!(import.starts_with("[2Jxxx") && import.len() == 400);
    }

    #[test]
    fn errors_about_functions_survive() {
        let problems = [
            FunctionProblem::NoEntryPoint,
            FunctionProblem::TooCostly(Cost::Memory),
            FunctionProblem::TooCostly(Cost::Time),
            FunctionProblem::TooLarge {
                measure: Measure::Functions,
                found: 2,
                limit: 1,
            },
            FunctionProblem::Unsupported,
            FunctionProblem::UnsupportedImport {
                import: "a::b".into(),
            },
        ];
        let malformed = ExecutorError::Malformed {
            offset: 7,
            reason: "x".into(),
        };
        let bad = problems.into_iter().map(ExecutorError::BadFunction);
        for error in bad.chain([malformed]) {
            let bytes = minicbor::to_vec(HelperError::from(error.clone())).unwrap();
            let back: HelperError = read(&bytes).unwrap();
            assert_eq!(ExecutorError::from(back), error);
        }
    }
}
