//! What audits send, and when: as other calls do.
//!
//! A provider that recognises audits can be honest in audits only. So their inputs are those that
//! callers send, and they come at random times.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rand_core::Rng;

/// Files of a corpus at most.
const MOST_FILES: usize = 10_000;
/// Bytes of one input at most: what fits into a call.
const LARGEST: u64 = 64 << 20;

/// Inputs to draw from: files, each the whole input of a call.
#[derive(Clone, Debug)]
pub struct Corpus {
    files: Vec<PathBuf>,
}

impl Corpus {
    /// One file, or all files of a directory (not of those in it), the first 10,000 by name.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if it cannot be read, [`io::ErrorKind::NotFound`] also if there is no file in
    /// it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut files = if path.is_dir() {
            let entries = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
            let mut files = entries.collect::<io::Result<Vec<_>>>()?;
            files.retain(|file| file.is_file());
            files
        } else {
            std::fs::metadata(path)?;
            vec![path.to_owned()]
        };
        files.sort();
        files.truncate(MOST_FILES);
        if files.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no inputs in it"));
        }
        Ok(Self { files })
    }

    /// The sample inputs of a function: `NAME.inputs`, a file or directory beside `NAME.wasm`.
    ///
    /// # Errors
    ///
    /// Those of [`Corpus::open`].
    pub fn beside(function: &Path) -> io::Result<Self> {
        Self::open(&function.with_extension("inputs"))
    }

    /// One of the inputs, each as likely as any other.
    ///
    /// # Errors
    ///
    /// [`io::Error`] if the file cannot be read, or holds more than a call can carry (64 MiB).
    pub fn draw(&self, rng: &mut impl Rng) -> io::Result<Vec<u8>> {
        // Never empty.
        let Some(file) = self.files.get(below(rng, self.files.len())) else {
            return Ok(Vec::new());
        };
        if std::fs::metadata(file)?.len() > LARGEST {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "larger than 64 MiB",
            ));
        }
        std::fs::read(file)
    }
}

/// Waits before each of `count` audits, so that they come at independent random times of a period,
/// as the calls of many callers do.
#[must_use]
pub fn waits(count: u32, over: Duration, rng: &mut impl Rng) -> Vec<Duration> {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| over.mul_f64(f64::from(rng.next_u32()) / f64::from(u32::MAX)))
        .collect();
    times.sort();
    let mut before = Duration::ZERO;
    let waits = times.into_iter().map(|time| {
        let wait = time.saturating_sub(before);
        before = time;
        wait
    });
    waits.collect()
}

/// A number below `bound`, if that is not zero; the bias is below 1 in 2^32 for a corpus.
fn below(rng: &mut impl Rng, bound: usize) -> usize {
    let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
    usize::try_from(rng.next_u64() % bound).unwrap_or(0)
}
