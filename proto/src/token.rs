//! Tokens: what a contract gives, and what a call and a rating are paid with.
//!
//! Privacy Pass tokens (RFC 9577 section 2.2) without the fields that are the
//! same for everybody and known from the advert: nothing is left in which a
//! mark could travel. `dlambda-crypto` makes and checks them.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};

use crate::{Epoch, PlanName, RatingKeyId};

/// A token for one call: private verification, ristretto255 (token type 5).
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CallToken {
    /// The epoch whose key issued it.
    #[n(0)]
    pub epoch: Epoch,
    /// Random, chosen by its owner; the issuer has never seen it.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub nonce: [u8; 32],
    /// The VOPRF's output for it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub authenticator: [u8; 64],
}

/// A token for one rating: public verification, blind RSA (token type 2).
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct RatingToken {
    /// The epoch whose key issued it.
    #[n(0)]
    pub epoch: Epoch,
    /// The one-time key that signs the rating; it is the token's nonce.
    #[n(1)]
    pub key: RatingKeyId,
    /// The issuer's signature, 256 bytes.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub authenticator: Vec<u8>,
}

/// The key under which a plan's tokens of an epoch are issued.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct CallKey {
    /// The plan.
    #[n(0)]
    pub plan: PlanName,
    /// The VOPRF's public key: a ristretto255 element.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub key: [u8; 32],
}

/// Names a token key: SHA-256 of its public key (RFC 9578).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct TokenKeyId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl fmt::Debug for CallToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CallToken([scrubbed])")
    }
}

impl fmt::Debug for RatingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RatingToken([scrubbed])")
    }
}

impl fmt::Debug for CallKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallKey({})", self.plan)
    }
}

impl fmt::Debug for TokenKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKeyId([scrubbed])")
    }
}
