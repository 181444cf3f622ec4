//! The whole story in a minute: a private Tor network or mixnet, a provider on
//! it, three calls by one caller, and what the provider knows.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "printing is what this program is for"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use data_encoding::HEXLOWER;
use dlambda_tests::mixnet::{MixnetOptions, Traffic};
use dlambda_tests::networks::{Networks, NetworksConfig};
use dlambda_tests::program::{Program, run};
use dlambda_tests::testnet::TestnetConfig;
use dlambda_tests::view::{View, links};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};

/// Generous: a loaded machine may take several times as long as a quiet one.
const DEADLINE: Duration = Duration::from_secs(120);

/// The three calls: function, arguments, input.
const CALLS: [(&str, &[&str], &str); 3] = [
    ("upper", &[], "meet me at the old mill at nine"),
    ("sha256", &[], "the letter to the editor, final version"),
    ("args-echo", &["no", "log", "knows", "me"], ""),
];

/// Show three anonymous calls, and all that their provider knows of them.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// What the calls travel through
    #[arg(long, value_enum, default_value_t = Way::Tor)]
    transport: Way,
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    /// A private network of eight Tor relays
    Tor,
    /// A private mixnet: Nym's packets through three layers of mixes
    Nym,
}

impl Way {
    fn networks(self) -> NetworksConfig {
        match self {
            Self::Tor => NetworksConfig::tor(TestnetConfig::default()),
            Self::Nym => NetworksConfig::nym(MixnetOptions::default(), Traffic::STANDARD),
        }
    }

    fn starting(self) -> &'static str {
        match self {
            Self::Tor => "starting a private Tor network of 8 relays",
            Self::Nym => "starting a private mixnet of 6 mixes and 2 gateways",
        }
    }

    fn serving(self) -> &'static str {
        match self {
            Self::Tor => "starting a provider behind an onion service",
            Self::Nym => "starting a provider with a Nym address",
        }
    }

    /// What each call has for itself.
    fn path(self) -> &'static str {
        match self {
            Self::Tor => "circuit",
            Self::Nym => "Nym client",
        }
    }

    /// All that a provider knows of who called.
    fn who(self, view: &View) -> String {
        match self {
            Self::Tor => "unknown: a Tor rendezvous".to_owned(),
            Self::Nym => {
                let tag = short(view.field("circuit opening"));
                format!("unknown: sender tag {tag} (never seen before)")
            }
        }
    }

    fn ran_over(self) -> &'static str {
        match self {
            Self::Tor => "real Tor relays",
            Self::Nym => "real Sphinx packets through three layers of mixes",
        }
    }
}

/// What the caller knows of one of its calls.
struct Known {
    command: String,
    input: &'static str,
    output: String,
    total_ms: f64,
    round_trip_ms: f64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Cli { transport } = Cli::parse();
    let interrupted = async {
        let terminate = signal(SignalKind::terminate());
        match terminate {
            Ok(mut terminate) => tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            },
            Err(_) => std::future::pending().await,
        }
    };
    // Whichever way it ends, dropping the future ends every process.
    tokio::select! {
        result = Box::pin(demo(transport)) => match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("the demo failed: {error:#}");
                ExitCode::FAILURE
            }
        },
        () = interrupted => ExitCode::from(130),
    }
}

