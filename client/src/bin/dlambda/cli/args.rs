//! What each command takes.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use dlambda_proto::{Endpoints, PlanName};

use super::market::MachineArgs;
use crate::request_line::{RequestLine, header};

/// What to examine.
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// Also try to reach this provider
    #[arg(value_parser = endpoints)]
    pub(crate) provider: Option<Endpoints>,
}

/// What to call.
#[derive(Debug, Args)]
pub(crate) struct InvokeArgs {
    /// The provider's address: onion, Nym, or both with a comma between; or
    /// `any`: one of those that the wallet has tokens of
    ///
    /// With `any`, one is drawn at random, by how well it served before. If it
    /// refuses, fails or takes a third of the time, the call goes to the next,
    /// to three in all. Each of them sees the call: if they collude, they know
    /// that it is one. What a provider that failed was paid is gone.
    #[arg(value_parser = provider)]
    pub(crate) provider: Provider,

    /// A CID, an alias in the provider's advert, or a path to a .wasm file
    /// (with a slash in it, or ending in .wasm)
    pub(crate) function: String,

    /// The function's arguments
    #[arg(last = true, conflicts_with = "http")]
    pub(crate) args: Vec<String>,

    /// The plan; without one, the provider's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    #[command(flatten)]
    pub(crate) http: HttpArgs,

    /// Write a report of the call (times, bytes, fuel) to this file, as JSON
    ///
    /// The provider's own times, `queue_ms` and `execute_ms`, are rounded up to
    /// 250 ms, 500 ms, 1 s, 2 s and so on: precise ones would tell every
    /// caller how busy it is. The file holds the call's seed, which opens its
    /// receipt, and is readable by you alone.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,

    /// Write the provider's receipt to this file: proof of what it says of the
    /// call, which reveals neither input nor output
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,

    /// Make a contract when the wallet has none, or runs low, if it costs
    /// nothing
    ///
    /// A call soon after its contract can be tied to it by the time. With an
    /// empty wallet this waits up to a minute and a half before it calls, which
    /// hides little unless many others call: better make contracts hours ahead.
    /// A wallet that runs low is filled later, at a random time.
    #[arg(long)]
    pub(crate) auto_contract: bool,

    /// Open two circuits to the provider, and send the same request on the second
    /// if the first brings no answer within the time that 95 of 100 earlier ones
    /// took; it is paid once
    #[arg(long)]
    pub(crate) hedge: bool,

    /// With `any`: call so many providers, 2 to 5, pay each, and compare what
    /// they answer
    ///
    /// Each has a seed of its own, so a function that uses random numbers answers
    /// differently. Answers that differ are settled by running the function here,
    /// if it is given as a file; a provider that was wrong is named, and the
    /// proof written. Providers that collude know that the calls are one.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=5), conflicts_with_all = ["resume", "auto_contract"])]
    pub(crate) replicas: Option<u8>,

    /// How many of them have to give the same answer; without it, more than half
    #[arg(long, value_name = "N", requires = "replicas")]
    pub(crate) agree: Option<u8>,

    /// Where to write the proof that one of them was wrong
    #[arg(
        long,
        value_name = "FILE",
        default_value = "fraud.proof",
        requires = "replicas"
    )]
    pub(crate) proof: PathBuf,

    #[command(flatten, next_help_heading = "Which providers, with `any`")]
    pub(crate) machine: MachineArgs,

    /// Take up this very call (same provider, function, arguments and input),
    /// which was interrupted more than five minutes ago, with its token
    ///
    /// Sooner than that, this happens by itself. Later, it costs privacy: the
    /// provider sees one token at two times, and knows that the same caller was
    /// there at both. If it answered the first time, it refuses the token, and
    /// the token is gone. Without this option the call gets a fresh token.
    #[arg(long, conflicts_with = "auto_contract")]
    pub(crate) resume: bool,
}

/// What to run here.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The function, a path to a .wasm file
    pub(crate) function: PathBuf,

    /// The function's arguments
    #[arg(last = true, conflicts_with = "http")]
    pub(crate) args: Vec<String>,

    /// The plan whose limits hold; without one, the menu's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    /// Take the menu from a provider's configuration file; without one, it is
    /// the standard menu: small, medium, large
    #[arg(long, value_name = "FILE")]
    pub(crate) plans: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) http: HttpArgs,

    /// Where the function's random numbers come from; without it, fresh ones
    /// (the report says which)
    #[arg(long, value_name = "HEX64", value_parser = seed)]
    pub(crate) seed: Option<[u8; 32]>,

    /// Run as many times, and fail if output or fuel differ although the plan
    /// is deterministic
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) repeat: u32,

    /// Run the function in this very process: only the WebAssembly engine is
    /// then between it and all that you may do
    #[arg(long)]
    pub(crate) no_process_isolation: bool,

    /// Write a report (fuel, peak memory, time by stage, warm or not) to this
    /// file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

