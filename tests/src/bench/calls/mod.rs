//! Round trips over Tor and over Nym in one run, each on a private network.
//!
//! The baselines: over Tor, the same request by `curl` through C tor to a C tor
//! onion service in front of nginx, and raw bytes on an open onion stream; over
//! Nym, the time that packets wait at mixes there and back.

mod nym;
mod tor;
mod web;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dlambda_client::{Call, FunctionName, Querier};
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::transport::Transport;
use dlambda_provider::ProviderConfig;

use super::report::{Ratio, Report};
use super::{functions, millis, millis_since};
use crate::local::LocalProvider;

/// No single measurement takes longer, or the run fails.
const DEADLINE: Duration = Duration::from_secs(120);

/// What is sent and comes back: the same size everywhere.
const PAYLOAD: usize = 1024;
/// What a request or a reply with so much takes on the wire: the smallest bucket, sealed and
/// framed.
const FRAME: usize = 4150;

/// What is sent and comes back when throughput is measured.
const LARGE: usize = 1 << 20;

/// Claims: a figure over its baseline.
const RATIOS: [Ratio; 8] = [
    (
        "a call over Tor over curl through C tor",
        "Tor: a call",
        "Tor: curl, C tor, nginx, fresh circuit",
    ),
    (
        "a call's round trip over Tor over as many raw bytes",
        "Tor: of it the call's round trip",
        "Tor: as many raw bytes, open onion stream",
    ),
    (
        "round trip over the mixes' delay, 15 ms a mix, no cover",
        "Nym, 15 ms, no cover: of it the call's round trip",
        "Nym, 15 ms a mix: delay there and back",
    ),
    (
        "round trip over the mixes' delay, 50 ms a mix, no cover",
        "Nym, 50 ms, no cover: of it the call's round trip",
        "Nym, 50 ms a mix: delay there and back",
    ),
    (
        "... over that of the last of three packets",
        "Nym, 50 ms, no cover: of it the call's round trip",
        "Nym, 50 ms a mix: delay there and back, last of three",
    ),
    (
        "round trip over the mixes' delay, 15 ms a mix, cover (usual)",
        "Nym, 15 ms, cover: of it the call's round trip",
        "Nym, 15 ms a mix: delay there and back",
    ),
    (
        "a call over Nym (usual) over a call over Tor",
        "Nym, 15 ms, cover: a call",
        "Tor: a call",
    ),
    (
        "throughput over Nym (1 ms, no cover) over Tor",
        "Nym, 1 ms, no cover: a MiB there and back",
        "Tor: a MiB there and back",
    ),
];

/// Measures everything.
///
/// # Errors
///
/// Whatever is missing or does not answer as it should.
pub async fn run(rounds: u16) -> Result<Report> {
    let mut report = Report::new("dlambda.bench-calls/2", &RATIOS);
    Box::pin(tor::measure(rounds, &mut report)).await?;
    Box::pin(nym::measure(rounds, &mut report)).await?;
    Ok(report)
}

/// A provider that takes no tokens, on this transport.
async fn provider(dir: &std::path::Path, transport: Arc<dyn Transport>) -> Result<LocalProvider> {
    let config = ProviderConfig::without_tokens();
    let clock = Arc::new(SystemClock::default());
    let functions = functions();
    let started = LocalProvider::start(config, &functions, dir, transport, clock);
    Ok(Box::pin(started).await?)
}

fn querier(transport: Arc<dyn Transport>) -> Querier {
    Querier::new(transport, Arc::new(SystemClock::default()))
}

/// Times of one call, by stage.
async fn one_call(
    querier: &Querier,
    provider: &LocalProvider,
    network: &str,
    report: Option<&mut Report>,
) -> Result<()> {
    let function = FunctionName::Alias("upper".to_owned());
    let call = Call::new(provider.endpoint, function).input(vec![b'a'; PAYLOAD]);
    let started = Instant::now();
    let answer = querier.call(&call, DEADLINE, |_| {}).await?;
    let whole = millis_since(started);
    ensure!(answer.stdout == vec![b'A'; PAYLOAD], "a wrong answer");
    if let Some(report) = report {
        let stages = &answer.stages;
        for (name, time) in [
            ("a call", whole),
            ("of it connecting", millis(stages.connect)),
            ("of it the advert", millis(stages.advert)),
            ("of it the call's round trip", millis(stages.round_trip)),
        ] {
            report.add(&format!("{network}: {name}"), "ms", time);
        }
    }
    Ok(())
}

/// How long a mebibyte takes there and back.
async fn large_call(
    querier: &Querier,
    provider: &LocalProvider,
    network: &str,
    report: &mut Report,
) -> Result<()> {
    let function = FunctionName::Alias("upper".to_owned());
    let call = Call::new(provider.endpoint, function).input(vec![b'a'; LARGE]);
    let call = call.plan("large".parse()?);
    let answer = querier.call(&call, DEADLINE, |_| {}).await?;
    ensure!(answer.stdout == vec![b'A'; LARGE], "a wrong answer");
    let seconds = answer.stages.round_trip.as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let kibibytes = (2 * LARGE / 1024) as f64;
    let name = format!("{network}: a MiB there and back");
    report.add(&name, "KiB/s", kibibytes / seconds);
    Ok(())
}
