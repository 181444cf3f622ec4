//! What people and machines get to see.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{IsTerminal, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser as _;
use dlambda_proto::{ErrorKind, Report, json_is_asked_for};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

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
    let text = match format {
        Format::Text => report.to_string(),
        Format::Json => json!({ "schema": "dlambda.error/1", "error": report }).to_string(),
    };
    say(&text);
    exit_code(report.kind)
}

/// Prints a line for people on standard error.
pub(crate) fn say(text: &str) {
    let stderr = std::io::stderr();
    let text = printable_on_terminal(&stderr, text.as_bytes());
    // There is no other place for it if standard error is closed.
    let _ = (&stderr).write_all(&[&text, &b"\n"[..]].concat());
}

/// Prints a line of data on standard output.
pub(crate) fn print(line: &str) {
    let stdout = std::io::stdout();
    let line = printable_on_terminal(&stdout, line.as_bytes());
    let _ = (&stdout).write_all(&[&line, &b"\n"[..]].concat());
}

/// Writes a function's output: byte for byte if it is `raw` or goes elsewhere than to a terminal.
pub(crate) fn write_output(bytes: &[u8], raw: bool) -> Result<(), Report> {
    let mut stdout = std::io::stdout().lock();
    let shown = if raw {
        Cow::Borrowed(bytes)
    } else {
        printable_on_terminal(&stdout, bytes)
    };
    stdout
        .write_all(&shown)
        .and_then(|()| stdout.flush())
        .map_err(|error| Report::new(ErrorKind::Local, format!("standard output: {error}")))
}

/// Prints what a function wrote to its standard error.
pub(crate) fn print_stderr_of_function(bytes: &[u8]) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(&printable_on_terminal(&stderr, bytes));
}

/// Text of a stranger, fit for where it goes: on a terminal, control characters
/// but the ends of lines and tabs are shown as `\x1b`, and so are bytes that are no
/// text. They could change what the terminal shows, or what it types for its user.
pub(crate) fn printable_on_terminal<'a>(
    stream: &impl IsTerminal,
    bytes: &'a [u8],
) -> Cow<'a, [u8]> {
    fit_for(bytes, stream.is_terminal())
}

fn fit_for(bytes: &[u8], terminal: bool) -> Cow<'_, [u8]> {
    if terminal {
        Cow::Owned(escape(bytes).into_bytes())
    } else {
        Cow::Borrowed(bytes)
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    let show_byte = |shown: &mut String, byte: &u8| {
        // Writing to a string never fails.
        let _ = write!(shown, "\\x{byte:02x}");
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if matches!(c, '\n' | '\t') || !c.is_control() {
                shown.push(c);
            } else {
                let mut buffer = [0; 4];
                let encoded = c.encode_utf8(&mut buffer);
                encoded
                    .bytes()
                    .for_each(|byte| show_byte(&mut shown, &byte));
            }
        }
        chunk
            .invalid()
            .iter()
            .for_each(|byte| show_byte(&mut shown, byte));
    }
    shown
}

/// Writes a report for machines to a file.
pub(crate) fn write_report(path: &Path, report: &Value) -> Result<(), Report> {
    write_file(path, format!("{report:#}\n").as_bytes())
}

/// Writes what opens receipts or holds inputs: a file is readable by its owner only, also if it was
/// there before. All files that commands write on request are written by this.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Report> {
    let write = || -> std::io::Result<()> {
        let mut options = File::options();
        let opened = options.create(true).truncate(true).write(true).mode(0o600);
        let mut file = opened.open(path)?;
        // A pipe or a terminal keeps its mode.
        if file.metadata()?.is_file() {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        file.write_all(bytes)
    };
    write().map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))
}

/// Opens a file to read and append to, which is its owner's alone; makes it if need be.
pub(crate) fn open_private(path: &Path) -> Result<File, Report> {
    let open = || -> std::io::Result<File> {
        let mut options = File::options();
        let opened = options.create(true).truncate(false).read(true).write(true);
        let file = opened.mode(0o600).open(path)?;
        file.set_permissions(Permissions::from_mode(0o600))?;
        Ok(file)
    };
    open().map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))
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

    /// Gives the terminal to other output for a while.
    pub(crate) fn pause<T>(&self, work: impl FnOnce() -> T) -> T {
        self.0.suspend(work)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_gets_no_control_characters_and_a_file_every_byte() {
        // Clear the screen, set the clipboard, C1 controls in UTF-8 and bare, a bell.
        let hostile = b"\x1b[2Ja\tb\n\x1b]52;c;YQ==\x07\xc2\x9b1m\x9b\xff\r\xc3\xa9\x7f";
        let shown = fit_for(hostile, true);
        let expected = "\\x1b[2Ja\tb\n\\x1b]52;c;YQ==\\x07\\xc2\\x9b1m\\x9b\\xff\\x0d\u{e9}\\x7f";
        assert_eq!(String::from_utf8_lossy(&shown), expected);
        assert_eq!(*fit_for(hostile, false), *hostile);
    }

    #[test]
    fn files_are_for_their_owner_alone_also_if_they_were_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        for _ in 0..2 {
            write_file(&path, b"secret").expect("writes");
            let mode = std::fs::metadata(&path)
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(std::fs::read(&path).expect("reads"), b"secret");
            std::fs::write(&path, b"something longer").expect("writes");
            std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("ours");
        }
    }

    /// Files on request are written by the one function that keeps them private.
    #[test]
    fn no_command_writes_files_by_itself() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bin/dlambda");
        let mut directories = vec![sources];
        let mut seen = 0;
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).expect("sources") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    directories.push(path);
                    continue;
                }
                seen += 1;
                let text = std::fs::read_to_string(&path).expect("text");
                let code = text.split("#[cfg(test)]").next().unwrap_or_default();
                let writes = ["fs::write(", "File::create(", "File::options("];
                let count: usize = writes.iter().map(|it| code.matches(it).count()).sum();
                // Keys and a lock, which have the same mode.
                let allowed = match path.file_name().and_then(|name| name.to_str()) {
                    Some("home.rs") => 2,
                    Some("output.rs") => 2,
                    _ => 0,
                };
                assert_eq!(count, allowed, "{}", path.display());
                assert!(code.matches("0o600").count() >= count, "{}", path.display());
            }
        }
        assert!(seen > 15, "{seen} files");
    }
}
