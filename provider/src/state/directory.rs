//! The data directory: identity, epoch number, Tor's files, uploaded functions.
//!
//! Everything in it is for its owner alone; `fs-mistrust` checks that, and
//! what it finds wrong ends the start with the name of the file.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use dlambda_privacy::os_rng;
use dlambda_privacy::transport::TorDirectories;
use dlambda_proto::{Epoch, IdentityKey, NetworkId};
use fs_mistrust::{CheckedDir, Mistrust};
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::ProviderError;

/// A provider's data directory, checked and locked.
#[derive(Debug)]
pub struct DataDir {
    dir: CheckedDir,
    mistrust: Mistrust,
    /// Held for as long as the provider lives; the kernel frees it with the process.
    _lock: File,
}

const IDENTITY: &str = "identity.key";
const EPOCH: &str = "epoch";
const LOCK: &str = "lock";
const UPLOADED: &str = "functions";
const PRELOADED: &str = "preloaded";
const COMPILED: &str = "compiled";
const CODE_KEY: &str = "code-cache.key";
const OVERLAY: &str = "overlay";
const NODE_KEY: &str = "node.key";
const STORE: &str = "ledger.redb";

impl DataDir {
    /// Opens the directory, creating it if need be, and locks it.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if others could read or change it,
    /// [`ProviderError::InUse`] if another provider has it.
    pub fn open(path: &Path) -> Result<Self, ProviderError> {
        let mistrust = Mistrust::builder()
            .controlled_by_default_env_var()
            .build()
            .map_err(|error| ProviderError::data(path, error))?;
        let dir = mistrust
            .verifier()
            .make_secure_dir(path)
            .map_err(|error| ProviderError::data(path, error))?;
        let lock_path = path.join(LOCK);
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .map_err(ProviderError::io(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ProviderError::InUse(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(ProviderError::data(lock_path, error)),
        }
        Ok(Self {
            dir,
            mistrust,
            _lock: lock,
        })
    }

    /// The directory's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.as_path()
    }

    /// Where Tor keeps its files (the onion key among them) for the network of this name.
    #[must_use]
    pub fn tor(&self, network: &str) -> TorDirectories {
        let tor = self.path().join("tor").join(network);
        TorDirectories::new(tor.join("state"), tor.join("cache"))
    }

    /// Where the Nym client's keys are kept for the network of this name: they
    /// are the provider's address. Made if it is missing.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if it cannot be made, or others could read it.
    pub fn nym(&self, network: &str) -> Result<PathBuf, ProviderError> {
        let path = self.path().join("nym").join(network);
        let made = self.mistrust.make_directory(&path);
        made.map_err(|error| ProviderError::data(path.clone(), error))?;
        Ok(path)
    }

    /// The provider's identity, made at first use.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if the file cannot be read, is not a key, or
    /// others could read it.
    pub fn identity(&self) -> Result<IdentityKey, ProviderError> {
        Ok(IdentityKey::from_seed(&*self.secret(IDENTITY)?))
    }

    /// The secret of this provider's node in an overlay, made at first use. Another in each, so
    /// that overlays do not see that they share a node.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if the file cannot be read, is not a key, or
    /// others could read it.
    pub fn node_secret(&self, network: NetworkId) -> Result<Zeroizing<[u8; 32]>, ProviderError> {
        let mut hash = Sha256::new();
        hash.update(b"dlambda/node-secret/v1\0");
        hash.update(*self.secret(NODE_KEY)?);
        hash.update(network.as_bytes());
        Ok(Zeroizing::new(hash.finalize().into()))
    }

    /// The file of an overlay's catalogue, in a directory of its own.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if the directory cannot be made.
    pub fn catalogue(&self, network: NetworkId) -> Result<PathBuf, ProviderError> {
        let path = self.path().join(OVERLAY);
        let made = self.dir.make_directory(OVERLAY);
        made.map_err(|error| ProviderError::data(path.clone(), error))?;
        Ok(path.join(network.to_string()))
    }

    /// The next epoch number, never given out before: it is on disk before it
    /// is returned. Two adverts for one epoch would look like tagging callers.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if the number cannot be read or stored.
    pub fn next_epoch(&self) -> Result<Epoch, ProviderError> {
        let last = match self.read(EPOCH)? {
            None => Epoch(0),
            Some(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| text.trim().parse().ok().map(Epoch))
                .ok_or_else(|| {
                    ProviderError::data(self.path().join(EPOCH), "not an epoch number")
                })?,
        };
        let next = last.next();
        self.write_durably(EPOCH, format!("{}\n", next.0).as_bytes())?;
        Ok(next)
    }

    /// The file of contracts and spent tokens.
    #[must_use]
    pub fn store_file(&self) -> PathBuf {
        self.path().join(STORE)
    }

    /// Where compiled functions are kept.
    #[must_use]
    pub fn compiled_functions(&self) -> PathBuf {
        self.path().join(COMPILED)
    }

    /// The key that authenticates compiled functions, made at first use.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if the file cannot be read, is not a key, or
    /// others could read it.
    pub fn code_key(&self) -> Result<[u8; 32], ProviderError> {
        Ok(*self.secret(CODE_KEY)?)
    }

    /// 32 random bytes in a file, made at first use.
    fn secret(&self, name: &str) -> Result<Zeroizing<[u8; 32]>, ProviderError> {
        if let Some(kept) = self.read(name)? {
            let kept = kept.as_slice().try_into().map(Zeroizing::new);
            let path = self.path().join(name);
            return kept.map_err(|_| ProviderError::data(path, "not a key (32 bytes)"));
        }
        let mut secret = Zeroizing::new([0; 32]);
        os_rng().fill_bytes(&mut *secret);
        self.write_durably(name, &*secret)?;
        Ok(secret)
    }

    /// The directory of uploaded functions.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if it cannot be made.
    pub fn uploaded_functions(&self) -> Result<PathBuf, ProviderError> {
        let path = self.path().join(UPLOADED);
        self.dir
            .make_directory(UPLOADED)
            .map_err(|error| ProviderError::data(&path, error))?;
        Ok(path)
    }

    /// The directory of functions that other providers publish.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Data`] if it cannot be made.
    pub fn preloaded_functions(&self) -> Result<PathBuf, ProviderError> {
        let path = self.path().join(PRELOADED);
        self.dir
            .make_directory(PRELOADED)
            .map_err(|error| ProviderError::data(&path, error))?;
        Ok(path)
    }

    fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, ProviderError> {
        let path = self.path().join(name);
        // The directory keeps others out today; a file that others could read
        // would be open to them after the next careless copy.
        let checked = self.mistrust.verifier().require_file().check(&path);
        match checked.and_then(|()| self.dir.read(name)) {
            Ok(bytes) => Ok(Some(Zeroizing::new(bytes))),
            Err(fs_mistrust::Error::NotFound(_)) => Ok(None),
            Err(error) => Err(ProviderError::data(path, error)),
        }
    }

    fn write_durably(&self, name: &str, bytes: &[u8]) -> Result<(), ProviderError> {
        write_durably(self.path(), name, bytes).map_err(ProviderError::io(self.path().join(name)))
    }
}

/// Replaces `dir/name` whole and on disk, or not at all: written beside it,
/// synced, renamed, and the directory synced. Mode 0600.
pub(crate) fn write_durably(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let written =
        write_synced(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, dir.join(name)));
    if written.is_err() {
        // On a full disk a half-written file would be in the way of the next.
        let _ = std::fs::remove_file(&temporary);
    }
    written?;
    #[cfg(test)]
    crate::state::steps::step("file renamed");
    File::open(dir)?.sync_all()?;
    #[cfg(test)]
    crate::state::steps::step("file synced");
    Ok(())
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    #[cfg(test)]
    crate::state::steps::step("file written");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn set_mode(path: &Path, mode: u32) {
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path, permissions).expect("our own file");
    }

    #[test]
    fn identity_and_epochs_survive_a_restart() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("data");
        let (id, epoch) = {
            let data = DataDir::open(&path).expect("opens");
            let id = data.identity().expect("made").id();
            (id, data.next_epoch().expect("counts"))
        };
        let data = DataDir::open(&path).expect("opens again");
        assert_eq!(data.identity().expect("kept").id(), id);
        assert_eq!(data.next_epoch().expect("counts"), epoch.next());
        let mode = std::fs::metadata(path.join(IDENTITY))
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn two_providers_cannot_share_a_directory() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("data");
        let _first = DataDir::open(&path).expect("opens");
        assert!(matches!(DataDir::open(&path), Err(ProviderError::InUse(_))));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("data");
        let data = DataDir::open(&path).expect("opens");
        data.identity().expect("made");
        set_mode(&path.join(IDENTITY), 0o644);
        assert!(matches!(data.identity(), Err(ProviderError::Data { .. })));
        drop(data);
        set_mode(&path, 0o755);
        assert!(matches!(
            DataDir::open(&path),
            Err(ProviderError::Data { .. })
        ));
    }

    #[test]
    fn a_broken_file_is_an_error_and_not_replaced() {
        let temp = tempfile::tempdir().expect("a directory");
        let path = temp.path().join("data");
        let data = DataDir::open(&path).expect("opens");
        for (name, text) in [(IDENTITY, "short"), (EPOCH, "minus one")] {
            write_durably(&path, name, text.as_bytes()).expect("writes");
        }
        assert!(data.identity().is_err());
        assert!(data.next_epoch().is_err());
        let left = std::fs::read(path.join(IDENTITY)).expect("still there");
        assert_eq!(left, b"short");
    }
}
