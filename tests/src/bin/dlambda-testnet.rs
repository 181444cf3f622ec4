//! `dlambda-testnet`: a private Tor network on loopback, a private mixnet, or
//! both, until Ctrl-C.

use std::{
    io::Write as _,
    os::fd::OwnedFd,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use dlambda_tests::mixnet::{MixnetOptions, Traffic};
use dlambda_tests::networks::{Networks, NetworksConfig};
use dlambda_tests::testnet::{Role, TestnetConfig, TestnetError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  dlambda-testnet up
      A network in a temporary directory, gone after Ctrl-C.
  dlambda-testnet up --dir /tmp/net --relays 8
      A larger one; its files stay in /tmp/net.
  dlambda-testnet up --format json | head -n 1 | jq -r .network
      The path of the file that programs read to use the network.
  dlambda-testnet up --nym
      A mixnet beside it; at the end, what each of its layers has carried.
  dlambda-testnet up --nym --no-tor --nym-delay-ms 50 --nym-loss 0.1
      A slow mixnet that loses packets, and nothing else.

Exit status:
  0  stopped by a signal, nothing left running
  1  the network failed
  2  wrong usage, or a directory that cannot be used
  5  a program is missing, or the network was not ready in time";

/// Private Tor networks and mixnets on loopback, to try and test D-Lambda
/// without the public networks.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start networks and keep them running until SIGINT or SIGTERM.
    ///
    /// Progress goes to standard error. When clients can use the networks, one
    /// line goes to standard output. What a mixnet has counted goes to standard
    /// error at the end.
    #[command(after_help = EXAMPLES)]
    Up(Up),
}

#[derive(clap::Args)]
struct Up {
    /// Keep the network's files here; an empty directory, or one used before
    /// by this command [default: a temporary directory, removed at the end].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,

    /// Number of directory authorities, which are relays too.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    authorities: u8,

    /// Number of plain relays.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(3..=50))]
    relays: u8,

    /// Give up when the network is not ready after this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    ready_timeout: u64,

    /// End as well when the process with this id has ended.
    #[arg(long, value_name = "PID", value_parser = clap::value_parser!(i32).range(1..))]
    owner_pid: Option<i32>,

    #[command(flatten)]
    mixnet: MixnetArgs,

    /// The form of the line printed when the networks are ready.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
}

/// The mixnet. Delays and cover traffic are the clients' own affair: these go
/// into the network file.
#[derive(clap::Args)]
struct MixnetArgs {
    /// Start a mixnet, too: three layers of mixes, and gateways.
    #[arg(long)]
    nym: bool,

    /// Start no Tor network.
    #[arg(long, requires = "nym")]
    no_tor: bool,

    /// How long packets wait at each mix on average, in milliseconds [default:
    /// what the traffic setting says, 15 for `standard` and 1 for `fast`].
    #[arg(long, value_name = "MS", requires = "nym", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    nym_delay_ms: Option<u16>,

    /// Chance from 0 to 0.9 that a packet is lost on its way to a node.
    #[arg(long, value_name = "P", requires = "nym", default_value_t = 0.0, value_parser = chance)]
    nym_loss: f64,

    /// Whether clients hide their traffic.
    #[arg(long, value_enum, requires = "nym", default_value_t = TrafficName::Standard)]
    nym_traffic: TrafficName,

    /// Number of mixes in each of the three layers.
    #[arg(long, value_name = "N", requires = "nym", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    nym_layer_nodes: u8,

    /// Number of gateways.
    #[arg(long, value_name = "N", requires = "nym", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=20))]
    nym_gateways: u8,
}

#[derive(Clone, Copy, ValueEnum)]
enum TrafficName {
    /// Cover traffic, and sending at random times.
    Standard,
    /// Neither.
    Fast,
}

impl MixnetArgs {
    fn options(&self) -> Option<(MixnetOptions, Traffic)> {
        let traffic = match self.nym_traffic {
            TrafficName::Standard => Traffic::STANDARD,
            TrafficName::Fast => Traffic::FAST,
        };
        let traffic = Traffic {
            mean_delay_ms: self.nym_delay_ms,
            ..traffic
        };
        let options = MixnetOptions {
            layer_nodes: self.nym_layer_nodes,
            gateways: self.nym_gateways,
            loss: self.nym_loss,
            verbose: true,
            ..MixnetOptions::default()
        };
        self.nym.then_some((options, traffic))
    }
}

fn chance(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(chance @ 0.0..=0.9) => Ok(chance),
        _ => Err("give a number from 0 to 0.9".to_owned()),
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Command::Up(up) = Cli::parse().command;
    match run(up).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(err) => {
            say(&format!("error: {err:#}"));
            ExitCode::from(exit_code(&err))
        }
    }
}

