//! The directory: one file a contract, named by its id.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dlambda_proto::ContractId;
use fs_mistrust::{CheckedDir, Mistrust};
use zeroize::Zeroizing;

use super::WalletError;
use super::file::{MAX_FILE, Record};

const OWNERS: &str = "owners";
const LOCK: &str = "lock";
/// Ends the name of a file that is being written.
const NEW: &str = ".new";

/// The wallet's directory, checked. All but [`Store::open`] are only for a process
/// that has entered the gate.
pub(super) struct Store {
    dir: CheckedDir,
    mistrust: Mistrust,
}

/// Whether a change must be on disk before we go on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// It must.
    Now,
    /// It may be lost when the machine crashes, though not when the process is
    /// killed; what was there before may not.
    Later,
}

impl Store {
    /// Opens the directory, creating it if need be.
    pub(super) fn open(path: &Path) -> Result<Self, WalletError> {
        let failed = |error: fs_mistrust::Error| WalletError::file(path, error);
        let mistrust = Mistrust::builder()
            .controlled_by_default_env_var()
            .build()
            .map_err(|error| WalletError::file(path, error))?;
        let absolute = std::path::absolute(path).map_err(WalletError::io(path))?;
        let missing: Vec<_> = absolute.ancestors().take_while(|p| !p.exists()).collect();
        let dir = mistrust
            .verifier()
            .make_secure_dir(&absolute)
            .map_err(failed)?;
        // What is in a directory is not durable before the directory is.
        for parent in missing.into_iter().filter_map(Path::parent) {
            sync_directory(parent)?;
        }
        dir.make_secure_directory(OWNERS).map_err(failed)?;
        Ok(Self { dir, mistrust })
    }

    pub(super) fn lock_path(&self) -> PathBuf {
        self.dir.as_path().join(LOCK)
    }

    pub(super) fn owners(&self) -> PathBuf {
        self.dir.as_path().join(OWNERS)
    }

    /// Whether the directory is still for its owner alone.
    pub(super) fn check(&self) -> Result<(), WalletError> {
        let dir = self.dir.as_path();
        let verifier = self.mistrust.verifier().require_directory();
        let checked = verifier.check(dir);
        checked.map_err(|error| WalletError::file(dir, error))
    }

    /// The contracts here, in the order of their names. What a killed process
    /// left half-written is removed: no other process writes while we are here.
    pub(super) fn contracts(&self) -> Result<Vec<ContractId>, WalletError> {
        let dir = self.dir.as_path();
        let mut contracts = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(WalletError::io(dir))? {
            let name = entry.map_err(WalletError::io(dir))?.file_name();
            let Some(name) = name.to_str() else { continue };
            match name.strip_suffix(NEW) {
                None => contracts.extend(parse(name)),
                Some(stem) if parse(stem).is_some() => {
                    let _ = std::fs::remove_file(dir.join(name));
                }
                Some(_) => {}
            }
        }
        contracts.sort_unstable();
        Ok(contracts)
    }

    /// A contract, unless there is none of this name.
    pub(super) fn read(&self, id: &ContractId) -> Result<Option<Record>, WalletError> {
        let path = self.path(id);
        // Everything on the way there is checked, and the file itself: one that
        // others could read would be open to them after the next careless copy.
        let checked = self.mistrust.verifier().require_file().check(&path);
        let opened = checked.and_then(|()| {
            let name = hex::encode(id.0);
            self.dir.open(name, OpenOptions::new().read(true))
        });
        let file = match opened {
            Ok(file) => file,
            Err(fs_mistrust::Error::NotFound(_)) => return Ok(None),
            Err(error) => return Err(WalletError::file(path, error)),
        };
        let bytes = read_bounded(file).map_err(WalletError::io(&path))?;
        if bytes.len() > MAX_FILE {
            let reason = "it is too long for a contract's file";
            return Err(WalletError::Damaged { path, reason });
        }
        Record::from_file(&bytes, id)
            .map(Some)
            .map_err(|reason| WalletError::Damaged { path, reason })
    }

    /// Replaces a contract's file whole, or not at all: written beside it,
    /// synced, renamed, and the directory synced.
    pub(super) fn write(
        &self,
        id: &ContractId,
        record: &Record,
        durability: Durability,
    ) -> Result<(), WalletError> {
        let bytes = record.to_file();
        if bytes.len() > MAX_FILE {
            return Err(WalletError::Inconsistent("a contract is too long to keep"));
        }
        let path = self.path(id);
        let temporary = self.dir.as_path().join(hex::encode(id.0) + NEW);
        // Synced even when the change may come later: some file systems would
        // rename first and write the contents afterwards, and a crash between
        // would take all tokens along.
        let written =
            write_synced(&temporary, &bytes).and_then(|()| std::fs::rename(&temporary, &path));
        if written.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        written.map_err(WalletError::io(&path))?;
        match durability {
            Durability::Now => self.sync(),
            Durability::Later => Ok(()),
        }
    }

    /// Removes a contract's file, if there is one.
    pub(super) fn remove(&self, id: &ContractId) -> Result<(), WalletError> {
        let path = self.path(id);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(WalletError::file(path, error))
            }
            _ => self.sync(),
        }
    }

    /// Makes durable which files there are.
    pub(super) fn sync(&self) -> Result<(), WalletError> {
        sync_directory(self.dir.as_path())
    }

    fn path(&self, id: &ContractId) -> PathBuf {
        self.dir.as_path().join(hex::encode(id.0))
    }
}

/// The id that a file's name is, in its only spelling.
fn parse(name: &str) -> Option<ContractId> {
    let mut id = [0; 32];
    hex::decode_to_slice(name, &mut id).ok()?;
    (hex::encode(id) == name).then_some(ContractId(id))
}

/// All bytes, or one more than a contract's file can have.
fn read_bounded(file: File) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of it at once: growing would leave copies behind.
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(MAX_FILE) + 1));
    let most = u64::try_from(MAX_FILE + 1).unwrap_or(u64::MAX);
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> Result<(), WalletError> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .map_err(WalletError::io(path))
}
