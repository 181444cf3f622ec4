//! What calls for many lines take.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dlambda_proto::PlanName;

use super::args::{Provider, plan, provider};
use super::market::MachineArgs;

pub(crate) const MAP_EXAMPLES: &str = "\
Examples:
  dlambda map upper < lines.txt > upper.txt

  # What is done is in the file, and is not called again after a crash
  dlambda map ./score.wasm --resume done.jsonl < lines.txt > scores.txt

  # Which provider answered which line, and what failed
  dlambda map upper --format json < lines.txt";

/// What to call for each line.
#[derive(Debug, Args)]
pub(crate) struct MapArgs {
    /// A CID, an alias in the provider's advert, or a path to a .wasm file
    /// (with a slash in it, or ending in .wasm)
    ///
    /// A line is the function's standard input, without the end of the line. Its
    /// output is printed with an end of line; for a line whose call failed an
    /// empty line is printed, and the line is named on standard error.
    pub(crate) function: String,

    /// The function's arguments
    #[arg(last = true)]
    pub(crate) args: Vec<String>,

    /// Where to call: an address, or any provider that the wallet has tokens of
    #[arg(long, value_name = "ADDRESS", default_value = "any", value_parser = provider)]
    pub(crate) provider: Provider,

    /// The plan; without one, the provider's first
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    /// Calls at a time; --max-time is for each
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u8).range(1..=64))]
    pub(crate) concurrency: u8,

    /// Seconds between the beginnings of two calls, on average; each pause is
    /// drawn at random
    ///
    /// Calls at a fixed pace, or in one burst, have one caller. 0 is a burst.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = spacing)]
    pub(crate) spacing: Duration,

    /// Keep each line's output in this file before it is printed, and call no
    /// line again that is in it
    ///
    /// It has to be for the same function and arguments, and for the same lines.
    #[arg(long, value_name = "FILE")]
    pub(crate) resume: Option<PathBuf>,

    /// As for `dlambda invoke`
    #[arg(long)]
    pub(crate) hedge: bool,

    #[command(flatten, next_help_heading = "Which providers, with `any`")]
    pub(crate) machine: MachineArgs,
}

fn spacing(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if (0.0..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give seconds, 0 to 3600".to_owned()),
    }
}
