//! The directory of a network: claimed by one network at a time, recognised
//! when it is used again, and never anybody else's.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};

use tempfile::TempDir;

use super::{TestnetError, wait, wait::Deadline};

/// Marks a directory as ours, and is locked while a network runs in it.
const MARKER: &str = ".dlambda-testnet";
const NETWORK_TOML: &str = "network.toml";
const NODES: &str = "nodes";
const CLIENTS: &str = "clients";

/// Orphans of a killed owner notice within 15 s; wait a little longer.
const ORPHAN_GRACE: Duration = Duration::from_secs(20);

/// A directory that belongs to one running network.
#[derive(Debug)]
pub(crate) struct NetworkDir {
    path: PathBuf,
    _lock: File,
    _temporary: Option<TempDir>,
}

impl NetworkDir {
    /// Claims `dir`, or a temporary directory, within so much time.
    pub(crate) async fn claim_within(
        dir: Option<&Path>,
        limit: Duration,
    ) -> Result<Self, TestnetError> {
        Self::claim(dir, Deadline::after(limit)).await
    }

    /// Claims `dir`, or a temporary directory, and clears what an earlier
    /// network left there.
    pub(super) async fn claim(
        dir: Option<&Path>,
        deadline: Deadline,
    ) -> Result<Self, TestnetError> {
        let (path, temporary) = match dir {
            Some(dir) => (given(dir)?, None),
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("dlambda-testnet-")
                    .tempdir()
                    .map_err(TestnetError::io(
                        "create a directory in",
                        std::env::temp_dir(),
                    ))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let lock = lock(&path)?;
        let mut claimed = Self {
            path,
            _lock: lock,
            _temporary: temporary,
        };
        claimed.wipe(deadline).await?;
        Ok(claimed)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn network_toml(&self) -> PathBuf {
        self.path.join(NETWORK_TOML)
    }

    /// Makes the private data directory of a node.
    pub(super) fn make_node_dir(&self, name: &str) -> Result<PathBuf, TestnetError> {
        make_private(self.path.join(NODES).join(name))
    }

    /// Makes the private data directory of a client.
    pub(super) fn make_client_dir(&self, name: &str) -> Result<PathBuf, TestnetError> {
        make_private(self.path.join(CLIENTS).join(name))
    }

    /// Removes the files of an earlier network, once its processes are gone.
    pub(super) async fn wipe(&mut self, deadline: Deadline) -> Result<(), TestnetError> {
        let deadline = deadline.at_most(ORPHAN_GRACE);
        for part in [NODES, CLIENTS] {
            let part = self.path.join(part);
            while has_running_tor(&part) {
                if deadline.has_passed() {
                    return Err(TestnetError::DirInUse(self.path.clone()));
                }
                tokio::time::sleep(wait::POLL).await;
            }
            if part.exists() {
                fs::remove_dir_all(&part).map_err(TestnetError::io("remove", &part))?;
            }
        }
        let network_toml = self.network_toml();
        if network_toml.exists() {
            fs::remove_file(&network_toml).map_err(TestnetError::io("remove", &network_toml))?;
        }
        Ok(())
    }
}

/// Makes `dir` if needed; refuses one with files that are not ours.
fn given(dir: &Path) -> Result<PathBuf, TestnetError> {
    make_private(dir.to_owned())?;
    let dir = dir
        .canonicalize()
        .map_err(TestnetError::io("resolve", dir))?;
    let mut entries = fs::read_dir(&dir).map_err(TestnetError::io("read", &dir))?;
    if entries.next().is_some() && !dir.join(MARKER).is_file() {
        return Err(TestnetError::DirNotOurs(dir));
    }
    Ok(dir)
}

fn lock(dir: &Path) -> Result<File, TestnetError> {
    let marker = dir.join(MARKER);
    let file = File::options()
        .create(true)
        .append(true)
        .open(&marker)
        .map_err(TestnetError::io("create", &marker))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(TestnetError::DirInUse(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(TestnetError::io("lock", marker)(source)),
    }
}

/// Whether a `tor` still holds the lock of one of the data directories below.
fn has_running_tor(dirs: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dirs) else {
        return false;
    };
    entries.flatten().any(|entry| {
        File::open(entry.path().join("lock"))
            .is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
    })
}

fn make_private(path: PathBuf) -> Result<PathBuf, TestnetError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&path)
        .map_err(TestnetError::io("create", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    #[tokio::test]
    async fn refuses_a_directory_with_other_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
        let refused = NetworkDir::claim(Some(dir.path()), soon()).await;
        assert!(matches!(refused, Err(TestnetError::DirNotOurs(_))));
    }

    #[tokio::test]
    async fn reuses_its_own_directory_and_keeps_what_it_did_not_make() {
        let dir = tempfile::tempdir().unwrap();
        let first = NetworkDir::claim(Some(dir.path()), soon()).await.unwrap();
        let node = first.make_node_dir("relay0").unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        let second = NetworkDir::claim(Some(dir.path()), soon()).await;
        assert!(matches!(second, Err(TestnetError::DirInUse(_))));
        drop(first);
        NetworkDir::claim(Some(dir.path()), soon()).await.unwrap();
        assert!(!node.exists());
        assert!(dir.path().join("notes.txt").exists());
    }
}
