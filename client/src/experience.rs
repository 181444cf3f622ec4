//! A caller's own experience with providers. It never leaves this machine.
//!
//! Per endpoint: how quickly calls were answered, and how many were; no times of calls, no
//! functions. Calls go to a provider by weights that follow from it, and a second copy is sent
//! when an answer takes longer than most did.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dlambda_proto::{Endpoint, decode, encode};
use fs_mistrust::Mistrust;
use minicbor::{CborLen, Decode, Encode};

/// Most endpoints that are remembered; the one that was called longest ago goes first.
const MAX: usize = 512;
/// Longest file, in bytes.
const MAX_FILE: u64 = 256 << 10;
/// A new call counts for one in so many.
const WEIGHT: u32 = 4;
/// Calls of an endpoint that are counted; at more, all counts are halved.
const MAX_CALLS: u16 = 64;
/// Round trips that are remembered, over all endpoints.
const MAX_RECENT: usize = 64;
/// Calls between two times that it is written down.
const MAX_NEWS: usize = 4096;
/// With fewer round trips there is no 95th percentile to speak of.
const LEAST_RECENT: usize = 8;
/// The bound of an endpoint that was never called: uncertain, and not bad.
const UNKNOWN: f64 = 0.4;
/// Failures in a row that count.
const MAX_HALVINGS: u8 = 6;
/// One-sided 90 % confidence.
const Z: f64 = 1.28;

/// What became of a call at a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallEnd {
    /// It was answered, in this time from the request to the answer.
    Answered(Duration),
    /// It was not, or turned away.
    Failed,
    /// The provider misbehaved: its receipt contradicts its answer, or its keys differ by visitor.
    Misbehaved,
}

/// What own calls have shown of providers.
#[derive(Clone, Default)]
pub struct Experience {
    path: Option<PathBuf>,
    held: Held,
    /// What happened since the file was read.
    news: Vec<(Endpoint, CallEnd)>,
}

#[derive(Clone, Default, Encode, Decode, CborLen)]
#[cbor(array)]
struct Held {
    /// The latest last.
    #[n(0)]
    entries: Vec<Entry>,
    /// Milliseconds; the latest last.
    #[n(1)]
    recent: Vec<u32>,
}

#[derive(Clone, Encode, Decode, CborLen)]
#[cbor(array)]
struct Entry {
    #[n(0)]
    endpoint: Endpoint,
    /// 0 if none was answered.
    #[n(1)]
    millis: u32,
    #[n(2)]
    answered: u16,
    #[n(3)]
    failed: u16,
    #[n(4)]
    misbehaved: bool,
    /// Failures since the last answer.
    #[n(5)]
    in_a_row: u8,
}

impl Experience {
    /// What is at `path`; nothing if there is no file, or none that can be read. Blocks.
    #[must_use]
    pub fn load(path: PathBuf) -> Self {
        Self {
            held: Held::read(&path),
            path: Some(path),
            news: Vec::new(),
        }
    }

    /// How long calls at this endpoint took from the request to the answer, the latest counting
    /// most.
    #[must_use]
    pub fn latency(&self, endpoint: &Endpoint) -> Option<Duration> {
        let entry = self.held.entry(endpoint)?;
        (entry.millis > 0).then(|| Duration::from_millis(entry.millis.into()))
    }

    /// The lower bound of an interval that has the endpoint's rate of answered calls in it with
    /// 90 % confidence (Wilson's, with one answer and one failure more than there were), halved for
    /// each failure since the last answer: a provider that is down is soon drawn seldom. 0 for a
    /// provider that has misbehaved.
    #[must_use]
    pub fn lower_bound(&self, endpoint: &Endpoint) -> f64 {
        match self.held.entry(endpoint) {
            None => UNKNOWN,
            Some(entry) if entry.misbehaved => 0.0,
            Some(entry) => {
                let halvings = i32::from(entry.in_a_row.min(MAX_HALVINGS));
                wilson(entry.answered, entry.failed) * 0.5_f64.powi(halvings)
            }
        }
    }

    /// Whether a provider has misbehaved at this endpoint.
    #[must_use]
    pub fn has_misbehaved(&self, endpoint: &Endpoint) -> bool {
        self.held.entry(endpoint).is_some_and(|it| it.misbehaved)
    }

    /// Whether any call at this endpoint was answered.
    #[must_use]
    pub fn is_known(&self, endpoint: &Endpoint) -> bool {
        self.held.entry(endpoint).is_some_and(|it| it.answered > 0)
    }

