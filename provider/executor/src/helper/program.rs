//! The `dlambda-executor` program: the other end of a worker and of a compiler.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::backend::worker;
use crate::compile;
use crate::confinement::{self, probe};

/// Does what the command line says, until it is done or the parent is gone. For the program only.
#[doc(hidden)]
pub fn main() -> ExitCode {
    confinement::close_inherited();
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let Some((command, arguments)) = arguments.split_first() else {
        return ExitCode::from(2);
    };
    match command.to_str() {
        Some(compile::child::COMMAND) => compile::child::run(arguments),
        Some(worker::serve::COMMAND) => worker::serve::run(),
        Some("probe") => probe(arguments).unwrap_or_else(|| ExitCode::from(2)),
        _ => ExitCode::from(2),
    }
}

/// Starts like a worker, and then tries to get out.
fn probe(arguments: &[OsString]) -> Option<ExitCode> {
    let [file, process, port] = arguments else {
        return None;
    };
    let (process, port) = (
        process.to_str()?.parse().ok()?,
        port.to_str()?.parse().ok()?,
    );
    let Ok((_worker, _runtime)) = worker::serve::start() else {
        return Some(ExitCode::FAILURE);
    };
    probe::report(&probe::attempts(Path::new(file), process, port));
    Some(ExitCode::SUCCESS)
}
