//! What a message of the mixnet holds: a segment of a stream.
//!
//! ```text
//! version (1) | kind (1) | session (16) | number (4) | acknowledged (4) | last (1) | data
//! ```
//!
//! Numbers are big-endian. The session's name is random, made by the caller
//! for this one stream, and authenticates nothing: frames inside are signed or
//! sealed. All of it travels inside Nym's end-to-end encryption.

/// Bytes before the data.
pub(super) const HEADER: usize = 27;

const VERSION: u8 = 1;

/// The name of one stream.
pub(super) type SessionName = [u8; 16];

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) session: SessionName,
    pub(super) kind: Kind,
    /// Number of the next data segment that the sender waits for.
    pub(super) acknowledged: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A part of the stream; number 0 opens it.
    Data {
        number: u32,
        /// Nothing comes after it.
        last: bool,
        data: Vec<u8>,
    },
    /// Nothing new: the sender wonders, or has nothing to say but what it acknowledges.
    Probe,
    /// The sender knows of no such session.
    Reset,
}

/// A message that is no segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Segment {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, number, last, data) = match &self.kind {
            Kind::Data { number, last, data } => (0, *number, *last, &data[..]),
            Kind::Probe => (1, 0, false, &[][..]),
            Kind::Reset => (2, 0, false, &[][..]),
        };
        let mut bytes = Vec::with_capacity(HEADER + data.len());
        bytes.extend([VERSION, kind]);
        bytes.extend(self.session);
        bytes.extend(number.to_be_bytes());
        bytes.extend(self.acknowledged.to_be_bytes());
        bytes.push(u8::from(last));
        bytes.extend(data);
        bytes
    }

    /// # Errors
    ///
    /// [`Malformed`], also for every other encoding of the same segment.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let (header, data) = bytes.split_first_chunk::<HEADER>().ok_or(Malformed)?;
        let [VERSION, kind, rest @ ..] = header else {
            return Err(Malformed);
        };
        let (session, rest) = rest.split_first_chunk::<16>().ok_or(Malformed)?;
        let (number, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let (acknowledged, rest) = rest.split_first_chunk().ok_or(Malformed)?;
        let number = u32::from_be_bytes(*number);
        let kind = match (kind, number, rest, data) {
            (0, _, [last @ 0..=1], _) => Kind::Data {
                number,
                last: *last == 1,
                data: data.to_vec(),
            },
            (1, 0, [0], []) => Kind::Probe,
            (2, 0, [0], []) => Kind::Reset,
            _ => return Err(Malformed),
        };
        Ok(Self {
            session: *session,
            kind,
            acknowledged: u32::from_be_bytes(*acknowledged),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn segments_survive_and_have_one_encoding(bytes in proptest::collection::vec(0_u8..4, 0..60)) {
            if let Ok(segment) = Segment::decode(&bytes) {
                prop_assert_eq!(segment.encode(), bytes);
            }
        }

        #[test]
        fn what_is_encoded_is_decoded(
            session: [u8; 16],
            number: u32,
            acknowledged: u32,
            last: bool,
            data in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            for kind in [Kind::Data { number, last, data }, Kind::Probe, Kind::Reset] {
                let segment = Segment { session, kind, acknowledged };
                prop_assert_eq!(Segment::decode(&segment.encode()), Ok(segment));
            }
        }
    }
}
