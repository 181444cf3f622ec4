//! Functions: those the operator publishes, those that other providers publish and that were
//! fetched from them, and those that callers brought. Only the first are handed on to other nodes.
//!
//! Brought functions are kept on disk under their CID, up to a bound; the
//! longest unused go first. What is read back is checked against its name.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use dlambda_broker::spread::MAX_SPREAD_BYTES;
use dlambda_node::{FunctionPart, PublishedFunctions};
use dlambda_proto::{FunctionId, PublishedFunction};

use crate::ProviderError;
use crate::state::directory::write_durably;
use crate::state::preloaded::PreloadedFunctions;

/// All functions of a provider.
pub(crate) struct FunctionStore {
    published: HashMap<FunctionId, (PublishedFunction, Bytes)>,
    preloaded: PreloadedFunctions,
    dir: PathBuf,
    uploaded: Mutex<Uploaded>,
    /// One upload is written at a time: two callers may bring the same function.
    writing: Mutex<()>,
}

struct Uploaded {
    entries: HashMap<FunctionId, Entry>,
    bytes: u64,
    limit: u64,
    clock: u64,
}

struct Entry {
    size: u64,
    last_use: u64,
}

impl FunctionStore {
    /// Publishes every `*.wasm` in `functions`, and finds what was uploaded to
    /// `dir` before.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] naming the file that cannot be read or has no good name.
    pub(crate) fn open(
        functions: &Path,
        max_function_bytes: u32,
        dir: PathBuf,
        limit: u64,
        preloaded: PreloadedFunctions,
    ) -> Result<Self, ProviderError> {
        let mut published = HashMap::new();
        for path in wasm_files(functions)? {
            let (function, wasm) = publish(&path, max_function_bytes)?;
            published.insert(function.id, (function, wasm));
        }
        let mut uploaded = Uploaded {
            entries: HashMap::new(),
            bytes: 0,
            limit,
            clock: 0,
        };
        for path in files(&dir, "new")? {
            // Half written when the machine went down.
            remove(&path);
        }
        for path in wasm_files(&dir)? {
            let id = path
                .file_stem()
                .and_then(|stem| stem.to_str()?.parse().ok());
            let size = path.metadata().map_err(ProviderError::io(&path))?.len();
            match id {
                Some(id) => uploaded.insert(id, size),
                None => remove(&path),
            }
        }
        let store = Self {
            published,
            preloaded,
            dir,
            uploaded: Mutex::new(uploaded),
            writing: Mutex::new(()),
        };
        store.evict();
        Ok(store)
    }

    /// What the advert lists, in the order of aliases.
    pub(crate) fn published(&self) -> Vec<PublishedFunction> {
        let mut list: Vec<_> = self.published.values().map(|(f, _)| f.clone()).collect();
        list.sort_by(|a, b| a.alias.cmp(&b.alias));
        list
    }

    /// The published functions' bytes, to compile them ahead of the first call.
    pub(crate) fn published_wasm(&self) -> impl Iterator<Item = (&PublishedFunction, &Bytes)> {
        self.published
            .values()
            .map(|(function, wasm)| (function, wasm))
    }

    /// Whether the operator publishes this function.
    pub(crate) fn is_published(&self, id: &FunctionId) -> bool {
        self.published.contains_key(id)
    }

    /// Those of other providers.
    pub(crate) fn preloaded(&self) -> &PreloadedFunctions {
        &self.preloaded
    }

