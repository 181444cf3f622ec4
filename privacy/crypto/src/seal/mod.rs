//! Sealing: one fresh key for every call, gone with the call.
//!
//! A request is sealed with HPKE base mode (RFC 9180): DHKEM(X25519,
//! HKDF-SHA256), HKDF-SHA256, ChaCha20-Poly1305, to the key that the provider
//! advertises for the epoch. The reply is sealed under a key exported from the
//! same context (as in RFC 9458 section 4.4). The provider thus sees one
//! random 32-byte string per call and nothing that two calls share. Messages of
//! issuance ([`SealedContractRequest`]) are sealed in the same way, each
//! under a key of its own, and all padded to one size.
//!
//! The types are one-way: a [`SealedCall`] opens one reply and is consumed by
//! it; a [`ReplySealer`] seals one reply and is consumed by it.

mod client;
mod contract;
mod hybrid;
mod provider;
mod reply;
#[cfg(test)]
mod vectors;

pub use client::SealedCall;
pub use contract::{AnswerSealer, OpenedContractRequest, SealedContractRequest};
pub use provider::{OpenedCall, ReplySealer, SealingSecret};

use dlambda_proto::ProviderId;

type Aead = hpke::aead::ChaCha20Poly1305;
type Kdf = hpke::kdf::HkdfSha256;
type Kem = hpke::kem::X25519HkdfSha256;
type Secret = <Kem as hpke::Kem>::PrivateKey;

/// HPKE `info`: what the key is used for, and whose key it is, so that a call
/// cannot be passed off to another provider that copied the key into its advert.
fn call_info(provider: &ProviderId) -> Vec<u8> {
    [b"dlambda/call/v1\0".as_slice(), provider.as_bytes()].concat()
}

/// The same for messages of issuance.
fn contract_info(provider: &ProviderId) -> Vec<u8> {
    [b"dlambda/contract/v1\0".as_slice(), provider.as_bytes()].concat()
}
