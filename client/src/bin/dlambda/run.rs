//! `dlambda run`.

mod job;
mod outcome;
mod perform;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dlambda_executor::replay;
use dlambda_privacy::os_rng;
use dlambda_proto::{ErrorKind, FunctionId, FunctionSource, Plan, Report, Request};
use rand_core::Rng as _;
use tokio::time::timeout;

use crate::cli::{Common, RunArgs};
use crate::output::{print_stderr_of_function, say, write_report};
use crate::{input, plans};
use job::Job;
use perform::{Performance, perform};

pub(crate) async fn run(args: RunArgs, common: &Common) -> Result<ExitCode, Report> {
    let started = Instant::now();
    let job = describe(&args, common.max_time).await;
    let left = common.max_time.saturating_sub(started.elapsed());
    let performed = match &job {
        Ok(job) => Box::pin(perform_in_time(job, &args, common, left)).await,
        Err(report) => Err(report.clone()),
    };
    if let Some(path) = &args.report {
        let report = match (&job, &performed) {
            (Ok(job), Ok(performance)) => report::of(job, performance),
            (Err(error), _) | (_, Err(error)) => report::of_error(error),
        };
        write_report(path, &report)?;
    }
    conclude(&args, &performed?)
}

/// Prints what the first run gave, and judges them all.
fn conclude(args: &RunArgs, performance: &Performance) -> Result<ExitCode, Report> {
    let outcome = performance.first();
    let http = outcome.http.as_ref();
    if args.http.is_asked_for() && http.is_none() {
        say("note: the function is no HTTP handler: --http had no effect");
    }
    args.http.print(http, &outcome.stdout)?;
    print_stderr_of_function(&outcome.stderr);
    if outcome.stderr_truncated {
        say("(there was more; of standard error, providers keep no more than this)");
    }
    match performance.failure() {
        Some(failure) => Err(failure),
        None => args.http.judge(http).map(|()| ExitCode::SUCCESS),
    }
}

async fn describe(args: &RunArgs, max_time: Duration) -> Result<Job, Report> {
    let menu = plans::menu(args.plans.as_deref())?;
    let plan = plans::choose(&menu, args.plan.as_ref())?;
    let wasm = input::read_function(&args.function)?;
    let input = input::read_input(max_time).await?;
    let http = args.http.request(!input.is_empty())?;
    let mut fresh = [0; 32];
    os_rng().fill_bytes(&mut fresh);
    let function = FunctionId::of(&wasm);
    let request = Request {
        function: FunctionSource::Known(function),
        args: args.args.clone(),
        input,
        seed: args.seed.unwrap_or(fresh),
        http,
        token: None,
    };
    if !replay::fits(&request, &plan) {
        return Err(too_large(&request, &plan));
    }
    Ok(Job {
        function,
        wasm: wasm.into(),
        menu,
        plan,
        input_bytes: request.input_len(),
        invocation: replay::invocation(request).1,
    })
}

/// Why no provider takes this request on this plan.
fn too_large(request: &Request, plan: &Plan) -> Report {
    let message = if request.args.len() > Request::MAX_ARGS {
        let most = Request::MAX_ARGS;
        format!("no provider takes more than {most} arguments")
    } else {
        let (found, allowed) = (request.input_len(), plan.input_bytes);
        let name = &plan.name;
        format!("the input has {found} bytes; plan {name} takes at most {allowed}")
    };
    Report::new(ErrorKind::Refused, message).with_hint("send less, or try a larger plan")
}

async fn perform_in_time(
    job: &Job,
    args: &RunArgs,
    common: &Common,
    left: Duration,
) -> Result<Performance, Report> {
    let performing = Box::pin(perform(job, args, common));
    timeout(left, performing).await.unwrap_or_else(|_| {
        let seconds = common.max_time.as_secs();
        let message = format!("the command did not end within {seconds} seconds");
        Err(Report::new(ErrorKind::Deadline, message))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fits is tested where providers decide it, in dlambda-executor.
    #[test]
    fn what_is_too_large_is_refused_with_its_measure() {
        let plan = &Plan::standard_menu()[0];
        let mut request = Request {
            function: FunctionSource::Attached(vec![]),
            args: vec![],
            input: vec![0; plan.input_bytes as usize + 1],
            seed: [0; 32],
            http: None,
            token: None,
        };
        let error = too_large(&request, plan);
        assert_eq!(error.kind.exit_code(), 4);
        let said = "1048577 bytes; plan small";
        assert!(error.message.contains(said), "{}", error.message);
        request.args = vec![String::new(); Request::MAX_ARGS + 1];
        let error = too_large(&request, plan);
        assert!(error.message.contains("256 arguments"), "{}", error.message);
    }
}
