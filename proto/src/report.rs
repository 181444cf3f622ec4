//! An error as programs print it: one shape for people and for machines.

use std::error::Error;
use std::ffi::OsString;
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
    /// When the same may succeed.
    #[serde(flatten)]
    pub retry: Retry,
    /// What to do next; without one, the program has a hint for the kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Report {
    /// A report of this kind with this message, and the retry that most errors of
    /// the kind have.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        let retry = match kind {
            ErrorKind::FunctionFailed
            | ErrorKind::Usage
            | ErrorKind::ProviderMisbehaved
            | ErrorKind::Bug => Retry::Never,
            ErrorKind::NoProvider
            | ErrorKind::Refused
            | ErrorKind::NetworkDown
            | ErrorKind::Deadline
            | ErrorKind::Local => Retry::Later,
        };
        Self {
            kind,
            message: message.into(),
            retry,
            hint: None,
        }
    }

    /// A wrong command line, from what the parser of arguments says of it: its first paragraph,
    /// without the word before it. The rest is for people (the usage, and a pointer to the help).
    #[must_use]
    pub fn usage(text: &str) -> Self {
        let text = text.strip_prefix("error: ").unwrap_or(text);
        let message = text.split("\n\n").next().unwrap_or_default();
        Self::new(ErrorKind::Usage, message)
    }

    /// The same report with this hint.
    #[must_use]
    pub fn with_hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// The same report with this hint, unless it has one.
    #[must_use]
    pub fn or_hint(self, hint: &str) -> Self {
        match self.hint {
            Some(_) => self,
            None => self.with_hint(hint),
        }
    }
}

impl<E: HasKind + Error> From<E> for Report {
    fn from(error: E) -> Self {
        Self {
            retry: error.retry(),
            ..Self::new(error.kind(), with_causes(&error))
        }
    }
}

/// Whether a command line that cannot be parsed asks for JSON, as far as one can tell.
#[must_use]
pub fn json_is_asked_for(arguments: &[OsString]) -> bool {
    let mut pairs = arguments.windows(2);
    arguments.iter().any(|argument| argument == "--format=json")
        || pairs.any(|pair| pair[0] == "--format" && pair[1] == "json")
}

/// What failed, and why, the outermost first, on one line.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Arti repeats its causes in its own text.
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        source = cause.source();
    }
    message
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parsers_text_is_cut_to_what_is_wrong() {
        let text = "error: unexpected argument '--x' found\n\nUsage: a [OPTIONS]\n\nmore\n";
        let report = Report::usage(text);
        assert_eq!(report.kind, ErrorKind::Usage);
        assert_eq!(report.message, "unexpected argument '--x' found");
        assert_eq!(Report::usage("odd").message, "odd");
        assert_eq!(Report::usage("").message, "");
    }

    #[test]
    fn json_can_be_asked_for_in_two_ways() {
        let asks = |line: &str| {
            let arguments: Vec<_> = line.split(' ').map(OsString::from).collect();
            json_is_asked_for(&arguments)
        };
        assert!(asks("a --format=json b") && asks("a --format json"));
        assert!(!asks("a --format text json") && !asks("a json --format") && !asks("a"));
    }

    #[test]
    fn the_time_to_wait_is_a_field_of_its_own() {
        let report = Report {
            retry: Retry::After { seconds: 30 },
            ..Report::new(ErrorKind::Refused, "busy")
        };
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["retry"], "after");
        assert_eq!(json["retry_after_seconds"], 30);
        let report = Report::new(ErrorKind::Usage, "wrong");
        let json = serde_json::to_value(&report).expect("JSON");
        assert_eq!(json["retry"], "never");
        assert!(json.get("retry_after_seconds").is_none());
    }
}
