//! Canonical CBOR: one value has exactly one encoding.
//!
//! Deterministic encoding (RFC 8949 section 4.2) matters because signatures
//! and content hashes cover bytes, and because two encodings of one value
//! would let a sender hide a mark in the choice between them.

use minicbor::{CborLen, Decode, Encode};

use crate::{DecodeError, check_shape};

/// Encodes `value` canonically: definite lengths, shortest integers.
#[must_use]
pub fn encode<T: Encode<()> + CborLen<()>>(value: &T) -> Vec<u8> {
    let mut out = Vec::with_capacity(minicbor::len(value));
    // Writing to a `Vec` cannot fail, and none of our types refuses to encode.
    if minicbor::encode(value, &mut out).is_err() {
        unreachable!("encoding into memory is infallible");
    }
    out
}

/// Decodes a value and accepts it only if `bytes` is its canonical encoding.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if the bytes are not a `T`, and
/// [`DecodeError::NotCanonical`] if they are one in any other encoding:
/// trailing bytes, long integers, indefinite lengths.
pub fn decode<T>(bytes: &[u8]) -> Result<T, DecodeError>
where
    T: for<'b> Decode<'b, ()> + Encode<()> + CborLen<()>,
{
    check_shape(bytes)?;
    let value: T = minicbor::decode(bytes).map_err(|_| DecodeError::Malformed)?;
    if encode(&value) == bytes {
        Ok(value)
    } else {
        Err(DecodeError::NotCanonical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_every_other_encoding_of_one_value() {
        let canonical = encode(&vec![5_u64]);
        assert_eq!(canonical, [0x81, 0x05]);
        assert_eq!(decode::<Vec<u64>>(&canonical), Ok(vec![5]));
        for (what, bytes) in [
            ("a long integer", &[0x81, 0x18, 0x05][..]),
            ("an indefinite array", &[0x9f, 0x05, 0xff]),
            ("a trailing byte", &[0x81, 0x05, 0x00]),
        ] {
            assert_eq!(
                decode::<Vec<u64>>(bytes),
                Err(DecodeError::NotCanonical),
                "{what}"
            );
        }
        assert_eq!(
            decode::<Vec<u64>>(&[0x81]),
            Err(DecodeError::Malformed),
            "a truncated array"
        );
    }
}
