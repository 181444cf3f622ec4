//! What was found, for people and for machines.

use std::time::Duration;

use dlambda_broker::Listed;
use dlambda_proto::{Endpoint, UnixSeconds};
use serde_json::{Value, json};

use super::Found;
use crate::output;

/// A line a provider. Addresses are long: they come last.
pub(super) fn table(found: &[Found], now: UnixSeconds) -> String {
    let mut rows = vec![
        [
            "CORES",
            "MEMORY",
            "GPU",
            "TEE",
            "REGION",
            "PLANS (PRICE)",
            "KNOWN",
            "CALLS",
            "PING",
            "FREE",
            "ADDRESS",
        ]
        .map(str::to_owned),
    ];
    let millis = |it: Option<Duration>| {
        it.map_or_else(|| "-".to_owned(), |it| format!("{} ms", it.as_millis()))
    };
    for Found {
        listed: it,
        latency,
        ping,
    } in found
    {
        let listing = it.listing();
        let machine = &listing.resources;
        let plans = listing.plans.iter();
        let plans: Vec<_> = plans
            .map(|plan| format!("{} ({})", plan.name, plan.price))
            .collect();
        let region = listing.region.as_ref();
        let free = it.capacity().map(|it| json!(it));
        rows.push([
            machine.cores.to_string(),
            size(machine.memory_mib),
            match machine.gpu_vram_mib {
                0 => "-".to_owned(),
                mib => size(mib),
            },
            if machine.tee { "yes" } else { "-" }.to_owned(),
            region.map_or_else(|| "-".to_owned(), ToString::to_string),
            plans.join(", "),
            age(now.0.saturating_sub(it.since().0)),
            millis(*latency),
            millis(*ping),
            free.as_ref()
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned(),
            address(it),
        ]);
    }
    let widths: [usize; 11] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.max().unwrap_or(0)
    });
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(widths);
        let cells: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        cells.join("  ").trim_end().to_owned()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn size(mib: u64) -> String {
    match mib {
        0..1024 => format!("{mib} MB"),
        _ => format!("{} GB", mib / 1024),
    }
}

/// Since when a provider is known, as coarsely as it matters.
fn age(seconds: u64) -> String {
    match seconds / 3600 {
        0 => "new".to_owned(),
        hours @ 1..48 => format!("{hours} h"),
        hours => format!("{} d", hours / 24),
    }
}

/// As commands take it.
fn address(it: &Listed) -> String {
    let endpoints = it.listing().endpoints.iter().map(Endpoint::unredacted);
    endpoints.collect::<Vec<_>>().join(",")
}

pub(super) fn to_json(found: &[Found], synced: Option<UnixSeconds>) -> Value {
    let millis = |it: Option<Duration>| it.map(|it| output::millis(it).round());
    let providers = found.iter().map(|found| {
        let it = &found.listed;
        let listing = it.listing();
        json!({
            "provider": listing.provider.unredacted(),
            "address": address(it),
            "resources": listing.resources,
            "region": listing.region,
            "plans": listing.plans,
            "epoch": listing.epoch,
            "validity": listing.validity,
            "known_since": it.since(),
            "capacity": it.capacity(),
            "latency_ms": millis(found.latency),
            "ping_ms": millis(found.ping),
        })
    });
    json!({
        "schema": "dlambda.found/1",
        "synced": synced,
        "providers": providers.collect::<Vec<_>>(),
    })
}
