//! The epochs' secrets, each in a file of its own beside the database.
//!
//! In the database they could not be erased: redb never writes over a page
//! that is committed, so to replace a secret by zeros only makes another page,
//! and the old one keeps the secret until chance has it reused. In a file of
//! its own it is overwritten in place, synced, and then removed. That is as
//! much as a program can do: a file system that copies on write, a journal
//! with data in it, a snapshot, a backup or the spare blocks of an SSD may
//! still hold the bytes. So nothing may hang on the secrets of a past epoch
//! but the tokens that it issued, and whose receipts they are.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use dlambda_proto::Epoch;
use zeroize::Zeroizing;

use super::error::StoreError;
use crate::state::directory::write_durably;

const UNFINISHED: &str = ".new";

/// Longest file, in bytes: two seeds of 32 bytes, and an RSA-2048 key of some 1,200.
const MAX_FILE: u64 = 4096;

/// Stores an epoch's secrets, mode 0600, on disk when this returns.
pub(super) fn write(database: &Path, epoch: Epoch, secrets: &[u8]) -> Result<(), StoreError> {
    let name = name(database, epoch);
    let path = database.with_file_name(&name);
    let written = match name.to_str() {
        Some(name) => write_durably(directory(database), name, secrets),
        None => Err(io::ErrorKind::InvalidFilename.into()),
    };
    written.map_err(StoreError::io(&path))
}

/// An epoch's secrets, if their file is there.
pub(super) fn read(
    database: &Path,
    epoch: Epoch,
) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
    let path = path(database, epoch);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io(&path)(error)),
    };
    check_private(&path)?;
    // Room for all of it at once: growing would leave copies behind.
    let mut secrets = Zeroizing::new(Vec::with_capacity(8192));
    file.take(MAX_FILE)
        .read_to_end(&mut secrets)
        .map_err(StoreError::io(&path))?;
    Ok(Some(secrets))
}

/// The file of an epoch's seed.
pub(super) fn path(database: &Path, epoch: Epoch) -> PathBuf {
    database.with_file_name(name(database, epoch))
}

/// Erases the seeds of all epochs but these, half-written ones too. For the
/// start only, when nobody writes one.
pub(super) fn erase_all_but(database: &Path, known: &[Epoch]) -> Result<(), StoreError> {
    erase_where(database, |seed| match seed {
        Seed::Of(epoch) => !known.contains(&epoch),
        Seed::Unfinished => true,
    })
}

/// Erases the seeds of epochs up to `last` but these: the epochs that are over.
/// One above `last` is just being written.
pub(super) fn erase_ended(database: &Path, known: &[Epoch], last: Epoch) -> Result<(), StoreError> {
    erase_where(
        database,
        |seed| matches!(seed, Seed::Of(epoch) if epoch <= last && !known.contains(&epoch)),
    )
}

/// Refuses a file that is not its owner's alone.
pub(super) fn check_private(path: &Path) -> Result<(), StoreError> {
    let metadata = path.metadata().map_err(StoreError::io(path))?;
    if metadata.permissions().mode() & 0o077 == 0 {
        Ok(())
    } else {
        Err(StoreError::Exposed(path.to_owned()))
    }
}

/// Syncs the directory that the store is in.
pub(super) fn sync_directory(database: &Path) -> Result<(), StoreError> {
    let directory = directory(database);
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(StoreError::io(directory))
}

enum Seed {
    Of(Epoch),
    Unfinished,
}

fn erase_where(database: &Path, is_over: impl Fn(Seed) -> bool) -> Result<(), StoreError> {
    let directory = directory(database);
    let mut erased = false;
    for entry in std::fs::read_dir(directory).map_err(StoreError::io(directory))? {
        let entry = entry.map_err(StoreError::io(directory))?;
        if parse(database, &entry.file_name()).is_some_and(&is_over) {
            let path = entry.path();
            erase(&path).map_err(StoreError::io(&path))?;
            erased = true;
        }
    }
    if erased {
        sync_directory(database)?;
    }
    Ok(())
}

/// Overwrites in place before it removes.
fn erase(path: &Path) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len().min(MAX_FILE);
    io::copy(&mut io::repeat(0).take(length), &mut file)?;
    file.sync_all()?;
    #[cfg(test)]
    crate::state::steps::step("file overwritten");
    std::fs::remove_file(path)?;
    #[cfg(test)]
    crate::state::steps::step("file removed");
    Ok(())
}

fn parse(database: &Path, name: &std::ffi::OsStr) -> Option<Seed> {
    let prefix = prefix(database);
    let rest = name.to_str()?.strip_prefix(prefix.to_str()?)?;
    if rest.ends_with(UNFINISHED) {
        return Some(Seed::Unfinished);
    }
    let epoch: u64 = rest.parse().ok()?;
    (epoch.to_string() == rest).then_some(Seed::Of(Epoch(epoch)))
}

fn name(database: &Path, epoch: Epoch) -> OsString {
    let mut name = prefix(database);
    name.push(epoch.0.to_string());
    name
}

fn prefix(database: &Path) -> OsString {
    let mut prefix = database.file_name().unwrap_or_default().to_owned();
    prefix.push(".seed-");
    prefix
}

fn directory(database: &Path) -> &Path {
    match database.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
