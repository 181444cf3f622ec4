//! Runs a function here, once or several times, and compares.

use std::time::{Duration, Instant};

use dlambda_executor::Outcome;
use dlambda_executor::replay;
use dlambda_proto::{ErrorKind, PlanName, Report, Start};

use super::job::Job;
use super::outcome::{difference, failure};
use crate::cli::{Common, RunArgs};
use crate::local::{self, Local};
use crate::output::Spinner;

/// All runs of one command.
pub(super) struct Performance {
    pub(super) local: Local,
    /// At least one.
    pub(super) runs: Vec<Run>,
    /// Whether the runs gave the same, if that was asked and can be said.
    pub(super) reproduced: Option<bool>,
    pub(super) total: Duration,
    difference: Option<Report>,
}

/// One run. Of all but the first, the output is dropped once it was compared.
pub(super) struct Run {
    pub(super) start: Start,
    pub(super) queue: Duration,
    pub(super) outcome: Outcome,
    /// `None` if it ended well.
    pub(super) failure: Option<Report>,
}

impl Performance {
    pub(super) fn first(&self) -> &Outcome {
        &self.runs[0].outcome
    }

    /// What went wrong, if anything did.
    pub(super) fn failure(&self) -> Option<Report> {
        let failures = self.runs.iter().map(|run| run.failure.clone());
        self.difference
            .clone()
            .or_else(|| failures.flatten().next())
    }
}

pub(super) async fn perform(
    job: &Job,
    args: &RunArgs,
    common: &Common,
) -> Result<Performance, Report> {
    let started = Instant::now();
    let spinner = Spinner::new(common.quiet);
    spinner.say("compiling the function".to_owned());
    let local = local::prepare(args, common, &job.menu, job.wasm.clone()).await?;
    let first = run_once(job, &local, local.start).await?;
    let mut reproducible = job.plan.deterministic && first.outcome.status.is_reproducible();
    let mut different = None;
    let mut runs = vec![first];
    for number in 2..=args.repeat {
        spinner.say(format!("run {number} of {}", args.repeat));
        let mut run = run_once(job, &local, Start::Warm).await?;
        reproducible &= run.outcome.status.is_reproducible();
        if reproducible && different.is_none() {
            let what = difference(&runs[0].outcome, &run.outcome);
            different = what.map(|what| complaint(number, what, &job.plan.name));
        }
        run.outcome.stdout.clear();
        run.outcome.stderr.clear();
        runs.push(run);
    }
    Ok(Performance {
        local,
        reproduced: (reproducible && args.repeat > 1).then_some(different.is_none()),
        runs,
        total: started.elapsed(),
        difference: different,
    })
}

async fn run_once(job: &Job, local: &Local, start: Start) -> Result<Run, Report> {
    let called = Instant::now();
    let limits = replay::limits(&job.plan);
    let running = local
        .executor
        .run(&local.function, job.invocation.clone(), &limits);
    let outcome = running.await.map_err(local::report)?;
    Ok(Run {
        start,
        queue: called.elapsed().saturating_sub(outcome.usage.wall),
        failure: failure(outcome.status, &job.plan),
        outcome,
    })
}

fn complaint(number: u32, what: &str, plan: &PlanName) -> Report {
    let message =
        format!("run {number} differs from run 1 in its {what}, on deterministic plan {plan}");
    Report::new(ErrorKind::FunctionFailed, message)
        .with_hint("no function can do that: suspect this machine, or report it as a fault")
}