/// The request to a `wasi:http` function, and how its response is shown.
#[derive(Debug, Args)]
pub(crate) struct HttpArgs {
    /// Send this HTTP request, such as 'PUT /path?query', to a `wasi:http`
    /// function, standard input being its body; with a path only, it is a GET,
    /// or a POST if there is a body
    #[arg(long, value_name = "REQUEST")]
    pub(crate) http: Option<RequestLine>,

    /// A header field of the request, such as 'Content-Type: text/plain'; the
    /// function gets those that you name and no other
    #[arg(long = "header", short = 'H', value_name = "FIELD", requires = "http", value_parser = header)]
    pub(crate) headers: Vec<String>,

    /// Print the response's status and header fields before its body
    #[arg(long, short)]
    pub(crate) include: bool,

    /// End with exit code 1 if the response's status is 400 or more; its body
    /// is printed all the same
    #[arg(long, short)]
    pub(crate) fail: bool,

    /// Write the output to a terminal as it is, control characters too: they
    /// can change what the terminal shows and does (into a file or a pipe, the
    /// output always goes byte for byte)
    #[arg(long)]
    pub(crate) raw: bool,
}

/// What to do with functions.
#[derive(Debug, Subcommand)]
pub(crate) enum FunctionCommand {
    /// Say what a function is and wants, and whether providers take it
    ///
    /// Exits with 0 if a provider would take it, and with 4 if not. Nothing of
    /// the function is run.
    #[command(after_help = super::INSPECT_EXAMPLES)]
    Inspect(InspectArgs),
}

/// What to inspect.
#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// The function, a path to a .wasm file
    pub(crate) file: PathBuf,
}

/// Where a call may go.
#[derive(Clone, Debug)]
pub(crate) enum Provider {
    /// To any provider that the wallet has tokens of.
    Any,
    /// To this one.
    At(Endpoints),
}

pub(super) fn provider(text: &str) -> Result<Provider, String> {
    match text {
        "any" => Ok(Provider::Any),
        _ => endpoints(text).map(Provider::At),
    }
}

pub(super) fn endpoints(text: &str) -> Result<Endpoints, String> {
    text.parse()
        .map_err(|error: dlambda_proto::IdError| error.to_string())
}

pub(super) fn plan(text: &str) -> Result<PlanName, String> {
    text.parse()
        .map_err(|error: dlambda_proto::IdError| error.to_string())
}

fn seed(text: &str) -> Result<[u8; 32], String> {
    let mut seed = [0; 32];
    hex::decode_to_slice(text, &mut seed)
        .map_err(|_| "give 64 hexadecimal digits, as a report has them".to_owned())?;
    Ok(seed)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use clap::error::ErrorKind;

    use crate::cli::{Cli, Command};

    fn parse(line: &[&str]) -> Result<Command, ErrorKind> {
        let line = ["dlambda"].iter().chain(line);
        Cli::try_parse_from(line)
            .map(|cli| cli.command)
            .map_err(|error| error.kind())
    }

    #[test]
    fn requests_and_arguments_exclude_each_other() {
        assert!(parse(&["run", "f.wasm", "--http", "/", "-H", "a: b", "-i", "-f"]).is_ok());
        assert!(parse(&["run", "f.wasm", "--", "--http", "/"]).is_ok());
        for (line, expected) in [
            (
                &["run", "f.wasm", "--http", "/", "--", "a"][..],
                ErrorKind::ArgumentConflict,
            ),
            (
                &["run", "f.wasm", "-H", "a: b"],
                ErrorKind::MissingRequiredArgument,
            ),
            (
                &["run", "f.wasm", "--http", "/", "-H", "a b"],
                ErrorKind::ValueValidation,
            ),
            (
                &["run", "f.wasm", "--http", "POST index.html"],
                ErrorKind::ValueValidation,
            ),
            (
                &["run", "f.wasm", "--repeat", "0"],
                ErrorKind::ValueValidation,
            ),
        ] {
            assert_eq!(parse(line).err(), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn seeds_are_as_reports_have_them() {
        let hex = "0f".repeat(32);
        let Ok(Command::Run(args)) = parse(&["run", "f.wasm", "--seed", &hex]) else {
            panic!("a good seed");
        };
        assert_eq!(args.seed, Some([15; 32]));
        for bad in ["", "0f", &"0g".repeat(32), &"0f".repeat(33)] {
            let parsed = parse(&["run", "f.wasm", "--seed", bad]);
            assert_eq!(parsed.err(), Some(ErrorKind::ValueValidation), "{bad}");
        }
    }
}
