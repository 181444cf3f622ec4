//! How a function ended, as numbers: what receipts commit to, and no text.

use std::fmt;

use minicbor::{CborLen, Decode, Decoder, Encode, Encoder};
use serde::{Serialize, Serializer};

/// How a function that ran has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, CborLen, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cbor(array)]
pub enum Status {
    /// By itself, with this exit status (0 is success). A larger status than 255 is given as
    /// 255.
    #[n(0)]
    Exited(#[n(0)] u8),
    /// It was stopped.
    #[n(1)]
    Stopped(#[n(0)] StopKind),
}

impl Status {
    /// Whether the function ended by itself and said that all is well.
    #[must_use]
    pub fn is_success(self) -> bool {
        self == Self::Exited(0)
    }

    /// Whether every deterministic run, on any machine with the same engine, must end the same
    /// way, with the same output, fuel and peak memory.
    #[must_use]
    pub fn is_reproducible(self) -> bool {
        match self {
            Self::Exited(_) => true,
            Self::Stopped(kind) => kind.is_reproducible(),
        }
    }
}

/// Makes an enumeration with a number and a name for each variant.
///
/// Numbers are what travels and what is signed. Names are for JSON and logs, and are never
/// hashed or signed.
macro_rules! stop_kinds {
    ($($code:literal $name:literal $kind:ident: $doc:literal,)*) => {
        /// Why a function was stopped: a limit of the plan, a missing response, or a trap.
        ///
        /// It is one number on the wire. A number that this version does not know is kept as
        /// [`StopKind::Other`], so that a reply or receipt of a newer provider can still be
        /// decoded, encodes to the same bytes and verifies.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum StopKind {
            $(#[doc = $doc] $kind,)*
            /// A number that this version does not know. Made by decoding only.
            Other(u16),
        }

        impl StopKind {
            /// All that this version knows.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The number of this kind. Numbers are never given to another kind.
            #[must_use]
            pub fn code(self) -> u16 {
                match self {
                    $(Self::$kind => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// The kind of this number.
            #[must_use]
            pub fn from_code(code: u16) -> Self {
                match code {
                    $($code => Self::$kind,)*
                    other => Self::Other(other),
                }
            }

            /// A short name for JSON and logs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                    Self::Other(_) => "other",
                }
            }
        }
    };
}

stop_kinds! {
    0 "fuel" Fuel: "It used up the plan's fuel.",
    1 "deadline" Deadline:
        "It ran for longer than the plan allows. Depends on the machine: no run can check it.",
    2 "memory" Memory: "It was refused memory beyond the plan's and then trapped.",
    3 "output" Output: "It wrote more output than the plan allows.",
    4 "no-response" NoResponse: "An HTTP function that returned without a complete response.",
    5 "bad-response" BadResponse:
        "An HTTP function whose response has a head that this protocol does not carry.",
    16 "bad-signature" BadSignature: "It called a table entry of another signature.",
    17 "host-call" HostCall: "It misused a host function, such as with a bad pointer or handle.",
    18 "indirect-call-to-null" IndirectCallToNull: "It called an empty table entry.",
    19 "integer-division-by-zero" IntegerDivisionByZero: "It divided an integer by zero.",
    20 "integer-overflow" IntegerOverflow: "It overflowed an integer division or a conversion.",
    21 "invalid-conversion" InvalidConversion: "It converted a NaN to an integer.",
    22 "memory-out-of-bounds" MemoryOutOfBounds: "It touched memory beyond its end.",
    23 "other-trap" OtherTrap: "A trap that has no number of its own.",
    24 "stack-overflow" StackOverflow:
        "It called too deep. Depends on the machine: no run can check it.",
    25 "table-out-of-bounds" TableOutOfBounds: "It touched a table beyond its end.",
    26 "unreachable" Unreachable: "It executed `unreachable`: how compiled languages abort.",
}

impl StopKind {
    /// Whether the function trapped, rather than reaching a limit or giving no response.
    #[must_use]
    pub fn is_trap(self) -> bool {
        (16..32).contains(&self.code())
    }

    /// Whether every deterministic run on the same engine stops like this.
    #[must_use]
    pub fn is_reproducible(self) -> bool {
        !matches!(self, Self::Deadline | Self::StackOverflow | Self::Other(_))
    }
}

impl<C> Encode<C> for StopKind {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.code())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for StopKind {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.u16().map(Self::from_code)
    }
}

impl<C> CborLen<C> for StopKind {
    fn cbor_len(&self, ctx: &mut C) -> usize {
        self.code().cbor_len(ctx)
    }
}

impl Serialize for StopKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Why a provider does not run a function: a number, the measures that belong to it, and for
/// an import the name that the function itself gives it.
///
/// No receipt commits to it. A further one, as a further [`Measure`] or [`Cost`], takes a further
/// version of frames: readers of this one refuse the whole reply.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode, CborLen)]
#[cbor(array)]
#[non_exhaustive]
pub enum FunctionProblem {
    /// Not WebAssembly, cut short, invalid, or using a proposal that is switched off.
    #[n(0)]
    Malformed {
        /// Where, in bytes from the beginning.
        #[n(0)]
        offset: u64,
    },
    /// No entry point is exported.
    #[n(1)]
    NoEntryPoint,
    /// A property of the function exceeds what this executor takes.
    #[n(2)]
    TooLarge {
        /// What was measured.
        #[n(0)]
        measure: Measure,
        /// What the function has.
        #[n(1)]
        found: u64,
        /// What is allowed.
        #[n(2)]
        limit: u64,
    },
    /// Compiling took more than the operator allows.
    #[n(3)]
    TooCostly(#[n(0)] Cost),
    /// Valid, but the engine cannot compile or hold it: too much memory or too large a table at
    /// the start, say.
    #[n(4)]
    Unsupported,
    /// It needs an import that is not given, or gives it another type.
    #[n(5)]
    UnsupportedImport {
        /// The first such import: `module::field`, or an interface like
        /// `wasi:http/types@0.2.0`. The function's own text.
        #[n(0)]
        import: String,
    },
    /// It may run, but not with this input.
    #[n(6)]
    BadInvocation,
}

/// What compiling had too much of, in [`FunctionProblem::TooCostly`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Cost {
    /// Memory.
    #[n(0)]
    Memory,
    /// Time.
    #[n(1)]
    Time,
}

/// A measured property of a function, in [`FunctionProblem::TooLarge`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode, CborLen)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Measure {
    /// Bytes of the longest function body.
    #[n(0)]
    FunctionBytes,
    /// Number of functions that the module or component defines.
    #[n(1)]
    Functions,
    /// Bytes of the whole module or component.
    #[n(2)]
    ModuleBytes,
}

/// For people; never hashed, signed or sent.
impl fmt::Display for FunctionProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed { offset } => {
                write!(f, "not a valid WebAssembly function (at byte {offset})")
            }
            Self::NoEntryPoint => f.write_str(
                "the function has no entry point: export `_start`, `wasi:cli/run` or \
                 `wasi:http/incoming-handler`",
            ),
            Self::TooLarge {
                measure,
                found,
                limit,
            } => {
                let measure = match measure {
                    Measure::FunctionBytes => "bytes in one function body",
                    Measure::Functions => "functions",
                    Measure::ModuleBytes => "bytes",
                };
                write!(
                    f,
                    "the function is too large: {measure}: {found}, at most {limit}"
                )
            }
            Self::TooCostly(cost) => {
                let cost = match cost {
                    Cost::Memory => "memory",
                    Cost::Time => "time",
                };
                write!(f, "the function costs too much {cost} to compile")
            }
            Self::Unsupported => f.write_str("the function does not fit this executor's bounds"),
            Self::UnsupportedImport { import } => {
                write!(
                    f,
                    "the function imports {import}, which is not provided here"
                )
            }
            Self::BadInvocation => f.write_str("the function cannot be called like this"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    #[test]
    fn each_kind_has_its_own_number_and_name() {
        for (number, kind) in StopKind::ALL.iter().enumerate() {
            assert_eq!(StopKind::from_code(kind.code()), *kind);
            assert_eq!(decode(&encode(kind)), Ok(*kind));
            for other in &StopKind::ALL[..number] {
                assert_ne!(kind.code(), other.code());
                assert_ne!(kind.name(), other.name());
            }
        }
    }

    #[test]
    fn a_kind_of_a_newer_version_survives_the_wire() {
        for code in [6, 31, 32, u16::MAX] {
            let bytes = encode(&Status::Stopped(StopKind::Other(code)));
            let status = decode::<Status>(&bytes).expect("a status");
            assert_eq!(status, Status::Stopped(StopKind::Other(code)));
            assert_eq!(encode(&status), bytes);
            assert!(!status.is_reproducible());
        }
        let known = encode(&StopKind::Other(StopKind::Fuel.code()));
        assert_eq!(decode(&known), Ok(StopKind::Fuel));
        assert!(decode::<StopKind>(&encode(&70_000_u64)).is_err());
    }
}
