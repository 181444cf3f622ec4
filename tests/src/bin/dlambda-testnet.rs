//! `dlambda-testnet`: a private Tor network on loopback, until Ctrl-C.

use std::{
    io::Write as _,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use dlambda_tests::testnet::{Testnet, TestnetConfig, TestnetError};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  dlambda-testnet up
      A network in a temporary directory, gone after Ctrl-C.
  dlambda-testnet up --dir /tmp/net --relays 8
      A larger one; its files stay in /tmp/net.
  dlambda-testnet up --format json | head -n 1 | jq -r .network
      The path of the file that programs read to use the network.

Exit status:
  0  stopped by a signal, nothing left running
  1  the network failed
  2  wrong usage, or a directory that cannot be used
  5  tor is not installed, or the network was not ready in time";

/// Private Tor networks on loopback, to try and test D-Lambda without the
/// public network.
#[derive(Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start a network and keep it running until SIGINT or SIGTERM.
    ///
    /// Progress goes to standard error. When clients can use the network, one
    /// line goes to standard output.
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

    /// The form of the line printed when the network is ready.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
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
    let mut stop = std::pin::pin!(async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    });
    let config = TestnetConfig {
        dir: up.dir,
        authorities: up.authorities.into(),
        relays: up.relays.into(),
        ready_timeout: Duration::from_secs(up.ready_timeout),
    };
    let progress = |line: &str| {
        say(&format!(
            "{:5.1} s  {line}",
            started.elapsed().as_secs_f64()
        ))
    };
    let testnet = tokio::select! {
        testnet = Box::pin(Testnet::up(config, progress)) => testnet?,
        // Dropping the other branch ends what it has started.
        () = &mut stop => return Ok(()),
    };
    announce(&testnet, up.format, started.elapsed())?;
    say("ready; Ctrl-C stops the network");
    // The one wait without a deadline: until somebody says stop.
    stop.await;
    say("stopping");
    testnet.down().await;
    Ok(())
}

fn announce(testnet: &Testnet, format: Format, took: Duration) -> anyhow::Result<()> {
    let count = |role| testnet.nodes().filter(|node| node.role == role).count();
    let authorities = count(dlambda_tests::testnet::Role::Authority);
    let relays = count(dlambda_tests::testnet::Role::Relay);
    let seconds = (took.as_secs_f64() * 10.0).round() / 10.0;
    let network = testnet.network_toml();
    let line = match format {
        Format::Text => format!(
            "{authorities} authorities and {relays} relays are ready after {seconds} s: {}",
            network.display()
        ),
        Format::Json => serde_json::json!({
            "ready": true,
            "network": network,
            "dir": testnet.dir(),
            "authorities": authorities,
            "relays": relays,
            "pids": testnet.nodes().filter_map(|node| node.pid).collect::<Vec<_>>(),
            "seconds": seconds,
        })
        .to_string(),
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
        Some(TestnetError::MissingProgram(_) | TestnetError::Timeout(_)) => 5,
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
            "--authorities=0",
            "--authorities=10",
            "--relays=2",
            "--relays=51",
        ] {
            let err = Cli::try_parse_from(["dlambda-testnet", "up", wrong])
                .err()
                .unwrap();
            assert_eq!(err.exit_code(), 2, "{wrong}");
        }
    }

    #[test]
    fn a_missing_program_is_told_apart() {
        let err = TestnetError::MissingProgram("tor").into();
        assert_eq!(exit_code(&err), 5);
        assert!(err.to_string().contains("apt install tor"));
    }
}
