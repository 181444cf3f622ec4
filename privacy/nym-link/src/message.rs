//! Commands to the helper, and events from it.

use std::fmt;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

/// The version of what is said here. Both sides must agree.
pub const VERSION: u16 = 2;

/// Bytes of the longest message.
pub const MAX_MESSAGE: usize = 64 << 10;

/// A Nym client's address: its Ed25519 identity, its X25519 key, and its
/// gateway's Ed25519 identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct NymRecipient(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 96]);

/// Names one session on this link. Callers choose them for the sessions they
/// dial; the helper chooses them for those that arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct SessionId(#[n(0)] pub u64);

/// How a client hides its own traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Traffic {
    /// The SDK's own: 15 ms a hop, Poisson sending, cover traffic.
    #[n(0)]
    Standard,
    /// 1 ms a hop, no Poisson sending; callers send no cover traffic. An observer
    /// of the gateway sees when a call is made, and how large it is.
    #[n(1)]
    Fast,
}

/// What the helper is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Role {
    /// Dials, with a client for each session.
    #[n(0)]
    Caller {
        /// Clients to keep connected ahead of time.
        #[n(0)]
        pool: u8,
        /// A directory in which to keep the entry gateway, readable by nobody
        /// else; without one, the gateway is kept as long as the helper runs.
        #[n(1)]
        entry: Option<String>,
    },
    /// Is reachable at one address, which is kept in `directory`.
    #[n(1)]
    Provider {
        /// A directory of its own, readable by nobody else.
        #[n(0)]
        directory: String,
    },
}

/// All that the helper is told at the start.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Settings {
    /// [`VERSION`].
    #[n(0)]
    pub version: u16,
    /// The base URL of the nym-api; without one, Nym's mainnet.
    #[n(1)]
    pub api_url: Option<String>,
    /// How traffic is hidden.
    #[n(2)]
    pub traffic: Traffic,
    /// What the helper is for.
    #[n(3)]
    pub role: Role,
    /// How long a packet waits at a mix on average, in ms, if not for as long
    /// as `traffic` says.
    #[n(4)]
    pub mean_delay_ms: Option<u16>,
}

/// What the helper is told to do. [`Command::Start`] is the first, once.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Command {
    /// Begin.
    #[n(0)]
    Start(#[n(0)] Settings),
    /// Give `session` a client that no session has had. [`Event::Dialed`] or
    /// [`Event::Closed`] answers.
    #[n(1)]
    Dial {
        /// A new name.
        #[n(0)]
        session: SessionId,
        /// To whom everything in this session goes.
        #[n(1)]
        recipient: NymRecipient,
    },
    /// Send a message of a dialed session, with blocks for replies.
    #[n(2)]
    Send {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// The message.
        #[n(1)]
        message: ByteVec,
        /// Single-use reply blocks to send along.
        #[n(2)]
        surbs: u16,
    },
    /// Answer in a session that arrived.
    #[n(3)]
    Reply {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// The message.
        #[n(1)]
        message: ByteVec,
    },
    /// Forget the session. A dialed one's client is disconnected for good.
    #[n(4)]
    Close {
        /// The session.
        #[n(0)]
        session: SessionId,
    },
}

/// What the helper reports. [`Event::Ready`] or [`Event::Failed`] is the first.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Event {
    /// The network can be used.
    #[n(0)]
    Ready {
        /// [`VERSION`].
        #[n(0)]
        version: u16,
        /// A provider's own address.
        #[n(1)]
        address: Option<NymRecipient>,
    },
    /// The helper cannot go on, and ends.
    #[n(1)]
    Failed {
        /// For people; holds no address and no secret.
        #[n(0)]
        why: String,
    },
    /// The session has its client.
    #[n(2)]
    Dialed {
        /// The session.
        #[n(0)]
        session: SessionId,
    },
    /// A sender that was not seen before.
    #[n(3)]
    Arrived {
        /// The name that the helper gave it.
        #[n(0)]
        session: SessionId,
        /// The tag under which the SDK keeps its reply blocks. Nothing else is
        /// known of a sender.
        #[n(1)]
        tag: ByteVec,
    },
    /// A message of a session, dialed or arrived. Messages come in any order.
    #[n(4)]
    Message {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// The message, of at most [`MAX_MESSAGE`] bytes.
        #[n(1)]
        message: ByteVec,
    },
    /// The session has ended, or never began.
    #[n(5)]
    Closed {
        /// The session.
        #[n(0)]
        session: SessionId,
        /// Why.
        #[n(1)]
        reason: Reason,
    },
}

/// Why a session has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// No client could be connected to the network.
    #[n(0)]
    NoClient,
    /// Its client lost the network.
    #[n(1)]
    Lost,
    /// Too many sessions, or too much is waiting in this one.
    #[n(2)]
    Busy,
    /// Its client was asked to send more than it may.
    #[n(3)]
    TooMuch,
}

impl fmt::Debug for NymRecipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NymRecipient([scrubbed])")
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Start(_) => "Start",
            Self::Dial { .. } => "Dial",
            Self::Send { .. } => "Send",
            Self::Reply { .. } => "Reply",
            Self::Close { .. } => "Close",
        })
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready { .. } => "Ready",
            Self::Failed { .. } => "Failed",
            Self::Dialed { .. } => "Dialed",
            Self::Arrived { .. } => "Arrived",
            Self::Message { .. } => "Message",
            Self::Closed { .. } => "Closed",
        })
    }
}
