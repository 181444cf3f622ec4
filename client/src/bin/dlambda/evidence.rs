//! Files of evidence: read, judged, explained.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use dlambda_executor::{Isolation, fingerprint};
use dlambda_proto::{
    Advert, ErrorKind, Evidence, Finding, Receipt, Report, SignedVerdict, Status, decode, encode,
};
use dlambda_reputation::{Arbiter, Judgement};
use serde_json::{Value, json};

use crate::cli::{ArbiterCommand, Common, Format, ReceiptCommand, ShowArgs, VerifyArgs};
use crate::output::{Spinner, print, say, write_file};
use crate::{home, local};

/// Largest file that is read: a call of 64 MiB and its function.
const MAX_FILE: u64 = 100 << 20;

/// `dlambda arbiter`.
pub(crate) async fn arbiter(
    command: ArbiterCommand,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let ArbiterCommand::Verify(args) = command;
    let evidence = read(&args.file)?;
    let spinner = Spinner::new(common.quiet);
    spinner.say("running the call again".to_owned());
    let mut arbiter = Arbiter::new(isolation(args.no_process_isolation)?, common.max_time);
    let judgement = arbiter.judge(&evidence).await.map_err(local::report)?;
    drop(spinner);
    let verdict = sign(&args, &evidence, &judgement)?;
    match format {
        Format::Json => {
            print(&judgement_to_json(&evidence, &judgement, verdict.as_ref()).to_string())
        }
        Format::Text => {
            print(&format!(
                "{}: {}",
                words(judgement.finding),
                judgement.reason
            ));
            if let Some(verdict) = verdict {
                print(&format!(
                    "signed by arbiter {}",
                    verdict.arbiter.unredacted()
                ));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// `dlambda receipt`.
pub(crate) fn receipt(command: ReceiptCommand, format: Format) -> Result<ExitCode, Report> {
    let ReceiptCommand::Show(ShowArgs { file }) = command;
    let evidence = match read(&file)? {
        Evidence::Receipt(evidence) => evidence,
        Evidence::Fraud(proof) => proof.evidence,
        _ => {
            let message = format!("{}: holds no receipt", file.display());
            return Err(Report::new(ErrorKind::Usage, message)
                .with_hint("judge it with `dlambda arbiter verify`"));
        }
    };
    let (advert, receipt) = evidence.verify().map_err(|error| {
        let message = format!("{}: not a genuine receipt: {error}", file.display());
        Report::new(ErrorKind::ProviderMisbehaved, message)
            .with_hint("it proves nothing: the provider did not sign it, or it was changed since")
    })?;
    match format {
        Format::Json => print(&receipt_to_json(&receipt).to_string()),
        Format::Text => print(&explain(&receipt, &advert)),
    }
    Ok(ExitCode::SUCCESS)
}

/// What stands between a stranger's function and this machine.
pub(crate) fn isolation(in_process: bool) -> Result<Isolation, Report> {
    if in_process {
        say("DANGER: the function runs in this process; only the WebAssembly engine confines it");
        return Ok(Isolation::DangerouslyInProcess);
    }
    local::confined(
        "install it in the same directory as dlambda; --no-process-isolation does without it",
    )
}

pub(crate) fn words(finding: Finding) -> &'static str {
    match finding {
        Finding::ProviderAtFault => "provider at fault",
        Finding::Unproven => "claim unproven",
        Finding::NotDecidable => "not decidable",
    }
}

fn read(path: &Path) -> Result<Evidence, Report> {
    let wrong = |kind, error: String| {
        Report::new(kind, format!("{}: {error}", path.display()))
            .with_hint("give a file that `dlambda audit` or `dlambda invoke --receipt` wrote")
    };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes))
        .map_err(|error| wrong(ErrorKind::Local, error.to_string()))?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong(ErrorKind::Usage, "larger than 100 MiB".to_owned()));
    }
    decode(&bytes).map_err(|_| wrong(ErrorKind::Usage, "not a file of evidence".to_owned()))
}

fn sign(
    args: &VerifyArgs,
    evidence: &Evidence,
    judgement: &Judgement,
) -> Result<Option<SignedVerdict>, Report> {
    let Some(path) = &args.sign else {
        return Ok(None);
    };
    let key = home::arbiter_key(path)?;
    let verdict = SignedVerdict::sign(evidence.digest(), judgement.finding, &key);
    if let Some(path) = &args.verdict {
        write_file(path, &encode(&verdict))?;
    }
    Ok(Some(verdict))
}

fn judgement_to_json(
    evidence: &Evidence,
    judgement: &Judgement,
    verdict: Option<&SignedVerdict>,
) -> Value {
    json!({
        "schema": "dlambda.judgement/1",
        "finding": judgement.finding,
        "reason": judgement.reason,
        "evidence": hex::encode(evidence.digest()),
        "verdict": verdict.map(|verdict| json!({
            "arbiter": verdict.arbiter.unredacted(),
            "signed": hex::encode(encode(verdict)),
        })),
    })
}

fn explain(receipt: &Receipt, advert: &Advert) -> String {
    let ending = match receipt.status {
        Status::Exited(0) => "it ended by itself, with success".to_owned(),
        Status::Exited(status) => format!("it ended by itself, with exit status {status}"),
        Status::Stopped(kind) => format!("it was stopped: {}", kind.name()),
    };
    let engine = if receipt.engine == fingerprint() {
        "the same as this program's: you can check it"
    } else {
        "another than this program's: only that version can check it"
    };
    let checked = if receipt.deterministic {
        "whoever holds the function and the input can run it again and must get the same"
    } else {
        "nobody can check it: the plan is not deterministic"
    };
    let limit = advert.plan(Some(&receipt.plan)).map_or(0, |plan| plan.fuel);
    format!(
        "provider:   {}\n\
         signed:     with the receipt key of its epoch {}, which its identity has signed\n\
         function:   {}\n\
         ending:     {ending}\n\
         cost:       {} fuel of the {limit} of plan {}, {} bytes of memory\n\
         engine:     {engine}\n\
         check:      {checked}\n\
         reveals:    neither input nor output, nor who called: they are in it as commitments only",
        receipt.provider.unredacted(),
        receipt.epoch.0,
        receipt.function.unredacted(),
        receipt.fuel,
        receipt.plan,
        receipt.peak_memory_bytes,
    )
}

fn receipt_to_json(receipt: &Receipt) -> Value {
    json!({
        "schema": "dlambda.receipt/1",
        "genuine": true,
        "provider": receipt.provider.unredacted(),
        "epoch": receipt.epoch,
        "plan": receipt.plan,
        "function": receipt.function.unredacted(),
        "input_commitment": hex::encode(receipt.request.0),
        "output_commitment": hex::encode(receipt.output.as_bytes()),
        "ending": receipt.status,
        "fuel": receipt.fuel,
        "peak_memory_bytes": receipt.peak_memory_bytes,
        "deterministic": receipt.deterministic,
        "engine": hex::encode(receipt.engine),
        "engine_is_ours": receipt.engine == fingerprint(),
    })
}
