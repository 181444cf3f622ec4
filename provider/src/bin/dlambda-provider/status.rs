//! `dlambda-provider status`.

use std::path::PathBuf;
use std::process::ExitCode;

use dlambda_proto::Report;
use dlambda_provider::{Snapshot, query_status};
use serde_json::json;

use crate::cli::Format;
use crate::output::{data_directory, print};

pub(crate) async fn run(data: Option<PathBuf>, format: Format) -> Result<ExitCode, Report> {
    let data = data_directory(data)?;
    let snapshot = query_status(&data).await.map_err(|error| {
        Report::from(error)
            .with_hint("start one with `dlambda-provider run --functions DIR --data DIR`")
    })?;
    let advice = advice(&snapshot);
    match format {
        Format::Text => print(&for_people(&snapshot, advice)),
        Format::Json => print(
            &json!({ "schema": "dlambda.status/1", "status": snapshot, "advice": advice })
                .to_string(),
        ),
    }
    Ok(ExitCode::SUCCESS)
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
        vanished,
        faults,
        ..
    } = snapshot;
    format!(
        "state:      {state}, for {uptime_seconds} s, epoch {epoch}\n\
         functions:  {published_functions} published, {uploaded_functions} kept for callers\n\
         now:        {open_sessions} callers connected, {running_calls} calls running\n\
         calls:      {succeeded} succeeded, {failed} failed, {refused} refused, {faults} my own fault\n\
         callers:    {vanished} left before an answer\n\
         advice:     {advice}",
        epoch = epoch.0,
    )
}

/// What is wrong and what to do, in a sentence.
fn advice(snapshot: &Snapshot) -> &'static str {
    let Snapshot { state, .. } = snapshot;
    if state == "starting" {
        "not reachable yet: wait, and if this lasts for minutes run `dlambda doctor`"
    } else if state == "draining" {
        "stopping after the calls that are running"
    } else if snapshot.faults > 0 {
        "some calls failed by my own fault: look at my log for the cause"
    } else if snapshot.published_functions == 0 {
        "no function is published: put *.wasm files into the functions directory and restart"
    } else if snapshot.refused > snapshot.succeeded.saturating_add(10) {
        "most calls are refused: callers may want other plans or functions"
    } else {
        "nothing is wrong"
    }
}
