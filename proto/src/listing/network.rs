//! Which overlay.

use std::fmt;
use std::str::FromStr;

use minicbor::{CborLen, Decode, Encode};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::IdError;

/// An overlay network: 16 random bytes, drawn when the network is made.
///
/// It is in every signature's domain, in the names of protocols and of topics, so that nothing of
/// one network is worth anything in another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct NetworkId(#[cbor(n(0), with = "minicbor::bytes")] [u8; 16]);

impl NetworkId {
    /// The network with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// A domain of signatures in this network.
    pub(crate) fn domain(self, purpose: &str) -> Vec<u8> {
        format!("dlambda/{purpose}/{self}").into_bytes()
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(&self.0))
    }
}

impl fmt::Debug for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NetworkId({self})")
    }
}

impl FromStr for NetworkId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 16];
        let decoded = (text.len() == 32)
            .then(|| data_encoding::HEXLOWER.decode_mut(text.as_bytes(), &mut bytes));
        match decoded {
            Some(Ok(16)) => Ok(Self(bytes)),
            _ => Err(IdError::Network),
        }
    }
}

impl Serialize for NetworkId {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for NetworkId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
