//! The network as the nym-api tells it: four answers that do not change.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{LAYERS, node::Identity};

/// Epoch 100 of rotations of 24 epochs is in the fifth rotation, number 4. The
/// SDK takes 0 as unknown.
const EPOCH: u32 = 100;
const ROTATION_EPOCHS: u32 = 24;
const ROTATION: u32 = EPOCH / ROTATION_EPOCHS;
/// Longer than any test network lives: keys never rotate.
const EPOCH_LENGTH: Duration = Duration::from_secs(24 * 3600);

/// One node in the directory.
pub(crate) struct Entry<'a> {
    pub(crate) identity: &'a Identity,
    /// Where clients connect, at a gateway.
    pub(crate) ws: Option<SocketAddr>,
}

/// The bodies of all answers, in JSON, by path.
pub(crate) fn pages(nodes: &[Entry<'_>]) -> HashMap<&'static str, String> {
    let now = OffsetDateTime::now_utc()
        .format(&Rfc3339)
        .unwrap_or_default();
    let (gateways, mixes): (Vec<_>, Vec<_>) = nodes.iter().partition(|node| node.ws.is_some());
    [
        ("/v1/epoch/key-rotation-info", rotation(&now)),
        ("/v1/nym-nodes/rewarded-set", rewarded_set(nodes)),
        (
            "/v2/unstable/nym-nodes/skimmed/mixnodes/active",
            listing(&mixes, &now),
        ),
        (
            "/v2/unstable/nym-nodes/skimmed/entry-gateways",
            listing(&gateways, &now),
        ),
    ]
    .map(|(path, page)| (path, page.to_string()))
    .into()
}

fn rotation(now: &str) -> Value {
    let first = ROTATION * ROTATION_EPOCHS;
    json!({
        "key_rotation_state": { "validity_epochs": ROTATION_EPOCHS, "initial_epoch_id": 0 },
        "current_absolute_epoch_id": EPOCH,
        "current_epoch_start": now,
        "epoch_duration": { "secs": EPOCH_LENGTH.as_secs(), "nanos": 0 },
        "progress": {
            "current_key_rotation_id": ROTATION,
            "current_rotation_starting_epoch": first,
            "current_rotation_ending_epoch": first + ROTATION_EPOCHS - 1,
        },
    })
}

fn rewarded_set(nodes: &[Entry<'_>]) -> Value {
    let ids = |layer: Option<u8>| -> Vec<u32> {
        let here = nodes.iter().filter(|node| node.identity.layer == layer);
        here.map(|node| node.identity.id).collect()
    };
    let mut set = json!({
        "epoch_id": EPOCH,
        "entry_gateways": ids(None),
        "exit_gateways": ids(None),
        "standby": [],
    });
    for layer in 1..=LAYERS {
        set[format!("layer{layer}")] = json!(ids(Some(layer)));
    }
    set
}

fn listing(nodes: &[&Entry<'_>], now: &str) -> Value {
    let data: Vec<Value> = nodes.iter().map(|node| skim(node)).collect();
    json!({
        "metadata": {
            "status": null,
            "absolute_epoch_id": EPOCH,
            "rotation_id": ROTATION,
            "refreshed_at": now,
        },
        "nodes": {
            "pagination": { "total": data.len(), "page": 0, "size": data.len() },
            "data": data,
        },
    })
}

fn skim(node: &Entry<'_>) -> Value {
    let Entry { identity, ws } = node;
    let is_gateway = ws.is_some();
    json!({
        "node_id": identity.id,
        "ed25519_identity_pubkey": identity.signing.public_key().to_base58_string(),
        "ip_addresses": [identity.address.ip()],
        "mix_port": identity.address.port(),
        "x25519_sphinx_pubkey": identity.sphinx.public_key().to_base58_string(),
        "role": identity.layer.map_or(json!("EntryGateway"), |layer| {
            json!({ "Mixnode": { "layer": layer } })
        }),
        "supported_roles": {
            "mixnode": !is_gateway,
            "entry": is_gateway,
            "exit_nr": is_gateway,
            "exit_ipr": is_gateway,
        },
        "entry": ws.map(|ws| json!({ "hostname": null, "ws_port": ws.port(), "wss_port": null })),
        "performance": "1",
    })
}
