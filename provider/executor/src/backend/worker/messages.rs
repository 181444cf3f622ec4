//! What is said between this process and a worker.

use minicbor::{Decode, Encode};

use crate::code_cache::CodeDigest;
use crate::helper::ipc::HelperError;
use crate::{Abi, Absence, ConfinementLayer, Invocation, Limits, Outcome};

/// How a worker is set up; the first message.
#[derive(Clone, Debug, Encode, Decode)]
pub(crate) struct Setup {
    /// Calls at a time.
    #[n(0)]
    pub(crate) calls: u64,
    /// Bytes of any one memory.
    #[n(1)]
    pub(crate) memory_bytes: u64,
    /// Bytes of memory for the whole process.
    #[n(2)]
    pub(crate) data_bytes: u64,
    /// Bytes of a message.
    #[n(3)]
    pub(crate) message_bytes: u64,
}

/// To a worker.
#[derive(Encode, Decode)]
#[allow(
    clippy::large_enum_variant,
    reason = "most requests are calls, and each is there for a moment"
)]
pub(crate) enum Request {
    /// Code to have ready; comes with a descriptor.
    #[n(0)]
    Load {
        #[n(0)]
        slot: u64,
        #[n(1)]
        abi: Abi,
        /// What the descriptor must hold.
        #[n(2)]
        code: CodeDigest,
    },
    /// Code that is not needed any more.
    #[n(1)]
    Unload {
        #[n(0)]
        slot: u64,
    },
    /// Run it.
    #[n(2)]
    Run {
        #[n(0)]
        call: u64,
        #[n(1)]
        slot: u64,
        #[n(2)]
        invocation: Invocation,
        #[n(3)]
        limits: Limits,
    },
    /// The answer is no longer waited for.
    #[n(3)]
    Cancel {
        #[n(0)]
        call: u64,
    },
}

/// From a worker.
#[derive(Encode, Decode)]
pub(crate) enum Response {
    /// It is confined and waits for work; the first message.
    #[n(0)]
    Ready {
        #[cbor(n(0), with = "minicbor::bytes")]
        engine: [u8; 32],
        /// Active layers of its confinement.
        #[n(1)]
        active: Vec<ConfinementLayer>,
        /// The other layers, and why.
        #[n(2)]
        absent: Vec<(ConfinementLayer, Absence)>,
    },
    /// It cannot start.
    #[n(1)]
    Failed(#[n(0)] String),
    /// A call has ended.
    #[n(2)]
    Done {
        #[n(0)]
        call: u64,
        #[n(1)]
        outcome: Result<Outcome, HelperError>,
    },
}
