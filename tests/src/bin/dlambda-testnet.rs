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
use dlambda_privacy::NetworkFileError;
use dlambda_privacy::network::Network;
use dlambda_tests::market::{Market, MarketConfig, bootstrap, new_overlay};
use dlambda_tests::mixnet::{MixnetOptions, Traffic};
use dlambda_tests::networks::{Networks, NetworksConfig};
use dlambda_tests::testnet::{Role, TestnetConfig, TestnetError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// For a provider to be ready, on a busy machine.
const PROVIDER: Duration = Duration::from_secs(180);

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
  dlambda-testnet up --dir /tmp/net --providers 4
      A market: four providers on an overlay of their own, to be found.
  dlambda-testnet new-network my-market > network.toml
      A network of one's own on the public Tor network.

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
    /// Print the file of a network of one's own: an overlay that shares nothing
    /// with others, on the public Tor network or on another file's.
    ///
    /// Start a provider with it, then write the address of its node into the
    /// file as a bootstrap node, and give the file to everybody.
    #[command(after_help = NEW_NETWORK_EXAMPLES)]
    NewNetwork(NewNetwork),
}

const NEW_NETWORK_EXAMPLES: &str = "\
Examples:
  dlambda-testnet new-network my-market > network.toml
  dlambda-testnet new-network club --key --from net/network.toml > club.toml
      A private overlay: who has the file has the key. Nobody who has it can be
      shut out but by a new one.";

#[derive(clap::Args)]
struct NewNetwork {
    /// Keeps its files apart from other networks': 1 to 64 of a-z, 0-9 and -.
    name: String,

    /// A network file that says how connections are made [default: the public
    /// Tor network].
    #[arg(long, value_name = "FILE")]
    from: Option<PathBuf>,

    /// A node where guests and nodes enter the overlay; several times.
    #[arg(long, value_name = "ADDRESS")]
    bootstrap: Vec<String>,

    /// What a listing costs a day: solutions of some 15 ms on one core.
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    effort: u64,

    /// Shut out everybody who does not have the file.
    #[arg(long)]
    key: bool,
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

    /// Start so many providers on an overlay of their own, with the example
    /// functions, once the Tor network is ready.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "no_tor", value_parser = clap::value_parser!(u8).range(0..=32))]
    providers: u8,

    /// The functions of the providers [default: the examples of the sources].
    #[arg(long, value_name = "DIR", requires = "providers")]
    functions: Option<PathBuf>,

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
    let done = match Cli::parse().command {
        Command::Up(up) => run(up).await,
        Command::NewNetwork(args) => new_network(&args),
    };
    match done {
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
    let mut progress = |line: &str| {
        say(&format!(
            "{:5.1} s  {line}",
            started.elapsed().as_secs_f64()
        ))
    };
    let networks = tokio::select! {
        networks = Box::pin(Networks::up(config, &mut progress)) => networks?,
        // Dropping the other branch ends what it has started.
        () = &mut stop => return Ok(()),
    };
    let config = MarketConfig {
        providers: up.providers.into(),
        functions: up.functions.unwrap_or_else(example_functions),
        dir: networks.dir().to_owned(),
        record: false,
        deadline: PROVIDER,
    };
    let market = async {
        if config.providers == 0 {
            return Ok(None);
        }
        progress("starting providers");
        let market = Market::up(networks.network_toml(), &config).await?;
        anyhow::Ok(Some(market))
    };
    let market = tokio::select! {
        market = Box::pin(market) => market?,
        () = &mut stop => return Ok(()),
    };
    announce(&networks, market.as_ref(), up.format, started.elapsed())?;
    say("ready; Ctrl-C stops everything");
    // The one wait without a deadline: until somebody says stop.
    stop.await;
    say("stopping");
    if let Some(market) = market {
        // Those that do not end in time are killed.
        let _stopped = market.down(Duration::from_secs(10)).await;
    }
    // The mixnet says for people what it has counted.
    networks.down().await;
    Ok(())
}

fn new_network(args: &NewNetwork) -> anyhow::Result<()> {
    let before = match &args.from {
        None => "transport = \"tor\"\n".to_owned(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{} cannot be read", path.display()))?;
            let kept = text.lines().filter(|line| !line.starts_with("name = "));
            kept.map(|line| format!("{line}\n")).collect()
        }
    };
    let file = format!(
        "# A network of its own. Who has this file can use it.\nname = \"{}\"\n{before}{}{}",
        args.name,
        new_overlay(args.effort, args.key),
        bootstrap(&args.bootstrap)
    );
    Network::parse(&file)?;
    print(file.trim_end())
}

fn example_functions() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/functions")
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

fn announce(
    networks: &Networks,
    market: Option<&Market>,
    format: Format,
    took: Duration,
) -> anyhow::Result<()> {
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
            let providers = market.map(|it| format!("{} providers", it.providers.len()));
            let parts: Vec<String> = parts.chain(providers).collect();
            let parts = parts.join(", ");
            format!("{parts} are ready after {seconds} s: {}", network.display())
        }
        Format::Json => {
            let pids = nodes().filter_map(|node| node.pid).map(Value::from);
            let members = || market.iter().flat_map(|it| &it.providers);
            let provider_pids = members().filter_map(|it| it.program.pid()).map(Value::from);
            let mixnet_pid = mixnet.map(|mixnet| mixnet["pid"].clone());
            json!({
                "ready": true,
                "network": network,
                "dir": networks.dir(),
                "authorities": authorities,
                "relays": relays,
                "mixes": mixes.unwrap_or_default(),
                "gateways": gateways.unwrap_or_default(),
                "providers": members().map(|it| it.ready.clone()).collect::<Vec<_>>(),
                "pids": pids.chain(mixnet_pid).chain(provider_pids).collect::<Vec<_>>(),
                "seconds": seconds,
            })
            .to_string()
        }
    };
    print(&line)
}

fn print(line: &str) -> anyhow::Result<()> {
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
    if err.is::<NetworkFileError>() {
        return 2;
    }
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
    fn a_new_network_is_checked_before_it_is_printed() {
        let args = |name: &str, bootstrap: &[&str]| NewNetwork {
            name: name.to_owned(),
            from: None,
            bootstrap: bootstrap.iter().map(|it| (*it).to_owned()).collect(),
            effort: 1,
            key: true,
        };
        assert!(new_network(&args("mine", &[])).is_ok());
        for wrong in [args("Mine", &[]), args("mine", &["example.org"])] {
            let err = new_network(&wrong).unwrap_err();
            assert_eq!(exit_code(&err), 2, "{err}");
        }
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let err = TestnetError::MissingProgram("tor").into();
        assert_eq!(exit_code(&err), 5);
        assert!(err.to_string().contains("apt install tor"));
    }
}
