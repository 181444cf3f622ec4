//! `dlambda wallet fill`: contracts with several providers, ahead of calls.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::Duration;

use dlambda_broker::selection::{self, Prospect};
use dlambda_broker::{Listed, schedule};
use dlambda_client::wallet::{ContractStage, ContractSummary};
use dlambda_client::{Experience, FindError, Querier, Wallet};
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_privacy::os_rng;
use dlambda_proto::{Endpoint, PlanName, ProviderId, Report, UnixSeconds};
use rand_core::Rng as _;
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::cli::{Common, FillArgs, Format, MachineArgs};
use crate::delay::random_wait;
use crate::home::{self, Reaches};
use crate::invoke::{AUTO_CALLS, LEAST_WAIT, MOST_WAIT};
use crate::output::{Spinner, print, say};
use crate::sync::{self, Overlay};
use crate::wallet::buy;

/// A provider that is known for less is new, unless one's own calls were answered there.
const NEW: u64 = 7 * 24 * 3600;
/// Providers that are tried for each contract that is wanted.
const TRIES: usize = 3;
/// After a contract that took too long or was not made the next begins after a random time, up to
/// one part in so many of the time for all.
const MOST_PAUSES: u32 = 8;
/// Between a contract and the second look at its provider's keys, unless there is less time.
const LEAST_LOOK: Duration = Duration::from_secs(10);

/// A provider to make a contract with.
struct Chosen {
    provider: ProviderId,
    endpoint: Endpoint,
}

/// What became of it.
#[derive(Default)]
struct Filled {
    /// Providers that the wallet had enough tokens of.
    held: usize,
    made: usize,
    failed: usize,
    looked_at: usize,
}

/// Providers that a call without any contract makes some with.
const SOME: u8 = 2;

