//! The executor against `wasmtime serve` and `wasmtime run` of the same major
//! version, in one run: the same component, the same load generator, in turns.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "printing is what this program is for"
)]

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use dlambda_tests::bench::{self, Setting};

/// Measure the executor against wasmtime's own programs.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// Seconds of load for each throughput in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: u16,

    /// The wasmtime program to compare with
    #[arg(long, default_value = "wasmtime")]
    wasmtime: std::path::PathBuf,

    /// Real programs, as tests/programs/fetch brings them
    #[arg(long)]
    programs: Option<std::path::PathBuf>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let report = runtime.block_on(bench::run(&Setting {
        rounds: cli.rounds,
        seconds: cli.seconds,
        wasmtime: cli.wasmtime.clone(),
        programs: cli.programs.clone(),
    }))?;
    if cli.json {
        println!("{}", report.to_json());
    } else {
        print!("{report}");
    }
    Ok(())
}
