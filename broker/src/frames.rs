//! Asks and answers as frames: padded to few lengths and, in a network with a pre-shared key,
//! sealed.
//!
//! ```text
//! body   = padded, or in a network with a pre-shared key: sealed(padded)
//! padded = length (4, big endian) | canonical CBOR | zeros
//! ```
//!
//! Every ask has one length, and an answer the least of four that holds it. Another length, or
//! anything but zeros, could carry a mark, and is refused.

use dlambda_crypto::guest::{AskNonce, GuestKey};
use dlambda_proto::{Answer, Ask, DecodeError, Frame, FrameKind, decode, encode};
use rand_core::CryptoRng;

use crate::GuestError;

const LENGTH: usize = 4;

/// How a network's guests and nodes wrap their frames.
#[derive(Debug)]
pub enum GuestSeal {
    /// A public network: they are only padded.
    Public,
    /// A network with a pre-shared key.
    Keyed(GuestKey),
}

/// Binds an answer to its ask.
#[derive(Clone, Copy, Debug)]
pub struct Binding(Option<AskNonce>);

impl GuestSeal {
    /// The frame of an ask, and what its answer is bound to.
    ///
    /// # Errors
    ///
    /// [`GuestError::TooLarge`] or [`GuestError::Seal`].
    pub fn wrap_ask(
        &self,
        ask: &Ask,
        rng: &mut impl CryptoRng,
    ) -> Result<(Frame, Binding), GuestError> {
        let padded = pad(&encode(ask), &[Ask::BYTES])?;
        let (body, binding) = match self {
            Self::Public => (padded, Binding(None)),
            Self::Keyed(key) => {
                let (body, nonce) = key.seal_ask(&padded, rng).map_err(GuestError::Seal)?;
                (body, Binding(Some(nonce)))
            }
        };
        Ok((frame(FrameKind::Ask, body)?, binding))
    }

    /// The ask in a frame, and what its answer has to be bound to.
    ///
    /// # Errors
    ///
    /// [`GuestError`] says what is wrong with the frame.
    pub fn unwrap_ask(&self, frame: &Frame) -> Result<(Ask, Binding), GuestError> {
        let (padded, binding) = match self {
            Self::Public => (frame.body().to_vec(), Binding(None)),
            Self::Keyed(key) => {
                let (padded, nonce) = key.open_ask(frame.body()).map_err(GuestError::Open)?;
                (padded, Binding(Some(nonce)))
            }
        };
        Ok((decode(unpad(&padded, &[Ask::BYTES])?)?, binding))
    }

    /// The frame of the answer to an ask.
    ///
    /// # Errors
    ///
    /// [`GuestError::TooLarge`] or [`GuestError::Seal`].
    pub fn wrap_answer(
        &self,
        to: Binding,
        answer: &Answer,
        rng: &mut impl CryptoRng,
    ) -> Result<Frame, GuestError> {
        let padded = pad(&encode(answer), &Answer::BUCKETS)?;
        let body = match (self, to.0) {
            (Self::Keyed(key), Some(nonce)) => key
                .seal_answer(nonce, &padded, rng)
                .map_err(GuestError::Seal)?,
            (Self::Public, None) => padded,
            _ => return Err(GuestError::Unbound),
        };
        frame(FrameKind::Answer, body)
    }

    /// The answer in a frame.
    ///
    /// # Errors
    ///
    /// [`GuestError`] says what is wrong with the frame.
    pub fn unwrap_answer(&self, to: Binding, frame: &Frame) -> Result<Answer, GuestError> {
        let opened;
        let padded = match (self, to.0) {
            (Self::Keyed(key), Some(nonce)) => {
                opened = key
                    .open_answer(nonce, frame.body())
                    .map_err(GuestError::Open)?;
                &opened[..]
            }
            (Self::Public, None) => frame.body(),
            _ => return Err(GuestError::Unbound),
        };
        Ok(decode(unpad(padded, &Answer::BUCKETS)?)?)
    }
}

fn frame(kind: FrameKind, body: Vec<u8>) -> Result<Frame, GuestError> {
    let len = body.len();
    Frame::new(kind, body).map_err(|_| GuestError::TooLarge(len))
}

/// Pads to the least of the lengths that holds it.
fn pad(message: &[u8], lengths: &[usize]) -> Result<Vec<u8>, GuestError> {
    let most = lengths.last().copied().unwrap_or(0);
    let length = least(message.len(), lengths).ok_or(GuestError::TooLarge(most))?;
    let announced = u32::try_from(message.len()).map_err(|_| GuestError::TooLarge(most))?;
    let mut padded = Vec::with_capacity(length);
    padded.extend(announced.to_be_bytes());
    padded.extend(message);
    padded.resize(length, 0);
    Ok(padded)
}

