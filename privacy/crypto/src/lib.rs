//! What is sealed, padded and paid with.
//!
//! The per-call [sealing](seal) of requests and replies, the [tokens] that pay
//! for calls without saying whose they are, the [negotiation] that gives them,
//! proof of work for contracts ([pow]) and for the overlay ([work]), the frames
//! of [guests](guest), and [padding].
//!
//! # Not in this crate
//!
//! No I/O, no clock, and no randomness but what is passed in.

#![forbid(unsafe_code)]

mod error;
pub mod guest;
pub mod negotiation;
pub mod padding;
pub mod pow;
pub mod seal;
pub mod tokens;
pub mod work;

pub use error::{NegotiationError, SealError, TokenError};

#[cfg(test)]
fn os_rng() -> impl rand_core::CryptoRng {
    rand_core::UnwrapErr(getrandom::SysRng)
}
