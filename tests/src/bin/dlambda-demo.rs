//! The whole story in a minute: a private Tor network or mixnet, providers on
//! it, two calls by one caller and one by another that has to find its provider
//! first, and what the providers know.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "printing is what this program is for"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, ValueEnum};
use data_encoding::HEXLOWER;
use dlambda_tests::market::{Market, MarketConfig, Member};
use dlambda_tests::mixnet::{MixnetOptions, Traffic};
use dlambda_tests::networks::{Networks, NetworksConfig};
use dlambda_tests::program::run;
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

/// Providers of the market on Tor: enough for the third caller to choose from.
const PROVIDERS: usize = 3;

/// Show three anonymous calls, and all that their providers know of them.
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
            Self::Tor => "starting three providers behind onion services, which find each other",
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
    let market = providers(way, &networks, work.path()).await?;
    let told = &market.providers[0];
    let address = told.ready["address"]
        .as_str()
        .context("the provider's address")?;

    step("agreeing on eight calls: a contract signed by both, and eight tokens");
    let caller = Caller::new(work.path(), network, "caller")?;
    caller.contract(address).await?;
    let mut known = Vec::new();
    let (last, first) = CALLS.split_last().context("three calls")?;
    for (function, args, input) in first {
        step(&format!(
            "calling {function}, with a token, a {} and a key of its own",
            way.path()
        ));
        known.push(caller.call(address, function, args, input).await?);
    }
    let (function, args, input) = *last;
    let found = match way {
        // The overlay needs onion services: without them a provider is told.
        Way::Nym => {
            known.push(caller.call(address, function, args, input).await?);
            told
        }
        Way::Tor => {
            step("another caller fetches the catalogue from several nodes, and finds a provider");
            let other = Caller::new(work.path(), network, "other caller")?;
            let address = other.find(market.providers.len()).await?;
            step("agreeing on eight calls with the provider that was found");
            other.contract(&address).await?;
            step(&format!("calling {function} there"));
            known.push(other.call(&address, function, args, input).await?);
            let is_found = |it: &&Member| it.ready["address"] == address.as_str();
            let found = market.providers.iter().find(is_found);
            found.context("a provider that was found and not started")?
        }
    };

    step("reading the providers' records");
    let seen = read_records(told, found).await?;
    let provider_id = told.ready["provider"].as_str().unwrap_or_default();
    bar.finish_and_clear();
    show(way, address, provider_id, &known, &seen);

    step("cleaning up");
    market.down(DEADLINE).await?;
    networks.down().await;
    bar.finish_and_clear();
    println!(
        "Everything above ran over {}, and is gone again. {:.0} seconds.",
        way.ran_over(),
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

/// Providers that write everything down: on Tor a market, on a mixnet one that is told.
async fn providers(way: Way, networks: &Networks, work: &Path) -> Result<Market> {
    let config = MarketConfig {
        providers: PROVIDERS,
        functions: Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions"),
        dir: work.to_owned(),
        record: true,
        deadline: DEADLINE,
    };
    match way {
        Way::Tor => Market::up(networks.network_toml(), &config).await,
        Way::Nym => Market::single(networks.network_toml(), &config).await,
    }
}

/// Somebody at a shell.
struct Caller {
    network: String,
    home: String,
    report: PathBuf,
}

impl Caller {
    fn new(work: &Path, network: &str, name: &str) -> Result<Self> {
        Ok(Self {
            network: network.to_owned(),
            home: path(&work.join(name))?.to_owned(),
            report: work.join("report.json"),
        })
    }

    async fn dlambda(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let common = ["--network", &self.network, "--home", &self.home];
        let args = [&common[..], args].concat();
        let output = run("dlambda", &args, input, DEADLINE).await?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(output.stdout)
    }

    /// The address of the first of the providers that are found, once all of them are.
    async fn find(&self, providers: usize) -> Result<String> {
        // The last of them may just have been listed.
        for _ in 0..20 {
            self.dlambda(&["sync"], b"").await?;
            let found = self.dlambda(&["find", "--format", "json"], b"").await;
            let found: Value =
                serde_json::from_slice(&found.unwrap_or_default()).unwrap_or_default();
            let found = found["providers"].as_array().map_or(&[][..], Vec::as_slice);
            if found.len() == providers {
                let address = found[0]["address"].as_str();
                return Ok(address.context("an address")?.to_owned());
            }
        }
        bail!("not all providers were found")
    }

    async fn contract(&self, address: &str) -> Result<()> {
        let command = ["contract", address, "--calls", "8", "--yes"];
        self.dlambda(&command, b"").await?;
        Ok(())
    }

    async fn call(
        &self,
        address: &str,
        function: &str,
        args: &[&str],
        input: &'static str,
    ) -> Result<Known> {
        let mut command = vec!["invoke", address, function];
        command.extend(["--report", path(&self.report)?, "--"]);
        command.extend(args);
        let output = self.dlambda(&command, input.as_bytes()).await?;
        let report: Value = serde_json::from_slice(&std::fs::read(&self.report)?)?;
        let time = |name: &str| report["time"][name].as_f64().unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        Ok(Known {
            command: format!("{function} {}", args.join(" ")),
            input,
            output: output.trim_end().replace('\n', " "),
            total_ms: time("total_ms"),
            round_trip_ms: time("round_trip_ms"),
        })
    }
}

/// The contract of the first caller and the three calls, as their providers saw them.
async fn read_records(told: &Member, found: &Member) -> Result<Vec<View>> {
    let calls = |views: Vec<View>| {
        let calls = views.into_iter().filter(|it| !it.field("token").is_empty());
        calls.collect::<Vec<_>>()
    };
    let same = told.record == found.record;
    for _ in 0..200 {
        let views = read_record(&told.record);
        let contract = views
            .iter()
            .find(|it| !it.field("blinded tokens").is_empty())
            .cloned();
        let mut seen = calls(views);
        if !same {
            seen.extend(calls(read_record(&found.record)));
        }
        if let Some(contract) = contract
            && seen.len() == CALLS.len()
        {
            return Ok(std::iter::once(contract).chain(seen).collect());
        }
        // The record is complete when all sessions have ended.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the providers' records are not complete")
}

fn read_record(path: &Path) -> Vec<View> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().map(serde_json::from_str::<Value>);
    lines
        .filter_map(|line| View::from_json(&line.ok()?))
        .collect()
}

fn show(way: Way, address: &str, provider_id: &str, known: &[Known], seen: &[View]) {
    println!(
        "A contract and two calls by one caller, with {address}\n(provider {provider_id}), \
         and {}\n",
        match way {
            Way::Tor => "one call by another caller, who had to find its provider",
            Way::Nym => "one more",
        }
    );
    row("WHAT THE CALLER KNOWS", "THE PROVIDER'S COMPLETE RECORD");
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
        let whose = match (way, i) {
            (Way::Tor, 2) => "who     another caller; the provider was found",
            _ => "who     the same caller each time",
        };
        row(whose, &format!("who             {}", way.who(view)));
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
