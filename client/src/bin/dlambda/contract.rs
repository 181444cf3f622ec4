//! `dlambda contract`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;

use dlambda_client::{ContractError, ContractProgress, Offered, Querier};
use dlambda_crypto::negotiation::{Counter, Wish};
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_proto::{
    Contract, Endpoint, ErrorKind, PaymentMethod, Report, ServiceTerms, SignedContract, Validity,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::{Common, ContractArgs, Format};
use crate::output::{Spinner, print, say};
use crate::{home, wallet};

/// Longest secret of an invitation, in bytes.
const MAX_INVITATION: usize = 4096;

pub(crate) async fn run(
    args: ContractArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    if !args.yes && !std::io::stdin().is_terminal() {
        let message = "nobody can be asked whether the terms are agreed to";
        return Err(Report::new(ErrorKind::Usage, message)
            .with_hint("run it on a terminal, or agree beforehand with --yes"));
    }
    let mut wish = wish(&args)?;
    let provider = home::choose(common, &home::network(common)?, &args.provider)?;
    let querier = home::querier(common, &[provider]).await?;
    loop {
        match propose(&querier, &provider, &args, &wish, common).await? {
            Offered::Signed(contract) => {
                conclude(&querier, &contract, format);
                return Ok(ExitCode::SUCCESS);
            }
            Offered::Countered(counter) => wish = accept(wish, &counter, args.yes)?,
            _ => {
                return Err(Report::new(
                    ErrorKind::Bug,
                    "the negotiation ended strangely",
                ));
            }
        }
    }
}

async fn propose(
    querier: &Querier,
    provider: &Endpoint,
    args: &ContractArgs,
    wish: &Wish,
    common: &Common,
) -> Result<Offered, Report> {
    let spinner = Spinner::new(common.quiet);
    let agree = |contract: &Contract| spinner.pause(|| agrees(contract, args.yes));
    let progress = |step| spinner.say(words(step));
    let offered = querier.contract(provider, wish, common.max_time, agree, progress);
    Box::pin(offered).await.map_err(report)
}

fn wish(args: &ContractArgs) -> Result<Wish, Report> {
    Ok(Wish {
        plan: args.plan.clone(),
        calls: args.calls,
        service: args
            .start_within
            .map(|start_within_ms| ServiceTerms { start_within_ms }),
        deterministic: args.deterministic,
        invitation: args.invitation.as_deref().map(invitation).transpose()?,
    })
}

fn invitation(path: &Path) -> Result<Zeroizing<Vec<u8>>, Report> {
    let wrong =
        |error: String| Report::new(ErrorKind::Local, format!("{}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let text = text.map_err(|error| wrong(error.to_string()))?;
    let secret = text.trim().as_bytes();
    if secret.is_empty() || secret.len() > MAX_INVITATION {
        return Err(wrong("not an invitation: 1 to 4096 characters".to_owned()));
    }
    Ok(Zeroizing::new(secret.to_vec()))
}

/// Shows the terms, and asks.
fn agrees(contract: &Contract, yes: bool) -> bool {
    say(&terms(contract));
    yes || asks("Agree?")
}

fn asks(question: &str) -> bool {
    say(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// What the provider would do instead; taken only by whoever is asked.
fn accept(wish: Wish, counter: &Counter, yes: bool) -> Result<Wish, Report> {
    let offer = format!(
        "{}; it would agree to {} calls, each started within {} ms",
        counter.reason,
        counter.calls.calls(),
        counter.service.start_within_ms
    );
    if yes {
        return Err(Report::new(ErrorKind::Refused, offer)
            .with_hint("ask for that with --calls and --start-within"));
    }
    say(&offer);
    if !asks("Propose that?") {
        return Err(report(ContractError::Declined));
    }
    Ok(Wish {
        calls: counter.calls,
        service: Some(counter.service),
        ..wish
    })
}

/// The terms, for people.
pub(crate) fn terms(contract: &Contract) -> String {
    let plan = &contract.plan;
    let price = match contract.payment.total {
        0 => "gratis".to_owned(),
        total => format!("{} a call, {total} in all", plan.price),
    };
    let checked = if contract.technology.deterministic {
        "can be checked by running it again"
    } else {
        "cannot be checked"
    };
    format!(
        "contract:   {} calls on plan {}, {price}\n\
         a call:     {} MiB of memory, {} fuel, {} ms, {} KiB in, {} KiB out; {checked}\n\
         promise:    a call starts within {} ms, or is told that the provider is busy\n\
         good for:   {}, epoch {}",
        contract.calls.calls(),
        plan.name,
        plan.memory_bytes >> 20,
        plan.fuel,
        plan.wall_ms,
        plan.input_bytes >> 10,
        plan.output_bytes >> 10,
        contract.service.start_within_ms,
        good_for(contract.validity),
        contract.epoch.0,
    )
}

/// How long something is still good, in words.
pub(crate) fn good_for(validity: Validity) -> String {
    let now = SystemClock::default().now();
    let seconds = validity.until.0.saturating_sub(now.0);
    match (seconds / 3600, seconds / 60) {
        (0, 0) => format!("{seconds} seconds"),
        (0, minutes) => format!("{minutes} minutes"),
        (hours, _) => format!("{hours} hours"),
    }
}

fn conclude(querier: &Querier, signed: &SignedContract, format: Format) {
    let contract = &signed.contract;
    let confirmed = querier
        .wallet()
        .is_some_and(|wallet| wallet::is_confirmed(wallet, contract));
    match format {
        Format::Json => print(&to_json(contract, confirmed).to_string()),
        Format::Text => {
            let calls = contract.calls.calls();
            let left = if confirmed {
                "signed by both"
            } else {
                "signed by both; the provider has not confirmed our signature (`dlambda wallet settle`)"
            };
            print(&format!("{calls} calls are in the wallet; {left}"));
        }
    }
}

fn to_json(contract: &Contract, confirmed: bool) -> Value {
    let method = match contract.payment.method {
        PaymentMethod::Invitation => "invitation",
        _ => "gratis",
    };
    json!({
        "schema": "dlambda.contract/1",
        "contract": hex::encode(contract.id().0),
        "provider": contract.provider.unredacted(),
        "epoch": contract.epoch,
        "plan": contract.plan,
        "calls": contract.calls.calls(),
        "ratings": contract.calls.ratings(),
        "payment": { "total": contract.payment.total, "method": method },
        "service": contract.service,
        "technology": contract.technology,
        "validity": contract.validity,
        "confirmed": confirmed,
    })
}

/// An error, with what to do about it.
pub(crate) fn report(error: ContractError) -> Report {
    let hint = match &error {
        ContractError::Deadline(_) => {
            Some("finish it with `dlambda wallet settle`, or allow more with --max-time")
        }
        ContractError::Equivocation(_) => Some("do not use this provider"),
        _ => None,
    };
    let report = Report::from(error);
    match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

pub(crate) fn words(step: ContractProgress) -> String {
    match step {
        ContractProgress::Connecting { attempt: 1 } => "building a circuit".to_owned(),
        ContractProgress::Connecting { attempt } => format!("building circuit {attempt}"),
        ContractProgress::Working { effort } => {
            format!("doing the work that the provider asks for (effort {effort})")
        }
        _ => "waiting for the provider's signature and tokens".to_owned(),
    }
}