async fn demo(way: Way) -> Result<()> {
    let started = Instant::now();
    let work = tempfile::tempdir()?;
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    let step = |text: &str| {
        bar.set_message(text.to_owned());
        if bar.is_hidden() {
            eprintln!("[{:5.1} s] {text}", started.elapsed().as_secs_f64());
        }
    };

    step(way.starting());
    let networks = Networks::up(way.networks(), |line| step(line)).await?;
    let network = path(networks.network_toml())?;

    step(way.serving());
    let record = work.path().join("record.jsonl");
    let functions = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions");
    let data = work.path().join("provider");
    let args = [
        "run",
        "--functions",
        path(&functions)?,
        "--data",
        path(&data)?,
        "--network",
        network,
        "--format",
        "json",
        "--dangerously-record-calls",
        path(&record)?,
    ];
    let log = work.path().join("provider.log");
    let (provider, ready) = Program::start("dlambda-provider", &args, &log, DEADLINE).await?;
    let address = ready["address"]
        .as_str()
        .context("the provider's address")?;

    step("agreeing on eight calls: a contract signed by both, and eight tokens");
    contract(work.path(), network, address).await?;

    let mut known = Vec::new();
    for (function, args, input) in CALLS {
        step(&format!(
            "calling {function}, with a token, a {} and a key of its own",
            way.path()
        ));
        known.push(call(work.path(), network, address, function, args, input).await?);
    }

    step("reading the provider's record");
    let seen = read_record(&record).await?;
    let provider_id = ready["provider"].as_str().unwrap_or_default();
    bar.finish_and_clear();
    show(way, address, provider_id, &known, &seen);

    step("cleaning up");
    provider.stop(DEADLINE).await?;
    networks.down().await;
    bar.finish_and_clear();
    println!(
        "Everything above ran over {}, and is gone again. {:.0} seconds.",
        way.ran_over(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn contract(work: &Path, network: &str, address: &str) -> Result<()> {
    let home = work.join("caller");
    let home = path(&home)?;
    let command = [
        "contract",
        address,
        "--calls",
        "8",
        "--yes",
        "--network",
        network,
        "--home",
        home,
    ];
    let output = run("dlambda", &command, b"", DEADLINE).await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

async fn call(
    work: &Path,
    network: &str,
    address: &str,
    function: &str,
    args: &[&str],
    input: &'static str,
) -> Result<Known> {
    let home = work.join("caller");
    let report = work.join("report.json");
    let mut command = vec!["invoke", address, function, "--network", network];
    command.extend(["--home", path(&home)?, "--report", path(&report)?, "--"]);
    command.extend(args);
    let output = run("dlambda", &command, input.as_bytes(), DEADLINE).await?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    let report: Value = serde_json::from_slice(&std::fs::read(&report)?)?;
    let time = |name: &str| report["time"][name].as_f64().unwrap_or_default();
    let output = String::from_utf8_lossy(&output.stdout);
    Ok(Known {
        command: format!("{function} {}", args.join(" ")),
        input,
        output: output.trim_end().replace('\n', " "),
        total_ms: time("total_ms"),
        round_trip_ms: time("round_trip_ms"),
    })
}

/// The record is complete when all sessions have ended.
async fn read_record(path: &Path) -> Result<Vec<View>> {
    for _ in 0..200 {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        let views: Vec<View> = lines
            .filter_map(|line| View::from_json(&line.ok()?))
            .collect();
        // The contract has a session of its own.
        if views.len() > CALLS.len() {
            return Ok(views);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the provider's record is not complete")
}

fn show(way: Way, address: &str, provider_id: &str, known: &[Known], seen: &[View]) {
    println!(
        "A contract and three calls by one caller, with {address}\n(provider {provider_id})\n"
    );
    row("WHAT YOU KNOW", "THE PROVIDER'S COMPLETE RECORD");
    let Some((contract, calls)) = seen.split_first() else {
        return;
    };
    row("", "");
    row(
        "contract: 8 calls, signed by both",
        &labelled(way, &contract.circuit),
    );
    row(
        "        8 tokens, good for any 8 calls",
        &format!(
            "blinded tokens  {}",
            short(contract.field("blinded tokens"))
        ),
    );
    for (i, known) in known.iter().enumerate() {
        row("", "");
        let title = format!("call {}: {}", i + 1, known.command);
        let Some(view) = calls.get(i) else { continue };
        row(&title, &labelled(way, &view.circuit));
        let key = short(view.field("call key"));
        row(
            &format!("input   {}", known.input),
            &format!("one-time key    {key}"),
        );
        let token = short(view.field("token"));
        row(
            &format!("output  {}", known.output),
            &format!("token           {token} (never seen before)"),
        );
        let bytes = (
            view.field("bytes received").len(),
            view.field("bytes sent").len(),
        );
        let bytes = format!("bytes in, out   {}, {} (padded)", bytes.0, bytes.1);
        let time = format!(
            "time    {:.0} ms, of it {:.0} ms round trip",
            known.total_ms, known.round_trip_ms
        );
        row(&time, &bytes);
        row(
            "you     the same caller each time",
            &format!("who             {}", way.who(view)),
        );
        // Without a TEE the provider runs the function, so it sees its input.
        let input = String::from_utf8_lossy(view.field("input"));
        row("", &format!("input           {input} (it runs it)"));
    }
    println!();
    let shared = links(seen, known.len() + 1);
    if shared.is_empty() {
        println!(
            "Strings of 8 or more bytes that any two of these records have in common, beside the\n\
             advert and the call header that everybody's calls contain: none.\n"
        );
    } else {
        println!("DANGER: the provider can link these calls: {shared:?}\n");
    }
}

/// The label that the provider gives to what a call came by.
fn labelled(way: Way, label: &[u8]) -> String {
    format!("{:<15} {}", way.path(), short(label))
}

fn row(left: &str, right: &str) {
    let left: String = left.chars().take(54).collect();
    println!("  {left:<54} | {right}");
}

fn short(bytes: &[u8]) -> String {
    let hex = HEXLOWER.encode(&bytes[..bytes.len().min(8)]);
    format!("{hex}...")
}

fn path(path: &Path) -> Result<&str> {
    ensure!(path.is_absolute(), "{} is not absolute", path.display());
    path.to_str().context("a path that is not text")
}
