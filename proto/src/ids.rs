//! Who and what: provider identities, functions by content, epochs.
//!
//! `Debug` of anything that could point at a person or a function is
//! scrubbed, so that a careless log line cannot leak it. Code that means to show
//! one says so with `unredacted()`.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use ed25519_dalek::{Signer as _, SigningKey};
use minicbor::{CborLen, Decode, Encode};
use multihash::Multihash;
use sha2::{Digest as _, Sha256};

use crate::{IdError, keys};

/// A provider's long-lived identity: its Ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct ProviderId(#[cbor(n(0), with = "minicbor::bytes")] [u8; 32]);

/// The secret half of a provider's identity. Signs adverts and
/// contracts and nothing else; erased from memory when dropped.
pub struct IdentityKey(SigningKey);

/// A function, named by its content: CIDv1, raw codec, SHA2-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId([u8; 32]);

/// A provider's key period. Numbers only grow; each has its own keys.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Encode,
    Decode,
    CborLen,
    serde::Serialize,
    serde::Deserialize,
)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Epoch(#[n(0)] pub u64);

impl ProviderId {
    /// The identity as lower-case hexadecimal, for people and for JSON.
    #[must_use]
    pub fn unredacted(&self) -> String {
        data_encoding::HEXLOWER.encode(&self.0)
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Whether this identity made `signature` over `message` in `domain`.
    #[must_use]
    pub fn verify(&self, domain: &[u8], message: &[u8], signature: &[u8; 64]) -> bool {
        keys::verify(&self.0, domain, message, signature)
    }
}

impl IdentityKey {
    /// The key that this 32-byte seed (RFC 8032 section 5.1.5) stands for.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// The public half.
    #[must_use]
    pub fn id(&self) -> ProviderId {
        ProviderId(self.0.verifying_key().to_bytes())
    }

    /// Signs `message`, separated from every other use of the key by `domain`.
    #[must_use]
    pub fn sign(&self, domain: &[u8], message: &[u8]) -> [u8; 64] {
        self.0.sign(&keys::separated(domain, message)).to_bytes()
    }
}

impl FunctionId {
    /// CIDv1 header: version 1, codec raw, multihash SHA2-256 of 32 bytes.
    const CID_PREFIX: [u8; 4] = [0x01, 0x55, 0x12, 0x20];
    const RAW: u64 = 0x55;
    const SHA2_256: u64 = 0x12;

    /// The id of these bytes.
    #[must_use]
    pub fn of(wasm: &[u8]) -> Self {
        Self(Sha256::digest(wasm).into())
    }

    /// The id whose SHA2-256 digest is `digest`.
    #[must_use]
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(digest)
    }

    /// The SHA2-256 digest inside the id.
    #[must_use]
    pub fn digest(&self) -> &[u8; 32] {
        &self.0
    }

    /// The CID in its usual text form (base32, begins with `bafkrei`).
    #[must_use]
    pub fn unredacted(&self) -> String {
        match Multihash::<64>::wrap(Self::SHA2_256, &self.0) {
            Ok(hash) => Cid::new_v1(Self::RAW, hash).to_string(),
            Err(_) => unreachable!("32 bytes fit into a 64-byte multihash"),
        }
    }
}

impl FromStr for FunctionId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        // The longest text form of a 36-byte CID is far below this.
        if text.len() > 128 {
            return Err(IdError::Function("too long"));
        }
        let cid = Cid::try_from(text).map_err(|_| IdError::Function("not a CID"))?;
        if cid.version() != cid::Version::V1 || cid.codec() != Self::RAW {
            return Err(IdError::Function("expected CIDv1 with the raw codec"));
        }
        if cid.hash().code() != Self::SHA2_256 {
            return Err(IdError::Function("expected SHA2-256"));
        }
        let digest = cid
            .hash()
            .digest()
            .try_into()
            .map_err(|_| IdError::Function("expected a 32-byte digest"))?;
        Ok(Self(digest))
    }
}

impl<C> Encode<C> for FunctionId {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut bytes = [0; 36];
        bytes[..4].copy_from_slice(&Self::CID_PREFIX);
        bytes[4..].copy_from_slice(&self.0);
        e.bytes(&bytes)?.ok()
    }
}

impl<C> CborLen<C> for FunctionId {
    fn cbor_len(&self, _: &mut C) -> usize {
        2 + 36
    }
}

impl<'b, C> Decode<'b, C> for FunctionId {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let bytes = d.bytes()?;
        bytes
            .strip_prefix(&Self::CID_PREFIX)
            .and_then(|digest| digest.try_into().ok())
            .map(Self)
            .ok_or_else(|| minicbor::decode::Error::message("not a raw SHA2-256 CIDv1"))
    }
}

impl Epoch {
    /// The epoch after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProviderId([scrubbed])")
    }
}

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityKey([scrubbed])")
    }
}

impl fmt::Debug for FunctionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionId([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    #[test]
    fn function_ids_are_what_other_tools_compute() {
        // The CID that IPFS tools give the empty raw block.
        let id = FunctionId::of(b"");
        assert_eq!(
            id.unredacted(),
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
        );
        assert_eq!(id.unredacted().parse(), Ok(id));
        assert_eq!(decode(&encode(&id)), Ok(id));
    }

    #[test]
    fn refuses_other_cids() {
        for text in [
            "",
            "hello",
            // CIDv0, and CIDv1 with the dag-pb codec.
            "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWnPbdG",
            "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi",
            &"b".repeat(4096),
        ] {
            assert!(text.parse::<FunctionId>().is_err(), "{text}");
        }
    }

    #[test]
    fn signatures_hold_in_their_domain_only() {
        let key = IdentityKey::from_seed(&[7; 32]);
        let signature = key.sign(b"one", b"message");
        assert!(key.id().verify(b"one", b"message", &signature));
        assert!(!key.id().verify(b"two", b"message", &signature));
        assert!(!key.id().verify(b"one", b"massage", &signature));
        let other = IdentityKey::from_seed(&[8; 32]);
        assert!(!other.id().verify(b"one", b"message", &signature));
    }

    #[test]
    fn debug_output_says_nothing() {
        let id = FunctionId::of(b"secret");
        assert!(!format!("{id:?}").contains(&id.unredacted()));
        let provider = IdentityKey::from_seed(&[7; 32]).id();
        assert!(!format!("{provider:?}").contains(&provider.unredacted()));
    }
}
