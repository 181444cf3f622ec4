//! Calls over Nym, by how traffic is hidden, and what idle clients cost.
//!
//! The baseline is the time that a packet waits at mixes on average: three there
//! and three back. A call of the smallest size is three packets each way, and the
//! last of them decides; so there is a second baseline, what is to be expected
//! of the last of three where nothing else takes time.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use dlambda_client::Querier;
use tokio::time::sleep;

use super::{large_call, one_call, provider, querier};
use crate::bench::{Report, cpu, millis, millis_since, progress};
use crate::mixnet::{Mixnet, MixnetOptions, Traffic, helpers};

/// Mixes on the way there and back.
const MIXES: u16 = 6;

/// Packets of a call, and of a reply, of the smallest size.
const PACKETS: i32 = 3;

/// Throughput is measured so often.
const LARGE_CALLS: u16 = 3;

/// How long idle helpers are watched.
const IDLE: Duration = Duration::from_secs(10);

/// Clients in the pool whose cost is measured.
const POOL: u8 = 8;

/// The settings: the first is usual.
const SETTINGS: [(&str, &str, u16); 5] = [
    ("standard", "Nym, 15 ms, cover", 15),
    ("standard", "Nym, 50 ms, cover", 50),
    ("fast", "Nym, 1 ms, no cover", 1),
    ("fast", "Nym, 15 ms, no cover", 15),
    ("fast", "Nym, 50 ms, no cover", 50),
];

pub(super) async fn measure(rounds: u16, report: &mut Report) -> Result<()> {
    let work = tempfile::tempdir()?;
    progress("a private mixnet");
    let mixnet = Mixnet::up(&MixnetOptions::default()).await?;
    for delay in [1, 15, 50] {
        let name = format!("Nym, {delay} ms a mix: delay there and back");
        report.add(&name, "ms", f64::from(MIXES * delay));
        let last = 2.0 * f64::from(delay) * last_of(PACKETS);
        report.add(&format!("{name}, last of three"), "ms", last);
    }
    for (name, title, delay) in SETTINGS {
        progress(title);
        let traffic = Traffic {
            name,
            mean_delay_ms: Some(delay),
        };
        let own = work.path().join(format!("{name}-{delay}"));
        std::fs::create_dir(&own)?;
        calls(&mixnet, traffic, &own, title, rounds, report).await?;
    }
    for traffic in [Traffic::STANDARD, Traffic::FAST] {
        progress(&format!("idle clients, {}", traffic.name));
        idle(&mixnet, traffic, work.path(), report).await?;
    }
    mixnet.down().await?;
    Ok(())
}

/// How long the last of so many packets is expected to wait at three mixes, in
/// means of one: the integral of 1 - F(x)^n, F being the Erlang distribution of three.
fn last_of(packets: i32) -> f64 {
    const STEP: f64 = 0.001;
    let is_still_waiting = |step: i32| {
        let x = f64::from(step) * STEP;
        let one = 1.0 - (-x).exp() * (1.0 + x + x * x / 2.0);
        1.0 - one.powi(packets)
    };
    (0..60_000).map(is_still_waiting).sum::<f64>() * STEP
}

/// Rounds of calls under one setting.
async fn calls(
    mixnet: &Mixnet,
    traffic: Traffic,
    own: &Path,
    title: &str,
    rounds: u16,
    report: &mut Report,
) -> Result<()> {
    let nym = mixnet.provider(traffic, &own.join("nym")).await?;
    let provider = provider(&own.join("provider"), nym).await?;
    let started = Instant::now();
    let caller: Querier = querier(mixnet.caller(traffic, 1).await?);
    one_call(&caller, &provider, title, None).await?;
    let first = millis_since(started);
    let name = format!("{title}: from the start to the first answer");
    report.add(&name, "ms", first);
    for _ in 0..rounds {
        // The pool is filled again, as it is for those who do not call in a row.
        sleep(Duration::from_millis(200)).await;
        one_call(&caller, &provider, title, Some(report)).await?;
    }
    if traffic.name == "fast" {
        for _ in 0..LARGE_CALLS.min(rounds) {
            large_call(&caller, &provider, title, report).await?;
        }
    }
    caller.flush_acks().await;
    provider.stop().await?;
    Ok(())
}

/// Memory and processor time of helpers that wait.
async fn idle(mixnet: &Mixnet, traffic: Traffic, work: &Path, report: &mut Report) -> Result<()> {
    gone().await?;
    let keys = work.join(format!("idle-{}", traffic.name));
    let provider = mixnet.provider(traffic, &keys).await?;
    let (memory, busy) = watch(1).await?;
    let title = format!("an idle provider's helper ({})", traffic.name);
    report.add(&format!("{title}: memory"), "KiB", memory);
    report.add(&format!("{title}: processor"), "ms/s", busy);
    drop(provider);
    gone().await?;

    let one = mixnet.caller(traffic, 1).await?;
    let (memory_of_one, busy_of_one) = watch(1).await?;
    drop(one);
    gone().await?;
    let many = mixnet.caller(traffic, 1 + POOL).await?;
    let (memory_of_many, busy_of_many) = watch(1).await?;
    drop(many);
    gone().await?;
    let title = format!("a caller's helper ({})", traffic.name);
    report.add(&format!("{title}: memory"), "KiB", memory_of_one);
    let each = |many: f64, one: f64| (many - one) / f64::from(POOL);
    let title = format!("each further pooled client ({})", traffic.name);
    let memory = each(memory_of_many, memory_of_one);
    report.add(&format!("{title}: memory"), "KiB", memory);
    let busy = each(busy_of_many, busy_of_one);
    report.add(&format!("{title}: processor"), "ms/s", busy);
    Ok(())
}

/// KiB, and milliseconds of processor time a second, of the one helper.
async fn watch(expected: usize) -> Result<(f64, f64)> {
    // What the start takes does not count.
    sleep(Duration::from_secs(3)).await;
    let helpers = helpers();
    ensure!(helpers.len() == expected, "{} helpers", helpers.len());
    let helper = helpers[0];
    let (before, started) = (cpu::of_process(helper)?, Instant::now());
    sleep(IDLE).await;
    let used = millis(cpu::of_process(helper)?.saturating_sub(before));
    #[allow(clippy::cast_precision_loss, reason = "for people")]
    let memory = cpu::memory_of(helper)? as f64 / 1024.0;
    Ok((memory, used / started.elapsed().as_secs_f64()))
}

/// Waits until no helper is left.
async fn gone() -> Result<()> {
    for _ in 0..100 {
        if helpers().is_empty() {
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    anyhow::bail!("a helper does not end")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_packet_waits_for_three_means_and_the_last_of_three_longer() {
        assert!((last_of(1) - 3.0).abs() < 0.01);
        // By simulation.
        assert!((last_of(3) - 4.49).abs() < 0.05, "{}", last_of(3));
    }
}
