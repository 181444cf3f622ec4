//! The report of `dlambda run`, for machines.

use dlambda_executor::{ConfinementLayer, fingerprint};
use dlambda_proto::{Report, Start, Status};
use serde_json::{Value, json};

use super::Job;
use super::outcome::word;
use super::perform::{Performance, Run};
use crate::http;
use crate::local::kind;
use crate::output::millis;

const SCHEMA: &str = "dlambda.run/1";

/// Of runs that took place, whatever came of them.
pub(super) fn of(job: &Job, performance: &Performance) -> Value {
    let Performance { local, runs, .. } = performance;
    let outcome = performance.first();
    let failure = performance.failure();
    let layers = local.confinement.iter().copied();
    let layers = layers.map(ConfinementLayer::name);
    let first = &runs[0];
    json!({
        "schema": SCHEMA,
        "ok": failure.is_none(),
        "message": failure.map(|report| report.message),
        "function": job.function.unredacted(),
        "kind": kind(local.function.abi()),
        "plan": job.plan.name,
        "limits": job.plan,
        "deterministic": job.plan.deterministic,
        "engine": hex::encode(fingerprint()),
        "seed": hex::encode(job.invocation.seed),
        "confinement": layers.collect::<Vec<_>>(),
        "start": first.start,
        "cold": first.start != Start::Warm,
        "status": word(outcome.status),
        "exit_status": exit_status(outcome.status),
        "http": outcome.http.as_ref().map(http::to_json),
        "fuel": outcome.usage.fuel,
        "peak_memory_bytes": outcome.usage.peak_memory,
        "bytes": {
            "input_bytes": job.input_bytes,
            "output_bytes": outcome.stdout.len(),
            "stderr_bytes": outcome.stderr.len(),
        },
        "time": {
            "setup_ms": millis(local.setup),
            "prepare_ms": millis(local.prepare),
            "queue_ms": millis(first.queue),
            "instantiate_ms": millis(outcome.usage.instantiate),
            "execute_ms": millis(outcome.usage.wall),
            "total_ms": millis(performance.total),
        },
        "reproduced": performance.reproduced,
        "runs": runs.iter().map(of_run).collect::<Vec<_>>(),
    })
}

/// Of a run that did not take place.
pub(super) fn of_error(error: &Report) -> Value {
    json!({
        "schema": SCHEMA,
        "ok": false,
        "error": error.kind,
        "message": error.message,
    })
}

fn of_run(run: &Run) -> Value {
    let usage = &run.outcome.usage;
    json!({
        "start": run.start,
        "status": word(run.outcome.status),
        "exit_status": exit_status(run.outcome.status),
        "fuel": usage.fuel,
        "peak_memory_bytes": usage.peak_memory,
        "queue_ms": millis(run.queue),
        "instantiate_ms": millis(usage.instantiate),
        "execute_ms": millis(usage.wall),
    })
}

fn exit_status(status: Status) -> Option<u8> {
    match status {
        Status::Exited(status) => Some(status),
        _ => None,
    }
}
