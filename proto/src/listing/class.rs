//! Classes of machines and topics: what may be asked for on the overlay.
//!
//! What a caller asks says something about it, so there are few questions: 64 classes, and 256
//! groups of functions.

use std::fmt;

use minicbor::{CborLen, Decode, Encode};

use super::Resources;
use crate::{FunctionId, Requirements};

/// A class of machines: at least so many cores, so much memory, with an accelerator or not, with a
/// trusted execution environment or not. There are [`Class::COUNT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, CborLen)]
#[cbor(transparent)]
pub struct Class(#[n(0)] u8);

/// What a look-up asks for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(array)]
pub enum Topic {
    /// Providers whose machines are of this class.
    #[n(0)]
    Class(#[n(0)] Class),
    /// Providers that publish a function whose SHA-256 begins with this byte.
    #[n(1)]
    Function(#[n(0)] u8),
}

/// The first 8 bytes of a published function's SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, CborLen)]
#[cbor(transparent)]
pub struct FunctionPrefix(#[cbor(n(0), with = "minicbor::bytes")] [u8; 8]);

impl Class {
    /// How many there are.
    pub const COUNT: u8 = 64;
    /// Least cores of each level.
    const CORES: [u16; 4] = [1, 4, 16, 64];
    /// Least memory of each level, in MiB.
    const MEMORY_MIB: [u64; 4] = [0, 4 << 10, 32 << 10, 256 << 10];

    /// The class of this number, if there is one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        (number < Self::COUNT).then_some(Self(number))
    }

    /// Its number, below [`Class::COUNT`]: two bits for the cores, two for the memory, one for an
    /// accelerator, one for a trusted execution environment.
    #[must_use]
    pub fn number(self) -> u8 {
        self.0
    }

    /// The narrowest class that every machine belongs to that meets these requirements.
    #[must_use]
    pub fn that_covers(wanted: &Requirements) -> Self {
        Self::floor(&Resources {
            cores: wanted.cores,
            memory_mib: wanted.memory_mib,
            gpu_vram_mib: wanted.gpu_vram_mib.max(u64::from(wanted.gpu)),
            tee: wanted.tee,
        })
    }

    /// The narrowest class that a machine belongs to.
    #[must_use]
    pub fn floor(it: &Resources) -> Self {
        let level = |reached: usize| u8::try_from(reached.saturating_sub(1)).unwrap_or(0);
        let cores = Self::CORES.iter().filter(|least| it.cores >= **least);
        let memory = Self::MEMORY_MIB.iter();
        let memory = memory.filter(|least| it.memory_mib >= **least);
        Self(
            level(cores.count())
                | level(memory.count()) << 2
                | u8::from(it.gpu_vram_mib > 0) << 4
                | u8::from(it.tee) << 5,
        )
    }

    /// Whether a machine belongs to the class.
    #[must_use]
    pub fn is_met_by(self, it: &Resources) -> bool {
        let own = Self::floor(it).0;
        let at_least = |mask: u8| own & mask >= self.0 & mask;
        [0b11, 0b1100, 0b1_0000, 0b10_0000]
            .into_iter()
            .all(at_least)
    }
}

impl Topic {
    /// Its two bytes, as part of keys.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 2] {
        match self {
            Self::Class(class) => [0, class.number()],
            Self::Function(first) => [1, first],
        }
    }
}

impl FunctionPrefix {
    /// The prefix of this function.
    #[must_use]
    pub fn of(function: &FunctionId) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *function.digest();
        Self([a, b, c, d, e, f, g, h])
    }

    /// What a look-up asks for.
    #[must_use]
    pub fn first_byte(&self) -> u8 {
        self.0[0]
    }
}

impl<'b, C> Decode<'b, C> for Class {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Self::from_number(d.u8()?).ok_or_else(|| minicbor::decode::Error::message("not a class"))
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Topic([scrubbed])")
    }
}

impl fmt::Debug for FunctionPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FunctionPrefix([scrubbed])")
    }
}
