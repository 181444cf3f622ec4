//! Two taps that keep what they see, in memory and in a file.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::Serialize;

use crate::{Direction, Link, MixnetError, Tap};

/// Keeps the bytes of every link in memory, up to a bound.
#[derive(Debug)]
pub struct Capture {
    most: usize,
    kept: Mutex<Kept>,
}

/// All bytes that went one way over one link.
#[derive(Clone, Debug)]
pub struct Captured {
    /// The link.
    pub link: Link,
    /// Which way.
    pub direction: Direction,
    /// The bytes, in order.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Keeps at most `most` bytes over all links.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            kept: Mutex::default(),
        }
    }

    /// What was kept so far, by link and direction.
    pub fn streams(&self) -> Vec<Captured> {
        lock(&self.kept).streams.values().cloned().collect()
    }

    /// The streams that `needle` occurs in; an empty needle occurs in none.
    pub fn find(&self, needle: &[u8]) -> Vec<Captured> {
        let mut streams = self.streams();
        streams.retain(|stream| contains(&stream.bytes, needle));
        streams
    }

    /// Bytes that were seen and, the bound being reached, not kept.
    pub fn lost(&self) -> usize {
        lock(&self.kept).lost
    }
}

impl Tap for Capture {
    fn bytes(&self, link: &Link, direction: Direction, bytes: &[u8]) {
        let mut kept = lock(&self.kept);
        if kept.len.saturating_add(bytes.len()) > self.most {
            kept.lost = kept.lost.saturating_add(bytes.len());
            return;
        }
        kept.len += bytes.len();
        kept.streams
            .entry((link.id, direction))
            .or_insert_with(|| Captured {
                link: link.clone(),
                direction,
                bytes: Vec::new(),
            })
            .bytes
            .extend_from_slice(bytes);
    }
}

/// Writes the bytes of every link to a file as they pass, up to a bound.
///
/// The file is a sequence of records: one line of JSON, `{"link":7,
/// "to":"mix1-0","direction":"in","len":2413}`, then `len` bytes, then a line
/// feed. The bytes of one `link` and `direction`, put together in order, are
/// that stream. At the bound a last record with `"truncated":true` and `len` 0
/// is written, and no more.
#[derive(Debug)]
pub struct CaptureFile {
    out: Mutex<Out>,
}

impl CaptureFile {
    /// Creates (or empties) the file at `path`; `most` bounds its size in bytes.
    ///
    /// # Errors
    ///
    /// The file cannot be created.
    pub fn create(path: &Path, most: u64) -> Result<Self, MixnetError> {
        let file = File::create(path).map_err(MixnetError::Capture)?;
        Ok(Self {
            out: Mutex::new(Out {
                file: Some(file),
                left: most,
            }),
        })
    }
}

impl Tap for CaptureFile {
    fn bytes(&self, link: &Link, direction: Direction, bytes: &[u8]) {
        let mut out = lock(&self.out);
        let record = record(link, direction, bytes, false);
        let len = u64::try_from(record.len()).unwrap_or(u64::MAX);
        if len <= out.left {
            out.left -= len;
            out.write(&record);
        } else {
            let last = self::record(link, direction, &[], true);
            out.write(&last);
            out.file = None;
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    streams: BTreeMap<(u64, Direction), Captured>,
    len: usize,
    lost: usize,
}

#[derive(Debug)]
struct Out {
    /// Nothing when the bound is reached or the disk is full.
    file: Option<File>,
    left: u64,
}

impl Out {
    fn write(&mut self, record: &[u8]) {
        let Some(file) = &mut self.file else { return };
        if let Err(err) = file.write_all(record) {
            tracing::error!("the capture ends here: {err}");
            self.file = None;
        }
    }
}

#[derive(Serialize)]
struct Header<'a> {
    link: u64,
    to: &'a str,
    direction: Direction,
    len: usize,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    truncated: bool,
}

fn record(link: &Link, direction: Direction, bytes: &[u8], truncated: bool) -> Vec<u8> {
    let header = Header {
        link: link.id,
        to: &link.to,
        direction,
        len: bytes.len(),
        truncated,
    };
    let mut record = serde_json::to_vec(&header).unwrap_or_default();
    record.push(b'\n');
    record.extend_from_slice(bytes);
    record.push(b'\n');
    record
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    !needle.is_empty()
        && haystack
            .windows(needle.len())
            .any(|window| window == needle)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: u64) -> Link {
        Link {
            id,
            to: "mix1-0".into(),
            from: None,
        }
    }

    #[test]
    fn streams_are_put_together_and_searched() {
        let capture = Capture::new(100);
        capture.bytes(&link(0), Direction::In, b"can");
        capture.bytes(&link(1), Direction::In, b"other");
        capture.bytes(&link(0), Direction::Out, b"ary");
        capture.bytes(&link(0), Direction::In, b"ary");
        let found = capture.find(b"canary");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].link.id, found[0].direction), (0, Direction::In));
        assert_eq!(capture.streams().len(), 3);
        assert!(capture.find(b"").is_empty());
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let capture = Capture::new(4);
        capture.bytes(&link(0), Direction::In, b"four");
        capture.bytes(&link(0), Direction::In, b"five!");
        assert_eq!(capture.lost(), 5);
        assert_eq!(capture.streams()[0].bytes, b"four");
    }

    #[test]
    fn a_file_says_where_it_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("capture");
        let capture = CaptureFile::create(&path, 150).unwrap();
        for _ in 0..5 {
            capture.bytes(&link(3), Direction::Out, b"bytes");
        }
        let file = std::fs::read_to_string(path).unwrap();
        let record = "{\"link\":3,\"to\":\"mix1-0\",\"direction\":\"out\",\"len\":5}\nbytes\n";
        let cut =
            "{\"link\":3,\"to\":\"mix1-0\",\"direction\":\"out\",\"len\":0,\"truncated\":true}\n\n";
        assert_eq!(file, format!("{}{cut}", record.repeat(2)));
    }
}