    /// Number of functions: published and uploaded.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.published.len(), self.lock().entries.len())
    }

    /// A function's bytes, if it is here. Blocks on the disk.
    pub(crate) fn get(&self, id: &FunctionId) -> Option<Bytes> {
        if let Some((_, wasm)) = self.published.get(id) {
            return Some(wasm.clone());
        }
        if let Some(wasm) = self.preloaded.get(id) {
            return Some(wasm);
        }
        if !self.lock().touch(id) {
            return None;
        }
        let path = self.path(id);
        match std::fs::read(&path) {
            Ok(wasm) if FunctionId::of(&wasm) == *id => Some(wasm.into()),
            // Damaged or gone: forget it; the caller brings it again.
            _ => {
                self.lock().forget(id);
                remove(&path);
                None
            }
        }
    }

    /// Keeps a function that a caller brought. Blocks on the disk. A full disk
    /// costs the next caller an upload and nothing else.
    pub(crate) fn put(&self, id: FunctionId, wasm: &[u8]) {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let size = wasm.len() as u64;
        let is_public = self.published.contains_key(&id) || self.preloaded.contains(&id);
        if is_public || size > self.lock().limit || self.lock().touch(&id) {
            return;
        }
        match write_durably(&self.dir, &file_name(&id), wasm) {
            Ok(()) => self.lock().insert(id, size),
            Err(error) => {
                tracing::warn!(kind = ?error.kind(), "an uploaded function could not be kept");
                remove(&self.path(&id));
            }
        }
        self.evict();
    }

    fn evict(&self) {
        let mut uploaded = self.lock();
        while uploaded.bytes > uploaded.limit {
            let oldest = uploaded.entries.iter().min_by_key(|(_, e)| e.last_use);
            let Some(id) = oldest.map(|(id, _)| *id) else {
                return;
            };
            uploaded.forget(&id);
            remove(&self.path(&id));
        }
    }

    fn path(&self, id: &FunctionId) -> PathBuf {
        self.dir.join(file_name(id))
    }

    fn lock(&self) -> MutexGuard<'_, Uploaded> {
        // The index is whole between any two operations on it.
        self.uploaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Published ones alone: a function that a caller brought would name the caller.
impl PublishedFunctions for FunctionStore {
    fn part(&self, function: &FunctionId, offset: u32, most: usize) -> Option<FunctionPart> {
        let (published, wasm) = self.published.get(function)?;
        if u64::from(published.size) > MAX_SPREAD_BYTES {
            return None;
        }
        let rest = wasm.get(usize::try_from(offset).ok()?..)?;
        let part = rest.get(..most).unwrap_or(rest);
        (!part.is_empty()).then(|| FunctionPart {
            size: published.size,
            bytes: part.to_vec(),
        })
    }
}

impl Uploaded {
    fn insert(&mut self, id: FunctionId, size: u64) {
        self.forget(&id);
        self.clock += 1;
        self.bytes += size;
        let last_use = self.clock;
        self.entries.insert(id, Entry { size, last_use });
    }

    fn touch(&mut self, id: &FunctionId) -> bool {
        self.clock += 1;
        let clock = self.clock;
        let entry = self.entries.get_mut(id);
        entry.map(|entry| entry.last_use = clock).is_some()
    }

    fn forget(&mut self, id: &FunctionId) {
        if let Some(entry) = self.entries.remove(id) {
            self.bytes -= entry.size;
        }
    }
}

fn publish(path: &Path, limit: u32) -> Result<(PublishedFunction, Bytes), ProviderError> {
    let bad = |reason: String| ProviderError::Function {
        path: path.to_owned(),
        reason,
    };
    let alias = path
        .file_stem()
        .and_then(|stem| stem.to_str())
        .unwrap_or("");
    if !PublishedFunction::is_good_alias(alias) {
        return Err(bad(
            "the file's name becomes the function's alias: use 1 to 64 of A-Z a-z 0-9 . _ -".into(),
        ));
    }
    let wasm = std::fs::read(path).map_err(ProviderError::io(path))?;
    let size = u32::try_from(wasm.len()).ok().filter(|size| *size <= limit);
    let size = size.ok_or_else(|| bad(format!("larger than {limit} bytes")))?;
    let function = PublishedFunction {
        id: FunctionId::of(&wasm),
        alias: alias.to_owned(),
        size,
    };
    Ok((function, wasm.into()))
}

pub(super) fn wasm_files(dir: &Path) -> Result<Vec<PathBuf>, ProviderError> {
    files(dir, "wasm")
}

