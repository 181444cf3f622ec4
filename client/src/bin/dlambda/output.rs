//! What people and machines get to see.

use std::borrow::Cow;
use std::io::{IsTerminal, Write as _};
use std::path::Path;
use std::time::Duration;

use dlambda_proto::{ErrorKind, Report};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use crate::cli::Format;

/// Prints an error on standard error.
pub(crate) fn print_error(format: Format, report: &Report) {
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => json!({ "schema": "dlambda.error/1", "error": report }).to_string(),
    };
    say(&text);
}

/// Prints a line for people on standard error.
pub(crate) fn say(text: &str) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a line of data on standard output.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Writes a function's output, byte for byte.
pub(crate) fn write_output(bytes: &[u8]) -> Result<(), Report> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Report::new(ErrorKind::Local, format!("standard output: {error}")))
}

/// Prints what a function wrote to its standard error.
pub(crate) fn print_stderr_of_function(bytes: &[u8]) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(&printable_on_terminal(&stderr, bytes));
}

/// Text of a stranger, fit for where it goes: on a terminal, escape sequences
/// are taken out.
pub(crate) fn printable_on_terminal<'a>(
    stream: &impl IsTerminal,
    bytes: &'a [u8],
) -> Cow<'a, [u8]> {
    if !stream.is_terminal() {
        return Cow::Borrowed(bytes);
    }
    let text = String::from_utf8_lossy(bytes);
    let harmless = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
    let text: String = text.chars().filter(harmless).collect();
    Cow::Owned(text.into_bytes())
}

/// Writes a report for machines to a file.
pub(crate) fn write_report(path: &Path, report: &Value) -> Result<(), Report> {
    let text = format!("{report:#}\n");
    std::fs::write(path, text)
        .map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))
}

/// Milliseconds with three decimals.
pub(crate) fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

/// Progress on a terminal; silent elsewhere.
pub(crate) struct Spinner(ProgressBar);

impl Spinner {
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Self(ProgressBar::hidden());
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(bar)
    }

    pub(crate) fn say(&self, message: String) {
        self.0.set_message(message);
    }

    /// Gives the terminal to somebody else for a while.
    pub(crate) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
