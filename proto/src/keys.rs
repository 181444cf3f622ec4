//! Ed25519 keys, typed by what they sign: a receipt key cannot sign a contract.

use std::fmt;
use std::marker::PhantomData;

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use minicbor::{CborLen, Decode, Encode};

/// What a key signs. Each purpose has domains of its own.
pub trait Purpose {
    /// The purpose's name, for people.
    const NAME: &'static str;
}

/// A public key (32 bytes) that verifies signatures of one purpose.
pub struct PublicKey<P>([u8; 32], PhantomData<P>);

/// The secret half. Erased from memory when dropped.
pub struct SecretKey<P>(SigningKey, PhantomData<P>);

macro_rules! purposes {
    ($($(#[$doc:meta])* $marker:ident $name:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $marker;

        impl Purpose for $marker {
            const NAME: &'static str = $name;
        }
    )*};
}

purposes! {
    /// A caller's side of one contract; made for it and never used again.
    ForContract "contract";
    /// A provider's receipts of one epoch.
    ForReceipts "receipt";
    /// The verdicts of an arbiter.
    ForVerdicts "verdict";
    /// The one rating that goes with one rating token.
    ForRating "rating";
}

/// A caller's one-time key for one contract.
pub type ContractKey = SecretKey<ForContract>;
/// The public half of a [`ContractKey`].
pub type ContractKeyId = PublicKey<ForContract>;
/// The key that signs an epoch's receipts.
pub type ReceiptKey = SecretKey<ForReceipts>;
/// The public half of a [`ReceiptKey`].
pub type ReceiptKeyId = PublicKey<ForReceipts>;
/// The key of an arbiter.
pub type ArbiterKey = SecretKey<ForVerdicts>;
/// The public half of an [`ArbiterKey`].
pub type ArbiterId = PublicKey<ForVerdicts>;
/// The one-time key that a rating token is bound to.
pub type RatingKey = SecretKey<ForRating>;
/// The public half of a [`RatingKey`].
pub type RatingKeyId = PublicKey<ForRating>;

impl<P: Purpose> PublicKey<P> {
    /// The key with these 32 bytes. Whether they are a key shows when it verifies.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes, PhantomData)
    }

    /// The 32 bytes of the key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key as lower-case hexadecimal.
    #[must_use]
    pub fn unredacted(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// Whether this key made `signature` over `message` in `domain`.
    #[must_use]
    pub fn verify(&self, domain: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
        verify(&self.0, domain, message, signature)
    }
}

impl<P: Purpose> SecretKey<P> {
    /// The key that this 32-byte seed (RFC 8032 section 5.1.5) stands for.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed), PhantomData)
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> PublicKey<P> {
        PublicKey::from_bytes(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`, separated from every other use of the key by `domain`.
    #[must_use]
    pub fn sign(&self, domain: &[u8], message: &[u8]) -> [u8; 64] {
        self.0.sign(&separated(domain, message)).to_bytes()
    }
}

/// Whether the Ed25519 key `public` made `signature`. Strict: small-order keys
/// and malleable signatures are refused.
pub(crate) fn verify(
    public: &[u8; 32],
    domain: &[u8],
    message: &[u8],
    signature: &[u8; 64],
) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(public) else {
        return false;
    };
    let signature = Signature::from_bytes(signature);
    key.verify_strict(&separated(domain, message), &signature)
        .is_ok()
}

/// `domain || 0x00 || message`; no domain contains a zero byte, so no two
/// domains can produce the same string.
pub(crate) fn separated(domain: &[u8], message: &[u8]) -> Vec<u8> {
    debug_assert!(!domain.contains(&0), "a domain has no zero byte");
    [domain, &[0], message].concat()
}

impl<P> Clone for PublicKey<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for PublicKey<P> {}

impl<P> PartialEq for PublicKey<P> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<P> Eq for PublicKey<P> {}

impl<P: Purpose> fmt::Debug for PublicKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}, [scrubbed])", P::NAME)
    }
}

impl<P: Purpose> fmt::Debug for SecretKey<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({}, [scrubbed])", P::NAME)
    }
}

impl<P, C> Encode<C> for PublicKey<P> {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<P, C> CborLen<C> for PublicKey<P> {
    fn cbor_len(&self, _: &mut C) -> usize {
        2 + 32
    }
}

impl<'b, P, C> Decode<'b, C> for PublicKey<P> {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?.try_into();
        bytes
            .map(|bytes| Self(bytes, PhantomData))
            .map_err(|_| minicbor::decode::Error::message("not a key"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    #[test]
    fn a_key_verifies_what_its_secret_signed_and_nothing_else() {
        let key = ReceiptKey::from_seed(&[7; 32]);
        let signature = key.sign(b"one", b"message");
        assert!(key.id().verify(b"one", b"message", &signature));
        assert!(!key.id().verify(b"two", b"message", &signature));
        assert!(!key.id().verify(b"one", b"massage", &signature));
        let other = ReceiptKey::from_seed(&[8; 32]);
        assert!(!other.id().verify(b"one", b"message", &signature));
    }

    #[test]
    fn keys_survive_the_wire_and_say_nothing() {
        let id = ContractKey::from_seed(&[7; 32]).id();
        assert_eq!(decode(&encode(&id)), Ok(id));
        assert!(!format!("{id:?}").contains(&id.unredacted()));
    }
}
