//! `dlambda find`: providers that meet requirements.

use std::process::ExitCode;

use dlambda_broker::Listed;
use dlambda_client::FindError;
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_proto::{Endpoint, Report, UnixSeconds};
use serde_json::{Value, json};

use crate::cli::{Common, FindArgs, Format, Mode};
use crate::output::{Spinner, print, say};
use crate::sync::{Overlay, report};

pub(crate) async fn run(
    args: FindArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let mut overlay = Overlay::open(common)?;
    let wanted = args.requirements();
    if overlay.market.last_sync().is_none() {
        say("no catalogue yet: fetching it from several nodes");
        overlay.sync(common).await?;
    }
    ask_nodes(&args, &mut overlay, common).await?;
    let now = SystemClock::default().now();
    let found = match args.mode {
        Mode::Active => overlay.market.find_offering(&wanted, now),
        Mode::Dht | Mode::Passive => overlay.market.find(&wanted, now),
    };
    let found = found.map_err(|error| report(FindError::from(error)))?;
    match format {
        Format::Json => print(&to_json(&found, overlay.market.last_sync()).to_string()),
        Format::Text => print(&table(&found, now)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What a search asks nodes, beside the catalogue that is here.
async fn ask_nodes(args: &FindArgs, overlay: &mut Overlay, common: &Common) -> Result<(), Report> {
    if args.mode == Mode::Passive {
        return Ok(());
    }
    let wanted = args.requirements();
    let spinner = Spinner::new(common.quiet);
    let guest = overlay.guest(common, &spinner).await?;
    let (market, time) = (&mut overlay.market, common.max_time);
    if args.mode == Mode::Dht {
        spinner.say("asking several nodes".to_owned());
        let looked_up = guest.look_up(market, &wanted, time).await;
        looked_up.map_err(report)?;
    } else {
        spinner.say("asking providers in public for their capacity".to_owned());
        guest.demand(market, &wanted, time).await.map_err(report)?;
    }
    Ok(())
}

/// A line a provider. Addresses are long: they come last.
fn table(found: &[Listed], now: UnixSeconds) -> String {
    let mut rows = vec![
        [
            "CORES",
            "MEMORY",
            "GPU",
            "TEE",
            "REGION",
            "PLANS (PRICE)",
            "KNOWN",
            "FREE",
            "ADDRESS",
        ]
        .map(str::to_owned),
    ];
    for it in found {
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
            free.as_ref()
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned(),
            address(it),
        ]);
    }
    let widths: [usize; 9] = std::array::from_fn(|column| {
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

fn to_json(found: &[Listed], synced: Option<UnixSeconds>) -> Value {
    let providers = found.iter().map(|it| {
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
        })
    });
    json!({
        "schema": "dlambda.found/1",
        "synced": synced,
        "providers": providers.collect::<Vec<_>>(),
    })
}
