//! `dlambda contract`.

use std::io::{BufRead as _, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use dlambda_client::{ContractError, ContractProgress, ProposalOutcome, Querier};
use dlambda_crypto::negotiation::{ContractOptions, Counter};
use dlambda_proto::{
    Contract, Endpoint, ErrorKind, PaymentMethod, Report, ServiceTerms, SignedContract,
};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::cli::{Common, ContractArgs, Format};
use crate::delay::random_wait;
use crate::home;
use crate::output::{Spinner, print, say};
use crate::terms::{good_for, report, state};

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
        let agreed = if args.yes {
            None
        } else {
            // No stream is open while the person reads: the provider must not see for how long.
            let seen = look(&querier, &provider, &wish, common).await?;
            say(&terms(&seen));
            if !asks("Agree?") {
                return Err(report(ContractError::Declined));
            }
            Some(seen)
        };
        match propose(&querier, &provider, agreed.as_ref(), &wish, common).await {
            Ok(ProposalOutcome::Signed(contract)) => {
                let within = args.second_look_within;
                let looked = look_again(&querier, &provider, within, common).await;
                conclude(&querier, &contract, format);
                looked?;
                return Ok(ExitCode::SUCCESS);
            }
            Ok(ProposalOutcome::Countered(counter)) => wish = accept(wish, &counter, args.yes)?,
            Err(ContractError::Declined) => say("the provider's terms have changed meanwhile"),
            Err(error) => return Err(report(error)),
            Ok(_) => return Err(strange_end()),
        }
    }
}

fn strange_end() -> Report {
    Report::new(ErrorKind::Bug, "the negotiation ended strangely")
}

/// The terms that the provider would agree to now, by its advert; the stream is closed.
async fn look(
    querier: &Querier,
    provider: &Endpoint,
    wish: &ContractOptions,
    common: &Common,
) -> Result<Contract, Report> {
    let spinner = Spinner::new(common.quiet);
    let mut seen = None;
    let look = |contract: &Contract| {
        seen = Some(contract.clone());
        false
    };
    let progress = |step| spinner.say(words(step));
    let looking = querier.contract(provider, wish, common.max_time, look, progress);
    let looked = Box::pin(looking).await;
    match (looked, seen) {
        (Err(ContractError::Declined), Some(seen)) => Ok(seen),
        (Err(error), _) => Err(report(error)),
        (Ok(_), _) => Err(strange_end()),
    }
}

/// Proposes what was agreed to, or, without that, whatever there is.
async fn propose(
    querier: &Querier,
    provider: &Endpoint,
    agreed: Option<&Contract>,
    wish: &ContractOptions,
    common: &Common,
) -> Result<ProposalOutcome, ContractError> {
    let spinner = Spinner::new(common.quiet);
    let agree = |contract: &Contract| match agreed {
        Some(agreed) => is_as_agreed(contract, agreed),
        None => {
            spinner.pause(|| say(&terms(contract)));
            true
        }
    };
    let progress = |step| spinner.say(words(step));
    let offered = querier.contract(provider, wish, common.max_time, agree, progress);
    Box::pin(offered).await
}

/// Whether the terms are those that were shown, and hold as long at least: an epoch may have begun.
fn is_as_agreed(contract: &Contract, agreed: &Contract) -> bool {
    let until = |contract: &Contract| contract.validity.until;
    let shown_again = Contract {
        client: agreed.client,
        epoch: agreed.epoch,
        validity: agreed.validity,
        call_key: agreed.call_key,
        rating_key: agreed.rating_key,
        ..contract.clone()
    };
    shown_again == *agreed && until(contract) >= until(agreed)
}

/// Looks at the provider's keys once more, after a random time.
async fn look_again(
    querier: &Querier,
    provider: &Endpoint,
    within: Duration,
    common: &Common,
) -> Result<(), Report> {
    let spinner = Spinner::new(common.quiet);
    spinner.say("waiting for a second look at the provider's keys".to_owned());
    tokio::time::sleep(random_wait(Duration::ZERO, within)).await;
    let looked = querier
        .look_again_at(provider, common.max_time)
        .await
        .map_err(report)?;
    drop(spinner);
    if looked.left > 0 {
        say(
            "the provider did not answer a second time, and no token is spent before: \
             `dlambda wallet settle`",
        );
    }
    Ok(())
}

fn wish(args: &ContractArgs) -> Result<ContractOptions, Report> {
    Ok(ContractOptions {
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

fn asks(question: &str) -> bool {
    say(&format!("{question} [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

/// What the provider would do instead; taken only if the person agrees.
fn accept(wish: ContractOptions, counter: &Counter, yes: bool) -> Result<ContractOptions, Report> {
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
    Ok(ContractOptions {
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

fn conclude(querier: &Querier, signed: &SignedContract, format: Format) {
    let contract = &signed.contract;
    let (confirmed, checked) = querier
        .wallet()
        .map_or((false, false), |wallet| state(wallet, contract));
    match format {
        Format::Json => print(&to_json(contract, confirmed, checked).to_string()),
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

fn to_json(contract: &Contract, confirmed: bool, checked: bool) -> Value {
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
        "checked": checked,
    })
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

#[cfg(test)]
mod tests {
    use dlambda_proto::{
        BatchSize, ContractKey, Epoch, IdentityKey, Payment, Plan, Technology, TokenKeyId,
        UnixSeconds, Validity,
    };

    use super::*;

    fn contract(seed: u8, epoch: u64, until: u64) -> Contract {
        Contract {
            provider: IdentityKey::from_seed(&[1; 32]).id(),
            client: ContractKey::from_seed(&[seed; 32]).id(),
            epoch: Epoch(epoch),
            plan: Plan::standard_menu().remove(0),
            calls: BatchSize::Calls8,
            payment: Payment {
                total: 0,
                method: PaymentMethod::Gratis,
            },
            service: ServiceTerms {
                start_within_ms: 1000,
            },
            technology: Technology {
                deterministic: true,
                tee: None,
            },
            validity: Validity {
                from: UnixSeconds(epoch),
                until: UnixSeconds(until),
            },
            call_key: TokenKeyId([seed; 32]),
            rating_key: TokenKeyId([seed; 32]),
        }
    }

    #[test]
    fn what_was_agreed_to_holds_in_the_next_epoch_and_for_no_other_terms() {
        let seen = contract(1, 1, 1000);
        assert!(is_as_agreed(&contract(2, 2, 2000), &seen));
        assert!(!is_as_agreed(&contract(2, 2, 999), &seen), "good for less");
        let changes: [fn(&mut Contract); 5] = [
            |it| it.provider = IdentityKey::from_seed(&[2; 32]).id(),
            |it| it.plan.fuel -= 1,
            |it| it.payment.total = 1,
            |it| it.service.start_within_ms += 1,
            |it| it.technology.deterministic = false,
        ];
        for change in changes {
            let mut other = contract(2, 2, 2000);
            change(&mut other);
            assert!(!is_as_agreed(&other, &seen));
        }
    }
}
