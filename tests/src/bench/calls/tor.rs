//! Calls over Tor, and what they are compared with, round by round: a noisy
//! machine disturbs all of them alike.

use std::time::Instant;

use anyhow::Result;
use dlambda_privacy::transport::{BoxStream, Listener, Service, TorTransport, Transport as _};
use dlambda_proto::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::{DEADLINE, FRAME, large_call, one_call, provider, querier, web};
use crate::bench::{Report, millis_since, progress};
use crate::testnet::{Testnet, TestnetConfig};
use crate::tor::participant;

/// A MiB takes longer than a call; so many rounds do.
const LARGE_CALLS: u16 = 5;

pub(super) async fn measure(rounds: u16, report: &mut Report) -> Result<()> {
    let work = tempfile::tempdir()?;
    progress("a private Tor network, an echo service, a provider, and nginx behind C tor");
    let testnet = Testnet::up(TestnetConfig::default(), |_| {}).await?;
    let network = testnet.network_toml();
    let own = |name: &str| work.path().join(name);

    let echo = participant(network, &own("echo")).await?;
    let listener = echo.listen(Service::Calls).await?;
    let echo_endpoint = listener.endpoint();
    tokio::spawn(echo_everything(listener));
    let tor = participant(network, &own("provider-tor")).await?;
    let provider = provider(&own("provider"), tor).await?;
    let (nginx, website) = web::nginx(work.path())?;
    let onion = testnet.c_tor_onion(80, website).await?;
    let c_tor = testnet.c_tor_client().await?;

    let started = Instant::now();
    let caller = participant(network, &own("caller")).await?;
    one_call(&querier(caller.clone()), &provider, "Tor", None).await?;
    let first = millis_since(started);
    report.add("Tor: from the start to the first answer", "ms", first);

    let mut stream = reach(&caller, &echo_endpoint).await?;
    let querier = querier(caller);
    // The first round warms all of them up and does not count.
    for round in 0..=rounds {
        let raw = raw_round_trip(&mut stream).await?;
        let counted = (round > 0).then_some(&mut *report);
        one_call(&querier, &provider, "Tor", counted).await?;
        let curl = web::curl(c_tor.socks, &onion.address, round).await?;
        if round > 0 {
            report.add("Tor: as many raw bytes, open onion stream", "ms", raw);
            report.add("Tor: curl, C tor, nginx, fresh circuit", "ms", curl);
        }
    }
    for _ in 0..LARGE_CALLS.min(rounds) {
        large_call(&querier, &provider, "Tor", report).await?;
    }
    provider.stop().await?;
    drop(nginx);
    testnet.down().await;
    Ok(())
}

async fn echo_everything(mut listener: Box<dyn Listener>) {
    while let Some(incoming) = listener.accept().await {
        tokio::spawn(async move {
            let mut stream = incoming.connection.stream;
            let mut bytes = [0; FRAME];
            while stream.read_exact(&mut bytes).await.is_ok() {
                if stream.write_all(&bytes).await.is_err() || stream.flush().await.is_err() {
                    return;
                }
            }
        });
    }
}

/// A new onion service takes a moment until it can be found.
async fn reach(tor: &TorTransport, endpoint: &Endpoint) -> Result<BoxStream> {
    let started = Instant::now();
    loop {
        match tor.dial(endpoint, Service::Calls).await {
            Ok(dialled) => return Ok(dialled.stream),
            Err(error) if started.elapsed() > DEADLINE => return Err(error.into()),
            Err(_) => sleep(std::time::Duration::from_millis(500)).await,
        }
    }
}

async fn raw_round_trip(stream: &mut BoxStream) -> Result<f64> {
    let mut bytes = [7; FRAME];
    let started = Instant::now();
    let round_trip = async {
        stream.write_all(&bytes).await?;
        stream.flush().await?;
        stream.read_exact(&mut bytes).await
    };
    timeout(DEADLINE, round_trip).await??;
    Ok(millis_since(started))
}
