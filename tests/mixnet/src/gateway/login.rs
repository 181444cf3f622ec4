//! How a client comes to have a session: protocol, registration, authentication.

use std::{sync::Arc, time::Duration};

use futures::StreamExt;
use nym_gateway_requests::{
    AuthenticationFailure, CURRENT_PROTOCOL_VERSION, ClientControlRequest, GatewayProtocolVersion,
    ServerResponse, registration::handshake::gateway_handshake,
    text_request::authenticate::AuthenticateRequest,
};
use nym_task::ShutdownToken;
use rand::rngs::OsRng;
use tokio_tungstenite::tungstenite::Message;

use super::{
    Desk,
    clients::Client,
    session::{Socket, send},
};

/// What every client is told it may still send, in bytes: there is no metering.
pub(super) const BANDWIDTH: i64 = 1 << 40;
/// How far a client's clock may be off when it authenticates.
const CLOCK_SKEW: Duration = Duration::from_secs(120);

/// Talks to whoever connected until it is a client; nobody when it leaves or
/// cannot become one.
pub(super) async fn login(desk: &Desk, socket: &mut Socket) -> Option<Arc<Client>> {
    while let Some(Ok(message)) = socket.next().await {
        let text = match message {
            Message::Text(text) => text,
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Binary(_) | Message::Frame(_) => {
                desk.node.tally.malformed.up();
                return None;
            }
            Message::Close(_) => return None,
        };
        match text.parse() {
            Ok(ClientControlRequest::SupportedProtocol {}) => {
                let version = CURRENT_PROTOCOL_VERSION;
                send(socket, ServerResponse::SupportedProtocol { version }).await?;
            }
            Ok(ClientControlRequest::RegisterHandshakeInitRequest {
                protocol_version,
                data,
            }) => return register(desk, socket, protocol_version, data).await,
            Ok(ClientControlRequest::AuthenticateV2(request)) => {
                return authenticate(desk, socket, &request).await;
            }
            Ok(other) => {
                let refusal = format!("{} needs authentication", other.name());
                send(socket, ServerResponse::new_error(refusal)).await?;
            }
            Err(_) => {
                desk.node.tally.malformed.up();
                send(socket, ServerResponse::new_error("no such request")).await?;
            }
        }
    }
    None
}

async fn register(
    desk: &Desk,
    socket: &mut Socket,
    version: GatewayProtocolVersion,
    data: Vec<u8>,
) -> Option<Arc<Client>> {
    // The handshake fails unless the client signs with this key.
    let id = data.first_chunk::<32>().copied();
    let identity = &desk.node.identity.signing;
    let token = ShutdownToken::new();
    let handshake = gateway_handshake(&mut OsRng, socket, identity, data, version, token).await;
    let (Some(id), Ok(handshake)) = (id, handshake) else {
        desk.node.tally.malformed.up();
        return None;
    };
    let Some(client) = desk.clients.register(id, handshake.derived_key) else {
        desk.node.tally.overflowed.up();
        send(socket, ServerResponse::new_error("too many clients")).await?;
        return None;
    };
    let answer = ServerResponse::Register {
        protocol_version: handshake.negotiated_protocol,
        status: true,
        upgrade_mode: false,
    };
    send(socket, answer).await?;
    Some(client)
}

async fn authenticate(
    desk: &Desk,
    socket: &mut Socket,
    request: &AuthenticateRequest,
) -> Option<Arc<Client>> {
    match verify(desk, request) {
        Ok(client) => {
            let answer = ServerResponse::Authenticate {
                protocol_version: request
                    .content
                    .protocol_version
                    .min(CURRENT_PROTOCOL_VERSION),
                status: true,
                bandwidth_remaining: BANDWIDTH,
                upgrade_mode: false,
            };
            send(socket, answer).await?;
            Some(client)
        }
        Err(refusal) => {
            desk.node.tally.malformed.up();
            send(socket, ServerResponse::new_error(refusal.to_string())).await?;
            None
        }
    }
}

fn verify(
    desk: &Desk,
    request: &AuthenticateRequest,
) -> Result<Arc<Client>, AuthenticationFailure> {
    let client = desk
        .clients
        .get(request.content.client_identity.as_bytes())
        .ok_or(AuthenticationFailure::NotRegistered)?;
    request.verify_timestamp(CLOCK_SKEW)?;
    request.verify_ciphertext(&client.key())?;
    request.verify_signature()?;
    Ok(client)
}
