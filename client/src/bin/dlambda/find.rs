//! `dlambda find`: providers that meet requirements.

mod show;

use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_broker::Listed;
use dlambda_client::FindError;
use dlambda_privacy::clock::{Clock as _, SystemClock};
use dlambda_privacy::exchange::receive_advert;
use dlambda_privacy::network::Network;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::Service;
use dlambda_proto::{Endpoint, Endpoints, ProviderId, Report};
use rand_core::Rng as _;

use crate::cli::{Common, FindArgs, Format, Mode};
use crate::delay::random_wait;
use crate::home;
use crate::output::{Spinner, print, say};
use crate::sync::{Overlay, report};

/// For a provider to say its advert once a circuit stands.
const ADVERT: Duration = Duration::from_secs(30);
/// Providers are measured at random times within it.
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) async fn run(
    args: FindArgs,
    common: &Common,
    format: Format,
) -> Result<ExitCode, Report> {
    let mut overlay = Overlay::open(common)?;
    let wanted = args.requirements();
    if overlay.market.last_sync().is_none() {
        say("no catalogue yet: fetching it from several nodes");
        overlay.sync(common).await?;
        say(
            "let some minutes pass before a contract: what comes right after this could be tied to it",
        );
    }
    ask_nodes(&args, &mut overlay, common).await?;
    let now = SystemClock::default().now();
    let found = match args.mode {
        Mode::Active => overlay.market.find_offering(&wanted, now),
        Mode::Dht | Mode::Passive => overlay.market.find(&wanted, now),
    };
    let found = found.map_err(|error| report(FindError::from(error)))?;
    let experience = home::experience(common, &overlay.network)?;
    let pings = match args.ping {
        None => HashMap::new(),
        Some(most) => ping(&found, most.into(), &overlay.network, common).await?,
    };
    let found: Vec<Found> = found
        .into_iter()
        .map(|listed| {
            let endpoints = &listed.listing().endpoints;
            let latency = endpoints.iter().find_map(|it| experience.latency(it));
            let ping = pings.get(&listed.listing().provider).copied();
            Found {
                listed,
                latency,
                ping,
            }
        })
        .collect();
    match format {
        Format::Json => print(&show::to_json(&found, overlay.market.last_sync()).to_string()),
        Format::Text => print(&show::table(&found, now)),
    }
    Ok(ExitCode::SUCCESS)
}

/// A provider, and what is known of its pace.
struct Found {
    listed: Listed,
    /// Of own calls.
    latency: Option<Duration>,
    /// From dialling to its advert, if that was measured just now.
    ping: Option<Duration>,
}

/// Connects to some of them, each at a random time within the next minute and on a circuit of its
/// own. Those that do not answer are left out.
async fn ping(
    found: &[Listed],
    most: usize,
    network: &Network,
    common: &Common,
) -> Result<HashMap<ProviderId, Duration>, Report> {
    say(
        "measuring takes a minute; each provider sees that somebody connects, and providers that \
         collude may guess from the times that one caller looks around",
    );
    let mut drawn: Vec<(u32, &Listed)> = found.iter().map(|it| (os_rng().next_u32(), it)).collect();
    drawn.sort_by_key(|(random, _)| *random);
    let reached = drawn.into_iter().filter_map(|(_, it)| {
        let endpoints = Endpoints::try_from(it.listing().endpoints.clone()).ok()?;
        let endpoint = home::choose(common, network, &endpoints).ok()?;
        Some((it.listing().provider, endpoint))
    });
    let reached: Vec<_> = reached.take(most).collect();
    let endpoints: Vec<Endpoint> = reached.iter().map(|(_, endpoint)| *endpoint).collect();
    let spinner = Spinner::new(common.quiet);
    let transport = home::connect(common, network, &endpoints, &spinner).await?;
    spinner.say(format!("connecting to {} providers", reached.len()));
    let measured = reached.into_iter().map(|(provider, endpoint)| {
        let transport = Arc::clone(&transport);
        async move {
            tokio::time::sleep(random_wait(Duration::ZERO, WITHIN)).await;
            let started = Instant::now();
            let dialled = transport.dial(&endpoint, Service::Calls).await.ok()?;
            let (mut stream, now) = (dialled.stream, SystemClock::default().now());
            let advert = receive_advert(&mut *stream, &endpoint, now, ADVERT)
                .await
                .ok()?;
            (advert.provider == provider).then(|| (provider, started.elapsed()))
        }
    });
    let measured = futures::future::join_all(measured).await;
    Ok(measured.into_iter().flatten().collect())
}

/// What a search asks nodes, beside the catalogue that is here.
async fn ask_nodes(args: &FindArgs, overlay: &mut Overlay, common: &Common) -> Result<(), Report> {
    if args.mode == Mode::Passive {
        return Ok(());
    }
    let wanted = args.requirements();
    let spinner = Spinner::new(common.quiet);
    let guest = overlay.guest(common, &spinner).await?;
    let (market, time) = (&mut overlay.market, common.max_time);
    if args.mode == Mode::Dht {
        spinner.say("asking several nodes".to_owned());
        let looked_up = guest.look_up(market, &wanted, time).await;
        looked_up.map_err(report)?;
    } else {
        spinner.say("asking providers in public for their capacity".to_owned());
        guest.demand(market, &wanted, time).await.map_err(report)?;
    }
    Ok(())
}
