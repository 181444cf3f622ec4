//! Who sees what.
//!
//! Everything that decides what a stranger can learn is in this crate: the
//! [transports](transport) that reach the outside, the per-call
//! [sealing](seal) of requests and replies, the [tokens] that pay for calls
//! without saying whose they are, the [negotiation] that gives them, and
//! [padding]. No other crate of the workspace may open a connection.
//!
//! # Not in this crate
//!
//! No decision about *whom* to call or *whether* to serve, and no storage
//! beyond what Tor itself keeps.

#![forbid(unsafe_code)]

pub mod clock;
mod error;
pub mod exchange;
pub mod logging;
pub mod negotiation;
pub mod network;
pub mod padding;
pub mod seal;
pub mod tokens;
pub mod transport;
pub mod wire;
pub mod work;

pub use error::{
    ExchangeError, NegotiationError, NetworkFileError, SealError, TokenError, TransportError,
    WireError,
};

/// The operating system's random number generator.
///
/// # Panics
///
/// Using it panics if the operating system cannot give random bytes: no
/// secret could be made safely then.
#[must_use]
pub fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
