//! What the process is told, and what it says.

mod command;
mod table;

use std::{
    io::{self, Write},
    num::NonZeroU64,
    path::PathBuf,
};

use clap::Parser;
use dlambda_mixnet::Mixnet;
use serde_json::{Value, json};

pub(crate) use command::{Command, commands, failure};
pub(crate) use table::table;

/// A private mixnet on 127.0.0.1, of Nym's packets and our nodes.
///
/// Reads commands from standard input, one a line: `counters`, `kick N`,
/// `stop N`, `restart N`, `loss P`, `quit`; N counts gateways from 0. Each is
/// answered with one line of JSON. The end of standard input is `quit`.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Mix nodes in each of the three layers
    #[arg(long, default_value_t = 2, alias = "layers-nodes")]
    pub(crate) layer_nodes: usize,
    /// Gateways, each an entry and an exit
    #[arg(long, default_value_t = 2)]
    pub(crate) gateways: usize,
    /// Chance from 0 up to 1 that a packet is lost on its way to a node
    #[arg(long, default_value_t = 0.0)]
    pub(crate) loss: f64,
    /// Port of the nym-api; 0 is any free one
    #[arg(long, default_value_t = 0)]
    pub(crate) api_port: u16,
    /// File for every byte on every link, in records of one JSON line and its bytes
    #[arg(long, value_name = "FILE")]
    pub(crate) capture: Option<PathBuf>,
    /// Largest size of that file, in bytes
    #[arg(long, default_value_t = 256 << 20, value_name = "BYTES")]
    pub(crate) capture_limit: u64,
    /// Seconds between tables of counters on standard error
    #[arg(long, value_name = "SECONDS")]
    pub(crate) print_every: Option<NonZeroU64>,
}

/// The first line: where everything is.
pub(crate) fn hello(mixnet: &Mixnet) -> Value {
    json!({
        "api_url": mixnet.api_url(),
        "nodes": mixnet.mixes(),
        "gateways": mixnet.gateways(),
        "pid": std::process::id(),
    })
}

/// Writes one line of JSON to standard output.
pub(crate) fn print(line: &Value) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}

/// Tells people something; nobody may be listening.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text.trim_end());
}