    /// The 95th percentile of the last round trips, over all endpoints.
    #[must_use]
    pub fn usual_longest(&self) -> Option<Duration> {
        let mut recent = self.held.recent.clone();
        if recent.len() < LEAST_RECENT {
            return None;
        }
        recent.sort_unstable();
        let at = (recent.len() * 95).div_ceil(100).saturating_sub(1);
        recent.get(at).map(|it| Duration::from_millis((*it).into()))
    }

    /// Takes what became of a call. It is on disk after [`Experience::save`].
    pub fn note(&mut self, endpoint: &Endpoint, end: CallEnd) {
        self.held.note(endpoint, end);
        if self.path.is_some() {
            self.news.push((*endpoint, end));
            if self.news.len() > MAX_NEWS {
                let is_minor = |(_, end): &(Endpoint, CallEnd)| !matches!(end, CallEnd::Misbehaved);
                let oldest = self.news.iter().position(is_minor).unwrap_or(0);
                self.news.remove(oldest);
            }
        }
    }

    /// Writes down what happened since the last time, beside what other processes have written.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// Those of the file system; what happened is kept for the next time.
    pub fn save(&mut self) -> io::Result<()> {
        let Some(path) = self.path.clone().filter(|_| !self.news.is_empty()) else {
            return Ok(());
        };
        let lock = lock_file(&path)?;
        lock.lock()?;
        let mut held = Held::read(&path);
        for (endpoint, end) in &self.news {
            held.note(endpoint, *end);
        }
        write(&path, &encode(&held))?;
        self.held = held;
        self.news.clear();
        Ok(())
    }
}

impl Held {
    fn read(path: &Path) -> Self {
        let is_small = path.metadata().is_ok_and(|it| it.len() <= MAX_FILE);
        let bytes = is_small.then(|| std::fs::read(path).ok()).flatten();
        bytes
            .and_then(|bytes| decode(&bytes).ok())
            .unwrap_or_default()
    }

    fn entry(&self, endpoint: &Endpoint) -> Option<&Entry> {
        self.entries.iter().find(|it| it.endpoint == *endpoint)
    }

    fn note(&mut self, endpoint: &Endpoint, end: CallEnd) {
        let place = self.entries.iter().position(|it| it.endpoint == *endpoint);
        let mut entry = match place {
            Some(at) => self.entries.remove(at),
            None => Entry {
                endpoint: *endpoint,
                millis: 0,
                answered: 0,
                failed: 0,
                misbehaved: false,
                in_a_row: 0,
            },
        };
        match end {
            CallEnd::Answered(time) => {
                // 0 stands for none.
                let millis = u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1);
                entry.answered = entry.answered.saturating_add(1);
                entry.in_a_row = 0;
                entry.millis = match entry.millis {
                    0 => millis,
                    before => before - before / WEIGHT + millis / WEIGHT,
                };
                self.recent.push(millis);
                let surplus = self.recent.len().saturating_sub(MAX_RECENT);
                self.recent.drain(..surplus);
            }
            CallEnd::Failed => {
                entry.failed = entry.failed.saturating_add(1);
                entry.in_a_row = entry.in_a_row.saturating_add(1);
            }
            CallEnd::Misbehaved => entry.misbehaved = true,
        }
        if entry.answered.saturating_add(entry.failed) > MAX_CALLS {
            entry.answered /= 2;
            entry.failed /= 2;
        }
        self.entries.push(entry);
        let surplus = self.entries.len().saturating_sub(MAX);
        self.entries.drain(..surplus);
    }
}

fn wilson(answered: u16, failed: u16) -> f64 {
    let (good, bad) = (f64::from(answered) + 1.0, f64::from(failed) + 1.0);
    let n = good + bad;
    let p = good / n;
    let centre = p + Z * Z / (2.0 * n);
    let margin = Z * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - margin) / (1.0 + Z * Z / n)).clamp(0.0, 1.0)
}

/// Held while the file is read and written.
fn lock_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.create(true).truncate(false).write(true).mode(0o600);
    options.open(path.with_extension("lock"))
}

/// Whole or not at all; that it is on disk is not waited for.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let mistrust = Mistrust::builder().controlled_by_default_env_var().build();
    let directory = mistrust.and_then(|it| it.verifier().secure_dir(directory));
    let written = directory.and_then(|it| it.write_and_replace(name, bytes));
    written.map_err(io::Error::other)
}

