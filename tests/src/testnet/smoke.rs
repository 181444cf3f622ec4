//! The network in use, by C tor and by arti in any mix.

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use dlambda_privacy::transport::Service;
use dlambda_privacy::{
    network::Network,
    transport::{BoxStream, TorDirectories, TorTransport, Transport as _},
};
use dlambda_proto::{Endpoint, ONION_PORT};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn onion_services_work_at_once_for_arti_and_c_tor_in_any_mix() {
    let testnet = Testnet::up(TestnetConfig::default(), |line| println!("{line}"))
        .await
        .unwrap();
    let echo = echo_server().await;

    let files = tempfile::tempdir().unwrap();
    let started = Instant::now();
    let provider = arti(&testnet, &files.path().join("provider")).await;
    println!("arti bootstrapped: {:?}", started.elapsed());
    let arti_onion = arti_echo_service(&provider, Service::Calls).await;
    let caller = arti(&testnet, &files.path().join("caller")).await;
    arti_echoes(&caller, &arti_onion, Service::Calls).await;
    println!("arti to arti, from cold: {:?}", started.elapsed());

    let started = Instant::now();
    let c_client = testnet.c_tor_client().await.unwrap();
    println!("C client: {:?}", started.elapsed());
    let started = Instant::now();
    let c_onion = testnet.c_tor_onion(ONION_PORT, echo).await.unwrap();
    println!("C onion: {:?}", started.elapsed());
    assert_eq!(c_onion.address.len(), 62);
    for onion in [&c_onion.address, &arti_onion.unredacted()] {
        let started = Instant::now();
        socks_echoes(c_client.socks, onion).await;
        println!("C client to an onion: {:?}", started.elapsed());
    }
    let started = Instant::now();
    let c_endpoint = c_onion.address.parse().unwrap();
    arti_echoes(&caller, &c_endpoint, Service::Calls).await;
    println!("arti client to a C onion: {:?}", started.elapsed());
    testnet.down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_has_an_onion_service_of_its_own() {
    let testnet = Testnet::up(TestnetConfig::default(), |_| {}).await.unwrap();
    let files = tempfile::tempdir().unwrap();
    let provider = arti(&testnet, &files.path().join("provider")).await;
    let caller = arti(&testnet, &files.path().join("caller")).await;
    let overlay = arti_echo_service(&provider, Service::Overlay).await;
    let mut long_lived = arti_echoes(&caller, &overlay, Service::Overlay).await;

    let mut listener = provider.listen(Service::Calls).await.unwrap();
    let calls = listener.endpoint();
    assert_ne!(calls, overlay);
    let echoing = tokio::spawn(async move {
        let incoming = listener.accept().await.unwrap();
        let (mut from, mut to) = tokio::io::split(incoming.connection.stream);
        tokio::io::copy(&mut from, &mut to).await
    });
    drop(arti_echoes(&caller, &calls, Service::Calls).await);
    // The caller is gone: whether in order or not is nothing to the echo.
    let _ = echoing.await.unwrap();

    // The service for calls has ended with its listener; streams of the other live on.
    echoes(&mut long_lived).await;
    arti_echoes(&caller, &overlay, Service::Overlay).await;

    // Guests come to the address of the overlay, by another port, which is closed until they are
    // listened for.
    assert!(caller.dial(&overlay, Service::Guests).await.is_err());
    let guests = arti_echo_service(&provider, Service::Guests).await;
    assert_eq!(guests, overlay);
    arti_echoes(&caller, &overlay, Service::Guests).await;
    arti_echoes(&caller, &overlay, Service::Overlay).await;
    testnet.down().await;
}

#[tokio::test(flavor = "multi_thread")]
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

async fn arti(testnet: &Testnet, files: &Path) -> TorTransport {
    let network = Network::read(testnet.network_toml()).unwrap();
    let directories = TorDirectories::new(files.join("state"), files.join("cache"));
    TorTransport::bootstrap(&network, &directories, PATIENCE, |_| {})
        .await
        .unwrap()
}

async fn arti_echo_service(transport: &TorTransport, service: Service) -> Endpoint {
    let mut listener = transport.listen(service).await.unwrap();
    let endpoint = listener.endpoint();
    tokio::spawn(async move {
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = tokio::io::split(incoming.connection.stream);
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    endpoint
}

/// Calls until it works: a service needs a moment to be published.
async fn arti_echoes(transport: &TorTransport, endpoint: &Endpoint, service: Service) -> BoxStream {
    let started = Instant::now();
    let mut stream: BoxStream = loop {
        match transport.dial(endpoint, service).await {
            Ok(dialled) => break dialled.stream,
            Err(err) if started.elapsed() > PATIENCE => panic!("{err}"),
            Err(_) => sleep(Duration::from_millis(200)).await,
        }
    };
    echoes(&mut stream).await;
    stream
}

async fn echoes(stream: &mut BoxStream) {
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
    let port = ONION_PORT.to_be_bytes();
    let request = [&[5, 1, 0, 3, length], onion.as_bytes(), &port].concat();
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
