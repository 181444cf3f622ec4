//! What the commands around contracts take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use dlambda_proto::{BatchSize, Endpoints, PlanName};

use super::args::{endpoints, plan};
use super::market::MachineArgs;
use super::{seconds, within};

pub(crate) const CONTRACT_EXAMPLES: &str = "\
Examples:
  # See the terms, and say yes or no
  dlambda contract 2gzy...wid.onion --plan small --calls 32

  # Agree to them beforehand
  dlambda contract 2gzy...wid.onion --yes --format json

  # A provider that gives contracts to those it invited
  dlambda contract 2gzy...wid.onion --invitation secret.txt";

pub(crate) const WALLET_EXAMPLES: &str = "\
Examples:
  dlambda wallet
  dlambda wallet --format json

  # Contracts with five providers of your choice of machine, at random times of ten minutes;
  # then `dlambda invoke any`
  dlambda wallet fill --providers 5 --calls 32 --memory 2GB

  # Buy what runs low, at a random time within the next hour
  dlambda wallet refill --within 3600

  # Finish contracts that were interrupted
  dlambda wallet settle";

pub(crate) const AUDIT_EXAMPLES: &str = "\
Examples:
  # One call like any other, run again here to see whether the answer is right
  echo hello | dlambda audit 2gzy...wid.onion ./upper.wasm

  # Ten at random times of the next hour, each with an input of a directory
  dlambda audit 2gzy...wid.onion ./upper.wasm --inputs ./inputs --count 10

  # With functions of a directory: x.wasm gets one of the inputs in x.inputs
  dlambda audit 2gzy...wid.onion --functions ./functions --count 10 --over 86400

  # What to do with a proof
  dlambda arbiter verify fraud.proof";

/// What to agree on.
#[derive(Debug, Args)]
pub(crate) struct ContractArgs {
    /// The provider's address: onion, Nym, or both with a comma between
    #[arg(value_parser = endpoints)]
    pub(crate) provider: Endpoints,

    /// The plan; without one, the provider's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    /// How many calls: 8, 32 or 128
    #[arg(long, value_name = "N", default_value = "8", value_parser = calls)]
    pub(crate) calls: BatchSize,

    /// Ask for a promise that calls start within so many milliseconds; without
    /// it, the provider's usual promise
    #[arg(long, value_name = "MS")]
    pub(crate) start_within: Option<u32>,

    /// Take no plan whose calls cannot be checked by running them again
    #[arg(long)]
    pub(crate) deterministic: bool,

    /// A file with the secret of an invitation; spaces around it do not count
    #[arg(long, value_name = "FILE")]
    pub(crate) invitation: Option<PathBuf>,

    /// Agree to the terms, whatever they are
    #[arg(long, short)]
    pub(crate) yes: bool,

    /// Look at the provider's keys once more, on another circuit, within so many
    /// seconds, at a random time; until then no token is spent
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = within)]
    pub(crate) second_look_within: Duration,
}

/// What to do with the wallet; without anything, list it.
#[derive(Debug, Args)]
pub(crate) struct WalletArgs {
    #[command(subcommand)]
    pub(crate) command: Option<WalletCommand>,
}

/// What to do with the wallet.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make contracts with several providers ahead of calls, at random times
    ///
    /// Providers are drawn from the catalogue at random, by how well they served
    /// your calls; what was never called gets little. Contracts that ask for
    /// money or an invitation are not made. `dlambda invoke any` then calls
    /// whom the wallet holds tokens of.
    Fill(FillArgs),
    /// Wait for a random time, then renew contracts that run low
    ///
    /// A contract made just before a call would give away that the two belong
    /// together; hence the random time. Contracts that ask for money or an
    /// invitation are not renewed.
    Refill(RefillArgs),
    /// Finish contracts that were interrupted, and forget those that are over
    Settle,
}

/// With whom to make contracts.
#[derive(Debug, Args)]
pub(crate) struct FillArgs {
    /// With how many providers there are to be contracts: those that the wallet
    /// has enough tokens of count
    #[arg(long, value_name = "N", default_value = "5", value_parser = clap::value_parser!(u8).range(1..=32))]
    pub(crate) providers: u8,

    /// How many calls to buy of each: 8, 32 or 128
    #[arg(long, value_name = "N", default_value = "32", value_parser = calls)]
    pub(crate) calls: BatchSize,

    /// The plan; without one, each provider's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// Spread the contracts, and the second look at each provider's keys, at
    /// random over so many seconds
    ///
    /// Contracts at one time would say that they have one owner.
    #[arg(long, value_name = "SECONDS", default_value = "600", value_parser = within)]
    pub(crate) within: Duration,
}

/// When to refill.
#[derive(Debug, Args)]
pub(crate) struct RefillArgs {
    /// Longest time to wait, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "1800", value_parser = seconds)]
    pub(crate) within: Duration,

    /// How many calls to buy when there is less than a quarter of that left: 8,
    /// 32 or 128, whatever a provider's counter-offer made of it the last time
    #[arg(long, value_name = "N", default_value = "8", value_parser = calls)]
    pub(crate) calls: BatchSize,
}

impl RefillArgs {
    /// What is bought unless somebody says otherwise.
    pub(crate) const USUAL_CALLS: BatchSize = BatchSize::Calls8;
}

/// What to audit.
#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// The provider's address: onion, Nym, or both with a comma between
    #[arg(value_parser = endpoints)]
    pub(crate) provider: Endpoints,

    /// The function to audit with, a path to a .wasm file; its input is
    /// standard input, if there are no --inputs
    #[arg(required_unless_present = "functions")]
    pub(crate) function: Option<PathBuf>,

    /// The function's arguments
    #[arg(last = true, requires = "function")]
    pub(crate) args: Vec<String>,

    /// Audit with functions of this directory, chosen at random; x.wasm gets
    /// one of the inputs in x.inputs, a file or directory
    #[arg(long, value_name = "DIR", conflicts_with = "function")]
    pub(crate) functions: Option<PathBuf>,

    /// Inputs as callers send them, a file or a directory of files: each audit
    /// takes one at random
    #[arg(long, value_name = "PATH")]
    pub(crate) inputs: Option<PathBuf>,

    /// Spread several audits at random over so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub(crate) over: Duration,

    /// Make the calls one after the other: the provider can see that they
    /// belong together, and be honest in them only
    #[arg(long, conflicts_with = "over")]
    pub(crate) at_once: bool,

    /// How many calls to check
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) count: u32,

    /// The plan; without one, the provider's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    /// Where to write the proof, if there is one
    #[arg(long, value_name = "FILE", default_value = "fraud.proof")]
    pub(crate) proof: PathBuf,

    /// Run functions in this very process: only the WebAssembly engine is then
    /// between them and all that you may do
    #[arg(long)]
    pub(crate) no_process_isolation: bool,
}

fn calls(text: &str) -> Result<BatchSize, String> {
    text.parse()
        .ok()
        .and_then(BatchSize::of_calls)
        .ok_or_else(|| "give 8, 32 or 128".to_owned())
}
