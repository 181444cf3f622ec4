//! A client's websocket: packets in, messages out.

use std::{sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use nym_gateway_requests::{
    BandwidthResponse, BinaryRequest, BinaryResponse, ClientControlRequest, ClientRequest,
    SendResponse, SensitiveServerResponse, ServerResponse, SharedSymmetricKey,
};
use tokio_tungstenite::{
    WebSocketStream, accept_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};
use tokio_util::sync::CancellationToken;

use super::{
    Desk,
    clients::Client,
    login::{BANDWIDTH, login},
};
use crate::tap::WatchedStream;

/// A client's connection.
pub(super) type Socket = WebSocketStream<WatchedStream>;

/// How long a connection may take to become a client's session.
const LOGIN_TIME: Duration = Duration::from_secs(60);
/// The longest websocket message: the largest packet there is and some.
const MAX_MESSAGE: usize = 64 << 10;
/// The shortest binary request worth a look: kind, flag and a 12-byte nonce.
const MIN_REQUEST: usize = 14;

/// Serves one connection until it ends, is replaced by another of the same
/// client, or `kicked`.
pub(super) async fn serve(desk: Arc<Desk>, stream: WatchedStream, kicked: CancellationToken) {
    let login = async {
        let mut socket = accept_async_with_config(stream, Some(bounds()))
            .await
            .ok()?;
        let client = login(&desk, &mut socket).await?;
        Some((socket, client))
    };
    let session = kicked.child_token();
    let login = session.run_until_cancelled(tokio::time::timeout(LOGIN_TIME, login));
    let Some(Ok(Some((mut socket, client)))) = Box::pin(login).await else {
        return;
    };
    client.begin(session.clone());
    desk.clients.logins.up();
    // Also when the task is dropped midway: a cancelled session is no session.
    let over = session.clone().drop_guard();
    session
        .run_until_cancelled(exchange(&desk, &client, &mut socket))
        .await;
    drop(over);
}

/// Sends one message; nothing when the connection is gone.
pub(super) async fn send(socket: &mut Socket, message: impl Into<Message>) -> Option<()> {
    socket.send(message.into()).await.ok()
}

async fn exchange(desk: &Desk, client: &Client, socket: &mut Socket) {
    let key = client.key();
    loop {
        let served = tokio::select! {
            message = socket.next() => match message {
                Some(Ok(message)) => request(desk, client, &key, socket, message).await,
                Some(Err(_)) | None => None,
            },
            message = client.next() => push(desk, client, &key, socket, message).await,
        };
        if served.is_none() {
            return;
        }
    }
}

async fn push(
    desk: &Desk,
    client: &Client,
    key: &SharedSymmetricKey,
    socket: &mut Socket,
    message: Vec<u8>,
) -> Option<()> {
    let again = message.clone();
    let frame = BinaryResponse::PushedMixMessage { message }
        .into_ws_message(key)
        .ok()?;
    if send(socket, frame).await.is_none() {
        client.put_back(again);
        return None;
    }
    desk.clients.pushed.up();
    Some(())
}

async fn request(
    desk: &Desk,
    client: &Client,
    key: &SharedSymmetricKey,
    socket: &mut Socket,
    message: Message,
) -> Option<()> {
    match message {
        Message::Binary(bytes) => {
            let answer = forward(desk, key, bytes).await;
            send(socket, answer).await
        }
        Message::Text(text) => {
            let answer = control(desk, client, key, &text);
            send(socket, answer).await
        }
        Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => Some(()),
        Message::Close(_) => None,
    }
}

/// Sends a client's packet to layer 1.
async fn forward(desk: &Desk, key: &SharedSymmetricKey, bytes: Vec<u8>) -> ServerResponse {
    // Shorter ones, and those said to be plain text, are not asked of the
    // decoder: it indexes past the end of a short plain one.
    let is_plausible = bytes.len() >= MIN_REQUEST && bytes.get(1) == Some(&1);
    let request = is_plausible
        .then(|| BinaryRequest::try_from_encrypted_tagged_bytes(bytes, key).ok())
        .flatten();
    let Some(BinaryRequest::ForwardSphinx { packet } | BinaryRequest::ForwardSphinxV2 { packet }) =
        request
    else {
        desk.node.tally.malformed.up();
        return ServerResponse::new_error("no such packet");
    };
    desk.clients.sent.up();
    desk.forwarder.send(packet).await;
    ServerResponse::Send(SendResponse {
        remaining_bandwidth: BANDWIDTH,
        upgrade_mode: false,
    })
}

fn control(desk: &Desk, client: &Client, key: &SharedSymmetricKey, text: &str) -> ServerResponse {
    match text.parse() {
        Ok(ClientControlRequest::SupportedProtocol {}) => ServerResponse::SupportedProtocol {
            version: nym_gateway_requests::CURRENT_PROTOCOL_VERSION,
        },
        Ok(ClientControlRequest::ClaimFreeTestnetBandwidth) => {
            ServerResponse::Bandwidth(BandwidthResponse {
                available_total: BANDWIDTH,
                upgrade_mode: false,
            })
        }
        Ok(ClientControlRequest::EncryptedRequest { ciphertext, nonce }) => {
            let answer = ClientRequest::decrypt(&ciphertext, &nonce, key)
                .and_then(|request| remember(desk, client, &request).encrypt(key));
            answer.unwrap_or_else(|_| refuse(desk, "cannot decrypt this"))
        }
        Ok(other) => ServerResponse::new_error(format!("no {} here", other.name())),
        Err(_) => refuse(desk, "no such request"),
    }
}

fn remember(desk: &Desk, client: &Client, request: &ClientRequest) -> SensitiveServerResponse {
    match request {
        ClientRequest::ForgetMe { client: forget, .. } => {
            if *forget {
                desk.clients.forget(&client.id);
            }
            SensitiveServerResponse::ForgetMeAck {}
        }
        _ => SensitiveServerResponse::RememberMeAck {},
    }
}

fn refuse(desk: &Desk, why: &str) -> ServerResponse {
    desk.node.tally.malformed.up();
    ServerResponse::new_error(why)
}

fn bounds() -> WebSocketConfig {
    WebSocketConfig {
        max_message_size: Some(MAX_MESSAGE),
        max_frame_size: Some(MAX_MESSAGE),
        max_write_buffer_size: 1 << 20,
        ..WebSocketConfig::default()
    }
}
