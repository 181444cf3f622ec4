//! What people and machines get to see.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use dlambda_proto::Report;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

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

/// Prints what a function wrote to its standard error. It comes from a
/// stranger: on a terminal, escape sequences are taken out.
pub(crate) fn print_stderr_of_function(bytes: &[u8]) {
    let mut stderr = std::io::stderr();
    let _ = if stderr.is_terminal() {
        let text = String::from_utf8_lossy(bytes);
        let harmless = |c: &char| matches!(c, '\n' | '\t') || !c.is_control();
        let text: String = text.chars().filter(harmless).collect();
        stderr.write_all(text.as_bytes())
    } else {
        stderr.write_all(bytes)
    };
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
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
