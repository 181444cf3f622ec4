//! The gateway by which a caller enters the mixnet, which is kept.
//!
//! A gateway sees its clients' addresses. If every client drew one of its own, then sooner or later
//! one would be an adversary's, as with Tor's guards. What is kept is which gateway it is and until
//! when, and nothing of any client.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use rand::rngs::OsRng;

const FILE: &str = "entry-gateway";

/// For how long a gateway is kept: a random time, so that its end says nothing of the beginning.
const WEEKS: std::ops::Range<u64> = 6..13;
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// Failures in a row after which another gateway is tried. The kept one is replaced once another
/// has worked: until then it may be the whole network that is down.
const FAILURES: u32 = 3;

/// Bytes of a file that is read.
const LARGEST: u64 = 1024;

/// The gateway of all clients of one caller.
pub(crate) struct Entry {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    kept: Option<Kept>,
    failures: u32,
}

/// On disk both fields are on one line, with a space between.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    /// Its Ed25519 identity in base 58.
    gateway: String,
    /// Seconds since 1970.
    until: u64,
}

impl Entry {
    /// What is kept in a directory; without one, in memory only.
    pub(crate) fn open(directory: Option<&Path>, now: SystemTime) -> Self {
        let file = directory.map(|directory| directory.join(FILE));
        // One that cannot be read is replaced.
        let kept = file.as_deref().and_then(|file| read(file).ok());
        let state = State {
            kept: kept.filter(|kept| kept.is_good(now)),
            failures: 0,
        };
        Self {
            file,
            state: Mutex::new(state),
        }
    }

    /// The gateway to connect to; `None` if any will do.
    pub(super) fn gateway(&self) -> Option<String> {
        let state = self.state();
        let kept = state.kept.as_ref().filter(|_| state.failures < FAILURES);
        kept.map(|kept| kept.gateway.clone())
    }

    /// A client has connected to this gateway: keeps it, durably, before any session is served by
    /// it.
    pub(super) fn worked(&self, gateway: String, now: SystemTime) -> io::Result<()> {
        let mut state = self.state();
        state.failures = 0;
        if state.kept.as_ref().is_some_and(|it| it.gateway == gateway) {
            return Ok(());
        }
        let for_now = WEEK * u32::try_from(OsRng.gen_range(WEEKS)).unwrap_or(1);
        let mut fresh = Kept {
            gateway,
            until: seconds(now + for_now),
        };
        if let Some(file) = &self.file {
            let replaces = state.kept.is_some();
            match read(file).ok().filter(|it| it.is_good(now)) {
                // Another process of this home was faster; later clients take its gateway.
                Some(theirs) if !replaces => fresh = theirs,
                _ => write(file, &fresh)?,
            }
        }
        state.kept = Some(fresh);
        Ok(())
    }

    /// A client could not connect.
    pub(super) fn failed(&self) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn is_good(&self, now: SystemTime) -> bool {
        let longest = seconds(now + WEEK * u32::try_from(WEEKS.end).unwrap_or(1));
        seconds(now) < self.until && self.until <= longest
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |it| it.as_secs())
}

fn read(file: &Path) -> io::Result<Kept> {
    if std::fs::metadata(file)?.len() > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let text = std::fs::read_to_string(file)?;
    let fields = text.trim_end().split_once(' ');
    let (gateway, until) = fields.ok_or(io::ErrorKind::InvalidData)?;
    let until = until.parse().map_err(|_| io::ErrorKind::InvalidData)?;
    Ok(Kept {
        gateway: gateway.to_owned(),
        until,
    })
}

/// Whole or not at all, and on the disk.
fn write(file: &Path, kept: &Kept) -> io::Result<()> {
    let fresh = file.with_extension(format!("new-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut writing = options.open(&fresh)?;
    writeln!(writing, "{} {}", kept.gateway, kept.until)?;
    writing.sync_all()?;
    std::fs::rename(&fresh, file)?;
    match file.parent() {
        Some(directory) => std::fs::File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    #[test]
    fn a_gateway_is_kept_for_weeks_and_not_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = Entry::open(Some(dir.path()), now());
        assert_eq!(first.gateway(), None);
        first.worked("one".to_owned(), now()).expect("kept");
        let later = |weeks| Entry::open(Some(dir.path()), now() + weeks * WEEK).gateway();
        assert_eq!(later(0).as_deref(), Some("one"));
        assert_eq!(later(5).as_deref(), Some("one"));
        assert_eq!(later(13), None);
    }

    #[test]
    fn one_that_fails_is_replaced_only_when_another_works() {
        let dir = tempfile::tempdir().expect("a directory");
        let entry = Entry::open(Some(dir.path()), now());
        entry.worked("one".to_owned(), now()).expect("kept");
        for _ in 0..FAILURES {
            assert_eq!(entry.gateway().as_deref(), Some("one"));
            entry.failed();
        }
        assert_eq!(entry.gateway(), None);
        let again = Entry::open(Some(dir.path()), now());
        assert_eq!(
            again.gateway().as_deref(),
            Some("one"),
            "nothing else worked"
        );
        entry.worked("two".to_owned(), now()).expect("kept");
        assert_eq!(entry.gateway().as_deref(), Some("two"));
        let again = Entry::open(Some(dir.path()), now());
        assert_eq!(again.gateway().as_deref(), Some("two"));
    }

    #[test]
    fn processes_that_start_at_once_agree() {
        let dir = tempfile::tempdir().expect("a directory");
        let [first, second] = [(); 2].map(|()| Entry::open(Some(dir.path()), now()));
        first.worked("one".to_owned(), now()).expect("kept");
        second.worked("two".to_owned(), now()).expect("kept");
        assert_eq!(second.gateway().as_deref(), Some("one"));
    }

    #[test]
    fn what_is_no_record_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        for junk in ["", "one", "one two", &"x".repeat(5000), "one 9999999999999"] {
            std::fs::write(dir.path().join(FILE), junk).expect("written");
            let entry = Entry::open(Some(dir.path()), now());
            assert_eq!(entry.gateway(), None, "{junk}");
            entry.worked("one".to_owned(), now()).expect("kept");
            let again = Entry::open(Some(dir.path()), now());
            assert_eq!(again.gateway().as_deref(), Some("one"));
        }
    }
}
