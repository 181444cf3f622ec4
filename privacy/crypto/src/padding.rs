//! Padding to size buckets, before sealing.
//!
//! `length (4, big endian) | data | zeros`, up to the next bucket. Few, wide
//! buckets make large anonymity sets: four sizes up to a mebibyte's quarter, then powers
//! of two, where the waste would cost more than it hides.

use crate::SealError;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const PREFIX: usize = 4;

/// Sizes, in bytes, that a padded message can have.
pub const BUCKETS: [usize; 11] = [
    4 * KIB,
    16 * KIB,
    64 * KIB,
    256 * KIB,
    MIB,
    2 * MIB,
    4 * MIB,
    8 * MIB,
    16 * MIB,
    32 * MIB,
    64 * MIB,
];

/// Size of the bucket that `len` bytes of data are padded to, if one holds them.
#[must_use]
pub fn bucket(len: usize) -> Option<usize> {
    let needed = len.saturating_add(PREFIX);
    BUCKETS.into_iter().find(|bucket| needed <= *bucket)
}

/// Pads `data` to the smallest bucket that holds it.
///
/// # Errors
///
/// [`SealError::TooLarge`] if no bucket holds it.
pub fn pad(data: &[u8]) -> Result<Vec<u8>, SealError> {
    pad_to(data, bucket(data.len()).ok_or(SealError::TooLarge)?)
}

/// Pads `data` to `size` bytes, whatever its length.
///
/// # Errors
///
/// [`SealError::TooLarge`] if it does not fit.
pub fn pad_to(data: &[u8], size: usize) -> Result<Vec<u8>, SealError> {
    if data.len().saturating_add(PREFIX) > size {
        return Err(SealError::TooLarge);
    }
    let length = u32::try_from(data.len()).map_err(SealError::too_large)?;
    let mut padded = Vec::with_capacity(size);
    padded.extend(length.to_be_bytes());
    padded.extend(data);
    padded.resize(size, 0);
    Ok(padded)
}

/// Takes the padding of [`pad_to`] off again.
///
/// # Errors
///
/// [`SealError::Padding`] unless it is exactly that.
pub fn unpad_from(padded: &[u8], size: usize) -> Result<&[u8], SealError> {
    let data = split(padded)?;
    if padded.len() == size {
        Ok(data)
    } else {
        Err(SealError::Padding)
    }
}

/// Takes the padding off again.
///
/// # Errors
///
/// [`SealError::Padding`] unless `padded` is exactly what [`pad`] makes of the
/// result: a sender must not choose the bucket or hide a mark in the zeros.
pub fn unpad(padded: &[u8]) -> Result<&[u8], SealError> {
    let data = split(padded)?;
    if bucket(data.len()) == Some(padded.len()) {
        Ok(data)
    } else {
        Err(SealError::Padding)
    }
}

/// The data, if what follows it is zeros.
fn split(padded: &[u8]) -> Result<&[u8], SealError> {
    let (prefix, rest) = padded
        .split_first_chunk::<PREFIX>()
        .ok_or(SealError::Padding)?;
    let length = u32::from_be_bytes(*prefix) as usize;
    let (data, zeros) = rest.split_at_checked(length).ok_or(SealError::Padding)?;
    if zeros.iter().all(|byte| *byte == 0) {
        Ok(data)
    } else {
        Err(SealError::Padding)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes_fall_into_buckets() {
        for (size, bucket) in [
            (0, 4 * KIB),
            (4 * KIB - 4, 4 * KIB),
            (4 * KIB - 3, 16 * KIB),
            (MIB - 4, MIB),
            (64 * MIB - 4, 64 * MIB),
        ] {
            let padded = pad(&vec![7; size]).expect("fits");
            assert_eq!(padded.len(), bucket, "{size}");
            assert_eq!(unpad(&padded).expect("our own").len(), size);
        }
        assert_eq!(pad(&vec![7; 64 * MIB - 3]), Err(SealError::TooLarge));
    }

    #[test]
    fn no_other_padding_is_accepted() {
        let good = pad(b"data").expect("fits");
        let mut mark = good.clone();
        mark[4000] = 1;
        let mut longer = good.clone();
        longer.resize(16 * KIB, 0);
        let mut beyond = good.clone();
        beyond[0] = 0xff;
        for bad in [&mark, &longer, &beyond, &good[..100].to_vec(), &vec![]] {
            assert_eq!(unpad(bad), Err(SealError::Padding));
        }
    }

    proptest! {
        #[test]
        fn unpad_undoes_pad(data in proptest::collection::vec(any::<u8>(), 0..20_000)) {
            let padded = pad(&data).expect("fits");
            prop_assert_eq!(unpad(&padded), Ok(&data[..]));
        }
    }
}
