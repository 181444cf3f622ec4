//! Who sees what.
//!
//! The [transports](transport) that reach the outside, and the
//! [exchanges](exchange) over them. No other crate of the workspace may open a
//! connection. What is sealed, padded and paid with is made in
//! [`dlambda_crypto`], which does no I/O.
//!
//! # Not in this crate
//!
//! No decision about *whom* to call or *whether* to serve, and no storage
//! beyond what Tor itself keeps.

#![forbid(unsafe_code)]

mod budget;
pub mod clock;
mod error;
pub mod exchange;
pub mod logging;
pub mod network;
pub mod process;
pub mod swap;
pub mod transport;
pub mod wire;

pub use error::{ExchangeError, NetworkFileError, TransportError, WireError};

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
