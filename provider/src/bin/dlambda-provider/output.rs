//! What people and machines get to see.

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use dlambda_proto::{ErrorKind, Report, json_is_asked_for};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::cli::{Cli, Format};
use crate::exit::{exit_code, with_hint};

/// The command line. What is wrong with it is said in the format that was asked for.
pub(crate) fn parse() -> Result<Cli, ExitCode> {
    Cli::try_parse().map_err(|error| {
        let arguments: Vec<_> = std::env::args_os().collect();
        // Help and version are no mistakes.
        if !error.use_stderr() || !json_is_asked_for(&arguments) {
            error.exit();
        }
        print_error(Format::Json, Report::usage(&error.to_string()))
    })
}

/// Prints an error on standard error, and gives the exit code that it means.
pub(crate) fn print_error(format: Format, report: Report) -> ExitCode {
    let report = with_hint(report);
    match format {
        Format::Text => say(&report.to_string()),
        Format::Json => say(&json!({ "schema": "dlambda.error/1", "error": report }).to_string()),
    }
    exit_code(report.kind)
}

/// Prints a line for people on standard error.
pub(crate) fn say(text: &str) {
    // There is no other place for it if standard error is closed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints a line of data on standard output, at once.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout();
    let _ = writeln!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// A spinner on a terminal; hidden elsewhere.
pub(crate) fn spinner(quiet: bool) -> ProgressBar {
    if quiet || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// The data directory: as asked for, systemd's, or the user's.
pub(crate) fn data_directory(asked: Option<PathBuf>) -> Result<PathBuf, Report> {
    if let Some(path) = asked.or_else(|| std::env::var_os("STATE_DIRECTORY").map(PathBuf::from)) {
        return Ok(path);
    }
    match directories::ProjectDirs::from("", "", "dlambda-provider") {
        Some(project) => Ok(project.data_local_dir().to_owned()),
        None => Err(
            Report::new(ErrorKind::Local, "this user has no home directory")
                .with_hint("name a directory with --data"),
        ),
    }
}
