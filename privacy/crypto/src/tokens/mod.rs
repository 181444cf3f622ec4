//! Tokens that pay for calls and ratings without saying whose they are.
//!
//! Privacy Pass (RFC 9576 to 9578): the issuer evaluates *blinded* tokens when a
//! contract is made, and later checks tokens that it has never seen.
//!
//! * Call tokens ([`CallIssuer`], [`BlindedCalls`]) are batched VOPRF tokens on
//!   ristretto255 with one proof for the batch: all were evaluated with the
//!   advertised key, so a key of one's own cannot mark a caller.
//! * Rating tokens ([`RatingIssuer`], [`BlindedRatings`]) are blind RSA, since
//!   everybody must be able to check them.
//!
//! Everything is a function of its arguments. On the caller's side all
//! randomness comes from one seed, so that a request lost in a crash can be
//! made again, bit for bit.

mod call;
mod rating;
#[cfg(test)]
mod tests;

use dlambda_proto::{Epoch, ProviderId};
use hkdf::Hkdf;
use privacypass::auth::authenticate::TokenChallenge;
use privacypass::{TokenType, public_tokens};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use call::{BlindedCalls, CallIssuer, call_key_id};
pub use rating::{BlindedRatings, BoundRating, RatingIssuer, rating_key_id, verify_rating};

/// Bytes of an RSA-2048 signature.
const RSA: usize = public_tokens::NK;

/// What the tokens of a key are for: provider, epoch and plan. Bound into every
/// token, so that a provider that advertises another's key gains nothing.
fn challenge(
    kind: TokenType,
    provider: &ProviderId,
    epoch: Epoch,
    purpose: &str,
) -> TokenChallenge {
    let mut context = Sha256::new();
    context.update(b"dlambda/token/v1\0");
    context.update(provider.as_bytes());
    context.update(epoch.0.to_be_bytes());
    context.update(purpose);
    let context = context.finalize().into();
    // A shortened form would be enough; the whole id costs nothing here.
    let issuer = provider.unredacted();
    TokenChallenge::new(kind, &issuer, Some(context), &[])
}

/// 32 bytes for one use of a seed.
fn derive(seed: &[u8; 32], label: &str, index: u16) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    let info = [label.as_bytes(), b"\0", &index.to_be_bytes()].concat();
    if Hkdf::<Sha256>::new(None, seed)
        .expand(&info, &mut *out)
        .is_err()
    {
        unreachable!("32 bytes are within what HKDF gives");
    }
    out
}

/// The seed of the one-time key that signs a contract, from the seed that its
/// tokens are made of.
#[must_use]
pub fn contract_key_seed(seed: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    derive(seed, "dlambda/contract-key/v1", 0)
}
