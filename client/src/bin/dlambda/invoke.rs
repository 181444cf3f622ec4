//! `dlambda invoke`.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use dlambda_client::{
    Call, CallError, CallOutcome, FunctionName, Output, PendingAck, Progress, Querier, Target,
    Wallet,
};
use dlambda_privacy::network::Network;
use dlambda_proto::{
    BatchSize, ErrorKind, Evidence, HasKind as _, ReceiptEvidence, Report, Start, encode,
    with_causes,
};
use serde_json::{Value, json};

use crate::cli::{Common, Format, HttpArgs, InvokeArgs, MachineArgs, Provider};
use crate::delay::random_wait;
use crate::output::{
    Spinner, millis, print_error, print_stderr_of_function, say, write_file, write_output,
    write_report,
};
use crate::{fill, home, http, input, replicas, wallet};

/// Calls of a contract that is made along the way.
pub(crate) const AUTO_CALLS: BatchSize = BatchSize::Calls8;
/// Time that passes between such a contract and its first call.
pub(crate) const LEAST_WAIT: Duration = Duration::from_secs(10);
pub(crate) const MOST_WAIT: Duration = Duration::from_secs(90);

pub(crate) async fn run(
    args: InvokeArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let started = Instant::now();
    let network = home::network(common)?;
    let target = target(&args.provider, &args.machine, common, &network)?;
    let call = describe(&args, target.clone(), common.max_time).await?;
    let wallet = home::wallet(common)?;
    let spinner = Spinner::new(common.quiet);
    let querier = querier(&target, &args, common, &network, &wallet, &spinner).await?;
    let bootstrap = started.elapsed();
    let left = common.max_time.saturating_sub(bootstrap);
    if left.is_zero() {
        let message =
            "nothing was left of --max-time after reading the input and starting the transport";
        return Err(Report::new(ErrorKind::Deadline, message));
    }
    if args.replicas.is_some() {
        return replicas::run(&querier, &call, &args, left, spinner, format).await;
    }
    let ended = Box::pin(perform(&querier, &target, &call, &args, left, &spinner)).await;
    drop(spinner);
    let (ended, held) = match ended {
        Ok((ended, held)) => (Ok(ended), Some(held)),
        Err(error) => (Err(error), None),
    };
    let evidence = ended.as_ref().ok().and_then(|ended| ended.evidence.clone());
    let outcome = ended.and_then(CallOutcome::into_output);
    if let Some(path) = &args.report {
        write_report(path, &report(&outcome, bootstrap))?;
    }
    if let Some(path) = &args.receipt {
        write_receipt(path, evidence)?;
    }
    // A response that --fail does not like was answered all the same.
    let verdict = match &outcome {
        Ok(answer) => args.http.judge(answer.http.as_ref()),
        Err(_) => Ok(()),
    };
    let code = finish(outcome, &args.http, format);
    // Only when the output is out can it not be lost any more. Nobody waits for this but the shell.
    if let (Some(held), Ok(_)) = (held, &code) {
        querier.acknowledge(held).await;
    }
    querier.flush_acks().await;
    home::keep_experience(&querier);
    if args.auto_contract {
        let provider = match &target {
            Target::Provider(endpoint) => Some(endpoint),
            _ => None,
        };
        wallet::refill_later(common, &wallet, provider);
    }
    let code = code?;
    verdict.map(|()| code)
}

/// Where the call may go.
pub(crate) fn target(
    provider: &Provider,
    machine: &MachineArgs,
    common: &Common,
    network: &Network,
) -> Result<Target, Report> {
    match provider {
        Provider::Any => Ok(Target::Any(machine.requirements())),
        Provider::At(provider) => home::choose(common, network, provider).map(Target::Provider),
    }
}

/// A querier that reaches the target; with an empty wallet, and if that is allowed, contracts are
/// made first.
async fn querier(
    target: &Target,
    args: &InvokeArgs,
    common: &Common,
    network: &Network,
    wallet: &Wallet,
    spinner: &Spinner,
) -> Result<Querier, Report> {
    if matches!(target, Target::Any(_)) && args.auto_contract && !fill::has_any(wallet)? {
        spinner.say("making contracts".to_owned());
        fill::make_some(&args.machine, args.plan.as_ref(), common).await?;
    }
    querier_for(target, common, network, wallet, spinner).await
}

