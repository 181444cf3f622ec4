//! Where a machine says it is.

use std::fmt;
use std::str::FromStr;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::IdError;

/// A region, as the provider's operator names it: 2 to 8 lower-case letters, digits or hyphens.
/// It is not checked.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, CborLen, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct Region(#[n(0)] String);

impl Region {
    /// The region as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (2..=8).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Region)
        }
    }
}

impl<'b, C> Decode<'b, C> for Region {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let text = d.str()?;
        text.parse()
            .map_err(|_| minicbor::decode::Error::message("not a region"))
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Region({})", self.0)
    }
}
