//! How quickly providers answered one's own calls. It never leaves this machine.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dlambda_proto::{Endpoint, decode, encode};
use minicbor::{CborLen, Decode, Encode};

/// Most endpoints that are remembered; the one that was called longest ago goes first.
const MAX: usize = 512;
/// Longest file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// A new call counts for one in so many.
const WEIGHT: u32 = 4;

/// Round trips by endpoint: no times of calls, and no number.
pub struct Latencies {
    path: PathBuf,
    /// The latest last.
    entries: Vec<Entry>,
}

#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
struct Entry {
    #[n(0)]
    endpoint: Endpoint,
    #[n(1)]
    millis: u32,
}

impl Latencies {
    /// What is at `path`; nothing if there is no file, or none that can be read.
    #[must_use]
    pub fn load(path: PathBuf) -> Self {
        let is_small = path.metadata().is_ok_and(|it| it.len() <= MAX_FILE);
        let bytes = is_small.then(|| std::fs::read(&path).ok()).flatten();
        let entries = bytes.and_then(|bytes| decode::<Vec<Entry>>(&bytes).ok());
        Self {
            path,
            entries: entries.unwrap_or_default(),
        }
    }

    /// How long calls at this endpoint took from the request to the answer, the latest counting
    /// most.
    #[must_use]
    pub fn of(&self, endpoint: &Endpoint) -> Option<Duration> {
        let entry = self.entries.iter().find(|it| it.endpoint == *endpoint)?;
        Some(Duration::from_millis(entry.millis.into()))
    }

    /// Remembers a call, and writes all down. Blocks.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn record(&mut self, endpoint: &Endpoint, round_trip: Duration) -> io::Result<()> {
        let millis = u32::try_from(round_trip.as_millis()).unwrap_or(u32::MAX);
        let place = self.entries.iter().position(|it| it.endpoint == *endpoint);
        let millis = match place.map(|at| self.entries.remove(at).millis) {
            None => millis,
            Some(before) => before - before / WEIGHT + millis / WEIGHT,
        };
        self.entries.push(Entry {
            endpoint: *endpoint,
            millis,
        });
        let surplus = self.entries.len().saturating_sub(MAX);
        self.entries.drain(..surplus);
        write(&self.path, &encode(&self.entries))
    }
}

/// Whole or not at all; that it is on disk is not waited for.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let mut options = File::options();
    let options = options.create(true).truncate(true).write(true).mode(0o600);
    let written = options
        .open(&temporary)
        .and_then(|mut file| file.write_all(bytes))
        .and_then(|()| std::fs::rename(&temporary, path));
    if written.is_err() {
        // What is not there need not be removed.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

impl fmt::Debug for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Latencies([scrubbed])")
    }
}

#[cfg(test)]
mod tests {
    use dlambda_proto::OnionAddress;

    use super::*;

    fn onion(number: u16) -> Endpoint {
        let mut key = [0; 32];
        key[..2].copy_from_slice(&number.to_be_bytes());
        Endpoint::Onion(OnionAddress::from_public_key(key))
    }

    #[test]
    fn the_latest_calls_count_most_and_old_endpoints_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("latencies");
        let mut latencies = Latencies::load(path.clone());
        assert_eq!(latencies.of(&onion(0)), None);
        let millis = Duration::from_millis;
        latencies.record(&onion(0), millis(100)).unwrap();
        latencies.record(&onion(0), millis(200)).unwrap();
        assert_eq!(latencies.of(&onion(0)), Some(millis(125)));
        let mut again = Latencies::load(path.clone());
        assert_eq!(again.of(&onion(0)), Some(millis(125)));
        for number in 1..=512 {
            again.record(&onion(number), Duration::MAX).unwrap();
        }
        assert_eq!(again.of(&onion(0)), None);
        assert!(again.of(&onion(1)).is_some());
        std::fs::write(&path, b"something else").unwrap();
        assert_eq!(Latencies::load(path).of(&onion(1)), None);
    }
}
