//! `dlambda sync`: fetches the catalogue of providers.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::{Market, StoreError, schedule};
use dlambda_client::{Fetched, FindError, Guest};
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_privacy::network::{Network, OverlayNetwork, TransportName};
use dlambda_privacy::os_rng;
use dlambda_proto::{ErrorKind, HasKind as _, Report};
use rand_core::Rng as _;
use serde_json::json;

use crate::cli::{Common, Format, SyncArgs};
use crate::delay::random_wait;
use crate::home;
use crate::output::{Spinner, print, say};

/// What the overlay's commands work on.
pub(crate) struct Overlay {
    pub(crate) network: Network,
    settings: OverlayNetwork,
    path: PathBuf,
    pub(crate) market: Market,
}

pub(crate) async fn run(
    args: SyncArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let mut overlay = Overlay::open(common)?;
    if args.stay {
        let lock = home::sync_lock(common)?;
        if lock.try_lock().is_err() {
            say("another process stays and syncs already");
            return Ok(ExitCode::SUCCESS);
        }
        return stay(&mut overlay, common).await;
    }
    tokio::time::sleep(random_wait(Duration::ZERO, args.within)).await;
    let fetched = overlay.sync(common).await?;
    let (chosen, known) = overlay.market.counts(SystemClock::default().now());
    match format {
        Format::Json => print(
            &json!({
                "schema": "dlambda.synced/1",
                "providers": chosen,
                "known": known,
                "nodes": fetched.answered,
                "failed": fetched.failed,
                "misbehaved": fetched.misbehaved,
                "forks": fetched.forks,
            })
            .to_string(),
        ),
        Format::Text => print(&format!(
            "{chosen} providers, as most of {} nodes list them; {} more are known",
            fetched.answered,
            known.saturating_sub(chosen)
        )),
    }
    if fetched.misbehaved > 0 {
        say(&format!(
            "{} nodes served what no honest node serves, and were left out",
            fetched.misbehaved
        ));
    }
    Ok(ExitCode::SUCCESS)
}

/// Syncs at random times, until it is ended.
async fn stay(overlay: &mut Overlay, common: &Common) -> Result<ExitCode, Report> {
    say("staying; the catalogue is fetched at random times");
    loop {
        // Drawn whether the last one succeeded or not: the times depend on nothing.
        tokio::time::sleep(schedule::until_next_sync(os_rng().next_u64())).await;
        if let Err(report) = overlay.sync(common).await {
            say(&report.message);
        }
    }
}

impl Overlay {
    /// The overlay of this network, and what was fetched of it.
    pub(crate) fn open(common: &Common) -> Result<Self, Report> {
        let network = home::network(common)?;
        let settings = network.overlay.clone().ok_or_else(|| {
            Report::from(FindError::NoOverlay)
                .with_hint("name a network file with an [overlay] by --network")
        })?;
        let path = home::market_file(common, &network)?;
        let rules = Guest::rules(&settings);
        let now = SystemClock::default().now();
        let market = match Market::load(&path, rules, now) {
            Ok(market) => market,
            // It can be fetched again: nothing in it is lost but since when providers are known.
            Err(error @ (StoreError::Damaged { .. } | StoreError::OtherNetwork { .. })) => {
                say(&format!("{error}; beginning with an empty catalogue"));
                Market::new(rules)
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            network,
            settings,
            path,
            market,
        })
    }

    /// A guest on a transport that reaches nodes.
    pub(crate) async fn guest(&self, common: &Common, spinner: &Spinner) -> Result<Guest, Report> {
        let name = self.transport(common)?;
        let reaches = home::reaches(name);
        let transport = home::start(common, &self.network, name, spinner).await?;
        Ok(Guest::new(
            self.settings.clone(),
            transport,
            reaches,
            self.path.clone(),
            Arc::new(SystemClock::default()),
        ))
    }

    /// The transport that its commands use.
    pub(crate) fn transport(&self, common: &Common) -> Result<TransportName, Report> {
        let names = home::names(common, &self.network)?;
        preferred(names, &self.settings)
            .ok_or_else(|| Report::new(ErrorKind::Usage, "direct connections carry no overlay"))
    }

    /// Fetches the catalogue.
    pub(crate) async fn sync(&mut self, common: &Common) -> Result<Fetched, Report> {
        let spinner = Spinner::new(common.quiet);
        let guest = self.guest(common, &spinner).await?;
        spinner.say("fetching the catalogue from several nodes".to_owned());
        let synced = guest.sync(&mut self.market, common.max_time).await;
        synced.map_err(report)
    }
}

/// The first transport that reaches a bootstrap node; the first of all if none does.
fn preferred(names: Vec<TransportName>, overlay: &OverlayNetwork) -> Option<TransportName> {
    let names = names.into_iter();
    let names: Vec<_> = names
        .filter(|it| *it != TransportName::DangerouslyDirect)
        .collect();
    let reaches = |name: &&TransportName| {
        let mut nodes = overlay.bootstrap_endpoints();
        nodes.any(|it| TransportName::of(&it) == Some(**name))
    };
    names
        .iter()
        .find(reaches)
        .or_else(|| names.first())
        .copied()
}

/// With what a user can do about it.
pub(crate) fn report(error: FindError) -> Report {
    let hint = match (&error, error.kind()) {
        (FindError::Sync(_), ErrorKind::Usage) => Some(
            "the network file names no bootstrap node that can be reached: ask its maker for another",
        ),
        (FindError::Sync(_) | FindError::DemandRefused, _) => Some(
            "what was fetched before still works (`dlambda find`); the nodes may be back later. In a \
             private network the file's `key` may be another: ask the network's maker",
        ),
        (FindError::NoneFits(_), _) => Some("ask for less, or search with `--mode dht`"),
        _ => None,
    };
    let report = Report::from(error);
    match hint {
        Some(hint) => report.with_hint(hint),
        None => report,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONION: &str = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";

    #[test]
    fn a_guest_takes_the_first_transport_that_reaches_a_bootstrap_node() {
        use TransportName::{DangerouslyDirect, Nym, Tor};
        let with = |bootstrap: &str| {
            let head = "name = \"n\"\ntransport = \"tor\"\n[overlay]\n";
            let id = "00112233445566778899aabbccddeeff";
            let text = format!("{head}id = \"{id}\"\nbootstrap = [{bootstrap}]");
            Network::parse(&text).unwrap().overlay.unwrap()
        };
        let onion = with(&format!("\"{ONION}\""));
        for (names, expected) in [
            (vec![Tor, Nym], Some(Tor)),
            (vec![Nym, Tor], Some(Tor)),
            (vec![DangerouslyDirect, Nym], Some(Nym)),
            (vec![DangerouslyDirect], None),
        ] {
            assert_eq!(preferred(names, &onion), expected);
        }
        assert_eq!(preferred(vec![Nym, Tor], &with("")), Some(Nym));
    }
}
