//! The command line, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dlambda_privacy::network::TransportName;
use dlambda_proto::Advert;

/// Run WebAssembly functions for callers whom you cannot recognise.
#[derive(Debug, Parser)]
#[command(name = "dlambda-provider", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Keys, Tor's files and uploaded functions; must be yours alone
    #[arg(long, global = true, value_name = "DIR", env = "DLAMBDA_PROVIDER_DATA")]
    pub(crate) data: Option<PathBuf>,

    /// How results and errors are printed
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  ok                         5  the anonymity network cannot be used
  2  wrong usage                8  a file or permission of this machine
  3  no provider is running    70  a fault in dlambda itself";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve functions until told to stop (SIGINT or SIGTERM)
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Print a configuration file with every setting explained
    #[command(after_help = CONFIG_EXAMPLES)]
    Config,
    /// The latest contracts of the provider on this data directory
    ///
    /// Calls cannot be linked to contracts.
    #[command(after_help = CONTRACTS_EXAMPLES)]
    Contracts,
    /// What the provider on this data directory is doing, and what is wrong
    #[command(after_help = STATUS_EXAMPLES)]
    Status,
}

const RUN_EXAMPLES: &str = "\
Examples:
  # Serve every *.wasm in a directory on the public Tor network
  dlambda-provider run --functions ./functions

  # Help others to find providers, and run nothing
  dlambda-provider run --overlay-only --network network.toml

  # A provider on a private network, for programs to read
  dlambda-provider run --functions ./functions --network network.toml --format json";

const CONFIG_EXAMPLES: &str = "\
Examples:
  dlambda-provider config > provider.toml
  dlambda-provider run --functions ./functions --config provider.toml";

const CONTRACTS_EXAMPLES: &str = "\
Examples:
  dlambda-provider contracts
  dlambda-provider contracts --data /var/lib/dlambda --format json";

const STATUS_EXAMPLES: &str = "\
Examples:
  dlambda-provider status
  dlambda-provider status --data /var/lib/dlambda --format json";

/// What to serve, and where.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Every *.wasm in this directory becomes a function, its stem an alias
    #[arg(long, value_name = "DIR", required_unless_present = "overlay_only")]
    pub(crate) functions: Option<PathBuf>,

    /// Run no functions: only help others to find providers, as a node of the
    /// network's overlay
    #[arg(long, conflicts_with_all = ["functions", "config", "dangerously_record_calls"])]
    pub(crate) overlay_only: bool,

    /// Configuration file: plans, limits, how functions are executed
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// DANGER: run strangers' functions in the process that holds this
    /// provider's keys
    #[arg(long)]
    pub(crate) no_process_isolation: bool,

    /// Network file; without one, the public Tor network
    #[arg(long, value_name = "FILE", env = "DLAMBDA_NETWORK")]
    pub(crate) network: Option<PathBuf>,

    /// How to be reached: `tor`, `nym`, or `tor,nym`; without it, the first way
    /// that the network file names
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) transport: Vec<TransportName>,

    /// Longest time to start Tor and to be reachable through it, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = seconds)]
    pub(crate) ready_within: Duration,

    /// How long one set of keys is used, in seconds: 12 hours to a week. Callers
    /// of one epoch are the anonymity set of a call, so shorter is refused by callers, too
    #[arg(long, value_name = "SECONDS", default_value = "86400", value_parser = epoch)]
    pub(crate) epoch: Duration,

    /// DANGER: write everything this provider can see of its callers, inputs
    /// and outputs included, to this file, a JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) dangerously_record_calls: Option<PathBuf>,

    /// No progress on the terminal
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

/// How results and errors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object
    Json,
    /// For people
    Text,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=604_800) => Ok(Duration::from_secs(seconds)),
        _ => Err("give whole seconds, 1 to 604800 (a week)".to_owned()),
    }
}

fn epoch(text: &str) -> Result<Duration, String> {
    let least = Duration::from_secs(Advert::MIN_EPOCH_SECONDS);
    seconds(text)
        .ok()
        .filter(|epoch| *epoch >= least)
        .ok_or_else(|| "give whole seconds, 43200 (12 hours) to 604800 (a week)".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn an_epoch_shorter_than_callers_accept_is_refused() {
        let parsed = |epoch: &str| {
            let args = [
                "dlambda-provider",
                "run",
                "--functions",
                "f",
                "--epoch",
                epoch,
            ];
            Cli::try_parse_from(args).is_ok()
        };
        assert!(parsed("43200") && parsed("604800"));
        assert!(!parsed("43199") && !parsed("6") && !parsed("604801"));
    }
}
