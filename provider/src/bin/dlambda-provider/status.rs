//! `dlambda-provider status`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dlambda_privacy::swap;
use dlambda_proto::{ErrorKind, Report};
use dlambda_provider::{
    ExecutionStatus, OverlayStatus, PreloadStatus, ProviderState, RunningStatus, Snapshot,
    StatusError, query_status,
};
use serde_json::json;

use crate::cli::Format;
use crate::output::{data_directory, print};

pub(crate) async fn run(data: Option<PathBuf>, format: Format) -> Result<ExitCode, Report> {
    let data = data_directory(data)?;
    let snapshot = match query(&data).await? {
        RunningStatus::Provider(snapshot) => *snapshot,
        RunningStatus::Node { overlay: node, .. } => {
            match format {
                Format::Text => print(overlay(&node).trim_end()),
                Format::Json => print(
                    &json!({ "schema": "dlambda.status/1", "status": { "overlay": node } })
                        .to_string(),
                ),
            }
            return Ok(ExitCode::SUCCESS);
        }
        _ => return Err(newer()),
    };
    let advice = advice(&snapshot);
    // The provider is on this machine: it is asked through a socket of its directory.
    let swap = swap::unencrypted_areas();
    match format {
        Format::Text => {
            let swap = swap_line(swap.as_deref().ok());
            print(&format!("{}{swap}", for_people(&snapshot, advice)));
        }
        Format::Json => print(
            &json!({
                "schema": "dlambda.status/1",
                "status": snapshot,
                "advice": advice,
                "unencrypted_swap": swap.ok(),
            })
            .to_string(),
        ),
    }
    Ok(ExitCode::SUCCESS)
}

