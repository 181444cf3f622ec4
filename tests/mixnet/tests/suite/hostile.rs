//! Nonsense to every listener.

use std::time::Duration;

use dlambda_mixnet::{GatewayInfo, Mixnet, Options};
use futures::{SinkExt, StreamExt};
use nym_crypto::asymmetric::ed25519;
use nym_gateway_requests::{
    CURRENT_PROTOCOL_VERSION, ServerResponse, registration::handshake::client_handshake,
};
use nym_task::ShutdownToken;
use rand::{RngCore, rngs::OsRng};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::support::{PATIENCE, connect, dial, fast, mixnet, round_trip, until};

fn noise(len: usize) -> Vec<u8> {
    let mut noise = vec![0; len];
    OsRng.fill_bytes(&mut noise);
    noise
}

/// A frame as nodes send them, of a packet that nobody made.
fn forged_packet() -> Vec<u8> {
    // Version 8, regular size, a mix packet, of an even key rotation.
    let mut frame = vec![8, 1, 0, 1];
    frame.extend(noise(nym_sphinx::params::PacketSize::RegularPacket.size()));
    frame
}

/// Sends `bytes`; a listener may well close before it has them all.
async fn throw(port: u16, bytes: &[u8]) -> TcpStream {
    let mut stream = dial(port).await;
    let _ = stream.write_all(bytes).await;
    stream
}

async fn socket(gateway: &GatewayInfo) -> WebSocketStream<TcpStream> {
    let url = format!("ws://127.0.0.1:{}/", gateway.ws_port);
    client_async(url, dial(gateway.ws_port).await)
        .await
        .unwrap()
        .0
}

async fn answer(socket: &mut WebSocketStream<TcpStream>) -> ServerResponse {
    let answer = tokio::time::timeout(PATIENCE, socket.next()).await;
    let answer = answer.expect("no answer in time").unwrap().unwrap();
    answer.into_text().unwrap().try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_stops_no_listener() {
    let mixnet = mixnet().await;
    let api_port = mixnet
        .api_url()
        .trim_end_matches('/')
        .rsplit(':')
        .next()
        .unwrap();
    let mut ports: Vec<u16> = mixnet.mixes().iter().map(|mix| mix.port).collect();
    ports.extend(
        mixnet
            .gateways()
            .iter()
            .flat_map(|gateway| [gateway.port, gateway.ws_port]),
    );
    ports.push(api_port.parse().unwrap());

    // Connections that stay open with half of something on them.
    let mut open = Vec::new();
    for port in ports {
        throw(port, &[]).await;
        throw(port, &noise(10_000)).await;
        throw(port, &forged_packet()).await;
        throw(port, b"GET / HTTP/1.1\r\n\r\n").await;
        throw(port, &[b'a'; 100_000]).await;
        open.push(throw(port, &forged_packet()[..100]).await);
    }
    until(&mixnet, "seen", |counters| {
        counters.mixes.iter().all(|mix| mix.malformed >= 2)
            && counters
                .gateways
                .iter()
                .all(|gateway| gateway.node.malformed >= 2)
    })
    .await;

    let mut provider = connect(&mixnet, 0, fast()).await;
    let mut querier = connect(&mixnet, 1, fast()).await;
    round_trip(&mut querier, &mut provider, "still there?").await;
    drop(open);
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_a_websocket_gets_no_session() {
    let mixnet = mixnet().await;
    let gateway = &mixnet.gateways()[0];
    for message in [
        Message::Text("no JSON".to_owned()),
        Message::Text(r#"{"type":"claimFreeTestnetBandwidth"}"#.to_owned()),
    ] {
        let mut socket = socket(gateway).await;
        socket.send(message).await.unwrap();
        assert!(answer(&mut socket).await.is_error());
    }
    for message in [
        Message::Binary(noise(2000)),
        Message::Text("a".repeat(1 << 20)),
        Message::Text(r#"{"type":"registerHandshakeInitRequest","data":[1,2]}"#.to_owned()),
    ] {
        let mut socket = socket(gateway).await;
        let _ = socket.send(message).await;
        // Perhaps an error in words, then the end.
        let end = async { while let Some(Ok(_)) = socket.next().await {} };
        tokio::time::timeout(PATIENCE, end)
            .await
            .expect("it stays open");
    }
    let counters = &mixnet.counters().gateways[0];
    assert_eq!((counters.clients, counters.sessions), (0, 0));
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_talks_nonsense_is_told_so_and_stays() {
    let mixnet = mixnet().await;
    let gateway = mixnet.gateways()[0].clone();
    let mut socket = register(&gateway).await;
    let nonsense = [
        Message::Binary(vec![]),
        // Short, and said to be plain text.
        Message::Binary(vec![1, 0, 9]),
        Message::Binary(vec![1, 1, 9]),
        Message::Binary(noise(2500)),
        Message::Text("no JSON".to_owned()),
        Message::Text(r#"{"type":"encryptedRequest","ciphertext":[1],"nonce":[2]}"#.to_owned()),
    ];
    for message in nonsense {
        socket.send(message).await.unwrap();
        assert!(answer(&mut socket).await.is_error());
    }
    socket
        .send(Message::Text(r#"{"type":"supportedProtocol"}"#.to_owned()))
        .await
        .unwrap();
    let answer = answer(&mut socket).await;
    assert!(
        matches!(answer, ServerResponse::SupportedProtocol { .. }),
        "{answer:?}"
    );
    assert_eq!(mixnet.counters().gateways[0].sessions, 1);
    assert!(mixnet.counters().gateways[0].node.malformed >= 6);
    mixnet.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_bound_are_closed() {
    let mut options = Options::default();
    options.limits.connections = 4;
    let mixnet = Mixnet::start(options).await.unwrap();
    let port = mixnet.gateways()[0].ws_port;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(dial(port).await);
    }
    let mut one_more = dial(port).await;
    let end = tokio::time::timeout(PATIENCE, one_more.read(&mut [0; 1])).await;
    assert!(matches!(end, Ok(Ok(0) | Err(_))), "{end:?}");
    drop(held);

    // Room again, as soon as it is noticed that they went.
    let room = async {
        let url = format!("ws://127.0.0.1:{port}/");
        while client_async(&url, dial(port).await).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("no room");
    mixnet.shutdown().await;
}

/// A registered client that is not the SDK's.
async fn register(gateway: &GatewayInfo) -> WebSocketStream<TcpStream> {
    let mut socket = socket(gateway).await;
    let keys = ed25519::KeyPair::new(&mut OsRng);
    let gateway_key = ed25519::PublicKey::from_base58_string(&gateway.identity).unwrap();
    let version = CURRENT_PROTOCOL_VERSION;
    let token = ShutdownToken::new();
    client_handshake(&mut OsRng, &mut socket, &keys, gateway_key, version, token)
        .await
        .unwrap();
    let answer = answer(&mut socket).await;
    assert!(
        matches!(answer, ServerResponse::Register { status: true, .. }),
        "{answer:?}"
    );
    socket
}
