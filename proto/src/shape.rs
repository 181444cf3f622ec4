//! A look at a stranger's CBOR before anything is made of it.
//!
//! Decoders skip what they do not know, and remember where they are while they do: `9f 9f 9f ...`
//! takes sixteen bytes of memory for each of its own. This pass takes none, however long and deep
//! its input is.

use crate::DecodeError;

/// Deepest nesting; our own messages have less than half.
const DEPTH: usize = 24;

/// Whether `bytes` is one item in definite lengths, no deeper than our own messages, and all there.
///
/// Takes time in proportion to `bytes`, and no memory.
///
/// # Errors
///
/// [`DecodeError::Malformed`] if it is not well-formed (RFC 8949 appendix C) or too deep, and
/// [`DecodeError::NotCanonical`] if it has indefinite lengths or bytes after its end.
pub fn check_shape(bytes: &[u8]) -> Result<(), DecodeError> {
    // How many items are missing on each level.
    let mut missing = [0_u64; DEPTH];
    let mut depth = 0;
    let mut rest = bytes;
    loop {
        let head = Head::take(&mut rest)?;
        let children = match head.major {
            // Integers; simple values and floats, whose bytes are in the head.
            0 | 1 | 7 => 0,
            2 | 3 => {
                let len = usize::try_from(head.value).map_err(|_| DecodeError::Malformed)?;
                rest = rest.get(len..).ok_or(DecodeError::Malformed)?;
                0
            }
            4 => head.value,
            5 => head.value.checked_mul(2).ok_or(DecodeError::Malformed)?,
            // A tag belongs to the item after it.
            _ => 1,
        };
        // Each takes a byte at least.
        if children > rest.len() as u64 {
            return Err(DecodeError::Malformed);
        }
        if children > 0 {
            *missing.get_mut(depth).ok_or(DecodeError::Malformed)? = children;
            depth += 1;
            continue;
        }
        // This item has ended, and with it those of which it was the last.
        loop {
            let Some(level) = depth.checked_sub(1) else {
                return match rest {
                    [] => Ok(()),
                    _ => Err(DecodeError::NotCanonical),
                };
            };
            missing[level] -= 1;
            if missing[level] > 0 {
                break;
            }
            depth = level;
        }
    }
}

/// The first bytes of an item.
struct Head {
    major: u8,
    value: u64,
}

impl Head {
    fn take(rest: &mut &[u8]) -> Result<Self, DecodeError> {
        let (&first, after) = rest.split_first().ok_or(DecodeError::Malformed)?;
        let (major, info) = (first >> 5, first & 0x1f);
        let len = match info {
            0..=23 => 0,
            24 => 1,
            25 => 2,
            26 => 4,
            27 => 8,
            31 if major != 0 && major != 1 && major != 6 => {
                return Err(DecodeError::NotCanonical);
            }
            _ => return Err(DecodeError::Malformed),
        };
        let (number, after) = after.split_at_checked(len).ok_or(DecodeError::Malformed)?;
        let value = match len {
            0 => u64::from(info),
            _ => number
                .iter()
                .fold(0, |value, byte| value << 8 | u64::from(*byte)),
        };
        *rest = after;
        Ok(Self { major, value })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_rfc_8949_lists_is_told_apart() {
        for (hex, expected) in [
            ("00", Ok(())),
            ("1bffffffffffffffff", Ok(())),
            ("3903e7", Ok(())),
            ("f4", Ok(())),
            ("f818", Ok(())),
            ("fb3ff199999999999a", Ok(())),
            ("80", Ok(())),
            ("a0", Ok(())),
            ("83010203", Ok(())),
            ("8301820203820405", Ok(())),
            ("a201020304", Ok(())),
            ("c074323031332d30332d32315432303a30343a30305a", Ok(())),
            ("4401020304", Ok(())),
            // Indefinite lengths.
            ("9f018202039f0405ffff", Err(DecodeError::NotCanonical)),
            ("5f42010243030405ff", Err(DecodeError::NotCanonical)),
            ("bf61610161629f0203ffff", Err(DecodeError::NotCanonical)),
            ("ff", Err(DecodeError::NotCanonical)),
            ("0000", Err(DecodeError::NotCanonical)),
            // Cut short, reserved, and more than there can be.
            ("", Err(DecodeError::Malformed)),
            ("18", Err(DecodeError::Malformed)),
            ("44010203", Err(DecodeError::Malformed)),
            ("8201", Err(DecodeError::Malformed)),
            ("a101", Err(DecodeError::Malformed)),
            ("c0", Err(DecodeError::Malformed)),
            ("1c", Err(DecodeError::Malformed)),
            ("1f", Err(DecodeError::Malformed)),
            ("9bffffffffffffffff00", Err(DecodeError::Malformed)),
            ("bbffffffffffffffff00", Err(DecodeError::Malformed)),
            ("5bffffffffffffffff00", Err(DecodeError::Malformed)),
        ] {
            let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
            assert_eq!(check_shape(&bytes), expected, "{hex}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0]].concat();
        assert_eq!(check_shape(&nested(DEPTH)), Ok(()));
        for depth in [DEPTH + 1, 1 << 20] {
            assert_eq!(check_shape(&nested(depth)), Err(DecodeError::Malformed));
        }
        assert_eq!(
            check_shape(&vec![0x9f; 1 << 20]),
            Err(DecodeError::NotCanonical)
        );
    }

    proptest! {
        #[test]
        fn anything_is_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = check_shape(&bytes);
        }
    }
}
