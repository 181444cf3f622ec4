//! The address of a client of the Nym mixnet.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::VerifyingKey;

use crate::IdError;

const KEY: usize = 32;

/// A Nym client's address as Nym writes it, `identity.encryption@gateway`: an
/// Ed25519, an X25519 and another Ed25519 public key in base58.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NymAddress([u8; 3 * KEY]);

impl NymAddress {
    /// The address with these keys: identity, encryption, gateway.
    ///
    /// # Errors
    ///
    /// [`IdError::Nym`] if an identity is no Ed25519 key.
    pub fn from_bytes(bytes: [u8; 3 * KEY]) -> Result<Self, IdError> {
        let address = Self(bytes);
        let [identity, _, gateway] = address.keys();
        for key in [identity, gateway] {
            VerifyingKey::from_bytes(key).map_err(|_| IdError::Nym("a key of it is no key"))?;
        }
        Ok(address)
    }

    /// The keys: identity, encryption, gateway.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 3 * KEY] {
        &self.0
    }

    /// The address as people write it.
    #[must_use]
    pub fn unredacted(&self) -> String {
        let [identity, encryption, gateway] =
            self.keys().map(|key| bs58::encode(key).into_string());
        format!("{identity}.{encryption}@{gateway}")
    }

    fn keys(&self) -> [&[u8; KEY]; 3] {
        let mut keys = self.0.as_chunks().0.iter();
        std::array::from_fn(|_| keys.next().unwrap_or(&[0; KEY]))
    }
}

impl FromStr for NymAddress {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let shape = || IdError::Nym("it is not of the form identity.encryption@gateway");
        let (client, gateway) = text.split_once('@').ok_or_else(shape)?;
        let (identity, encryption) = client.split_once('.').ok_or_else(shape)?;
        let mut bytes = [0; 3 * KEY];
        let parts = [identity, encryption, gateway];
        for (part, into) in parts.into_iter().zip(bytes.chunks_exact_mut(KEY)) {
            let written = bs58::decode(part).onto(&mut *into);
            if written != Ok(KEY) {
                return Err(IdError::Nym("a key of it is not 32 bytes in base58"));
            }
        }
        Self::from_bytes(bytes)
    }
}

impl fmt::Debug for NymAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NymAddress([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The base point of Ed25519, and other bytes.
    fn address() -> NymAddress {
        let mut base = [0x66; KEY];
        base[0] = 0x58;
        let mut bytes = [0; 3 * KEY];
        bytes[..KEY].copy_from_slice(&base);
        bytes[KEY + 3] = 9;
        bytes[2 * KEY..].copy_from_slice(&base);
        NymAddress::from_bytes(bytes).expect("keys")
    }

    #[test]
    fn survives_being_written() {
        let text = address().unredacted();
        assert_eq!(text.parse(), Ok(address()));
        assert!(!format!("{:?}", address()).contains(&text[..6]));
    }

    #[test]
    fn refuses_what_is_no_address() {
        let good = address().unredacted();
        for text in [
            String::new(),
            ".@".to_owned(),
            good.replace('@', "."),
            good.replacen('.', "", 1),
            good[1..].to_owned(),
            format!("{good}1"),
            format!("1{good}"),
            good.replace('@', "@0"),
            good.replace('@', "@é"),
        ] {
            assert!(text.parse::<NymAddress>().is_err(), "{text}");
        }
        // Half of all numbers are no point's coordinate.
        let is_refused = |first: u8| {
            let mut bytes = *address().as_bytes();
            bytes[..KEY].fill(first);
            NymAddress::from_bytes(bytes).is_err()
        };
        assert!((0..=255).any(is_refused));
    }
}