pub(crate) async fn run(
    args: FillArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let filled = make(&args, common).await?;
    let total = filled.held + filled.made;
    match format {
        Format::Json => print(
            &json!({
                "schema": "dlambda.filled/1",
                "contracts": filled.made,
                "failed": filled.failed,
                "looked_at": filled.looked_at,
                "providers": total,
            })
            .to_string(),
        ),
        Format::Text => print(&format!(
            "{} contracts made; the wallet holds tokens of {total} providers",
            filled.made
        )),
    }
    if filled.looked_at < filled.made {
        say(
            "some keys were not seen a second time: `dlambda wallet settle` looks once more, and \
             until then their tokens are not spent",
        );
    }
    if total < usize::from(args.providers) {
        say(&format!(
            "fewer than the {} that were asked for: no others fit, or they did not answer",
            args.providers
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether there is any token that is good now.
pub(crate) fn has_any(wallet: &Wallet) -> Result<bool, Report> {
    let contracts = wallet.contracts(now())?.contracts;
    let is_good = |it: &ContractSummary| it.fresh > 0 && it.checked && !it.expired;
    Ok(contracts.iter().any(is_good))
}

/// For a call that has no contract yet: makes some, and waits for a random time after the last.
pub(crate) async fn make_some(
    machine: &MachineArgs,
    plan: Option<&PlanName>,
    common: &Common,
) -> Result<(), Report> {
    let args = FillArgs {
        providers: SOME,
        calls: AUTO_CALLS,
        plan: plan.cloned(),
        machine: machine.clone(),
        within: random_wait(LEAST_WAIT, MOST_WAIT).min(common.max_time / 2),
    };
    say(
        "making contracts first; the call comes up to a minute and a half later, which hides little",
    );
    make(&args, common).await?;
    Ok(())
}

/// Makes contracts until there are tokens of as many providers.
async fn make(args: &FillArgs, common: &Common) -> Result<Filled, Report> {
    let wallet = home::wallet(common)?;
    let mut overlay = Overlay::open(common)?;
    if overlay.market.last_sync().is_none() {
        say("no catalogue yet: fetching it from several nodes");
        overlay.sync(common).await?;
        // Otherwise the end of the sync would tell when the first contract comes.
        let wait = schedule::after_first_sync(os_rng().next_u64()).min(args.within);
        say(&format!("waiting {} s after it", wait.as_secs()));
        sleep(wait).await;
    }
    let name = overlay.transport(common)?;
    let reaches = home::reaches(name);
    let experience = home::experience(common, &overlay.network)?;
    let held = held(&wallet, args, &experience)?;
    // Of a fill that was ended before it had looked at all keys a second time.
    let waiting = wallet.unchecked(now())?.into_iter().map(|it| it.endpoint);
    let waiting: Vec<Endpoint> = waiting.filter(reaches).collect();
    let wanted = usize::from(args.providers).saturating_sub(held.len());
    let mut filled = Filled::default();
    if wanted > 0 || !waiting.is_empty() {
        let chosen = choose(args, &overlay, &experience, &held, reaches)?;
        let spinner = Spinner::new(common.quiet);
        let transport = home::start(common, &overlay.network, name, &spinner).await?;
        let querier = home::querier_on(common, &overlay.network, transport, wallet)?;
        filled = fill(&querier, args, common, chosen, wanted, waiting, &spinner).await;
    }
    filled.held = held.len();
    if filled.held + filled.made == 0 {
        return Err(home::nothing_held("no provider made a contract"));
    }
    Ok(filled)
}

/// Providers that calls may go to and that the wallet has enough tokens of, for the plan that is
/// asked for.
fn held(
    wallet: &Wallet,
    args: &FillArgs,
    experience: &Experience,
) -> Result<BTreeSet<ProviderId>, Report> {
    let enough = usize::from(args.calls.calls()) / 4;
    let contracts = wallet.contracts(now())?.contracts.into_iter();
    let of_plan = contracts.filter(|it| args.plan.as_ref().is_none_or(|plan| *plan == it.plan));
    let good = of_plan.filter(|it| it.stage != ContractStage::Draft && !it.expired);
    let good = good.filter(|it| it.fresh >= enough && !experience.has_misbehaved(&it.endpoint));
    Ok(good.map(|it| it.provider).collect())
}

/// Whom to make contracts with, in this order, until there are enough.
fn choose(
    args: &FillArgs,
    overlay: &Overlay,
    experience: &Experience,
    held: &BTreeSet<ProviderId>,
    reaches: Reaches,
) -> Result<Vec<Chosen>, Report> {
    let mut wanted = args.machine.requirements();
    wanted.plan.clone_from(&args.plan);
    let found = overlay.market.find(&wanted, now());
    let found = found.map_err(|error| sync::report(FindError::from(error)))?;
    let eligible = found.into_iter().filter_map(|listed| {
        let listing = listed.listing();
        let endpoint = *listing.endpoints.iter().find(|it| reaches(it))?;
        let is_wanted = !held.contains(&listing.provider) && !experience.has_misbehaved(&endpoint);
        is_wanted.then_some((endpoint, listed))
    });
    let eligible: Vec<(Endpoint, Listed)> = eligible.collect();
    let prospects: Vec<Prospect> = eligible
        .iter()
        .map(|(endpoint, listed)| {
            let bound = experience.lower_bound(endpoint);
            let age = now().0.saturating_sub(listed.since().0);
            if experience.is_known(endpoint) || age >= NEW {
                Prospect::known(bound)
            } else {
                Prospect::newcomer(bound)
            }
        })
        .collect();
    let most = usize::from(args.providers) * TRIES;
    let drawn = selection::draw(&prospects, most, &mut os_rng());
    let drawn = drawn.into_iter().filter_map(|index| eligible.get(index));
    let chosen = drawn.map(|(endpoint, listed)| Chosen {
        provider: listed.listing().provider,
        endpoint: *endpoint,
    });
    Ok(chosen.collect())
}

/// Makes contracts at random times, and looks at each provider's keys once more later.
async fn fill(
    querier: &Querier,
    args: &FillArgs,
    common: &Common,
    chosen: Vec<Chosen>,
    wanted: usize,
    waiting: Vec<Endpoint>,
    spinner: &Spinner,
) -> Filled {
    let mut filled = Filled::default();
    let started = Instant::now();
    let mut chosen = chosen.into_iter();
    let looks = waiting.into_iter();
    let looks = looks.map(|it| (random_wait(Duration::ZERO, args.within), it));
    let mut looks: Vec<(Duration, Endpoint)> = looks.collect();
    // The last third is for second looks.
    let mut times = random_times(wanted, args.within * 2 / 3).into_iter();
    while filled.made < wanted {
        let Some(next) = chosen.next() else { break };
        let left = wanted - filled.made;
        spinner.say(format!(
            "waiting for a random time, {left} contracts to make"
        ));
        let pause = random_wait(Duration::ZERO, args.within / MOST_PAUSES);
        sleep_until(started + begin(times.next(), started.elapsed(), pause)).await;
        spinner.say(format!("contract {} of {wanted}", filled.made + 1));
        let plan = args.plan.clone();
        let bought = Box::pin(buy(
            querier,
            &next.endpoint,
            plan,
            args.calls,
            common.max_time,
        ));
        match bought.await {
            Ok(()) => {
                filled.made += 1;
                let now = started.elapsed();
                let least = now + LEAST_LOOK.min(args.within);
                looks.push((random_wait(least, args.within.max(least)), next.endpoint));
            }
            Err(report) => {
                filled.failed += 1;
                let id = next.provider.unredacted();
                spinner.pause(|| say(&format!("no contract with {id}: {}", report.message)));
            }
        }
    }
    looks.sort_by_key(|(time, _)| *time);
    for (time, endpoint) in looks {
        spinner.say("waiting for a random time to look at a provider's keys once more".to_owned());
        sleep_until(started + time).await;
        let looked = Box::pin(querier.look_again_at(&endpoint, common.max_time)).await;
        filled.looked_at += usize::from(looked.is_ok());
    }
    filled
}

/// When the next contract is begun: as planned, unless that is over or nothing was. At once it
/// would be when the provider before chose, who may say to the next that they have one customer.
fn begin(planned: Option<Duration>, now: Duration, pause: Duration) -> Duration {
    match planned {
        Some(planned) if planned > now => planned,
        Some(_) | None => now + pause,
    }
}

fn random_times(count: usize, within: Duration) -> Vec<Duration> {
    let draw = |_| random_wait(Duration::ZERO, within);
    let mut times: Vec<Duration> = (0..count).map(draw).collect();
    times.sort();
    times
}

fn now() -> UnixSeconds {
    SystemClock::default().now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_contract_begins_when_the_provider_before_ended_its_own() {
        let seconds = Duration::from_secs;
        let begin =
            |planned: Option<u64>, now| begin(planned.map(seconds), seconds(now), seconds(7));
        assert_eq!(begin(Some(20), 10), seconds(20));
        assert_eq!(begin(Some(10), 10), seconds(17));
        assert_eq!(begin(Some(5), 10), seconds(17));
        assert_eq!(begin(None, 10), seconds(17));
    }
}
