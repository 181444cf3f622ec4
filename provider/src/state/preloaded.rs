//! Functions of other providers, on disk under their CIDs, within a budget.
//!
//! Which ones are kept is decided elsewhere; here nothing is evicted but at the start, if the
//! budget has become smaller. What is read back is checked against its name.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dlambda_proto::FunctionId;

use super::functions::{file_name, files, remove, wasm_files};
use crate::ProviderError;
use crate::state::directory::write_durably;

/// The functions that were fetched from other providers.
pub(crate) struct PreloadedFunctions {
    dir: PathBuf,
    budget: u64,
    /// Their sizes in bytes.
    sizes: Mutex<BTreeMap<FunctionId, u64>>,
}

impl PreloadedFunctions {
    /// Finds what was fetched to `dir` before; removes what does not fit into the budget.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if the directory cannot be read.
    pub(crate) fn open(dir: PathBuf, budget: u64) -> Result<Self, ProviderError> {
        for path in files(&dir, "new")? {
            // Half written when the machine went down.
            remove(&path);
        }
        let mut sizes = BTreeMap::new();
        let mut used: u64 = 0;
        for path in wasm_files(&dir)? {
            let size = path.metadata().map_err(ProviderError::io(&path))?.len();
            match named_by(&path) {
                Some(id) if used.saturating_add(size) <= budget => {
                    used += size;
                    sizes.insert(id, size);
                }
                _ => remove(&path),
            }
        }
        Ok(Self {
            dir,
            budget,
            sizes: Mutex::new(sizes),
        })
    }

    /// Bytes that they may have together.
    pub(crate) fn budget(&self) -> u64 {
        self.budget
    }

    /// Which there are, and their sizes in bytes.
    pub(crate) fn sizes(&self) -> BTreeMap<FunctionId, u64> {
        self.lock().clone()
    }

    pub(crate) fn contains(&self, id: &FunctionId) -> bool {
        self.lock().contains_key(id)
    }

    /// A function's bytes, if it is here. Blocks on the disk.
    pub(crate) fn get(&self, id: &FunctionId) -> Option<Bytes> {
        if !self.contains(id) {
            return None;
        }
        match std::fs::read(self.path(id)) {
            Ok(wasm) if FunctionId::of(&wasm) == *id => Some(wasm.into()),
            // Damaged or gone: it may be fetched again.
            _ => {
                self.remove(id);
                None
            }
        }
    }

    /// Keeps a function, if it fits into the budget. Blocks on the disk. Says whether it is kept.
    pub(crate) fn put(&self, id: FunctionId, wasm: &[u8]) -> bool {
        let size = wasm.len() as u64;
        let used: u64 = self.lock().values().sum();
        if self.contains(&id) || used.saturating_add(size) > self.budget {
            return self.contains(&id);
        }
        match write_durably(&self.dir, &file_name(&id), wasm) {
            Ok(()) => {
                self.lock().insert(id, size);
                true
            }
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "a fetched function could not be kept");
                remove(&self.path(&id));
                false
            }
        }
    }

    /// Removes a function. Blocks on the disk.
    pub(crate) fn remove(&self, id: &FunctionId) {
        self.lock().remove(id);
        remove(&self.path(id));
    }

    fn path(&self, id: &FunctionId) -> PathBuf {
        self.dir.join(file_name(id))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<FunctionId, u64>> {
        // The index is whole between any two operations on it.
        self.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn named_by(path: &Path) -> Option<FunctionId> {
    path.file_stem()?.to_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, budget: u64) -> PreloadedFunctions {
        PreloadedFunctions::open(dir.to_owned(), budget).expect("opens")
    }

    fn put(store: &PreloadedFunctions, wasm: &[u8]) -> bool {
        store.put(FunctionId::of(wasm), wasm)
    }

    #[test]
    fn nothing_is_kept_beyond_the_budget() {
        let temp = tempfile::tempdir().expect("a directory");
        let store = open(temp.path(), 100);
        assert!(put(&store, &[1; 60]) && put(&store, &[2; 40]));
        assert!(put(&store, &[1; 60]), "is here");
        assert!(!put(&store, &[3; 1]));
        store.remove(&FunctionId::of(&[2; 40]));
        assert!(put(&store, &[3; 1]));
        assert_eq!(store.sizes().values().sum::<u64>(), 61);
        assert!(!put(&open(temp.path(), 0), &[4; 1]));
        assert_eq!(wasm_files(temp.path()).expect("read").len(), 0);
    }

    #[test]
    fn functions_survive_a_restart_and_damage_is_noticed() {
        let temp = tempfile::tempdir().expect("a directory");
        let (id, other) = (FunctionId::of(b"wasm"), FunctionId::of(b"more"));
        let store = open(temp.path(), 100);
        assert!(put(&store, b"wasm") && put(&store, b"more"));
        std::fs::write(temp.path().join("half.wasm.new"), b"x").expect("written");
        std::fs::write(temp.path().join("odd.wasm"), b"x").expect("written");
        let store = open(temp.path(), 100);
        assert_eq!(store.get(&id).as_deref(), Some(&b"wasm"[..]));
        std::fs::write(store.path(&id), b"damage").expect("written");
        assert!(store.get(&id).is_none() && !store.contains(&id));
        assert!(store.get(&other).is_some());
        assert_eq!(files(temp.path(), "new").expect("read").len(), 0);
        assert_eq!(wasm_files(temp.path()).expect("read").len(), 1);
    }
}
