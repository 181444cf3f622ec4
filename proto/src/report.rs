//! An error as programs print it: one shape for people and for machines.

use std::error::Error;
use std::fmt;

use serde::Serialize;

use crate::{ErrorKind, HasKind, Retry};

/// An error with all its causes, ready to be printed.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// What to do about it, as a kind.
    pub kind: ErrorKind,
    /// What failed, and why, the outermost first.
    pub message: String,
    /// Whether trying again can help.
    pub retry: Retry,
    /// What to do next.
    pub hint: String,
}

impl Report {
    /// A report of this kind with this message.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            retry: kind.retry(),
            hint: kind.hint().to_owned(),
        }
    }

    /// The same report with advice that fits better than the kind's own.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: hint.into(),
            ..self
        }
    }
}

impl<E: HasKind + Error> From<E> for Report {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            // Some libraries repeat their cause in their own text.
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(error.kind(), message)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}\nhint: {}", self.message, self.hint)
    }
}
