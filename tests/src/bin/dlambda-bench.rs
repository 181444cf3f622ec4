//! Round trips on one private network in one run, with C tor as the baseline.
//!
//! Three things are measured in turn, round after round, so that a noisy
//! machine disturbs all of them alike: raw bytes on an open onion stream, one
//! D-Lambda call on a fresh circuit, and the same request by `curl` through C
//! tor to a C tor onion service in front of nginx, on a fresh circuit too.

#![allow(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "printing is what this program is for"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use dlambda_client::{Call, FunctionName, Querier};
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::transport::{BoxStream, Listener, Transport as _};
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::testnet::{Testnet, TestnetConfig};
use dlambda_tests::tor::participant;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// No single measurement takes longer, or the run fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is sent and comes back: the same size in all three.
const PAYLOAD: usize = 1024;

/// Measure calls over Tor against C tor, in one run on one private network.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Rounds; each measures everything once
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u16).range(3..=1000))]
    rounds: u16,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match Box::pin(bench(&cli)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Milliseconds of each round.
#[derive(Default)]
struct Times {
    raw: Vec<f64>,
    call: Vec<f64>,
    connect: Vec<f64>,
    round_trip: Vec<f64>,
    execute: Vec<f64>,
    curl: Vec<f64>,
}

async fn bench(cli: &Cli) -> Result<()> {
    let work = tempfile::tempdir()?;
    eprintln!("starting a private Tor network");
    let testnet = Testnet::up(TestnetConfig::default(), |_| {}).await?;
    let network = testnet.network_toml();
    let own = |name: &str| work.path().join(name);

    eprintln!("starting an echo service, a provider, and nginx behind C tor");
    let echo = participant(network, &own("echo")).await?;
    let listener = echo.listen().await?;
    let echo_endpoint = listener.endpoint();
    tokio::spawn(echo_everything(listener));
    let provider = LocalProvider::start(
        ProviderConfig::without_tokens(),
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions"),
        &own("provider"),
        participant(network, &own("provider-tor")).await?,
        Arc::new(SystemClock::default()),
    )
    .await?;
    let (nginx, web) = nginx(work.path())?;
    let onion = testnet.c_tor_onion(80, web).await?;
    let c_tor = testnet.c_tor_client().await?;

    let caller = participant(network, &own("caller")).await?;
    let mut stream = reach(&caller, &echo_endpoint).await?;
    let querier = Querier::new(caller, Arc::new(SystemClock::default()));
    let mut times = Times::default();
    // The first round warms all three up and does not count.
    for round in 0..=cli.rounds {
        eprint!("\rround {round} of {}  ", cli.rounds);
        let mut one = Times::default();
        one.raw.push(raw_round_trip(&mut stream).await?);
        one_call(&querier, &provider, &mut one).await?;
        one.curl
            .push(one_curl(c_tor.socks, &onion.address, round).await?);
        if round > 0 {
            times.add(one);
        }
    }
    eprintln!();
    show(&times, cli.json);
    provider.stop().await?;
    drop(nginx);
    testnet.down().await;
    Ok(())
}

impl Times {
    fn add(&mut self, other: Self) {
        self.raw.extend(other.raw);
        self.call.extend(other.call);
        self.connect.extend(other.connect);
        self.round_trip.extend(other.round_trip);
        self.execute.extend(other.execute);
        self.curl.extend(other.curl);
    }
}

async fn echo_everything(mut listener: Box<dyn Listener>) {
    while let Some(incoming) = listener.accept().await {
        tokio::spawn(async move {
            let mut stream = incoming.stream;
            let mut bytes = [0; PAYLOAD];
            while stream.read_exact(&mut bytes).await.is_ok() {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A new onion service takes a moment until it can be found.
async fn reach(
    tor: &dlambda_privacy::transport::TorTransport,
    endpoint: &dlambda_proto::Endpoint,
) -> Result<BoxStream> {
    let started = Instant::now();
    loop {
        match tor.dial(endpoint).await {
            Ok(stream) => return Ok(stream),
            Err(error) if started.elapsed() > DEADLINE => return Err(error.into()),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

async fn raw_round_trip(stream: &mut BoxStream) -> Result<f64> {
    let mut bytes = [7; PAYLOAD];
    let started = Instant::now();
    let round_trip = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.read_exact(&mut bytes).await
    };
    timeout(DEADLINE, round_trip).await??;
    Ok(millis(started))
}

async fn one_call(querier: &Querier, provider: &LocalProvider, times: &mut Times) -> Result<()> {
    let function = FunctionName::Alias("upper".to_owned());
    let call = Call::new(provider.endpoint, function).input(vec![b'a'; PAYLOAD]);
    let started = Instant::now();
    let answer = querier.call(&call, DEADLINE, |_| {}).await?;
    times.call.push(millis(started));
    ensure!(answer.stdout == vec![b'A'; PAYLOAD], "a wrong answer");
    times
        .connect
        .push(answer.stages.connect.as_secs_f64() * 1e3);
    times
        .round_trip
        .push(answer.stages.round_trip.as_secs_f64() * 1e3);
    #[expect(clippy::cast_precision_loss, reason = "microseconds of one call")]
    times.execute.push(answer.usage.execute_us as f64 / 1e3);
    Ok(())
}

/// A user name of its own makes C tor use a circuit of its own.
async fn one_curl(socks: SocketAddr, onion: &str, round: u16) -> Result<f64> {
    let started = Instant::now();
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--fail", "--max-time", "110"])
        .arg("--socks5-hostname")
        .arg(socks.to_string())
        .args(["--proxy-user", &format!("round{round}:{round}")])
        .args(["--data-binary", &"a".repeat(PAYLOAD)])
        .arg(format!("http://{onion}/"))
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output).await??;
    let elapsed = millis(started);
    ensure!(
        output.status.success(),
        "curl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        output.stdout.len() == PAYLOAD,
        "nginx answered {} bytes",
        output.stdout.len()
    );
    Ok(elapsed)
}

/// nginx on a free loopback port, answering as many bytes as it is sent.
fn nginx(dir: &Path) -> Result<(Child, SocketAddr)> {
    // Taken and given back at once; nobody else on this machine wants it.
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port();
    let answer = "A".repeat(PAYLOAD);
    let config = format!(
        "daemon off; master_process off; error_log stderr; pid {dir}/nginx.pid;\n\
         events {{}}\n\
         http {{ access_log off; client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi; uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;\n\
         server {{ listen 127.0.0.1:{port}; location / {{ return 200 \"{answer}\"; }} }} }}\n",
        dir = dir.display(),
    );
    let file = dir.join("nginx.conf");
    std::fs::write(&file, config)?;
    let child = Command::new("nginx")
        .arg("-p")
        .arg(dir)
        .arg("-c")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(dir.join("nginx.log"))?)
        .kill_on_drop(true)
        .spawn()
        .context("nginx (Debian: nginx-light)")?;
    Ok((child, (Ipv4Addr::LOCALHOST, port).into()))
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// Median and 95th percentile.
fn summary(values: &[f64]) -> (f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |percent: usize| sorted[(sorted.len() - 1) * percent / 100];
    (at(50), at(95))
}

fn show(times: &Times, as_json: bool) {
    let rows = [
        ("raw_round_trip", "raw bytes, open onion stream", &times.raw),
        ("call", "D-Lambda call, fresh circuit", &times.call),
        (
            "call_connect",
            "  of it: building the circuit",
            &times.connect,
        ),
        (
            "call_round_trip",
            "  of it: round trip of the call",
            &times.round_trip,
        ),
        ("call_execute", "  of it: the function", &times.execute),
        ("curl", "curl, C tor, nginx, fresh circuit", &times.curl),
    ];
    let (call, curl, raw) = (
        summary(&times.call).0,
        summary(&times.curl).0,
        summary(&times.raw).0,
    );
    let (over_curl, over_raw) = (call / curl, summary(&times.round_trip).0 / raw);
    if as_json {
        let rows = rows.map(|(name, _, values)| {
            let (median, p95) = summary(values);
            (
                name.to_owned(),
                json!({ "median_ms": median, "p95_ms": p95 }),
            )
        });
        let rows: serde_json::Map<String, Value> = rows.into_iter().collect();
        let rounds = times.call.len();
        println!(
            "{}",
            json!({
                "schema": "dlambda.bench/1", "rounds": rounds, "payload_bytes": PAYLOAD,
                "times": rows, "call_over_curl": over_curl, "round_trip_over_raw": over_raw,
            })
        );
        return;
    }
    println!(
        "{:<36} {:>10} {:>10}",
        format!("{} rounds, {PAYLOAD} bytes", times.call.len()),
        "median ms",
        "p95 ms"
    );
    for (_, name, values) in rows {
        let (median, p95) = summary(values);
        println!("{name:<36} {median:>10.1} {p95:>10.1}");
    }
    println!("a D-Lambda call takes {over_curl:.2} times as long as curl through C tor;");
    println!("its round trip takes {over_raw:.2} times as long as raw bytes on an open stream");
}
