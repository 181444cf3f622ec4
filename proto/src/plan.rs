//! Plans: the small published menu of limits. Few plans make large anonymity sets.

use std::fmt;
use std::str::FromStr;

use minicbor::{CborLen, Decode, Encode};
use serde::Serialize;

use crate::IdError;

/// A plan's name: 1 to 16 lower-case letters, digits or hyphens.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, CborLen, Serialize)]
#[cbor(transparent)]
#[serde(transparent)]
pub struct PlanName(#[n(0)] String);

/// What one call may use. A call that goes beyond is ended, and says why.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen, Serialize)]
#[cbor(array)]
pub struct Plan {
    /// The plan's name, unique in an advert.
    #[n(0)]
    pub name: PlanName,
    /// Memory of the instance, all memories and tables together, in bytes.
    #[n(1)]
    pub memory_bytes: u64,
    /// Fuel: WebAssembly operators executed.
    #[n(2)]
    pub fuel: u64,
    /// Time from start to end of the function, in milliseconds.
    #[n(3)]
    pub wall_ms: u32,
    /// Input (standard input and arguments together), in bytes.
    #[n(4)]
    pub input_bytes: u32,
    /// Output (standard output), in bytes.
    #[n(5)]
    pub output_bytes: u32,
    /// Whether a call's clocks are virtual and its random numbers come from
    /// its seed alone, so that every run gives the same.
    #[n(6)]
    pub deterministic: bool,
    /// Price of a call in the provider's smallest unit of account; 0 is gratis.
    #[n(7)]
    pub price: u64,
    /// Whether a call has to bring a token, which a contract gives. Without
    /// it, anybody may call.
    #[n(8)]
    pub needs_token: bool,
}

impl Plan {
    /// The menu that providers offer unless configured otherwise.
    #[must_use]
    pub fn standard_menu() -> Vec<Self> {
        const MIB: u32 = 1 << 20;
        let plan = |name: &str, memory_mib: u64, fuel, wall_ms, io_mib: u32| Self {
            name: PlanName(name.to_owned()),
            memory_bytes: memory_mib << 20,
            fuel,
            wall_ms,
            input_bytes: io_mib * MIB,
            output_bytes: io_mib * MIB,
            deterministic: true,
            price: 0,
            needs_token: true,
        };
        vec![
            plan("small", 64, 5_000_000_000, 10_000, 1),
            plan("medium", 256, 20_000_000_000, 30_000, 8),
            plan("large", 1024, 100_000_000_000, 120_000, 32),
        ]
    }
}

impl PlanName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PlanName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if (1..=16).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError::Plan)
        }
    }
}

impl<'b, C> Decode<'b, C> for PlanName {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.str()?
            .parse()
            .map_err(|_| minicbor::decode::Error::message("not a plan name"))
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanName({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plan_names_are_short_and_plain() {
        assert!("small".parse::<PlanName>().is_ok());
        for bad in ["", "Small", "a b", "ü", "seventeen-letters"] {
            assert_eq!(bad.parse::<PlanName>(), Err(IdError::Plan), "{bad}");
        }
    }
}