impl fmt::Debug for Experience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Experience([scrubbed])")
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

    fn answered(millis: u64) -> CallEnd {
        CallEnd::Answered(Duration::from_millis(millis))
    }

    /// Only its owner may use it, or nothing is written.
    fn directory() -> tempfile::TempDir {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(directory.path(), private).unwrap();
        directory
    }

    #[test]
    fn what_is_saved_is_read_and_the_oldest_endpoint_is_forgotten() {
        let directory = directory();
        let path = directory.path().join("file");
        let mut experience = Experience::load(path.clone());
        for number in 0..=512 {
            experience.note(&onion(number), answered(u64::from(number) + 100));
        }
        experience.save().unwrap();
        let experience = Experience::load(path);
        assert_eq!(experience.latency(&onion(0)), None);
        let latency = experience.latency(&onion(511));
        assert_eq!(latency, Some(Duration::from_millis(611)));
    }

    #[test]
    fn two_processes_lose_nothing_of_each_other() {
        let directory = directory();
        let path = directory.path().join("file");
        let [mut one, mut other] = [(); 2].map(|()| Experience::load(path.clone()));
        one.note(&onion(1), answered(100));
        other.note(&onion(2), CallEnd::Misbehaved);
        one.save().unwrap();
        other.save().unwrap();
        let both = Experience::load(path);
        assert!(both.is_known(&onion(1)) && both.has_misbehaved(&onion(2)));
    }

    #[test]
    fn misbehaviour_outlasts_many_calls_between_two_saves() {
        let directory = directory();
        let path = directory.path().join("file");
        let mut experience = Experience::load(path.clone());
        experience.note(&onion(1), CallEnd::Misbehaved);
        for _ in 0..=MAX_NEWS {
            experience.note(&onion(2), answered(100));
        }
        experience.save().unwrap();
        assert!(experience.has_misbehaved(&onion(1)));
        assert!(Experience::load(path).has_misbehaved(&onion(1)));
    }

    #[test]
    fn later_calls_count_more() {
        let mut experience = Experience::default();
        for millis in [1_000, 200, 200, 200, 200, 200] {
            experience.note(&onion(1), answered(millis));
        }
        let latency = experience.latency(&onion(1)).unwrap();
        assert!((200..450).contains(&latency.as_millis()), "{latency:?}");
    }

    #[test]
    fn a_bound_rises_with_answers_and_falls_with_failures() {
        let mut experience = Experience::default();
        let unknown = experience.lower_bound(&onion(1));
        let mut bounds = vec![];
        for end in [answered(1); 8].into_iter().chain([CallEnd::Failed; 8]) {
            experience.note(&onion(1), end);
            bounds.push(experience.lower_bound(&onion(1)));
        }
        assert!(bounds[..8].is_sorted(), "{bounds:?}");
        assert!(bounds[7..].is_sorted_by(|a, b| a > b), "{bounds:?}");
        assert!(bounds[7] > unknown && bounds[15] < unknown, "{bounds:?}");
        experience.note(&onion(1), CallEnd::Misbehaved);
        assert!(experience.lower_bound(&onion(1)) <= 0.0);
    }

    #[test]
    fn old_calls_fade() {
        let mut experience = Experience::default();
        for _ in 0..1_000 {
            experience.note(&onion(1), answered(1));
        }
        for _ in 0..64 {
            experience.note(&onion(1), CallEnd::Failed);
        }
        assert!(experience.lower_bound(&onion(1)) < 0.5);
    }

    #[test]
    fn the_usual_longest_time_is_that_of_95_in_100() {
        let mut experience = Experience::default();
        assert_eq!(experience.usual_longest(), None);
        for millis in 1..=60 {
            experience.note(&onion(1), answered(millis));
        }
        assert_eq!(experience.usual_longest(), Some(Duration::from_millis(57)));
    }

    #[test]
    fn a_file_of_something_else_is_none() {
        let directory = directory();
        let path = directory.path().join("file");
        std::fs::write(&path, b"\xff\xff").unwrap();
        let mut experience = Experience::load(path.clone());
        assert_eq!(experience.latency(&onion(1)), None);
        experience.note(&onion(1), answered(7));
        experience.save().unwrap();
        assert!(Experience::load(path).is_known(&onion(1)));
    }
}
