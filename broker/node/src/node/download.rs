//! A function as it comes, part by part. No I/O.

use dlambda_proto::FunctionId;
use sha2::{Digest as _, Sha256};

use crate::FetchError;

/// What has come of a function. Memory grows as bytes arrive, not as they are announced.
pub(super) struct Download {
    function: FunctionId,
    most: u32,
    /// What the first part has said.
    size: Option<u32>,
    bytes: Vec<u8>,
    hash: Sha256,
}

/// What a part has brought about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The next part begins here.
    More(u32),
    /// It is whole, and the right one.
    Whole,
}

impl Download {
    /// Nothing has come yet of this function, of at most `most` bytes.
    pub(super) fn new(function: FunctionId, most: u32) -> Self {
        Self {
            function,
            most,
            size: None,
            bytes: Vec::new(),
            hash: Sha256::new(),
        }
    }

    /// The function.
    pub(super) fn function(&self) -> FunctionId {
        self.function
    }

    /// Where the next part begins.
    pub(super) fn offset(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }

    /// The bytes that have come.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes the next part of a function that is said to have `size` bytes.
    ///
    /// # Errors
    ///
    /// [`FetchError::TooLarge`], [`FetchError::Malformed`], and at the end
    /// [`FetchError::WrongBytes`].
    pub(super) fn take(&mut self, size: u32, part: &[u8]) -> Result<Progress, FetchError> {
        if size > self.most {
            return Err(FetchError::TooLarge);
        }
        let have = self.bytes.len() + part.len();
        let is_as_said = *self.size.get_or_insert(size) == size;
        let next = u32::try_from(have).ok().filter(|next| *next <= size);
        let (true, false, Some(next)) = (is_as_said, part.is_empty(), next) else {
            return Err(FetchError::Malformed);
        };
        self.hash.update(part);
        self.bytes.extend_from_slice(part);
        if next < size {
            return Ok(Progress::More(next));
        }
        let digest: [u8; 32] = self.hash.clone().finalize().into();
        match FunctionId::from_digest(digest) == self.function {
            true => Ok(Progress::Whole),
            false => Err(FetchError::WrongBytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn download(wasm: &[u8], most: u32) -> Download {
        Download::new(FunctionId::of(wasm), most)
    }

    #[test]
    fn parts_that_break_the_protocol_are_refused() {
        let wasm = [7; 100];
        let begun = || {
            let mut begun = download(&wasm, 100);
            assert_eq!(begun.take(100, &wasm[..60]), Ok(Progress::More(60)));
            begun
        };
        assert_eq!(begun().take(100, &wasm[60..]), Ok(Progress::Whole));
        for (what, size, part, error) in [
            ("another size", 99, &wasm[60..], FetchError::Malformed),
            ("nothing", 100, &[][..], FetchError::Malformed),
            ("more than said", 100, &wasm[..41], FetchError::Malformed),
            (
                "larger than asked for",
                101,
                &wasm[..40],
                FetchError::TooLarge,
            ),
            ("other bytes", 100, &[8; 40], FetchError::WrongBytes),
        ] {
            assert_eq!(begun().take(size, part), Err(error), "{what}");
        }
    }

    #[test]
    fn a_claimed_size_allocates_nothing() {
        let mut begun = download(b"x", u32::MAX);
        assert_eq!(begun.take(u32::MAX, &[1]), Ok(Progress::More(1)));
        assert!(begun.bytes.capacity() < 1024);
    }

    proptest! {
        #[test]
        fn exactly_the_right_bytes_come_through(
            wasm in prop::collection::vec(any::<u8>(), 1..400),
            cuts in prop::collection::vec(1..100_usize, 0..10),
            flip in prop::option::of(any::<prop::sample::Index>()),
        ) {
            let mut sent = wasm.clone();
            if let Some(flip) = flip {
                sent[flip.index(wasm.len())] ^= 1;
            }
            let size = u32::try_from(wasm.len()).expect("short");
            let mut begun = download(&wasm, size);
            let (mut rest, mut cuts) = (&sent[..], cuts.into_iter());
            let last = loop {
                let cut = cuts.next().unwrap_or(rest.len()).min(rest.len());
                let (part, after) = rest.split_at(cut);
                rest = after;
                match begun.take(size, part) {
                    Ok(Progress::More(next)) => {
                        prop_assert_eq!(next as usize, sent.len() - rest.len());
                    }
                    last => break last,
                }
            };
            match flip {
                None => {
                    prop_assert_eq!(last, Ok(Progress::Whole));
                    prop_assert_eq!(begun.into_bytes(), wasm);
                }
                Some(_) => prop_assert_eq!(last, Err(FetchError::WrongBytes)),
            }
        }
    }
}
