//! `dlambda invoke any --replicas`: what several providers answer, compared.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{
    Agreement, Call, CallError, CallOutcome, FunctionName, PendingAck, Querier, Replica, Replicas,
};
use dlambda_proto::{
    ErrorKind, Evidence, Finding, FraudProof, FunctionSource, Report, Request, encode,
};
use dlambda_reputation::Arbiter;
use serde_json::{Value, json};

use crate::cli::{Format, InvokeArgs, Provider};
use crate::invoke::{advise, finish, function_name, words, write_receipt};
use crate::output::{Spinner, print_error, say, write_file, write_report};
use crate::{evidence, home, local};

/// What is settled by running the function here.
enum Judged {
    /// The answer is what the function gives for its seed.
    Right,
    /// It is not; the proof is written.
    Wrong(String),
    /// That cannot be said here.
    Open,
}

/// Runs again what providers say of one call.
struct Judge<'a> {
    args: &'a InvokeArgs,
    call: &'a Call,
    /// The function, if its bytes are here.
    wasm: Option<Arc<[u8]>>,
    arbiter: Option<Arbiter>,
    max_time: Duration,
}

pub(crate) async fn run(
    querier: &Querier,
    call: &Call,
    args: &InvokeArgs,
    max_time: Duration,
    spinner: Spinner,
    format: Format,
) -> Result<ExitCode, Report> {
    let replicas = wanted(args)?;
    let wasm = match function_name(&args.function)? {
        FunctionName::Wasm(wasm) => Some(wasm),
        _ => None,
    };
    let mut judge = Judge {
        args,
        call,
        wasm,
        arbiter: None,
        max_time,
    };
    let compared =
        Box::pin(querier.call_replicas(call, replicas, max_time, |step| spinner.say(words(step))));
    let compared = compared.await;
    spinner.say("comparing answers".to_owned());
    let ended = match compared {
        Ok(agreement) => settle(agreement, &mut judge).await,
        Err((error, replicas)) => settle_split(error, replicas, &mut judge).await,
    };
    drop(spinner);
    home::keep_experience(querier);
    let (outcome, ack, compared) = ended?;
    if let Some(path) = &args.report {
        write_report(path, &report(&outcome, &compared))?;
    }
    if let (Some(path), Ok(outcome)) = (&args.receipt, &outcome) {
        write_receipt(path, outcome.evidence.clone())?;
    }
    let code = match outcome {
        Ok(outcome) => finish(outcome.into_output(), &args.http, format),
        Err(error) => Ok(print_error(format, advise(error))),
    };
    // Only when the output is out can it not be lost any more.
    if let (Some(ack), Ok(_)) = (ack, &code) {
        querier.acknowledge(ack).await;
    }
    querier.flush_acks().await;
    code
}

fn wanted(args: &InvokeArgs) -> Result<Replicas, Report> {
    let wrong = |message: &str| Report::new(ErrorKind::Usage, message);
    if !matches!(args.provider, Provider::Any) {
        return Err(wrong(
            "--replicas needs several providers: give `any` as the provider",
        ));
    }
    let count = args.replicas.unwrap_or(2);
    let agree = args.agree.unwrap_or(count / 2 + 1);
    Replicas::new(count, agree)
        .ok_or_else(|| wrong("--agree has to be more than half of --replicas, and no more than it"))
}

/// What counts, its acknowledgement, and what each provider did.
type Settled = Result<
    (
        Result<CallOutcome, CallError>,
        Option<PendingAck>,
        Vec<Value>,
    ),
    Report,
>;

/// Enough answers are equal: says who gave another, and whether the majority is right.
async fn settle(agreement: Agreement, judge: &mut Judge<'_>) -> Settled {
    let Agreement {
        outcome,
        ack,
        others,
        ..
    } = agreement;
    let mut compared = vec![entry(&outcome, "counts", None)];
    let (mut in_doubt, mut right) = (false, None);
    for other in others {
        match &other.end {
            Err(error) => compared.push(failed(&other, error)),
            Ok(answer) if other.agrees => compared.push(entry(answer, "agrees", None)),
            Ok(answer) => {
                let judged = judge.judge(answer).await?;
                compared.push(entry(answer, "differs", Some(&judged)));
                in_doubt |= !matches!(judged, Judged::Wrong(_));
                if matches!(judged, Judged::Right) {
                    right = other.end.ok();
                }
            }
        }
    }
    // A function with randomness in it has as many right answers as there are seeds.
    if in_doubt && matches!(judge.judge(&outcome).await?, Judged::Wrong(_)) {
        let equal = compared
            .iter()
            .filter(|it| it["answer"] == "agrees")
            .count()
            + 1;
        let answers = compared.iter().filter(|it| it["answer"] != "none").count();
        say("the answer that most gave is wrong");
        let outcome = right.ok_or(CallError::Disagreement { answers, equal });
        return Ok((outcome, Some(ack), compared));
    }
    Ok((Ok(outcome), Some(ack), compared))
}

