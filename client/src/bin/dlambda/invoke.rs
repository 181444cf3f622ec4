//! `dlambda invoke`.

use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_client::{Answer, Call, CallError, FunctionName, Progress, Querier};
use dlambda_privacy::clock::SystemClock;
use dlambda_proto::{ErrorKind, Report};
use serde_json::{Value, json};

use crate::cli::{Common, Format, InvokeArgs};
use crate::home;
use crate::output::{Spinner, print_error, print_stderr_of_function};

/// No call is larger than the largest padding bucket.
const MAX_INPUT: u64 = 64 << 20;

/// What every WebAssembly binary begins with.
const WASM_MAGIC: &[u8] = b"\0asm";

pub(crate) async fn run(
    args: InvokeArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let started = Instant::now();
    let network = home::network(common)?;
    let call = describe(&args, common.max_time).await?;
    let spinner = Spinner::new(common.quiet);
    let transport = home::connect(common, &network, &spinner).await?;
    let bootstrap = started.elapsed();
    let querier = Querier::new(transport, Arc::new(SystemClock::default()));
    let left = common.max_time.saturating_sub(bootstrap);
    if left.is_zero() {
        let message = "nothing was left of --max-time after reading the input and starting Tor";
        return Err(Report::new(ErrorKind::Deadline, message));
    }
    let outcome = querier
        .call(&call, left, |step| spinner.say(words(step)))
        .await;
    drop(spinner);
    if let Some(path) = &args.report {
        write_report(path, &report(&outcome, bootstrap))?;
    }
    let code = finish(outcome, format);
    // The output is out; nobody waits for this but the shell.
    querier.settle().await;
    code
}

async fn describe(args: &InvokeArgs, max_time: Duration) -> Result<Call, Report> {
    let function = function_name(&args.function)?;
    // On a thread of its own, so that Ctrl-C and the deadline hold meanwhile.
    let reading = tokio::task::spawn_blocking(read_input);
    let input = tokio::time::timeout(max_time, reading)
        .await
        .map_err(|_| Report::new(ErrorKind::Deadline, "standard input did not end in time"))?
        .map_err(|error| Report::new(ErrorKind::Bug, error.to_string()))??;
    let call = Call::new(args.provider, function)
        .args(args.args.clone())
        .input(input);
    Ok(match &args.plan {
        Some(plan) => call.plan(plan.clone()),
        None => call,
    })
}

fn function_name(text: &str) -> Result<FunctionName, Report> {
    let is_path = text.contains('/') || text.ends_with(".wasm");
    if !is_path {
        return Ok(text
            .parse()
            .map_or_else(|_| FunctionName::Alias(text.to_owned()), FunctionName::Id));
    }
    let wasm = read_bounded(Path::new(text))
        .map_err(|error| Report::new(ErrorKind::Local, format!("{text}: {error}")))?;
    if !wasm.starts_with(WASM_MAGIC) {
        let message = format!("{text} is not a WebAssembly binary");
        return Err(Report::new(ErrorKind::Usage, message).with_hint(
            "compile your function to WebAssembly (target wasm32-wasip1 or wasm32-wasip2)",
        ));
    }
    Ok(FunctionName::Wasm(wasm.into()))
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path)?;
    file.take(MAX_INPUT + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Standard input, unless it is a terminal: most functions need none, and
/// nobody wants to be kept waiting for an end-of-file.
fn read_input() -> Result<Vec<u8>, Report> {
    let mut input = Vec::new();
    let stdin = std::io::stdin();
    if stdin.is_terminal() {
        return Ok(input);
    }
    let read = stdin.lock().take(MAX_INPUT + 1).read_to_end(&mut input);
    read.map_err(|error| Report::new(ErrorKind::Local, format!("standard input: {error}")))?;
    if input.len() as u64 > MAX_INPUT {
        return Err(
            Report::new(ErrorKind::Usage, "the input is larger than 64 MiB")
                .with_hint("send less: no provider takes more in one call"),
        );
    }
    Ok(input)
}

fn words(step: Progress) -> String {
    match step {
        Progress::Connecting { attempt: 1 } => "building a circuit of its own".to_owned(),
        Progress::Connecting { attempt } => format!("building another circuit (attempt {attempt})"),
        Progress::Verifying => "verifying the provider".to_owned(),
        Progress::Running { attached: false } => "running the function".to_owned(),
        Progress::Running { attached: true } => "sending and running the function".to_owned(),
        _ => "working".to_owned(),
    }
}

fn finish(outcome: Result<Answer, CallError>, format: Format) -> Result<ExitCode, Report> {
    match outcome {
        Ok(answer) => {
            write_output(&answer.stdout)?;
            print_stderr_of_function(&answer.stderr);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            match &error {
                CallError::FunctionFailed { stdout, stderr, .. } => {
                    write_output(stdout)?;
                    print_stderr_of_function(stderr);
                }
                CallError::FunctionStopped { stderr, .. } => print_stderr_of_function(stderr),
                _ => {}
            }
            let report = Report::from(error);
            print_error(format, &report);
            Ok(ExitCode::from(report.kind.exit_code()))
        }
    }
}

fn write_output(bytes: &[u8]) -> Result<(), Report> {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| Report::new(ErrorKind::Local, format!("standard output: {error}")))
}

fn report(outcome: &Result<Answer, CallError>, bootstrap: Duration) -> Value {
    let bootstrap_ms = (bootstrap.as_secs_f64() * 1e6).round() / 1e3;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            let kind = dlambda_proto::HasKind::kind(error);
            let status = match error {
                CallError::FunctionFailed { status, .. } => Some(status),
                _ => None,
            };
            return json!({
                "schema": "dlambda.report/1",
                "ok": false,
                "error": kind,
                "message": error.to_string(),
                "exit_status": status,
                "bootstrap_ms": bootstrap_ms,
            });
        }
    };
    json!({
        "schema": "dlambda.report/1",
        "ok": true,
        "exit_status": 0,
        "function": answer.function.unredacted(),
        "provider": answer.provider.unredacted(),
        "epoch": answer.epoch,
        "plan": answer.plan,
        "cold": answer.usage.cold,
        "attached": answer.attached,
        "attempts": answer.attempts,
        "fuel": answer.usage.fuel,
        "peak_memory_bytes": answer.usage.peak_memory_bytes,
        "bytes": answer.traffic,
        "time": {
            "bootstrap_ms": bootstrap_ms,
            "connect_ms": millis(answer.stages.connect),
            "advert_ms": millis(answer.stages.advert),
            "round_trip_ms": millis(answer.stages.round_trip),
            "queue_ms": answer.usage.queue_us as f64 / 1e3,
            "execute_ms": answer.usage.execute_us as f64 / 1e3,
            "total_ms": millis(answer.stages.total),
        },
    })
}

fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn write_report(path: &Path, report: &Value) -> Result<(), Report> {
    let text = format!("{report:#}\n");
    std::fs::write(path, text)
        .map_err(|error| Report::new(ErrorKind::Local, format!("{}: {error}", path.display())))
}