/// `dlambda-provider contracts`.
pub(crate) async fn contracts(data: Option<PathBuf>, format: Format) -> Result<ExitCode, Report> {
    let data = data_directory(data)?;
    let contracts = match query(&data).await? {
        RunningStatus::Provider(snapshot) => snapshot.latest_contracts,
        // A node has none.
        RunningStatus::Node { .. } => Vec::new(),
        _ => return Err(newer()),
    };
    match format {
        Format::Json => {
            print(&json!({ "schema": "dlambda.contracts/1", "contracts": contracts }).to_string())
        }
        Format::Text => {
            for contract in contracts {
                let signed = if contract.confirmed {
                    "signed by both"
                } else {
                    "not confirmed by the caller"
                };
                print(&format!(
                    "{}  {} calls on plan {}, epoch {}; {signed}",
                    contract.id, contract.calls, contract.plan, contract.epoch.0
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn query(data: &Path) -> Result<RunningStatus, Report> {
    query_status(data).await.map_err(|error| {
        let hint = match error {
            StatusError::NotRunning(_) => {
                "start one with `dlambda-provider run --functions DIR --data DIR`"
            }
            _ => "name its data directory, as the user whose it is",
        };
        Report::from(error).with_hint(hint)
    })
}

fn newer() -> Report {
    Report::new(
        ErrorKind::Local,
        "what runs there is newer than this program",
    )
}

fn for_people(snapshot: &Snapshot, advice: &str) -> String {
    let Snapshot {
        state,
        epoch,
        uptime_seconds,
        open_sessions,
        running_calls,
        published_functions,
        uploaded_functions,
        succeeded,
        failed,
        refused,
        disconnected,
        evicted,
        faults,
        contracts_granted,
        contracts_refused,
        tokens_redeemed,
        execution,
        ..
    } = snapshot;
    let confinement = confinement(execution);
    let (plans, functions) = (plans(snapshot), functions(snapshot));
    let overlay = snapshot.overlay.as_ref().map(overlay).unwrap_or_default();
    let preload = preload(&snapshot.preload);
    format!(
        "state:      {state}, for {uptime_seconds} s, epoch {epoch}\n\
         functions:  {published_functions} published, {uploaded_functions} kept for callers\n\
         now:        {open_sessions} callers connected, {running_calls} calls running\n\
         calls:      {succeeded} succeeded, {failed} failed, {refused} refused, \
         {faults} my own fault\n\
         contracts:  {contracts_granted} granted since the start, {contracts_refused} refused\n\
         tokens:     {tokens_redeemed} redeemed\n\
         callers:    {disconnected} left before a reply, {evicted} evicted for others\n\
         executed:   {} calls, {} fuel, {} ms\n\
         starts:     {} warm, {} from disk, {} compiled ({} could not be)\n\
         {plans}{functions}{overlay}{preload}\
         confined:   {confinement}\n\
         advice:     {advice}",
        execution.calls,
        execution.fuel,
        execution.execute_ms,
        execution.warm_starts,
        execution.cached_starts,
        execution.compiled,
        execution.not_compiled,
        epoch = epoch.0,
    )
}

/// Two lines of the overlay, one for each function in demand, and one of what was refused there.
fn overlay(status: &OverlayStatus) -> String {
    if let Some(nodes) = status.submitted_to {
        return format!("listing:    {}; {nodes} nodes took it\n", status.listing);
    }
    let mut lines = format!(
        "listing:    {}; {} providers known, {} of them for seven days, {} forks proven\n\
         overlay:    {} peers of {} known nodes, {} KB in, {} KB out; {} guests answered, {} failed\n",
        status.listing,
        status.listings,
        status.seniors,
        status.forks,
        status.peers,
        status.known_nodes,
        status.bytes_received / 1000,
        status.bytes_sent / 1000,
        status.guests_answered,
        status.guests_failed,
    );
    for wanted in &status.demand {
        lines += &format!(
            "demand:     {}: {} calls a day or more, as {} providers say\n",
            wanted.function, wanted.calls, wanted.providers
        );
    }
    let refusals = status.refusals.iter();
    let refusals: Vec<_> = refusals
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    if !refusals.is_empty() {
        lines += &format!("refused:    {}\n", refusals.join(", "));
    }
    lines
}

/// A line of fetches, and one for each function that was fetched; nothing if none was asked for.
fn preload(status: &PreloadStatus) -> String {
    if status.held == 0 && status.fetched == 0 && status.failed.is_empty() {
        return String::new();
    }
    let mut lines = format!(
        "preloaded:  {} functions of other providers, {} of {} KB; {} fetched, {} evicted\n",
        status.held,
        status.held_bytes / 1000,
        status.budget_bytes / 1000,
        status.fetched,
        status.evicted,
    );
    for function in &status.functions {
        lines += &format!(
            "preloaded:  {}: {} KB\n",
            function.function,
            function.bytes.div_ceil(1000)
        );
    }
    let failed = status.failed.iter();
    let failed: Vec<_> = failed
        .map(|(why, count)| format!("{count} {why}"))
        .collect();
    if !failed.is_empty() {
        lines += &format!("not fetched: {}\n", failed.join(", "));
    }
    lines
}

/// A line a queue, and a line for what was issued for a plan in an epoch.
fn plans(snapshot: &Snapshot) -> String {
    let mut lines = String::new();
    for queue in &snapshot.queues {
        lines += &format!(
            "plan:       {}: {} running, {} waiting, {} refused\n",
            queue.plan, queue.running, queue.waiting, queue.refused
        );
    }
    for totals in &snapshot.contracts {
        lines += &format!(
            "contracts:  {}, epoch {}: {} granted, {} signed by both; \
             {} calls and {} ratings issued\n",
            totals.plan,
            totals.epoch.0,
            totals.granted,
            totals.confirmed,
            totals.calls_issued,
            totals.ratings_issued
        );
    }
    lines
}

/// A line for each published function that was called.
fn functions(snapshot: &Snapshot) -> String {
    let called = snapshot
        .functions
        .iter()
        .filter(|function| function.calls > 0);
    let lines = called.map(|function| {
        format!(
            "function:   {}: {} calls, {} fuel, {} ms\n",
            function.alias, function.calls, function.fuel, function.execute_ms
        )
    });
    lines.collect()
}

/// What confines functions, what does not, and what is wrong with it.
fn confinement(execution: &ExecutionStatus) -> String {
    let mut shown = match execution.confinement.join(", ") {
        none if none.is_empty() && execution.trouble.is_some() => {
            "no worker process yet".to_owned()
        }
        none if none.is_empty() => "NONE: functions run in the process with the keys".to_owned(),
        layers => layers,
    };
    for absent in &execution.absent_layers {
        shown += &format!("\n            no {}: {}", absent.layer, absent.reason);
    }
    if let Some(trouble) = &execution.trouble {
        shown += &format!("\nPROBLEM:    a worker process did not start: {trouble}");
    }
    shown
}

/// What of memory may be written to a disk in the clear; `None` if the system does not say.
fn swap_line(areas: Option<&[String]>) -> String {
    match areas {
        Some([]) => String::new(),
        Some(areas) => format!(
            "\nWARNING:    swap on {} is not encrypted: a stolen disk may show keys, and the requests\n\
             {:12}and replies of callers. Use dm-crypt with a random key or zram, or `swapoff`",
            areas.join(", "),
            ""
        ),
        None => {
            "\nWARNING:    /proc/swaps cannot be read: is there swap without encryption?".to_owned()
        }
    }
}

/// What is wrong and what to do, in a sentence.
fn advice(snapshot: &Snapshot) -> &'static str {
    if snapshot.state == ProviderState::Starting {
        "not reachable yet: wait, and if this lasts for minutes run `dlambda doctor`"
    } else if snapshot.state == ProviderState::Draining {
        "stopping after the calls that are running"
    } else if snapshot.execution.trouble.is_some() {
        "worker processes cannot start, and run nothing without the confinement that this system offers: \
         mend what PROBLEM names"
    } else if snapshot.faults > 0 {
        "some calls failed by my own fault: look at my log for the cause"
    } else if snapshot.execution.cache_rejected > 0 {
        "compiled functions on disk were changed or broken: \
         find out who can write to my data directory"
    } else if snapshot.execution.workers_lost > 0 {
        "worker processes died: a function may be attacking the engine; update dlambda"
    } else if snapshot.execution.confinement.is_empty() {
        "functions run in the process that holds my keys: start without --no-process-isolation"
    } else if snapshot.published_functions == 0 {
        "no function is published: put *.wasm files into the functions directory and restart"
    } else if snapshot.refused > snapshot.succeeded.saturating_add(10) {
        "most calls are refused: callers may want other plans or functions"
    } else {
        "nothing is wrong"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_in_demand_and_what_was_preloaded_are_shown() {
        assert_eq!(preload(&PreloadStatus::default()), "");
        let status = r#"{ "budget_bytes": 256000000, "fetched": 2, "evicted": 1,
            "held": 1, "held_bytes": 1234567,
            "functions": [{ "function": "bafk1", "bytes": 1234567 }],
            "failed": { "busy": 1, "wrong-bytes": 2 } }"#;
        let said = preload(&serde_json::from_str(status).expect("JSON"));
        assert_eq!(
            said,
            "preloaded:  1 functions of other providers, 1234 of 256000 KB; 2 fetched, 1 evicted\n\
             preloaded:  bafk1: 1235 KB\n\
             not fetched: 1 busy, 2 wrong-bytes\n"
        );
        let mut status = OverlayStatus::default();
        let demand = r#"[{ "function": "bafk2", "providers": 3, "calls": 128 }]"#;
        status.demand = serde_json::from_str(demand).expect("JSON");
        let said = overlay(&status);
        assert!(
            said.contains("demand:     bafk2: 128 calls a day or more, as 3 providers say\n"),
            "{said}"
        );
    }

    #[test]
    fn unencrypted_swap_is_named() {
        assert_eq!(swap_line(Some(&[])), "");
        let said = swap_line(Some(&["/dev/sda2".to_owned()]));
        assert!(
            said.starts_with("\nWARNING:    swap on /dev/sda2 is"),
            "{said}"
        );
        assert!(swap_line(None).contains("WARNING"));
    }

    #[test]
    fn a_layer_that_failed_and_layers_that_are_not_offered_are_named() {
        let mut execution = ExecutionStatus::default();
        assert!(confinement(&execution).starts_with("NONE"));
        execution.trouble = Some("the confinement layer chroot failed".to_owned());
        let said = confinement(&execution);
        assert!(!said.contains("NONE") && said.contains("chroot"), "{said}");
        execution.confinement = vec!["seccomp".to_owned(), "rlimits".to_owned()];
        execution.trouble = None;
        let absent = r#"[{ "layer": "netns", "reason": "only when started as root" }]"#;
        execution.absent_layers = serde_json::from_str(absent).expect("JSON");
        let said = confinement(&execution);
        assert!(said.starts_with("seccomp, rlimits\n"), "{said}");
        assert!(
            said.ends_with("no netns: only when started as root"),
            "{said}"
        );
    }
}
