//! Figures, each with its baseline in the same run.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "printing is what this program is for"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use dlambda_tests::bench::{Report, calls, contracts, executor, floods, overlay, selection};

/// Measure calls, contracts and the executor against what they are compared with.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    bench: Bench,

    /// Print one JSON object instead of a table
    #[arg(long, global = true)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  dlambda-bench calls
  dlambda-bench contracts --rounds 10 --json
  dlambda-bench floods
  dlambda-bench overlay --thousands 1,10,100 --svg overlay.svg
  dlambda-bench selection --svg selection.svg
  dlambda-bench executor --wasmtime ./wasmtime --programs .";

#[derive(Subcommand)]
enum Bench {
    /// Calls over Tor, against curl through C tor; calls over Nym, against the
    /// delay of its mixes; what idle Nym clients cost
    Calls(Calls),
    /// Issuing and redeeming tokens, and what a paid call takes more
    Contracts(Contracts),
    /// The executor, against wasmtime's own programs
    Executor(Executor),
    /// Paid calls while strangers hold streams and memory, against quiet ones
    Floods,
    /// Listings and syncs, by the number of providers; without a network
    Overlay(Overlay),
    /// How callers load providers by the way in which they choose, against the
    /// best first and round-robin; under virtual time
    Selection(Selection),
}

#[derive(Args)]
struct Overlay {
    /// Numbers of providers, in thousands
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10], value_parser = clap::value_parser!(u16).range(1..=100))]
    thousands: Vec<u16>,

    #[command(flatten)]
    drawn: Drawn,
}

#[derive(Args)]
struct Selection {
    /// Rounds, each of which takes other random numbers
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,

    /// Calls of each round
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    calls: u32,

    #[command(flatten)]
    drawn: Drawn,
}

#[derive(Args)]
struct Drawn {
    /// Write charts to this file, too
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

#[derive(Args)]
struct Calls {
    /// Rounds; each measures every call once
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=1000))]
    rounds: u16,
}

#[derive(Args)]
struct Contracts {
    /// Rounds, of one contract and two hundred calls each
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
}

#[derive(Args)]
struct Executor {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,

    /// Seconds of load for each throughput in each round
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=60))]
    seconds: u16,

    /// The wasmtime program to compare with
    #[arg(long, default_value = "wasmtime")]
    wasmtime: PathBuf,

    /// Real programs, as tests/programs/fetch brings them
    #[arg(long)]
    programs: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match Box::pin(show(cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(cli: Cli) -> Result<()> {
    let svg = cli.bench.svg().cloned();
    let report = Box::pin(run(cli.bench)).await?;
    match cli.json {
        true => println!("{}", report.to_json()),
        false => print!("{report}"),
    }
    if let Some(path) = svg {
        let written = std::fs::write(&path, report.to_svg());
        written.with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

impl Bench {
    fn svg(&self) -> Option<&PathBuf> {
        match self {
            Self::Overlay(Overlay { drawn, .. }) | Self::Selection(Selection { drawn, .. }) => {
                drawn.svg.as_ref()
            }
            Self::Calls(_) | Self::Contracts(_) | Self::Executor(_) | Self::Floods => None,
        }
    }
}

async fn run(bench: Bench) -> Result<Report> {
    match bench {
        Bench::Calls(Calls { rounds }) => Box::pin(calls::run(rounds)).await,
        Bench::Contracts(Contracts { rounds }) => Box::pin(contracts::run(rounds)).await,
        Bench::Overlay(Overlay { thousands, .. }) => {
            let sizes: Vec<_> = thousands.iter().map(|it| usize::from(*it) * 1000).collect();
            overlay::run(&sizes)
        }
        Bench::Selection(Selection { rounds, calls, .. }) => {
            selection::run(rounds, usize::try_from(calls)?)
        }
        Bench::Floods => Box::pin(floods::run()).await,
        Bench::Executor(Executor {
            rounds,
            seconds,
            wasmtime,
            programs,
        }) => {
            let setting = executor::Setting {
                rounds,
                seconds,
                wasmtime,
                programs,
            };
            Box::pin(executor::run(&setting)).await
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
