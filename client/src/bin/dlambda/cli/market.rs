//! What finding providers takes.

use std::time::Duration;

use clap::{Args, ValueEnum};
use dlambda_proto::{FunctionId, PlanName, Region, Requirements};

use super::args::plan;
use super::within;

pub(crate) const FIND_EXAMPLES: &str = "\
Examples:
  dlambda find
  dlambda find --cpu 2 --memory 4GB --max-price 0

  # Who has this function at hand? And where to call the first of them
  dlambda find --function bafkrei...quvyku --format json | jq -r '.providers[0].address'

  # Ask the overlay, and not only the catalogue that was fetched
  dlambda find --gpu-vram 8GB --mode dht
  dlambda find --memory 32GB --mode active";

pub(crate) const SYNC_EXAMPLES: &str = "\
Examples:
  dlambda sync

  # Stay, and fetch the catalogue at random times, six hours apart on average
  dlambda sync --stay";

/// What a provider's machine has to have, and its price.
#[derive(Clone, Debug, Args)]
pub(crate) struct MachineArgs {
    /// At least so many processors
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) cpu: u16,

    /// At least so much memory: 512MB, 2GB
    #[arg(long, value_name = "SIZE", default_value = "0MB", value_parser = mebibytes)]
    pub(crate) memory: u64,

    /// An accelerator
    #[arg(long)]
    pub(crate) gpu: bool,

    /// An accelerator with at least so much memory
    #[arg(long, value_name = "SIZE", default_value = "0MB", value_parser = mebibytes)]
    pub(crate) gpu_vram: u64,

    /// A trusted execution environment
    #[arg(long)]
    pub(crate) tee: bool,

    /// Where the machine says it is
    #[arg(long, value_name = "REGION", value_parser = region)]
    pub(crate) region: Option<Region>,

    /// A plan whose calls cost no more
    #[arg(long, value_name = "PRICE")]
    pub(crate) max_price: Option<u64>,
}

/// What a provider has to have.
#[derive(Debug, Args)]
pub(crate) struct FindArgs {
    #[command(flatten)]
    pub(crate) machine: MachineArgs,

    /// A function that the provider always has, by its CID
    #[arg(long, value_name = "CID", value_parser = function)]
    pub(crate) function: Option<FunctionId>,

    /// A plan of this name
    #[arg(long, value_parser = plan)]
    pub(crate) plan: Option<PlanName>,

    /// How to search
    #[arg(long, value_enum, default_value = "passive")]
    pub(crate) mode: Mode,

    /// Also measure how quickly up to so many of them answer, at random times
    /// within a minute
    ///
    /// Each sees that somebody connects, and no more; their number and order
    /// would tell providers that collude that one caller looks around.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=8))]
    pub(crate) ping: Option<u8>,
}

/// How to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// In the catalogue that was fetched: nobody learns what is looked for
    Passive,
    /// Ask up to five nodes: they learn that somebody looks for such providers
    Dht,
    /// Ask everybody in public which providers have capacity now
    Active,
}

/// When to fetch the catalogue.
#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// Stay, and fetch it at random times that depend on nothing
    #[arg(long)]
    pub(crate) stay: bool,

    /// Wait for a random time before, up to so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "0", value_parser = within)]
    pub(crate) within: Duration,
}

impl MachineArgs {
    pub(crate) fn requirements(&self) -> Requirements {
        let mut wanted = Requirements::default();
        wanted.cores = self.cpu;
        wanted.memory_mib = self.memory;
        wanted.gpu = self.gpu;
        wanted.gpu_vram_mib = self.gpu_vram;
        wanted.tee = self.tee;
        wanted.region.clone_from(&self.region);
        wanted.max_price = self.max_price;
        wanted
    }
}

impl FindArgs {
    pub(crate) fn requirements(&self) -> Requirements {
        let mut wanted = self.machine.requirements();
        wanted.plan.clone_from(&self.plan);
        wanted.function = self.function;
        wanted
    }
}

/// A size in MiB: `MB` and `GB` are powers of two, as machines are sold.
fn mebibytes(text: &str) -> Result<u64, String> {
    let upper = text.to_ascii_uppercase();
    let units = [("MIB", 1), ("GIB", 1024), ("MB", 1), ("GB", 1024)];
    let mebibytes = units.iter().find_map(|(unit, factor)| {
        let number: u64 = upper.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor)
    });
    mebibytes.ok_or_else(|| "give a size such as 512MB or 2GB".to_owned())
}

fn region(text: &str) -> Result<Region, String> {
    text.parse()
        .map_err(|error: dlambda_proto::IdError| error.to_string())
}

fn function(text: &str) -> Result<FunctionId, String> {
    text.parse()
        .map_err(|error: dlambda_proto::IdError| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_machines_are_sold() {
        for (text, mib) in [
            ("512MB", 512),
            ("2GB", 2048),
            ("2gib", 2048),
            ("1 GB", 1024),
        ] {
            assert_eq!(mebibytes(text), Ok(mib), "{text}");
        }
        for text in ["", "2", "GB", "-1GB", "2TB", "18446744073709551615GB"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
    }
}