fn unpad<'a>(padded: &'a [u8], lengths: &[usize]) -> Result<&'a [u8], GuestError> {
    let malformed = GuestError::Decode(DecodeError::Malformed);
    let (length, rest) = padded
        .split_first_chunk::<LENGTH>()
        .ok_or(GuestError::Length)?;
    if !lengths.contains(&padded.len()) {
        return Err(GuestError::Length);
    }
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (message, zeros) = rest.split_at_checked(length).ok_or(malformed)?;
    let is_least = least(length, lengths) == Some(padded.len());
    if !is_least || zeros.iter().any(|byte| *byte != 0) {
        return Err(GuestError::Padding);
    }
    Ok(message)
}

fn least(message: usize, lengths: &[usize]) -> Option<usize> {
    let whole = message.checked_add(LENGTH)?;
    lengths.iter().copied().find(|length| *length >= whole)
}

#[cfg(test)]
mod tests {
    use dlambda_proto::{NetworkId, SnapshotId};
    use proptest::prelude::*;
    use rand_chacha::ChaCha8Rng;
    use rand_core::SeedableRng as _;

    use super::*;

    fn rng() -> ChaCha8Rng {
        ChaCha8Rng::from_seed([1; 32])
    }

    fn keyed(byte: u8) -> GuestSeal {
        let network = NetworkId::from_bytes([1; 16]);
        GuestSeal::Keyed(GuestKey::derive(&[byte; 32], network))
    }

    #[test]
    fn asks_have_one_length_and_answers_one_of_four() {
        for seal in [GuestSeal::Public, keyed(1)] {
            let mut lengths = Vec::new();
            for ask in [Ask::Manifest, Ask::Chunk(SnapshotId([1; 32]), 3)] {
                let (frame, binding) = seal.wrap_ask(&ask, &mut rng()).unwrap();
                lengths.push(frame.body().len());
                let (read, theirs) = seal.unwrap_ask(&frame).unwrap();
                assert!(read == ask);
                for size in [0, 1 << 10, 60 << 10, 256 << 10] {
                    let answer = Answer::Chunk(vec![7; size]);
                    let frame = seal.wrap_answer(theirs, &answer, &mut rng()).unwrap();
                    let body = frame.body().len();
                    let over = |it: &usize| (*it..=*it + 64).contains(&body);
                    assert!(Answer::BUCKETS.iter().any(over), "{body}");
                    assert!(seal.unwrap_answer(binding, &frame).unwrap() == answer);
                }
            }
            assert_eq!(lengths[0], lengths[1]);
        }
        let large = Answer::Chunk(vec![0; 330 << 10]);
        let refused = GuestSeal::Public.wrap_answer(Binding(None), &large, &mut rng());
        assert!(matches!(refused, Err(GuestError::TooLarge(_))));
    }

    #[test]
    fn every_wrong_frame_has_its_error() {
        let public = GuestSeal::Public;
        let read = |body: Vec<u8>| {
            let frame = Frame::new(FrameKind::Answer, body).unwrap();
            public.unwrap_answer(Binding(None), &frame).unwrap_err()
        };
        let good = pad(&encode(&Answer::Busy), &Answer::BUCKETS).unwrap();
        assert!(matches!(read(vec![]), GuestError::Length));
        assert!(matches!(read(good[1..].to_vec()), GuestError::Length));
        let mut marked = good.clone();
        marked[1000] = 1;
        assert!(matches!(read(marked), GuestError::Padding));
        let mut roomy = good.clone();
        roomy.resize(16 << 10, 0);
        assert!(matches!(read(roomy), GuestError::Padding));
        let mut long = good.clone();
        long[..4].copy_from_slice(&u32::MAX.to_be_bytes());
        assert!(matches!(read(long), GuestError::Decode(_)));
        let mut short = good;
        short[3] = 0;
        assert!(matches!(
            read(short),
            GuestError::Padding | GuestError::Decode(_)
        ));
    }

    #[test]
    fn another_key_opens_nothing() {
        let (frame, binding) = keyed(1).wrap_ask(&Ask::Manifest, &mut rng()).unwrap();
        let public = Binding(None);
        for (other, to) in [(keyed(2), binding), (GuestSeal::Public, public)] {
            assert!(other.unwrap_ask(&frame).is_err());
            let answer = other.wrap_answer(to, &Answer::Busy, &mut rng());
            let opened = keyed(1).unwrap_answer(binding, &answer.unwrap());
            assert!(matches!(opened, Err(GuestError::Open(_))));
        }
        // Nothing of a network with a key leaves in the clear.
        let unbound = keyed(1).wrap_answer(public, &Answer::Busy, &mut rng());
        assert!(matches!(unbound, Err(GuestError::Unbound)));
    }

    proptest! {
        #[test]
        fn anything_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            for kind in [FrameKind::Ask, FrameKind::Answer] {
                let frame = Frame::new(kind, bytes.clone()).unwrap();
                for seal in [GuestSeal::Public, keyed(1)] {
                    prop_assert!(seal.unwrap_ask(&frame).is_err());
                    let _ = seal.unwrap_answer(Binding(None), &frame);
                }
            }
        }
    }
}