/// A querier that reaches the target.
pub(crate) async fn querier_for(
    target: &Target,
    common: &Common,
    network: &Network,
    wallet: &Wallet,
    spinner: &Spinner,
) -> Result<Querier, Report> {
    let (transport, reaches): (_, home::Reaches) = match target {
        Target::Provider(endpoint) => {
            let transport = home::connect(common, network, &[*endpoint], spinner).await?;
            (transport, |_| true)
        }
        _ => home::connect_to_held(common, network, wallet, spinner).await?,
    };
    let querier = home::querier_on(common, network, transport, wallet.clone())?;
    Ok(querier.reaching(reaches))
}

/// Calls; with an empty wallet, and if that is allowed, gets a contract first
/// and then lets some time pass.
async fn perform(
    querier: &Querier,
    target: &Target,
    call: &Call,
    args: &InvokeArgs,
    max_time: Duration,
    spinner: &Spinner,
) -> Result<(CallOutcome, PendingAck), CallError> {
    let started = Instant::now();
    let ended = querier
        .call_unacknowledged(call, max_time, |step| spinner.say(words(step)))
        .await;
    let (Err(CallError::NoToken(plan)), Target::Provider(provider)) = (&ended, target) else {
        return ended;
    };
    if !args.auto_contract {
        return ended;
    }
    spinner.say("making a contract".to_owned());
    let plan = Some(plan.clone());
    let left = |started: Instant| max_time.saturating_sub(started.elapsed());
    let bought = wallet::buy(querier, provider, plan, AUTO_CALLS, left(started));
    if let Err(error) = bought.await {
        spinner.pause(|| say(&format!("no contract: {}", error.message)));
        return ended;
    }
    let most = MOST_WAIT.min(left(started) / 2);
    if most < LEAST_WAIT {
        // Sooner, the call would say which contract it is under. The tokens stay.
        return Err(CallError::Deadline(max_time.as_secs()));
    }
    let wait = random_wait(LEAST_WAIT, most);
    let seconds = wait.as_secs();
    spinner.say(format!(
        "waiting {seconds} s, so that the call cannot be tied to the contract"
    ));
    // The second look, too, comes at a random time.
    let first = random_wait(Duration::ZERO, wait);
    tokio::time::sleep(first).await;
    let looked = querier.look_again_at(provider, left(started)).await;
    if let Err(error) = looked {
        spinner.pause(|| say(&with_causes(&error)));
    }
    tokio::time::sleep(wait - first).await;
    querier
        .call_unacknowledged(call, left(started), |step| spinner.say(words(step)))
        .await
}

pub(crate) fn write_receipt(path: &Path, evidence: Option<ReceiptEvidence>) -> Result<(), Report> {
    let Some(evidence) = evidence else {
        say("there is no receipt: the function did not run");
        return Ok(());
    };
    write_file(path, &encode(&Evidence::Receipt(evidence)))
}

async fn describe(args: &InvokeArgs, target: Target, max_time: Duration) -> Result<Call, Report> {
    let function = function_name(&args.function)?;
    let input = input::read_input(max_time).await?;
    let request = args.http.request(!input.is_empty())?;
    let mut call = Call::new(target, function)
        .args(args.args.clone())
        .input(input);
    if let Some(plan) = &args.plan {
        call = call.plan(plan.clone());
    }
    if let Some(request) = request {
        call = call.http(request);
    }
    if args.resume {
        call = call.resume();
    }
    if args.hedge {
        call = call.hedge();
    }
    Ok(call)
}

pub(crate) fn function_name(text: &str) -> Result<FunctionName, Report> {
    let is_path = text.contains('/') || text.ends_with(".wasm");
    if !is_path {
        return Ok(text
            .parse()
            .map_or_else(|_| FunctionName::Alias(text.to_owned()), FunctionName::Id));
    }
    Ok(FunctionName::Wasm(
        input::read_function(Path::new(text))?.into(),
    ))
}

pub(crate) fn words(step: Progress) -> String {
    match step {
        Progress::Connecting { attempt: 1 } => "building a circuit of its own".to_owned(),
        Progress::Connecting { attempt } => format!("building another circuit (attempt {attempt})"),
        Progress::Verifying => "verifying the provider".to_owned(),
        Progress::Running { attached: false } => "running the function".to_owned(),
        Progress::Running { attached: true } => "sending and running the function".to_owned(),
        _ => "working".to_owned(),
    }
}

