//! A private mixnet on loopback, for tests and demos of what runs over Nym.
//!
//! [`Mixnet::start`] brings up three layers of mix nodes, gateways that are
//! both entries and exits, and the routes of the nym-api that a client asks,
//! all as tasks of the calling process and all on 127.0.0.1. An unmodified
//! `nym_sdk` client works through it when its nym-api is [`Mixnet::api_url`].
//!
//! Packets, framing, handshake and client are Nym's published code; accept
//! loops, timers, forwarding, inboxes and HTTP are ours. `README.md` beside
//! this crate lists what is not exercised.
//!
//! Not here: real nodes. Passing here is no proof of passing on mainnet.

#![forbid(unsafe_code)]

mod api;
mod bind;
mod capture;
mod counters;
mod directory;
mod error;
mod gateway;
mod network;
mod node;
mod options;
mod run;
mod tap;

pub use capture::{Capture, CaptureFile, Captured};
pub use counters::{GatewayCounters, LayerCounters, NetworkCounters, NodeCounters};
pub use error::MixnetError;
pub use network::{GatewayInfo, MixInfo, Mixnet};
pub use options::{LAYERS, Limits, MAX_NODES, Options};
pub use tap::{Direction, Link, Tap};