async fn run(up: Up) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut interrupts = [
        signal(SignalKind::interrupt())?,
        signal(SignalKind::terminate())?,
        signal(SignalKind::hangup())?,
    ];
    let [interrupt, terminate, hangup] = &mut interrupts;
    let owner = up.owner_pid.map(watch).transpose()?;
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            () = ends(owner) => {}
        }
    });
    let config = NetworksConfig {
        nym: up.mixnet.options(),
        without_tor: up.mixnet.no_tor,
        tor: TestnetConfig {
            dir: up.dir,
            authorities: up.authorities.into(),
            relays: up.relays.into(),
            ready_timeout: Duration::from_secs(up.ready_timeout),
        },
    };
    let progress = |line: &str| {
        say(&format!(
            "{:5.1} s  {line}",
            started.elapsed().as_secs_f64()
        ))
    };
    let networks = tokio::select! {
        networks = Box::pin(Networks::up(config, progress)) => networks?,
        // Dropping the other branch ends what it has started.
        () = &mut stop => return Ok(()),
    };
    announce(&networks, up.format, started.elapsed())?;
    say("ready; Ctrl-C stops everything");
    // The one wait without a deadline: until somebody says stop.
    stop.await;
    say("stopping");
    // The mixnet says for people what it has counted.
    networks.down().await;
    Ok(())
}

/// Holds on to a process, whose id could later be another's.
fn watch(process: i32) -> anyhow::Result<OwnedFd> {
    let watched = Pid::from_raw(process)
        .context("no process id")
        .and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
    watched.with_context(|| format!("process {process} cannot be watched"))
}

/// Waits for the end of a process; for ever if there is none to watch.
async fn ends(watched: Option<OwnedFd>) {
    let Some(process) = watched else {
        return std::future::pending().await;
    };
    let has_ended = || {
        let mut asked = [PollFd::new(&process, PollFlags::IN)];
        poll(&mut asked, Some(&Timespec::default())).is_ok_and(|ended| ended > 0)
    };
    while !has_ended() {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn announce(networks: &Networks, format: Format, took: Duration) -> anyhow::Result<()> {
    let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    let network = networks.network_toml();
    let nodes = || networks.tor.iter().flat_map(|tor| tor.nodes());
    let count = |role| nodes().filter(|node| node.role == role).count();
    let (authorities, relays) = (count(Role::Authority), count(Role::Relay));
    let mixnet = networks.mixnet.as_ref().map(|mixnet| &mixnet.ready);
    let count = |what: &str| mixnet.and_then(|it| Some(it[what].as_array()?.len()));
    let (mixes, gateways) = (count("nodes"), count("gateways"));
    let line = match format {
        Format::Text => {
            let tor = format!("{authorities} authorities and {relays} relays");
            let nym = mixes.zip(gateways);
            let nym = nym.map(|(mixes, gateways)| format!("{mixes} mixes and {gateways} gateways"));
            let parts = networks.tor.as_ref().map(|_| tor).into_iter().chain(nym);
            let parts: Vec<String> = parts.collect();
            let parts = parts.join(", ");
            format!("{parts} are ready after {seconds} s: {}", network.display())
        }
        Format::Json => {
            let pids = nodes().filter_map(|node| node.pid).map(Value::from);
            let mixnet_pid = mixnet.map(|mixnet| mixnet["pid"].clone());
            json!({
                "ready": true,
                "network": network,
                "dir": networks.dir(),
                "authorities": authorities,
                "relays": relays,
                "mixes": mixes.unwrap_or_default(),
                "gateways": gateways.unwrap_or_default(),
                "pids": pids.chain(mixnet_pid).collect::<Vec<_>>(),
                "seconds": seconds,
            })
            .to_string()
        }
    };
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .context("cannot write to standard output")
}

/// Tells people on standard error, which may be closed.
fn say(line: &str) {
    let _closed = writeln!(std::io::stderr(), "{line}");
}

fn exit_code(err: &anyhow::Error) -> u8 {
    match err.downcast_ref() {
        Some(TestnetError::DirInUse(_) | TestnetError::DirNotOurs(_)) => 2,
        Some(
            TestnetError::MissingMixnet
            | TestnetError::MissingProgram(_)
            | TestnetError::Timeout(_),
        ) => 5,
        _ => 1,
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

    #[test]
    fn sizes_have_bounds() {
        for wrong in [
            &["--authorities=0"][..],
            &["--authorities=10"],
            &["--relays=2"],
            &["--relays=51"],
            // Without a mixnet its options make no sense.
            &["--no-tor"],
            &["--nym-delay-ms=50"],
            &["--nym", "--nym-loss=0.95"],
            &["--nym", "--nym-gateways=0"],
        ] {
            let args = ["dlambda-testnet", "up"].iter().chain(wrong);
            let err = Cli::try_parse_from(args).err().unwrap();
            assert_eq!(err.exit_code(), 2, "{wrong:?}");
        }
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let err = TestnetError::MissingProgram("tor").into();
        assert_eq!(exit_code(&err), 5);
        assert!(err.to_string().contains("apt install tor"));
    }
}
