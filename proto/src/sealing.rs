//! The key that calls and contracts are sealed to: signed by the identity, and
//! not a part of the advert.
//!
//! Its secret half lives in the memory of one run of the provider, so a restart
//! needs another key while the epoch, and with it the advert, goes on. A key
//! of its own for each visitor would tell a provider nothing: the key is used on
//! the stream that brought it, and nothing of it is kept or shown anywhere else.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};

use crate::{Advert, AdvertError, Epoch, IdentityKey, ProviderId, encode};

const DOMAIN: &[u8] = b"dlambda/sealing-key/v1";

/// Whom to seal to. From [`SignedSealingKey::verify`], or the provider's own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SealingKey {
    /// Whose key it is.
    pub provider: ProviderId,
    /// The epoch that it is good for.
    pub epoch: Epoch,
    /// The HPKE public key: DHKEM(X25519, HKDF-SHA256).
    pub key: [u8; 32],
}

/// A sealing key with a signature that is not checked yet.
#[derive(Clone, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
pub struct SignedSealingKey {
    #[cbor(n(0), with = "minicbor::bytes")]
    key: [u8; 32],
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

/// What is signed: `[provider id, epoch, key]`.
#[derive(Encode, CborLen)]
#[cbor(array)]
struct Statement<'a> {
    #[n(0)]
    provider: &'a ProviderId,
    #[n(1)]
    epoch: Epoch,
    #[cbor(n(2), with = "minicbor::bytes")]
    key: &'a [u8; 32],
}

impl SealingKey {
    /// Signs the key with the identity that it names.
    ///
    /// # Errors
    ///
    /// [`AdvertError::Signature`] if `identity` is another.
    pub fn sign(&self, identity: &IdentityKey) -> Result<SignedSealingKey, AdvertError> {
        if identity.id() != self.provider {
            return Err(AdvertError::Signature);
        }
        Ok(SignedSealingKey {
            key: self.key,
            signature: identity.sign(DOMAIN, &self.statement()),
        })
    }

    fn statement(&self) -> Vec<u8> {
        encode(&Statement {
            provider: &self.provider,
            epoch: self.epoch,
            key: &self.key,
        })
    }
}

impl SignedSealingKey {
    /// Believes the key if the provider of this advert signed it for the advert's epoch.
    ///
    /// # Errors
    ///
    /// [`AdvertError::SealingKey`] if it did not.
    pub fn verify(&self, advert: &Advert) -> Result<SealingKey, AdvertError> {
        let key = SealingKey {
            provider: advert.provider,
            epoch: advert.epoch,
            key: self.key,
        };
        let is_signed = key
            .provider
            .verify(DOMAIN, &key.statement(), &self.signature);
        is_signed.then_some(key).ok_or(AdvertError::SealingKey)
    }
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({:?}, [scrubbed])", self.epoch)
    }
}

impl fmt::Debug for SignedSealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedSealingKey([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Endpoint, OnionAddress, ReceiptKey, UnixSeconds};

    fn advert(identity: &IdentityKey, epoch: u64) -> Advert {
        Advert::minimal(
            identity.id(),
            Epoch(epoch),
            UnixSeconds(1_000_000),
            ReceiptKey::from_seed(&[2; 32]).id(),
            Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
        )
    }

    #[test]
    fn a_sealing_key_is_good_for_its_provider_and_epoch_only() {
        let (identity, other) = ([1; 32], [2; 32]);
        let [identity, other] = [identity, other].map(|seed| IdentityKey::from_seed(&seed));
        let key = SealingKey {
            provider: identity.id(),
            epoch: Epoch(3),
            key: [7; 32],
        };
        let signed = key.sign(&identity).expect("signs");
        assert_eq!(signed.verify(&advert(&identity, 3)), Ok(key));
        for elsewhere in [advert(&identity, 4), advert(&other, 3)] {
            assert_eq!(signed.verify(&elsewhere), Err(AdvertError::SealingKey));
        }
        let exchanged = SignedSealingKey {
            key: [8; 32],
            ..signed
        };
        let refused = exchanged.verify(&advert(&identity, 3));
        assert_eq!(refused, Err(AdvertError::SealingKey));
        assert_eq!(key.sign(&other), Err(AdvertError::Signature));
    }
}
