//! The command line, and nothing else.

mod args;
mod contracts;
mod evidence;
mod map;
mod market;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dlambda_privacy::network::TransportName;

pub(crate) use args::{
    DoctorArgs, FunctionCommand, HttpArgs, InspectArgs, InvokeArgs, Provider, RunArgs,
};
pub(crate) use contracts::{
    AuditArgs, ContractArgs, FillArgs, RefillArgs, WalletArgs, WalletCommand,
};
pub(crate) use evidence::{ArbiterCommand, ReceiptCommand, ShowArgs, VerifyArgs};
pub(crate) use map::MapArgs;
pub(crate) use market::{FindArgs, MachineArgs, Mode, SyncArgs};

/// Invoke WebAssembly functions on strangers' machines, anonymously.
///
/// Neither the provider nor the network learns who calls, or that two calls
/// came from one caller.
#[derive(Debug, Parser)]
#[command(name = "dlambda", version, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,

    #[command(flatten)]
    pub(crate) common: Common,

    /// How results and errors are printed
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(crate) format: Format,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  ok                         5  the anonymity network cannot be used
  1  the function failed        6  out of time
  2  wrong usage                7  the provider misbehaved
  3  no provider reached        8  a file or permission of this machine
  4  refused                   70  a fault in dlambda itself";

/// Options of every command.
#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Network file; without one, the public Tor network
    #[arg(long, global = true, value_name = "FILE", env = "DLAMBDA_NETWORK")]
    pub(crate) network: Option<PathBuf>,

    /// How to reach the provider: `tor` or `nym`; with `auto`, the first way of
    /// the network file by which the provider can be reached
    #[arg(long, global = true, value_name = "NAME", default_value = "auto", value_parser = transport)]
    pub(crate) transport: Choice,

    /// Where Tor's guards and directory cache are kept, the wallet, and compiled functions
    #[arg(long, global = true, value_name = "DIR", env = "DLAMBDA_HOME")]
    pub(crate) home: Option<PathBuf>,

    /// Longest time for the whole command, in seconds
    ///
    /// A connection to a provider that does not answer is held up to half a
    /// minute longer: at which moment it is given up must not tell this time.
    #[arg(long, global = true, value_name = "SECONDS", default_value = "120", value_parser = seconds)]
    pub(crate) max_time: Duration,

    /// No progress on the terminal
    #[arg(long, short, global = true)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Judge whether a provider cheated: anybody can, offline
    #[command(subcommand)]
    Arbiter(ArbiterCommand),
    /// Make calls whose answers are checked by running them again here
    ///
    /// To the provider they are calls like any other. A wrong answer leaves a
    /// proof that convinces everybody. Exits with 7 then.
    #[command(after_help = contracts::AUDIT_EXAMPLES)]
    Audit(AuditArgs),
    /// Agree on a number of calls with a provider, and get tokens for them
    ///
    /// Both sides sign the contract. The calls are paid with tokens that cannot
    /// be tied to it, nor to each other.
    #[command(after_help = contracts::CONTRACT_EXAMPLES)]
    Contract(ContractArgs),
    /// Find out what is wrong and what to do
    #[command(after_help = DOCTOR_EXAMPLES)]
    Doctor(DoctorArgs),
    /// Find providers
    ///
    /// In the catalogue that was fetched, so that nobody learns what is looked
    /// for; the first time, it is fetched. Most of several nodes list what is
    /// found. Exits with 3 if no provider fits.
    #[command(after_help = market::FIND_EXAMPLES)]
    Find(FindArgs),
    /// Look at functions
    #[command(subcommand)]
    Function(FunctionCommand),
    /// Call a function: standard input in, standard output out
    #[command(after_help = INVOKE_EXAMPLES)]
    Invoke(InvokeArgs),
    /// Call a function for each line of standard input, at several providers
    ///
    /// Outputs are printed in the order of the lines. Each line is a call of its
    /// own, with a circuit and a token of its own.
    #[command(after_help = map::MAP_EXAMPLES)]
    Map(MapArgs),
    /// Look at receipts
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Run a function here, with the engine and the limits of a provider
    #[command(after_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Fetch the catalogue of providers from several nodes of the overlay
    ///
    /// All of it, whatever is here already. At a time that depends on nothing,
    /// or the nodes and a provider that is called soon after could tell that
    /// the two belong together.
    #[command(after_help = market::SYNC_EXAMPLES)]
    Sync(SyncArgs),
    /// Show contracts and the calls that are left, and keep them filled
    #[command(after_help = contracts::WALLET_EXAMPLES)]
    Wallet(WalletArgs),
}

const INVOKE_EXAMPLES: &str = "\
Examples:
  # A function that the provider publishes, paid with a token from the wallet
  # (dlambda contract 2gzy...wid.onion)
  echo hello | dlambda invoke 2gzy...wid.onion upper

  # At any provider that the wallet has tokens of (dlambda wallet fill)
  echo hello | dlambda invoke any upper

  # At three of them, and two have to give the same answer
  dlambda invoke any ./resize.wasm --replicas 3 < in.png > out.png

  # A function of your own: it travels sealed to the provider if it lacks it
  dlambda invoke 2gzy...wid.onion ./resize.wasm -- --width 300 < in.png > out.png

  # A wasi:http function
  dlambda invoke 2gzy...wid.onion ./hello-http.wasm --http 'GET /?name=value' -i
  dlambda invoke 2gzy...wid.onion ./hello-http.wasm --http 'POST /echo' \\
      --header 'Content-Type: application/json' < in.json

  # Where did the time go? And proof of what the provider says
  dlambda invoke 2gzy...wid.onion upper --report report.json --receipt upper.receipt < in.txt
  dlambda receipt show upper.receipt";

const RUN_EXAMPLES: &str = "\
Examples:
  echo hello | dlambda run ./upper.wasm
  dlambda run ./resize.wasm --plan medium -- --width 300 < in.png > out.png
  dlambda run ./hello-http.wasm --http 'POST /echo' --header 'Content-Type: text/plain' < in.txt

  # How much of its plan does it use, and where does the time go?
  dlambda run ./upper.wasm --report report.json < in.txt

  # Does it give the same every time?
  dlambda run ./upper.wasm --repeat 5 < in.txt

  # The very run of a report, with the menu of another provider
  dlambda run ./upper.wasm --seed 1f0c...9e --plans provider.toml --plan tiny < in.txt";

const INSPECT_EXAMPLES: &str = "\
Examples:
  dlambda function inspect ./upper.wasm
  dlambda function inspect ./upper.wasm --format json";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  dlambda doctor
  dlambda doctor 2gzy...wid.onion --format json";

/// How results and errors are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One JSON object
    Json,
    /// For people
    Text,
}

/// How a provider is to be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    Auto,
    Only(TransportName),
}

fn transport(text: &str) -> Result<Choice, String> {
    match text {
        "auto" => Ok(Choice::Auto),
        _ => match text.parse() {
            Ok(name) => Ok(Choice::Only(name)),
            Err(_) => Err("give `auto`, `tor` or `nym`".to_owned()),
        },
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("give whole seconds, 1 to 86400".to_owned()),
    }
}

fn within(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 0..=86_400) => Ok(Duration::from_secs(seconds)),
        _ => Err("give whole seconds, 0 to 86400".to_owned()),
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