/// Too few answers are equal: the first that is right counts.
async fn settle_split(error: CallError, replicas: Vec<Replica>, judge: &mut Judge<'_>) -> Settled {
    let mut compared = Vec::new();
    let mut right = None;
    for replica in replicas {
        match replica.end {
            Err(ref error) => compared.push(failed(&replica, error)),
            Ok(answer) => {
                let judged = judge.judge(&answer).await?;
                compared.push(entry(&answer, "differs", Some(&judged)));
                if right.is_none() && matches!(judged, Judged::Right) {
                    right = Some(answer);
                }
            }
        }
    }
    Ok((right.ok_or(error), None, compared))
}

impl Judge<'_> {
    /// Runs the call of an answer again, and names its provider if it was wrong.
    async fn judge(&mut self, answer: &CallOutcome) -> Result<Judged, Report> {
        let provider = answer.advert.provider.unredacted();
        let (Some(wasm), Some(evidence)) = (self.wasm.clone(), answer.evidence.clone()) else {
            say(&format!(
                "provider {provider} gave another answer; who is right can be settled here only \
                 with the function's file"
            ));
            return Ok(Judged::Open);
        };
        let request = Request {
            function: FunctionSource::Attached(wasm.to_vec()),
            args: self.call.arguments().to_vec(),
            input: self.call.standard_input().to_vec(),
            seed: answer.seed,
            http: self.call.http_request().cloned(),
            token: None,
        };
        let evidence = Evidence::Fraud(Box::new(FraudProof { evidence, request }));
        if self.arbiter.is_none() {
            self.arbiter = Some(Arbiter::new(evidence::isolation(false)?, self.max_time));
        }
        let Some(arbiter) = &mut self.arbiter else {
            return Ok(Judged::Open);
        };
        let judgement = arbiter.judge(&evidence).await.map_err(local::report)?;
        Ok(match judgement.finding {
            Finding::ProviderAtFault => {
                write_file(&self.args.proof, &encode(&evidence))?;
                say(&format!(
                    "provider {provider} is at fault: {}; the proof is in {}, and holds the \
                     function and the input",
                    judgement.reason,
                    self.args.proof.display()
                ));
                Judged::Wrong(judgement.reason)
            }
            Finding::Unproven => {
                say(&format!(
                    "provider {provider} gave another answer, which is right for its seed: the \
                     function uses random numbers"
                ));
                Judged::Right
            }
            Finding::NotDecidable => {
                say(&format!(
                    "provider {provider}: not decidable: {}",
                    judgement.reason
                ));
                Judged::Open
            }
        })
    }
}

fn entry(answer: &CallOutcome, role: &str, judged: Option<&Judged>) -> Value {
    let finding = judged.map(|it| match it {
        Judged::Right => "right",
        Judged::Wrong(_) => "wrong",
        Judged::Open => "not-settled",
    });
    let reason = judged.and_then(|it| match it {
        Judged::Wrong(reason) => Some(reason),
        _ => None,
    });
    json!({
        "provider": answer.advert.provider.unredacted(),
        "answer": role,
        "finding": finding,
        "reason": reason,
    })
}

fn failed(replica: &Replica, error: &CallError) -> Value {
    json!({
        "address": replica.candidate.endpoint.unredacted(),
        "answer": "none",
        "message": error.to_string(),
    })
}

fn report(outcome: &Result<CallOutcome, CallError>, compared: &[Value]) -> Value {
    json!({
        "schema": "dlambda.replicas/1",
        "ok": outcome.is_ok(),
        "replicas": compared,
    })
}