pub(crate) fn finish(
    outcome: Result<Output, CallError>,
    http: &HttpArgs,
    format: Format,
) -> Result<ExitCode, Report> {
    match outcome {
        Ok(answer) => {
            if http.is_asked_for() && answer.http.is_none() {
                say("note: the function is no HTTP handler: --http had no effect");
            }
            http.print(answer.http.as_ref(), &answer.stdout)?;
            print_stderr_of_function(&answer.stderr);
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            match &error {
                CallError::FunctionFailed { stdout, stderr, .. } => {
                    write_output(stdout, http.raw)?;
                    print_stderr_of_function(stderr);
                }
                CallError::FunctionStopped { stderr, .. } => print_stderr_of_function(stderr),
                _ => {}
            }
            Ok(print_error(format, advise(error)))
        }
    }
}

/// An error, with what to do about it.
pub(crate) fn advise(error: CallError) -> Report {
    let hint = match &error {
        CallError::NoToken(_) => Some(
            "make a contract with `dlambda contract` hours before the call; \
             --auto-contract waits for a minute or so, which hides less",
        ),
        CallError::NoCandidate => Some(
            "make contracts some time before calls with `dlambda wallet fill`; `dlambda wallet` lists \
             what there is",
        ),
        CallError::AmbiguousAlias { .. } => {
            Some("name the one that you mean by its CID, or name one provider")
        }
        CallError::Unpaid(_) => Some(
            "the token is struck out; the call may have been made the first time. With another \
             token the provider would see by the content that the two are one call",
        ),
        CallError::TokenRefused(_) => Some(
            "do not use this provider, if this wallet is no copy that was put back; what it says is \
             not signed, so nobody else can check it",
        ),
        CallError::NothingToResume => Some(
            "`dlambda wallet` counts interrupted calls; the command has to be the same, input too",
        ),
        CallError::Busy(_) => Some(
            "ask another provider, or this one at a time of your own choice: a call that comes just \
             when it said is known by that",
        ),
        CallError::Equivocation(_)
        | CallError::EarlyEnds(_)
        | CallError::Listing(_)
        | CallError::Unlisted => Some("do not use this provider"),
        CallError::Unchecked(_) => {
            Some("look with `dlambda wallet settle`, some time before the call")
        }
        CallError::OtherProvider => Some(
            "if you trust whoever is there now, make a contract with `dlambda contract`; \
             the old tokens stay in the wallet",
        ),
        _ => None,
    };
    let report = Report::from(error);
    match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

fn report(outcome: &Result<Output, CallError>, bootstrap: Duration) -> Value {
    let bootstrap_ms = millis(bootstrap);
    let answer = match outcome {
        Ok(answer) => answer,
        Err(error) => {
            let status = match error {
                CallError::FunctionFailed { status, .. } => Some(status),
                _ => None,
            };
            let mut report = json!({
                "schema": "dlambda.report/1",
                "ok": false,
                "error": error.kind(),
                "message": with_causes(error),
                "exit_status": status,
                "bootstrap_ms": bootstrap_ms,
            });
            let retry = serde_json::to_value(error.retry());
            if let (Some(report), Ok(Value::Object(retry))) = (report.as_object_mut(), retry) {
                report.extend(retry);
            }
            return report;
        }
    };
    json!({
        "schema": "dlambda.report/1",
        "ok": true,
        "exit_status": 0,
        "function": answer.function.unredacted(),
        "provider": answer.provider.unredacted(),
        "epoch": answer.epoch,
        "early_ends": answer.early_ends,
        "plan": answer.plan,
        "seed": hex::encode(answer.seed),
        "engine": hex::encode(answer.engine),
        "deterministic": answer.usage.deterministic,
        "http": answer.http.as_ref().map(http::to_json),
        "start": answer.usage.start,
        "cold": answer.usage.start != Start::Warm,
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

#[cfg(test)]
mod tests {
    use dlambda_proto::TokenProblem;

    use super::*;

    #[test]
    fn no_hint_of_a_failed_call_advises_to_make_it_again() {
        let problem = TokenProblem::Spent;
        for error in [
            CallError::Busy(5),
            CallError::Deadline(120),
            CallError::NoToken("small".parse().expect("a name")),
            CallError::NothingToResume,
            CallError::OtherProvider,
            CallError::ProviderFault,
            CallError::TokenRefused(problem),
            CallError::Unpaid(problem),
        ] {
            let report = crate::exit::with_hint(advise(error));
            let said = report.to_string();
            for word in ["again", "retry", "operator"] {
                assert!(!said.contains(word), "{said}");
            }
        }
    }

    #[test]
    fn a_good_token_that_is_refused_is_misbehaviour() {
        let problem = TokenProblem::Spent;
        let code = |error| advise(error).kind.exit_code();
        assert_eq!(code(CallError::TokenRefused(problem)), 7);
        assert_eq!(code(CallError::Unpaid(problem)), 4);
    }
}
