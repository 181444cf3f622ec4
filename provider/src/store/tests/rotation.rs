//! Killed with SIGKILL at any step of an epoch rotation, a provider comes up with one advert an
//! epoch, and with the keys of every token that is still good.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use data_encoding::HEXLOWER;
use dlambda_privacy::clock::FakeClock;
use dlambda_proto::{Advert, SignedAdvert, decode, encode};
use redb::StorageBackend;
use redb::backends::FileBackend;
use rustix::process::{Signal, getpid, kill_process};

use super::*;
use crate::DataDir;
use crate::epoch::Epochs;
use crate::epoch::advert::AdvertTemplate;
use crate::epoch::keyring::Keyring;
use crate::epoch::rotation::{rotate_if_due, start_keyring};
use crate::state::steps::{on_step, step};
use crate::store::file::{Opener, builder};

const DIRECTORY: &str = "DLAMBDA_TEST_DIRECTORY";
const STEP: &str = "DLAMBDA_TEST_STEP";
const RUNNING: &str = "DLAMBDA_TEST_RUNNING";

const LENGTH: u64 = Advert::MIN_EPOCH_SECONDS;

/// The first epoch's tokens, and the second epoch, end at this moment.
const DUE: UnixSeconds = UnixSeconds(100_000 + 2 * LENGTH);

/// The adverts that anybody may have seen.
type Shown = BTreeMap<Epoch, SignedAdvert>;

#[test]
fn a_rotation_survives_kill_9_at_every_step() {
    at_every_step("a_rotation_survives_kill_9_at_every_step", true);
}

#[test]
fn a_start_that_begins_an_epoch_survives_kill_9_at_every_step() {
    let test = "a_start_that_begins_an_epoch_survives_kill_9_at_every_step";
    at_every_step(test, false);
}

fn at_every_step(test: &str, is_running: bool) {
    if let (Some(dir), Ok(step)) = (std::env::var_os(DIRECTORY), std::env::var(STEP)) {
        let is_running = std::env::var_os(RUNNING).is_some();
        let number = step.parse().expect("a number");
        return wait(be_killed(Path::new(&dir), number, is_running));
    }
    let temporary = tempfile::tempdir().expect("a directory");
    let original = temporary.path().join("data");
    let before = wait(two_epochs(&original));
    let mut steps = BTreeSet::new();
    for number in 1.. {
        let dir = temporary.path().join(number.to_string());
        copy(&original, &dir);
        let end = run_and_kill(test, &dir, number, is_running);
        let mut shown = before.clone();
        for advert in end.shown {
            note(&mut shown, advert);
        }
        wait(check(&dir, &mut shown));
        let Some(step) = end.step else { break };
        steps.insert(step);
    }
    let expected = [
        "database synced",
        "database written",
        "file overwritten",
        "file removed",
        "file renamed",
        "file synced",
        "file written",
    ];
    assert!(steps.iter().map(String::as_str).eq(expected), "{steps:?}");
}

/// Makes a data directory in which the second epoch is about to end.
async fn two_epochs(dir: &Path) -> Shown {
    let data = DataDir::open(dir).expect("opens");
    let store = Store::open(&data.store_file()).expect("opens");
    let mut shown = Shown::new();
    for now in [DUE.0 - 2 * LENGTH, DUE.0 - LENGTH] {
        let keyring = keyring(&data, &store, UnixSeconds(now)).await;
        note(&mut shown, keyring.signed_advert());
    }
    assert_eq!(shown.len(), 2);
    shown
}

/// The child: starts a new epoch, and ends at this step.
async fn be_killed(dir: &Path, number: usize, is_running: bool) {
    let data = DataDir::open(dir).expect("opens");
    let store = Store::open_with(&data.store_file(), opener()).expect("opens");
    if !is_running {
        kill_at(number, || None);
        return say_shown(&keyring(&data, &store, DUE).await.signed_advert());
    }
    let clock = Arc::new(FakeClock::at(UnixSeconds(DUE.0 - 1)));
    let keyring = keyring(&data, &store, UnixSeconds(DUE.0 - 1)).await;
    let epochs = Arc::new(Epochs::new(keyring, Arc::clone(&clock) as _));
    assert_eq!(epochs.number(), Epoch(2));
    let visible = Arc::clone(&epochs);
    kill_at(number, move || Some(visible.signed_advert()));
    clock.advance(1);
    let rotated = rotate_if_due(&epochs, &data, &store).await;
    rotated.expect("rotates");
    assert_eq!(epochs.number(), Epoch(3));
    say_shown(&epochs.signed_advert());
}

/// At each step says which advert a caller would see, and kills this process at one.
fn kill_at(number: usize, visible: impl Fn() -> Option<SignedAdvert> + Send + Sync + 'static) {
    let taken = AtomicUsize::new(0);
    on_step(move |name| {
        if let Some(advert) = visible() {
            say_shown(&advert);
        }
        if taken.fetch_add(1, Ordering::SeqCst) + 1 == number {
            say(&format!("step {name}"));
            kill_process(getpid(), Signal::KILL).expect("it is our own");
        }
    });
}

