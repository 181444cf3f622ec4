//! `dlambda run`.

mod job;
mod outcome;
mod perform;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use dlambda_executor::{HttpRequest, Invocation};
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
    let (outcome, ending) = performance.first();
    let http = ending.http.as_ref();
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
    refuse_what_is_too_large(&request, &plan)?;
    Ok(Job {
        function,
        wasm: wasm.into(),
        menu,
        plan,
        input_bytes: request.input_len(),
        invocation: Invocation {
            args: request.args,
            input: request.input.into(),
            seed: request.seed,
            http: request.http.as_ref().map(head),
        },
    })
}

/// As a provider does.
fn refuse_what_is_too_large(request: &Request, plan: &Plan) -> Result<(), Report> {
    let (found, allowed) = (request.input_len(), plan.input_bytes);
    let message = if request.args.len() > Request::MAX_ARGS {
        format!(
            "no provider takes more than {} arguments",
            Request::MAX_ARGS
        )
    } else if found > u64::from(allowed) {
        format!(
            "the input has {found} bytes; plan {} takes at most {allowed}",
            plan.name
        )
    } else {
        return Ok(());
    };
    Err(Report::new(ErrorKind::Refused, message).with_hint("send less, or try a larger plan"))
}

fn head(request: &dlambda_proto::HttpRequest) -> HttpRequest {
    let fields = request.fields().iter();
    HttpRequest {
        method: request.method().to_owned(),
        path: request.path().to_owned(),
        fields: fields
            .map(|field| (field.name().to_owned(), field.value().to_vec()))
            .collect(),
    }
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

    #[test]
    fn arguments_input_and_head_share_one_limit() {
        let plan = &Plan::standard_menu()[0];
        let http = dlambda_proto::HttpRequest::new("GET", "/").expect("good");
        let mut request = Request {
            function: FunctionSource::Attached(vec![]),
            args: vec!["x".repeat(100)],
            input: vec![0; plan.input_bytes as usize - 104],
            seed: [0; 32],
            http: Some(http),
            token: None,
        };
        assert!(refuse_what_is_too_large(&request, plan).is_ok());
        request.input.push(0);
        let error = refuse_what_is_too_large(&request, plan).expect_err("a byte too many");
        assert_eq!(crate::exit::code(error.kind), 4);
        assert!(
            error.message.contains("1048577 bytes; plan small"),
            "{}",
            error.message
        );
        request.input.clear();
        request.args = vec![String::new(); Request::MAX_ARGS + 1];
        assert!(refuse_what_is_too_large(&request, plan).is_err());
    }
}
