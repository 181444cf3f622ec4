//! The executor against `wasmtime serve` and `wasmtime run` of the same major
//! version, in one run: the same component, the same load generator, in turns.

mod limits;
mod serve;
mod single;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use dlambda_executor::{ExecutorConfig, Isolation};

use super::report::{Ratio, Report};
use crate::program::binary;

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

/// Claims: a figure over its baseline.
const RATIOS: [Ratio; 9] = [
    (
        "in process over wasmtime serve, 1 connection",
        "executor in process, 1 connections",
        "wasmtime serve, 1 connections",
    ),
    (
        "in process over wasmtime serve, 16 connections",
        "executor in process, 16 connections",
        "wasmtime serve, 16 connections",
    ),
    (
        "in workers over wasmtime serve, 1 connection",
        "executor in workers, 1 connections",
        "wasmtime serve, 1 connections",
    ),
    (
        "in workers over wasmtime serve, 16 connections",
        "executor in workers, 16 connections",
        "wasmtime serve, 16 connections",
    ),
    (
        "in workers over in process, 16 connections",
        "executor in workers, 16 connections",
        "executor in process, 16 connections",
    ),
    (
        "time with fuel over without",
        "computing (wasmtime run), fuel",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with epochs over without",
        "computing (wasmtime run), epochs",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with canonical NaNs over without",
        "computing (wasmtime run), canonical NaNs",
        "computing (wasmtime run), no limit",
    ),
    (
        "time with all three over none",
        "computing (wasmtime run), all three",
        "computing (wasmtime run), no limit",
    ),
];

/// Measures everything.
///
/// # Errors
///
/// Whatever is missing or does not answer as it should.
pub async fn run(setting: &Setting) -> Result<Report> {
    let mut report = Report::new("dlambda.bench-executor/1", &RATIOS);
    for round in 0..setting.rounds {
        super::progress(&format!("round {} of {}", round + 1, setting.rounds));
        serve::throughput(setting, &mut report).await?;
        single::single(&mut report).await?;
        limits::prices(setting, &mut report).await?;
    }
    single::starts(setting, &mut report).await?;
    single::memory(&mut report).await?;
    Ok(report)
}

/// One of the example functions.
fn example(name: &str) -> Result<bytes::Bytes> {
    let path = super::functions().join(format!("{name}.wasm"));
    let wasm = std::fs::read(&path).with_context(|| path.display().to_string())?;
    Ok(wasm.into())
}

/// Guests in worker processes, as providers run them.
fn isolated() -> Result<ExecutorConfig> {
    let program = binary("dlambda-executor")?;
    Ok(ExecutorConfig::new(Isolation::processes(program)))
}

/// Guests in this process.
fn in_process() -> ExecutorConfig {
    ExecutorConfig::dangerously_in_process()
}
