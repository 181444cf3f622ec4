//! `dlambda wallet`: what is in it, and how it is kept filled.

use std::collections::HashMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use dlambda_client::wallet::{ContractStage, Listing};
use dlambda_client::{Looked, ProposalOutcome, Querier, RecoveryReport, Wallet};
use dlambda_crypto::negotiation::ContractOptions;
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_proto::{BatchSize, Contract, Endpoint, ErrorKind, PlanName, Report, UnixSeconds};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::cli::{Common, Format, RefillArgs, WalletArgs, WalletCommand};
use crate::delay::random_wait;
use crate::output::{print, say};
use crate::terms::{self, good_for};
use crate::{fill, home};

/// Shortest wait before a contract is renewed: less would be a habit to know us by.
const LEAST_WAIT: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    args: WalletArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    match args.command {
        None => list(common, format),
        Some(WalletCommand::Fill(args)) => fill::run(args, common, format).await,
        Some(WalletCommand::Settle) => settle(common, format).await,
        Some(WalletCommand::Refill(args)) => refill(&args, common, format).await,
    }
}

fn list(common: &Common, format: Format) -> Result<ExitCode, Report> {
    let listing = home::wallet(common)?.contracts(now())?;
    match format {
        Format::Json => print(&to_json(&listing).to_string()),
        Format::Text => print(&for_people(&listing)),
    }
    for damaged in &listing.damaged {
        say(&format!("passed over: {damaged}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// Finishes what was interrupted, and forgets what is over.
async fn settle(common: &Common, format: Format) -> Result<ExitCode, Report> {
    let wallet = home::wallet(common)?;
    let from = wallet.clone();
    let open = spawn_blocking(move || open(&from)).await;
    let open = open.unwrap_or_else(|_| Ok(Vec::new()))?;
    let mut looked = Looked::default();
    let settled = if open.is_empty() {
        RecoveryReport::default()
    } else {
        let querier = home::querier(common, &open).await?;
        let settled = Box::pin(querier.recover(common.max_time)).await?;
        looked = look_again(&querier, common.max_time).await?;
        settled
    };
    let forgotten = spawn_blocking(move || wallet.forget_expired(now())).await;
    let forgotten = forgotten.unwrap_or(Ok(0))?;
    match format {
        Format::Json => print(
            &json!({
                "schema": "dlambda.settled/1",
                "granted": settled.granted,
                "confirmed": settled.confirmed,
                "lapsed": settled.lapsed,
                "left": settled.left + looked.left,
                "checked": looked.checked,
                "unlisted": looked.unlisted,
                "forgotten": forgotten,
            })
            .to_string(),
        ),
        Format::Text => print(&format!(
            "{} contracts granted after all, {} confirmed, {} looked at again, {} came to nothing, {} \
             left for another time, {forgotten} over and forgotten",
            settled.granted,
            settled.confirmed,
            looked.checked,
            settled.lapsed,
            settled.left + looked.left
        )),
    }
    Ok(ExitCode::SUCCESS)
}

/// Where contracts wait to be finished.
fn open(wallet: &Wallet) -> Result<Vec<Endpoint>, Report> {
    let drafts = wallet.drafts()?.into_iter().map(|it| it.endpoint);
    let unconfirmed = wallet.unconfirmed(now())?.into_iter().map(|it| it.endpoint);
    let unchecked = wallet.unchecked(now())?.into_iter().map(|it| it.endpoint);
    Ok(drafts.chain(unconfirmed).chain(unchecked).collect())
}

/// Looks at the keys of providers of new contracts once more, and says what is wrong.
async fn look_again(querier: &Querier, max_time: Duration) -> Result<Looked, Report> {
    let looked = querier.look_again(max_time).await;
    let looked = looked.map_err(terms::report)?;
    if looked.unlisted > 0 {
        say(
            "a provider does not list the keys that a contract was made under: its tokens are not spent",
        );
    }
    Ok(looked)
}

/// Waits for a random time, then buys what runs low.
async fn refill(args: &RefillArgs, common: &Common, format: Format) -> Result<ExitCode, Report> {
    let wallet = home::wallet(common)?;
    let lock = home::refill_lock(common)?;
    if lock.try_lock().is_err() {
        say("another refill is waiting already");
        return Ok(ExitCode::SUCCESS);
    }
    tokio::time::sleep(random_wait(LEAST_WAIT.min(args.within), args.within)).await;
    let calls = args.calls;
    let found = spawn_blocking(move || {
        let waiting = wallet.unchecked(now())?.into_iter().map(|it| it.endpoint);
        Ok::<_, Report>((low(&wallet, calls)?, waiting.collect::<Vec<_>>()))
    });
    let found = found.await.unwrap_or_else(|_| Ok((Vec::new(), Vec::new())));
    let (low, waiting) = found?;
    let mut bought = 0;
    if !low.is_empty() || !waiting.is_empty() {
        let low_at = low.iter().map(|(endpoint, _)| *endpoint);
        let endpoints: Vec<Endpoint> = low_at.chain(waiting).collect();
        let querier = home::querier(common, &endpoints).await?;
        for (number, (endpoint, plan)) in low.into_iter().enumerate() {
            if number > 0 {
                // One right after the other would say that they have one owner.
                let pause = random_wait(LEAST_WAIT.min(args.within), args.within);
                tokio::time::sleep(pause).await;
            }
            let buying = buy(&querier, &endpoint, Some(plan), calls, common.max_time);
            bought += usize::from(Box::pin(buying).await.is_ok());
        }
        // So does a look right after a contract.
        let pause = random_wait(LEAST_WAIT.min(args.within), args.within);
        tokio::time::sleep(pause).await;
        look_again(&querier, common.max_time).await?;
    }
    match format {
        Format::Json => {
            print(&json!({ "schema": "dlambda.refilled/1", "contracts": bought }).to_string());
        }
        Format::Text => print(&format!("{bought} contracts renewed")),
    }
    Ok(ExitCode::SUCCESS)
}

/// Buys a contract that costs nothing, without asking: the caller has agreed
/// to that by `--auto-contract` or `refill`.
pub(crate) async fn buy(
    querier: &Querier,
    endpoint: &Endpoint,
    plan: Option<PlanName>,
    calls: BatchSize,
    max_time: Duration,
) -> Result<(), Report> {
    let wish = ContractOptions {
        plan,
        calls,
        service: None,
        deterministic: false,
        invitation: None,
    };
    let gratis = |contract: &Contract| contract.payment.total == 0;
    let offered = querier.contract(endpoint, &wish, max_time, gratis, |_| {});
    match offered.await.map_err(terms::report)? {
        ProposalOutcome::Countered(counter) if counter.calls < calls => {
            let wish = ContractOptions {
                calls: counter.calls,
                service: Some(counter.service),
                ..wish
            };
            let offered = querier.contract(endpoint, &wish, max_time, gratis, |_| {});
            concluded(&offered.await.map_err(terms::report)?)
        }
        other => concluded(&other),
    }
}

/// An offer that nobody has agreed to is no contract.
fn concluded(outcome: &ProposalOutcome) -> Result<(), Report> {
    match outcome {
        ProposalOutcome::Countered(_) => Err(Report::new(
            ErrorKind::Refused,
            "the provider offers other terms; see them with `dlambda contract`",
        )),
        _ => Ok(()),
    }
}

/// Starts a refill in the background, if a plan of this provider, or of any, runs low.
pub(crate) fn refill_later(common: &Common, wallet: &Wallet, endpoint: Option<&Endpoint>) {
    let low = low(wallet, RefillArgs::USUAL_CALLS);
    let is_it = |low: &Endpoint| endpoint.is_none_or(|it| it == low);
    let runs_low = low.is_ok_and(|low| low.iter().any(|(it, _)| is_it(it)));
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    if !runs_low {
        return;
    }
    let mut refill = Command::new(program);
    refill.args(["wallet", "refill", "--quiet"]);
    if let Some(network) = &common.network {
        refill.arg("--network").arg(network);
    }
    if let Some(home) = &common.home {
        refill.arg("--home").arg(home);
    }
    let quiet = refill
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // It outlives this command, and does not hang up with its terminal.
    std::os::unix::process::CommandExt::process_group(quiet, 0);
    if quiet.spawn().is_err() {
        say("the wallet runs low; refill it with `dlambda wallet refill`");
    }
}

fn now() -> UnixSeconds {
    SystemClock::default().now()
}

/// Plans with less than a quarter of such a contract left, as often as there is
/// somebody to buy from. How many calls a contract in the wallet is for does not
/// count: a provider may have chosen that, by a counter-offer.
fn low(wallet: &Wallet, calls: BatchSize) -> Result<Vec<(Endpoint, PlanName)>, Report> {
    let contracts = wallet.contracts(now())?.contracts.into_iter();
    let contracts = contracts.filter(|contract| contract.stage != ContractStage::Draft);
    let fresh = contracts.map(|contract| {
        let fresh = if contract.expired { 0 } else { contract.fresh };
        (contract.endpoint, contract.plan, fresh)
    });
    Ok(running_low(fresh, calls))
}

/// By the fresh tokens of contracts.
fn running_low(
    fresh: impl Iterator<Item = (Endpoint, PlanName, usize)>,
    calls: BatchSize,
) -> Vec<(Endpoint, PlanName)> {
    let mut plans: HashMap<(Endpoint, PlanName), usize> = HashMap::new();
    for (endpoint, plan, fresh) in fresh {
        *plans.entry((endpoint, plan)).or_default() += fresh;
    }
    let enough = usize::from(calls.calls()) / 4;
    let low = plans.into_iter().filter(|(_, fresh)| *fresh < enough);
    low.map(|(plan, _)| plan).collect()
}

fn for_people(listing: &Listing) -> String {
    if listing.contracts.is_empty() {
        return "the wallet is empty: make a contract with `dlambda contract`".to_owned();
    }
    let mut lines = Vec::new();
    for contract in &listing.contracts {
        let state = match (contract.expired, contract.stage) {
            (true, _) => "over",
            (false, ContractStage::Draft) => "proposed, no answer yet: `dlambda wallet settle`",
            (false, ContractStage::Unconfirmed) => "signed; not confirmed: `dlambda wallet settle`",
            _ => "signed by both",
        };
        lines.push(format!(
            "provider:   {}\n\
             contract:   {} calls on plan {}, epoch {}, good for {}; {state}\n\
             calls:      {} left, {} in use, {} interrupted, {} spent; {} ratings left",
            contract.endpoint.unredacted(),
            contract.calls,
            contract.plan,
            contract.epoch.0,
            good_for(contract.validity),
            contract.fresh,
            contract.in_use,
            contract.interrupted,
            contract.spent,
            contract.ratings,
        ));
        if contract.stage != ContractStage::Draft && !contract.checked && !contract.expired {
            lines.push(
                "            (no call is spent before a second look at the provider's keys: \
                 `dlambda wallet settle`)"
                    .to_owned(),
            );
        }
        if contract.early_ends > 0 {
            lines.push(format!(
                "            ({} epochs of this provider ended before their time)",
                contract.early_ends
            ));
        }
        if contract.interrupted > 0 {
            lines.push(
                "            (an interrupted call keeps its token, for the same command within five \
                 minutes; later see `dlambda invoke --resume`)"
                    .to_owned(),
            );
        }
    }
    lines.join("\n")
}

fn to_json(listing: &Listing) -> Value {
    let contracts = listing.contracts.iter().map(|contract| {
        let stage = match contract.stage {
            ContractStage::Confirmed => "confirmed",
            ContractStage::Draft => "draft",
            _ => "unconfirmed",
        };
        json!({
            "contract": hex::encode(contract.id.0),
            "address": contract.endpoint.unredacted(),
            "provider": contract.provider.unredacted(),
            "plan": contract.plan,
            "epoch": contract.epoch,
            "calls": contract.calls,
            "fresh": contract.fresh,
            "in_use": contract.in_use,
            "interrupted": contract.interrupted,
            "spent": contract.spent,
            "ratings": contract.ratings,
            "validity": contract.validity,
            "expired": contract.expired,
            "stage": stage,
            "checked": contract.checked,
            "early_ends": contract.early_ends,
        })
    });
    json!({
        "schema": "dlambda.wallet/1",
        "contracts": contracts.collect::<Vec<_>>(),
        "damaged": listing.damaged.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use dlambda_proto::OnionAddress;

    use super::*;

    /// Of a contract in the wallet, its size is not looked at: the provider may have made it
    /// smaller.
    #[test]
    fn when_a_plan_runs_low_depends_on_what_the_user_buys_and_not_on_old_contracts() {
        let endpoint = Endpoint::Onion(OnionAddress::from_public_key([1; 32]));
        let plan: PlanName = "small".parse().expect("a name");
        let low = |fresh: &[usize], calls| {
            let fresh = fresh.iter().map(|fresh| (endpoint, plan.clone(), *fresh));
            running_low(fresh, calls).len()
        };
        assert_eq!(low(&[0, 1], BatchSize::Calls8), 1);
        assert_eq!(low(&[1, 1], BatchSize::Calls8), 0, "a quarter of eight");
        assert_eq!(low(&[7], BatchSize::Calls32), 1);
        assert_eq!(low(&[8], BatchSize::Calls32), 0);
        assert_eq!(low(&[31], BatchSize::Calls128), 1);
        assert_eq!(
            low(&[], BatchSize::Calls128),
            0,
            "there is nobody to buy from"
        );
    }
}
