//! `dlambda audit`: calls like any other, whose answers are run again here.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, CallOutcome, Corpus, FunctionName, Querier, waits};
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Endpoint, ErrorKind, Evidence, Finding, FraudProof, FunctionSource, Report, Request, encode,
};
use dlambda_reputation::Arbiter;
use rand_core::Rng as _;
use serde_json::json;
use tokio::time::sleep;

use crate::cli::{AuditArgs, Common, Format};
use crate::output::{Spinner, print, say, write_file};
use crate::{evidence, home, input, local};

/// What the audits came to.
#[derive(Default)]
struct Tally {
    right: u32,
    undecidable: u32,
    failed: u32,
    wrong: Option<String>,
}

/// One call to make: the function's bytes, its arguments and input.
struct Sample {
    wasm: Arc<[u8]>,
    args: Vec<String>,
    input: Vec<u8>,
}

pub(crate) async fn run(
    args: AuditArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let given = match (&args.function, &args.inputs) {
        (Some(_), None) => input::read_input(common.max_time).await?,
        _ => Vec::new(),
    };
    let isolation = evidence::isolation(args.no_process_isolation)?;
    let mut arbiter = Arbiter::new(isolation, common.max_time);
    let provider = home::choose(common, &home::network(common)?, &args.provider)?;
    let querier = home::querier(common, &[provider]).await?;
    let spinner = Spinner::new(common.quiet);
    let mut tally = Tally::default();
    for (number, wait) in (1..).zip(pauses(&args)) {
        if !wait.is_zero() {
            spinner.say(format!(
                "waiting for a random time, audit {number} of {}",
                args.count
            ));
            sleep(wait).await;
        }
        spinner.say(format!("audit {number} of {}", args.count));
        let sample = sample(&args, &given)?;
        Box::pin(audit(
            &querier,
            provider,
            &mut arbiter,
            &args,
            common,
            sample,
            &mut tally,
        ))
        .await?;
        if tally.wrong.is_some() {
            break;
        }
    }
    drop(spinner);
    querier.flush_acks().await;
    conclude(&tally, &args, format)
}

async fn audit(
    querier: &Querier,
    provider: Endpoint,
    arbiter: &mut Arbiter,
    args: &AuditArgs,
    common: &Common,
    sample: Sample,
    tally: &mut Tally,
) -> Result<(), Report> {
    let function = FunctionName::Wasm(Arc::clone(&sample.wasm));
    let mut call = Call::new(provider, function)
        .args(sample.args.clone())
        .input(sample.input.clone());
    if let Some(plan) = &args.plan {
        call = call.plan(plan.clone());
    }
    let ended = match querier.call_outcome(&call, common.max_time, |_| {}).await {
        Ok(ended) => ended,
        Err(CallError::Equivocation(proof)) => {
            let evidence = Evidence::Equivocation(*proof);
            return caught(
                args,
                tally,
                &evidence,
                "it showed two adverts for one epoch",
            );
        }
        Err(error) => return Err(error.into()),
    };
    if ended.refused_a_good_token {
        return Err(ended.into_output().map_or_else(Into::into, |_| {
            Report::new(ErrorKind::Bug, "a call that was refused was answered")
        }));
    }
    let Some(evidence) = proof(&ended, sample) else {
        // Turned away: nothing is claimed of it.
        tally.failed += 1;
        return Ok(());
    };
    let judgement = arbiter.judge(&evidence).await.map_err(local::report)?;
    match judgement.finding {
        Finding::Unproven => tally.right += 1,
        Finding::NotDecidable => {
            say(&format!("not decidable: {}", judgement.reason));
            tally.undecidable += 1;
        }
        Finding::ProviderAtFault => return caught(args, tally, &evidence, &judgement.reason),
    }
    Ok(())
}

/// What would prove fraud, if the answer was wrong.
fn proof(ended: &CallOutcome, sample: Sample) -> Option<Evidence> {
    Some(Evidence::Fraud(Box::new(FraudProof {
        evidence: ended.evidence.clone()?,
        request: Request {
            function: FunctionSource::Attached(sample.wasm.to_vec()),
            args: sample.args,
            input: sample.input,
            seed: ended.seed,
            http: None,
            token: None,
        },
    })))
}

