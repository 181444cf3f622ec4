//! The network in use, by C tor and by arti. Needs the `tor` package and a
//! minute: `cargo test -p dlambda-tests testnet::smoke -- --ignored`.

use std::{
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arti_client::{
    StreamPrefs, TorClient,
    config::{BoolOrAuto, TorClientConfigBuilder},
};
use futures::StreamExt as _;
use safelog::DisplayRedacted as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use tor_cell::relaycell::msg::Connected;
use tor_hsservice::{RunningOnionService, config::OnionServiceConfigBuilder};
use tor_rtcompat::PreferredRuntime;

use super::*;

type Client = Arc<TorClient<PreferredRuntime>>;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts a Tor network"]
async fn onion_services_work_at_once_for_arti_and_c_tor_in_any_mix() {
    let testnet = Testnet::up(TestnetConfig::default(), |line| println!("{line}"))
        .await
        .unwrap();
    let echo = echo_server().await;

    let state = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let arti = arti_client(&testnet, state.path()).await;
    println!("arti bootstrapped: {:?}", started.elapsed());
    let (_service, arti_onion) = arti_echo_service(&arti);
    let caller = arti_client(&testnet, &state.path().join("caller")).await;
    arti_echoes(&caller, &arti_onion).await;
    println!("arti to arti from cold: {:?}", started.elapsed());

    let started = Instant::now();
    let c_client = testnet.c_tor_client().await.unwrap();
    println!("C client: {:?}", started.elapsed());
    let started = Instant::now();
    let c_onion = testnet.c_tor_onion(80, echo).await.unwrap();
    println!("C onion: {:?}", started.elapsed());
    assert_eq!(c_onion.address.len(), 62);
    for onion in [&c_onion.address, &arti_onion] {
        let started = Instant::now();
        socks_echoes(c_client.socks, onion).await;
        println!("C client to an onion: {:?}", started.elapsed());
    }
    let started = Instant::now();
    arti_echoes(&caller, &c_onion.address).await;
    println!("arti client to a C onion: {:?}", started.elapsed());
    testnet.down().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "starts two Tor networks"]
async fn networks_run_side_by_side_and_nodes_come_back() {
    let up = || Testnet::up(TestnetConfig::default(), |_| {});
    let (first, second) = tokio::join!(up(), up());
    let (mut first, second) = (first.unwrap(), second.unwrap());
    let pids: Vec<_> = first
        .nodes()
        .chain(second.nodes())
        .filter_map(|node| node.pid)
        .collect();
    assert_eq!(pids.len(), 16);
    for name in ["relay1", "auth0"] {
        first.kill_node(name).unwrap();
        assert!(
            first
                .nodes()
                .any(|node| node.name == name && node.pid.is_none())
        );
        first.restart_node(name).await.unwrap();
    }
    assert!(matches!(
        first.kill_node("relay9"),
        Err(TestnetError::UnknownNode(_))
    ));
    first.c_tor_client().await.unwrap();
    let (dir, running) = (first.dir().to_owned(), first.nodes().filter_map(|n| n.pid));
    let running: Vec<_> = running.collect();
    first.down().await;
    drop(second);
    assert!(!dir.exists());
    for pid in pids.iter().chain(&running) {
        assert!(
            !Path::new(&format!("/proc/{pid}")).exists(),
            "{pid} is left"
        );
    }
}

async fn arti_client(testnet: &Testnet, state: &Path) -> Client {
    let text = std::fs::read_to_string(testnet.network_toml()).unwrap();
    let file: toml::Table = text.parse().unwrap();
    let mut config: TorClientConfigBuilder = file["tor"].clone().try_into().unwrap();
    config
        .storage()
        .cache_dir(arti_client::config::CfgPath::new_literal(
            state.join("cache"),
        ))
        .state_dir(arti_client::config::CfgPath::new_literal(
            state.join("state"),
        ))
        .permissions()
        .dangerously_trust_everyone();
    config.address_filter().allow_onion_addrs(true);
    let bootstrapped = TorClient::create_bootstrapped(config.build().unwrap());
    timeout(PATIENCE, bootstrapped).await.unwrap().unwrap()
}

fn arti_echo_service(arti: &Client) -> (Arc<RunningOnionService>, String) {
    let config = OnionServiceConfigBuilder::default()
        .nickname("echo".parse().unwrap())
        .build()
        .unwrap();
    let (service, requests) = arti.launch_onion_service(config).unwrap().unwrap();
    let address = service.onion_address().unwrap();
    let mut streams = Box::pin(tor_hsservice::handle_rend_requests(requests));
    tokio::spawn(async move {
        while let Some(request) = streams.next().await {
            tokio::spawn(async move {
                let stream = request.accept(Connected::new_empty()).await.unwrap();
                let (mut from, mut to) = tokio::io::split(stream);
                let mut buffer = [0; 5];
                from.read_exact(&mut buffer).await.unwrap();
                to.write_all(&buffer).await.unwrap();
                to.flush().await.unwrap();
                sleep(PATIENCE).await;
            });
        }
    });
    (service, address.display_unredacted().to_string())
}

/// Calls until it works: a service needs a moment to be published.
async fn arti_echoes(arti: &Client, onion: &str) {
    let mut prefs = StreamPrefs::new();
    prefs.connect_to_onion_services(BoolOrAuto::Explicit(true));
    let started = Instant::now();
    let mut stream = loop {
        match arti.connect_with_prefs((onion, 80), &prefs).await {
            Ok(stream) => break stream,
            Err(err) if started.elapsed() > PATIENCE => panic!("{err}"),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    stream.write_all(b"hello").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"hello");
}

async fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    address
}

/// Speaks SOCKS5 by hand: no authentication, connect to a name.
async fn socks_echoes(socks: SocketAddr, onion: &str) {
    let mut stream = connect_loopback(socks).await;
    stream.write_all(&[5, 1, 0]).await.unwrap();
    let mut chosen = [0; 2];
    stream.read_exact(&mut chosen).await.unwrap();
    let length = u8::try_from(onion.len()).unwrap();
    let request = [&[5, 1, 0, 3, length], onion.as_bytes(), &[0, 80]].concat();
    stream.write_all(&request).await.unwrap();
    let mut reply = [0; 10];
    timeout(PATIENCE, stream.read_exact(&mut reply))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(reply[1], 0, "SOCKS error");
    stream.write_all(b"hello").await.unwrap();
    let mut answer = [0; 5];
    timeout(PATIENCE, stream.read_exact(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&answer, b"hello");
}

#[expect(
    clippy::disallowed_methods,
    reason = "the SOCKS port of our own client on loopback"
)]
async fn connect_loopback(address: SocketAddr) -> TcpStream {
    assert!(address.ip().is_loopback());
    TcpStream::connect(address).await.unwrap()
}