/// Starts the provider's keys twice after the kill, and looks at all that was shown.
async fn check(dir: &Path, shown: &mut Shown) {
    let mut current = None;
    for seconds in [0, 10] {
        let now = DUE.plus(seconds);
        let data = DataDir::open(dir).expect("opens");
        let store = Store::open(&data.store_file()).expect("opens");
        let mut keyring = keyring(&data, &store, now).await;
        note(shown, keyring.signed_advert());
        let newest = shown.keys().next_back().copied();
        assert_eq!(newest, Some(keyring.epoch()), "the newest that was shown");
        let before = current.replace(keyring.epoch());
        assert!(before.is_none_or(|before| before == keyring.epoch()));
        for (epoch, advert) in shown.iter() {
            check_shown(*epoch, advert, now, &store, &mut keyring);
        }
        let names = files::list(dir).into_iter().map(|(name, _)| name);
        let seeds = names.filter(|name| name.contains(".seed-")).count();
        assert_eq!(seeds, store.epochs().expect("readable").len());
    }
}

/// An epoch whose advert was shown has its keys, and its place in the advert that is shown now.
fn check_shown(
    epoch: Epoch,
    advert: &SignedAdvert,
    now: UnixSeconds,
    store: &Store,
    keyring: &mut Keyring,
) {
    let authentic = advert.clone().authenticate().expect("our own");
    let kept = store.epochs().expect("readable");
    let kept = kept.into_iter().find(|(kept, _)| *kept == epoch);
    let issuers = keyring.token_issuers(epoch, now);
    if authentic.tokens.until <= now {
        assert!(kept.is_none() && issuers.is_none(), "{epoch:?} is over");
        return;
    }
    let (_, kept) = kept.unwrap_or_else(|| panic!("{epoch:?} was shown, and is not on disk"));
    assert!(kept.advert == *advert, "{epoch:?} has another advert");
    let issuers = issuers.expect("its tokens are good");
    let keys: Vec<_> = issuers.calls.values().map(|issuer| issuer.key()).collect();
    assert_eq!(keys.len(), authentic.call_keys.len());
    assert!(keys.iter().all(|key| authentic.call_keys.contains(key)));
    let current = keyring.signed_advert().authenticate().expect("our own");
    assert!(current.vouches_for(&authentic), "{epoch:?} is not listed");
}

/// Two adverts of one epoch would be a proof against this provider.
fn note(shown: &mut Shown, advert: SignedAdvert) {
    let epoch = advert.clone().authenticate().expect("our own").epoch;
    let known = shown.entry(epoch).or_insert_with(|| advert.clone());
    assert!(*known == advert, "two adverts of {epoch:?}");
}

async fn keyring(data: &DataDir, store: &Store, now: UnixSeconds) -> Keyring {
    let started = start_keyring(AdvertTemplate::for_tests(), data, store, now).await;
    started.expect("good keys")
}

fn copy(from: &Path, to: &Path) {
    let made = DirBuilder::new().mode(0o700).create(to);
    made.expect("made");
    for entry in std::fs::read_dir(from).expect("readable") {
        let entry = entry.expect("readable");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}

/// What a child has said.
struct End {
    /// The step at which it was killed; `None` if it came to the end.
    step: Option<String>,
    shown: Vec<SignedAdvert>,
}

fn run_and_kill(test: &str, dir: &Path, number: usize, is_running: bool) -> End {
    let module = module_path!().split_once("::").expect("a crate").1;
    let mut command = Command::new(std::env::current_exe().expect("known"));
    command
        .arg(format!("{module}::{test}"))
        .args(["--exact", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(STEP, number.to_string());
    if is_running {
        command.env(RUNNING, "1");
    }
    let ended = command.stderr(Stdio::inherit()).output().expect("starts");
    let said = String::from_utf8(ended.stdout).expect("text");
    let mut end = End {
        step: None,
        shown: Vec::new(),
    };
    for line in said.lines() {
        if let Some(name) = line.strip_prefix("step ") {
            end.step = Some(name.to_owned());
        } else if let Some(advert) = line.strip_prefix("shown ") {
            let bytes = HEXLOWER.decode(advert.as_bytes()).expect("hexadecimal");
            end.shown.push(decode(&bytes).expect("an advert"));
        }
    }
    assert_eq!(ended.status.success(), end.step.is_none(), "{said}");
    assert!(end.step.is_some() || !end.shown.is_empty(), "{said}");
    end
}

fn say_shown(advert: &SignedAdvert) {
    say(&format!("shown {}", HEXLOWER.encode(&encode(advert))));
}

/// One write, so that no other thread's comes in between.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    let written = out.write_all(format!("\n{line}\n").as_bytes());
    written.and_then(|()| out.flush()).expect("someone listens");
}

/// A disk that says when it has changed.
#[derive(Debug)]
struct Disk(FileBackend);

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)?;
        step("database written");
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()?;
        step("database synced");
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)?;
        step("database written");
        Ok(())
    }
}

fn opener() -> Opener {
    Box::new(|path| {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        builder().create_with_backend(Disk(FileBackend::new(file)?))
    })
}