pub(super) fn files(dir: &Path, wanted: &str) -> Result<Vec<PathBuf>, ProviderError> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(ProviderError::io(dir))? {
        let path = entry.map_err(ProviderError::io(dir))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == wanted)
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

pub(super) fn file_name(id: &FunctionId) -> String {
    format!("{}.wasm", id.unredacted())
}

pub(super) fn remove(path: &Path) {
    // What cannot be removed is found, and removed, at the next start.
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(dir: &Path, limit: u64) -> FunctionStore {
        let functions = dir.join("published");
        let uploaded = dir.join("uploaded");
        std::fs::create_dir_all(&functions).expect("made");
        std::fs::create_dir_all(&uploaded).expect("made");
        std::fs::write(functions.join("hello.wasm"), b"hello").expect("written");
        let preloaded = dir.join("preloaded");
        std::fs::create_dir_all(&preloaded).expect("made");
        let preloaded = PreloadedFunctions::open(preloaded, 100).expect("opens");
        FunctionStore::open(&functions, 1000, uploaded, limit, preloaded).expect("opens")
    }

    fn put(store: &FunctionStore, wasm: &[u8]) -> FunctionId {
        let id = FunctionId::of(wasm);
        store.put(id, wasm);
        id
    }

    #[test]
    fn publishes_files_under_their_stem() {
        let temp = tempfile::tempdir().expect("a directory");
        let store = store(temp.path(), 100);
        let list = store.published();
        assert_eq!(list.len(), 1);
        assert_eq!((list[0].alias.as_str(), list[0].size), ("hello", 5));
        assert_eq!(
            store.get(&FunctionId::of(b"hello")).as_deref(),
            Some(&b"hello"[..])
        );
        assert_eq!(store.get(&FunctionId::of(b"other")), None);
    }

    #[test]
    fn only_published_functions_are_handed_on() {
        let temp = tempfile::tempdir().expect("a directory");
        let store = store(temp.path(), 100);
        let published = FunctionId::of(b"hello");
        let part = store.part(&published, 1, 3).expect("is handed on");
        assert_eq!((part.size, &part.bytes[..]), (5, &b"ell"[..]));
        let rest = store.part(&published, 4, 100).expect("is handed on");
        assert_eq!(rest.bytes, b"o");
        assert!(store.part(&published, 5, 100).is_none(), "no such byte");
        let brought = put(&store, b"brought");
        assert!(store.get(&brought).is_some() && store.part(&brought, 0, 100).is_none());
        let fetched = FunctionId::of(b"fetched");
        assert!(store.preloaded().put(fetched, b"fetched"));
        assert!(store.get(&fetched).is_some() && store.part(&fetched, 0, 100).is_none());
        assert_eq!(store.counts(), (1, 1));
    }

    #[test]
    fn keeps_uploads_within_the_bound_and_the_latest_used() {
        let temp = tempfile::tempdir().expect("a directory");
        let store = store(temp.path(), 100);
        let one = put(&store, &[1; 40]);
        let two = put(&store, &[2; 40]);
        assert!(store.get(&one).is_some(), "used last");
        let three = put(&store, &[3; 40]);
        assert!(store.get(&one).is_some() && store.get(&three).is_some());
        assert!(store.get(&two).is_none(), "longest unused");
        let four = put(&store, &[4; 101]);
        assert!(store.get(&four).is_none(), "larger than the store");
        assert_eq!(store.counts(), (1, 2));
    }

    #[test]
    fn uploads_survive_a_restart_and_damage_is_noticed() {
        let temp = tempfile::tempdir().expect("a directory");
        let id = put(&store(temp.path(), 100), b"upload");
        let store = store(temp.path(), 100);
        assert!(store.get(&id).is_some());
        std::fs::write(store.path(&id), b"damage").expect("written");
        assert!(store.get(&id).is_none());
        assert!(!store.path(&id).exists());
    }
}
