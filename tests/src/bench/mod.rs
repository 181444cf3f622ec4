//! Measuring the executor.

mod calls;
mod limits;
mod report;
mod serve;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use dlambda_executor::{ExecutorConfig, Isolation, executor_program};

pub use report::Report;

/// What to measure, and for how long.
pub struct Setting {
    /// Rounds; each measures everything once.
    pub rounds: u16,
    /// Seconds of load for each throughput in each round.
    pub seconds: u16,
    /// The `wasmtime` program.
    pub wasmtime: PathBuf,
    /// Where the real programs are, if they are here.
    pub programs: Option<PathBuf>,
}

/// Measures everything.
///
/// # Errors
///
/// Whatever is missing or does not answer as it should.
pub async fn run(setting: &Setting) -> Result<Report> {
    let mut report = Report::default();
    for round in 0..setting.rounds {
        eprintln_round(round, setting.rounds);
        serve::throughput(setting, &mut report).await?;
        calls::single(&mut report).await?;
        limits::prices(setting, &mut report).await?;
    }
    calls::starts(setting, &mut report).await?;
    calls::memory(&mut report).await?;
    Ok(report)
}

#[allow(clippy::print_stderr, reason = "progress of a program for people")]
fn eprintln_round(round: u16, rounds: u16) {
    eprintln!("round {} of {rounds}", round + 1);
}

/// One of the example functions.
pub(crate) fn example(name: &str) -> Result<bytes::Bytes> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions");
    let path = directory.join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(wasm.into())
}

/// Guests in worker processes, as providers run them.
pub(crate) fn isolated() -> Result<ExecutorConfig> {
    let program = executor_program().context("dlambda-executor is not built")?;
    Ok(ExecutorConfig::new(Isolation::processes(program)))
}

/// Guests in this process.
pub(crate) fn in_process() -> ExecutorConfig {
    ExecutorConfig::dangerously_in_process()
}
