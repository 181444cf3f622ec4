//! Frames: `version (1) | kind (1) | length (4, big endian) | body`.
//!
//! The header is checked whole before a single byte of the body is allocated.

use crate::FrameError;

/// The version of the protocol that this crate speaks.
pub const VERSION: u8 = 2;

/// Bytes of a frame before its body.
pub const FRAME_HEADER_LEN: usize = 6;

/// Longest body of a frame that carries sealed bytes: the largest padding
/// bucket (64 MiB) and what sealing and the envelope add.
pub const MAX_SEALED_BODY: u32 = (64 << 20) + 1024;

/// Longest body of a frame of issuance: all have one size, 16 KiB, and
/// what sealing and the envelope add.
pub const MAX_CONTRACT_BODY: u32 = (16 << 10) + 1024;

/// What sealing adds to the frames of guests in a network with a pre-shared key.
const GUEST_SEAL: u32 = 64;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameKind {
    /// Client to provider: the reply was opened, the call is over. Empty.
    Ack,
    /// Provider to client, at once when a stream opens: a signed advert.
    Advert,
    /// Node to guest: a padded [`Answer`](crate::Answer).
    Answer,
    /// Guest to node: a padded [`Ask`](crate::Ask).
    Ask,
    /// Client to provider: a sealed call.
    Call,
    /// Client to provider: a sealed [`ContractRequest`](crate::ContractRequest).
    Contract,
    /// Provider to client: a sealed [`ContractAnswer`](crate::ContractAnswer).
    ContractAnswer,
    /// Provider to client instead of a reply: a [`Refusal`](crate::Refusal) in the clear.
    Refusal,
    /// Provider to client: a sealed reply.
    Reply,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    kind: FrameKind,
    len: u32,
}

/// A whole frame.
#[derive(Clone, PartialEq, Eq)]
pub struct Frame {
    kind: FrameKind,
    body: Vec<u8>,
}

impl FrameKind {
    /// Longest body of a frame of this kind, in bytes.
    #[must_use]
    pub fn limit(self) -> u32 {
        match self {
            Self::Ack => 0,
            Self::Advert => 64 << 10,
            Self::Answer => (320 << 10) + GUEST_SEAL,
            Self::Ask => (3 << 10) + GUEST_SEAL,
            Self::Call | Self::Reply => MAX_SEALED_BODY,
            Self::Contract | Self::ContractAnswer => MAX_CONTRACT_BODY,
            Self::Refusal => 64,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Advert => 1,
            Self::Call => 2,
            Self::Reply => 3,
            Self::Ack => 4,
            Self::Refusal => 5,
            Self::Contract => 6,
            Self::ContractAnswer => 7,
            Self::Ask => 8,
            Self::Answer => 9,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        [
            Self::Advert,
            Self::Call,
            Self::Reply,
            Self::Ack,
            Self::Refusal,
            Self::Contract,
            Self::ContractAnswer,
            Self::Ask,
            Self::Answer,
        ]
        .into_iter()
        .find(|kind| kind.code() == code)
    }
}

impl FrameHeader {
    /// Reads a header and checks it against what is acceptable now.
    ///
    /// # Errors
    ///
    /// [`FrameError`]: another version, an unknown kind, a kind not among
    /// `expected`, or a body longer than its kind allows.
    pub fn parse(
        bytes: [u8; FRAME_HEADER_LEN],
        expected: &[FrameKind],
    ) -> Result<Self, FrameError> {
        let [version, code, length @ ..] = bytes;
        if version != VERSION {
            return Err(FrameError::Version {
                found: version,
                ours: VERSION,
            });
        }
        let kind = FrameKind::from_code(code).ok_or(FrameError::UnknownKind(code))?;
        if !expected.contains(&kind) {
            return Err(FrameError::UnexpectedKind);
        }
        let len = u32::from_be_bytes(length);
        if len > kind.limit() {
            return Err(FrameError::TooLong {
                announced: len,
                limit: kind.limit(),
            });
        }
        Ok(Self { kind, len })
    }

    /// What the frame carries.
    #[must_use]
    pub fn kind(self) -> FrameKind {
        self.kind
    }

    /// Length of the body in bytes.
    #[must_use]
    pub fn body_len(self) -> u32 {
        self.len
    }
}

impl Frame {
    /// A frame of this kind.
    ///
    /// # Errors
    ///
    /// [`FrameError::TooLong`] if the body is above the kind's limit.
    pub fn new(kind: FrameKind, body: Vec<u8>) -> Result<Self, FrameError> {
        let len = u32::try_from(body.len()).unwrap_or(u32::MAX);
        if len > kind.limit() {
            return Err(FrameError::TooLong {
                announced: len,
                limit: kind.limit(),
            });
        }
        Ok(Self { kind, body })
    }

    /// The header's bytes.
    #[must_use]
    pub fn header(&self) -> [u8; FRAME_HEADER_LEN] {
        let length = u32::try_from(self.body.len()).unwrap_or(u32::MAX);
        let [a, b, c, d] = length.to_be_bytes();
        [VERSION, self.kind.code(), a, b, c, d]
    }

    /// What the frame carries.
    #[must_use]
    pub fn kind(&self) -> FrameKind {
        self.kind
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The body, without its frame.
    #[must_use]
    pub fn into_body(self) -> Vec<u8> {
        self.body
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({:?}, {} bytes)", self.kind, self.body.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: &[FrameKind] = &[
        FrameKind::Ack,
        FrameKind::Advert,
        FrameKind::Call,
        FrameKind::Refusal,
        FrameKind::Reply,
    ];

    #[test]
    fn a_header_survives_the_wire() {
        let frame = Frame::new(FrameKind::Call, vec![9; 300]).expect("within the limit");
        let header = FrameHeader::parse(frame.header(), ALL).expect("a good header");
        assert_eq!((header.kind(), header.body_len()), (FrameKind::Call, 300));
    }

    #[test]
    fn limits_hold_in_both_directions() {
        assert!(Frame::new(FrameKind::Ack, vec![1]).is_err());
        let too_long = [VERSION, 4, 0, 0, 0, 1];
        assert_eq!(
            FrameHeader::parse(too_long, ALL),
            Err(FrameError::TooLong {
                announced: 1,
                limit: 0
            })
        );
        let call = Frame::new(FrameKind::Call, vec![]).expect("within the limit");
        assert_eq!(
            FrameHeader::parse(call.header(), &[FrameKind::Ack]),
            Err(FrameError::UnexpectedKind)
        );
    }

    proptest! {
        #[test]
        fn no_header_gets_past_its_limit(bytes: [u8; FRAME_HEADER_LEN]) {
            if let Ok(header) = FrameHeader::parse(bytes, ALL) {
                prop_assert_eq!(bytes[0], VERSION);
                prop_assert!(header.body_len() <= header.kind().limit());
            }
        }
    }
}