fn caught(
    args: &AuditArgs,
    tally: &mut Tally,
    evidence: &Evidence,
    reason: &str,
) -> Result<(), Report> {
    write_file(&args.proof, &encode(evidence))?;
    tally.wrong = Some(reason.to_owned());
    Ok(())
}

fn conclude(tally: &Tally, args: &AuditArgs, format: Format) -> Result<ExitCode, Report> {
    let Tally {
        right,
        undecidable,
        failed,
        wrong,
    } = tally;
    match format {
        Format::Json => print(
            &json!({
                "schema": "dlambda.audit/1",
                "right": right,
                "not_decidable": undecidable,
                "turned_away": failed,
                "at_fault": wrong,
                "proof": wrong.as_ref().map(|_| &args.proof),
            })
            .to_string(),
        ),
        Format::Text => print(&format!(
            "{right} answers were right, {undecidable} not decidable, {failed} calls turned away"
        )),
    }
    match wrong {
        // A provider whose answers cannot be checked has passed no audit.
        None if *right == 0 => Err(Report::new(
            ErrorKind::Refused,
            "not one answer could be checked",
        )
        .with_hint("see why; an engine of another version needs a dlambda of that version")),
        None => Ok(ExitCode::SUCCESS),
        Some(reason) => Err(Report::new(
            ErrorKind::ProviderMisbehaved,
            format!("the provider is at fault: {reason}"),
        )
        .with_hint(format!(
            "the proof is in {}: anybody can check it with `dlambda arbiter verify`; it holds the \
             function and the input",
            args.proof.display()
        ))),
    }
}

/// How long to wait before each audit. One alone shows nothing by its time.
fn pauses(args: &AuditArgs) -> Vec<Duration> {
    if args.at_once || args.count == 1 {
        let count = usize::try_from(args.count).unwrap_or(usize::MAX);
        return vec![Duration::ZERO; count];
    }
    waits(args.count, args.over, &mut os_rng())
}

fn sample(args: &AuditArgs, given: &[u8]) -> Result<Sample, Report> {
    let path = match &args.function {
        Some(path) => path.clone(),
        None => function(args.functions.as_deref().unwrap_or_else(|| Path::new(".")))?,
    };
    let input = match (&args.inputs, &args.function) {
        (Some(inputs), _) => draw(Corpus::open(inputs), inputs)?,
        (None, None) => draw(Corpus::beside(&path), &path.with_extension("inputs"))?,
        (None, Some(_)) => given.to_vec(),
    };
    Ok(Sample {
        wasm: input::read_function(&path)?.into(),
        args: args.args.clone(),
        input,
    })
}

fn draw(corpus: io::Result<Corpus>, path: &Path) -> Result<Vec<u8>, Report> {
    let drawn = corpus.and_then(|corpus| corpus.draw(&mut os_rng()));
    drawn.map_err(|error| {
        let message = format!("sample inputs, {}: {error}", path.display());
        Report::new(ErrorKind::Local, message).with_hint(
            "give inputs as callers send them, with --inputs or in NAME.inputs beside NAME.wasm: \
             made-up ones would tell the provider that it is being audited",
        )
    })
}

/// One of a directory's functions, at random.
fn function(directory: &Path) -> Result<PathBuf, Report> {
    let mut functions = functions(directory)?;
    let index = os_rng().next_u32() as usize % functions.len();
    Ok(functions.swap_remove(index))
}

fn functions(directory: &Path) -> Result<Vec<PathBuf>, Report> {
    let wrong = |error: String| {
        let message = format!("{}: {error}", directory.display());
        Report::new(ErrorKind::Local, message)
    };
    let entries = std::fs::read_dir(directory).map_err(|error| wrong(error.to_string()))?;
    let functions = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let functions = functions.filter(|path| path.extension().is_some_and(|it| it == "wasm"));
    let functions: Vec<PathBuf> = functions.collect();
    if functions.is_empty() {
        return Err(wrong("there is no *.wasm file".to_owned()));
    }
    Ok(functions)
}
