//! The directory of a provider's identity.

use std::fs::{DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::error::DirectoryError;

/// Its mode. The SDK writes the private keys in the clear.
const MODE: u32 = 0o700;

/// The file that is locked while a helper uses the directory.
const LOCK: &str = "lock";

/// How long an earlier helper, whose program has just ended, may take to end.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(100);

/// A directory that is ours alone, while this value exists.
pub(super) struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// The same as [`Directory::open`], but waits a little for an earlier
    /// helper to end: a provider that is started again at once has one.
    pub(super) async fn inherit(path: &Path) -> Result<Self, DirectoryError> {
        let until = Instant::now() + PREDECESSOR;
        loop {
            match Self::open(path) {
                Err(DirectoryError::InUse) if Instant::now() < until => sleep(LOOK).await,
                opened => return opened,
            }
        }
    }

    /// Makes the directory if there is none, and takes it if nobody else can
    /// look into it.
    pub(super) fn open(path: &Path) -> Result<Self, DirectoryError> {
        if !path.try_exists()? {
            DirBuilder::new().mode(MODE).create(path)?;
        }
        let metadata = path.metadata()?;
        if !metadata.is_dir() {
            return Err(DirectoryError::NotADirectory);
        }
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(DirectoryError::NotOurs);
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            return Err(DirectoryError::Open);
        }
        let lock = File::create(path.join(LOCK))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => DirectoryError::InUse,
            TryLockError::Error(error) => error.into(),
        })?;
        Ok(Self {
            path: path.to_owned(),
            _lock: lock,
        })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::Permissions;

    #[test]
    fn only_a_closed_directory_is_taken_and_only_once() {
        let parent = tempfile::tempdir().expect("a directory");
        let path = parent.path().join("identity");
        let taken = Directory::open(&path).expect("is made");
        let mode = path.metadata().expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        let again = Directory::open(&path);
        assert!(matches!(again, Err(DirectoryError::InUse)));
        drop(taken);
        Directory::open(&path).expect("is free");
        std::fs::set_permissions(&path, Permissions::from_mode(0o750)).expect("ours");
        assert!(matches!(Directory::open(&path), Err(DirectoryError::Open)));
        let file = parent.path().join("file");
        std::fs::write(&file, "").expect("is written");
        let wrong = Directory::open(&file);
        assert!(matches!(wrong, Err(DirectoryError::NotADirectory)));
    }
}
