//! Compiled code on disk, so that a restart compiles nothing again.
//!
//! A file is `magic (16) | interface (1) | zeros (15) | code | MAC (32)`, named after the function
//! and the engine. Loading native code runs it, so the MAC (BLAKE3 keyed with a secret of this
//! provider) covers everything, the name included: a file that was changed, swapped, or brought
//! along is thrown away. What is loaded is the copy in memory that was checked, never the file.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use dlambda_proto::FunctionId;

use crate::code_cache::{CodeImage, memory_file};
use crate::{Abi, CodeCacheConfig};

const MAGIC: &[u8; 16] = b"dlambda code 1\n\0";
const HEADER: usize = 32;
const MAC: usize = 32;
const EXTENSION: &str = "code";
const CHUNK: usize = 256 << 10;

/// The files of one directory.
pub(crate) struct DiskCache {
    config: CodeCacheConfig,
    compatibility: [u8; 32],
    rejected: AtomicU64,
    /// When each file was used, in uses so far. In memory only: on disk it would tell a thief when
    /// calls were made.
    used: Mutex<HashMap<PathBuf, u64>>,
}

impl DiskCache {
    /// `compatibility` names the engine, this machine's processor included.
    pub(crate) fn open(config: CodeCacheConfig, compatibility: [u8; 32]) -> io::Result<Self> {
        let mut directory = fs::DirBuilder::new();
        directory
            .recursive(true)
            .mode(0o700)
            .create(&config.directory)?;
        let cache = Self {
            config,
            compatibility,
            rejected: AtomicU64::new(0),
            used: Mutex::default(),
        };
        cache.evict();
        Ok(cache)
    }

    /// The function's code, if it is here and whole. Blocks.
    pub(crate) fn get(&self, id: &FunctionId) -> Option<CodeImage> {
        let path = self.path(id);
        let file = File::open(&path).ok()?;
        match self.read(id, &file) {
            Ok(image) => {
                self.use_now(path);
                Some(image)
            }
            Err(_) => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Keeps the code, as far as there is room. Blocks. What cannot be kept will be compiled again.
    pub(crate) fn put(&self, id: &FunctionId, image: &CodeImage) -> io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        if image.len() + (HEADER + MAC) as u64 > self.config.bytes {
            return Ok(());
        }
        let path = self.path(id);
        // No other executor's, in this process or in another.
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{}-{number}.new", std::process::id()));
        let written = self.write(id, image, &temporary);
        let kept = written.and_then(|()| fs::rename(&temporary, &path));
        if kept.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        self.use_now(path);
        self.evict();
        kept
    }

    fn use_now(&self, path: PathBuf) {
        let mut used = self.used();
        let now = used.values().max().map_or(1, |last| last + 1);
        used.insert(path, now);
    }

    fn used(&self) -> MutexGuard<'_, HashMap<PathBuf, u64>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Files that were found changed or broken so far.
    pub(crate) fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    fn read(&self, id: &FunctionId, mut file: &File) -> io::Result<CodeImage> {
        let damaged = || io::Error::from(io::ErrorKind::InvalidData);
        let len = file.metadata()?.len();
        let code = len.checked_sub((HEADER + MAC) as u64).ok_or_else(damaged)?;
        if len > self.config.bytes {
            return Err(damaged());
        }
        let mut mac = self.mac(id);
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        mac.update(&header);
        let abi = header[..16]
            .eq(MAGIC)
            .then(|| abi(header[16]))
            .flatten()
            .ok_or_else(damaged)?;
        let memory = memory_file()?;
        copy(file, &mut File::from(memory.try_clone()?), code, &mut mac)?;
        let mut found = [0; MAC];
        file.read_exact(&mut found)?;
        // Of what was read, after it was read; in constant time.
        if mac.finalize() != blake3::Hash::from_bytes(found) {
            return Err(damaged());
        }
        CodeImage::seal(abi, memory)
    }

    fn write(&self, id: &FunctionId, image: &CodeImage, path: &Path) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(MAGIC);
        header[16] = abi_code(image.abi());
        let mut mac = self.mac(id);
        mac.update(&header);
        file.write_all(&header)?;
        copy(image.reader(), &mut file, image.len(), &mut mac)?;
        file.write_all(mac.finalize().as_bytes())
    }

    fn mac(&self, id: &FunctionId) -> blake3::Hasher {
        let mut mac = blake3::Hasher::new_keyed(&self.config.key);
        mac.update(id.digest());
        mac.update(&self.compatibility);
        mac
    }

    fn path(&self, id: &FunctionId) -> PathBuf {
        let hex = |bytes: &[u8]| {
            bytes
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect::<String>()
        };
        let name = format!(
            "{}-{}.{EXTENSION}",
            hex(id.digest()),
            hex(&self.compatibility[..8])
        );
        self.config.directory.join(name)
    }

    /// Removes what was not used for longest until the rest fits, and what a crash left half
    /// written. What was not used since the start goes by its age.
    fn evict(&self) {
        let mut used = self.used();
        let Ok(entries) = fs::read_dir(&self.config.directory) else {
            return;
        };
        let mut files = Vec::new();
        for entry in entries.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else {
                continue;
            };
            let made = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            if path
                .extension()
                .is_some_and(|extension| extension == EXTENSION)
            {
                let last = used.get(&path).copied().unwrap_or(0);
                files.push((last, made, metadata.len(), path));
            } else if made.elapsed().is_ok_and(|age| age.as_secs() > 3_600) {
                let _ = fs::remove_file(path);
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, _, len, _)| len).sum();
        for (_, _, len, path) in files {
            if total <= self.config.bytes {
                break;
            }
            if fs::remove_file(&path).is_ok() {
                total -= len;
                used.remove(&path);
            }
        }
    }
}

/// The interface of a function, as a file says it.
fn abi_code(abi: Abi) -> u8 {
    match abi {
        Abi::Preview1 => 1,
        Abi::Preview2 => 2,
        Abi::Http => 3,
    }
}

fn abi(code: u8) -> Option<Abi> {
    let all = [Abi::Preview1, Abi::Preview2, Abi::Http];
    all.into_iter().find(|abi| abi_code(*abi) == code)
}

fn copy(mut from: impl Read, to: &mut File, len: u64, mac: &mut blake3::Hasher) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        from.read_exact(&mut buffer[..part])?;
        mac.update(&buffer[..part]);
        to.write_all(&buffer[..part])?;
        left -= part as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Abi;

    fn id(number: u8) -> FunctionId {
        FunctionId::from_digest([number; 32])
    }

    fn cache(directory: &Path, key: u8, bytes: u64) -> DiskCache {
        let config = CodeCacheConfig {
            directory: directory.to_owned(),
            key: [key; 32],
            bytes,
        };
        DiskCache::open(config, [7; 32]).unwrap()
    }

    fn image(code: &[u8]) -> CodeImage {
        let mut file = File::from(memory_file().unwrap());
        file.write_all(code).unwrap();
        CodeImage::seal(Abi::Preview1, file.into()).unwrap()
    }

    fn content(image: &CodeImage) -> Vec<u8> {
        let mut bytes = Vec::new();
        image.reader().read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn survives_a_restart_but_no_other_key_engine_or_name() {
        let temp = tempfile::tempdir().unwrap();
        let code = vec![5; 3 * CHUNK + 1];
        cache(temp.path(), 1, 1 << 30)
            .put(&id(1), &image(&code))
            .unwrap();
        let found = cache(temp.path(), 1, 1 << 30).get(&id(1)).unwrap();
        assert_eq!((found.abi(), content(&found)), (Abi::Preview1, code));
        assert!(cache(temp.path(), 1, 1 << 30).get(&id(2)).is_none());

        let cache_one = cache(temp.path(), 1, 1 << 30);
        fs::copy(cache_one.path(&id(1)), cache_one.path(&id(2))).unwrap();
        assert!(cache_one.get(&id(2)).is_none(), "under another name");
        assert!(
            cache(temp.path(), 2, 1 << 30).get(&id(1)).is_none(),
            "under another key"
        );
        assert!(cache_one.get(&id(1)).is_none(), "and it was removed");
        assert_eq!(cache_one.rejected(), 1);
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let temp = tempfile::tempdir().unwrap();
        let cache = cache(temp.path(), 1, 1 << 30);
        let path = cache.path(&id(1));
        for position in 0..HEADER + 3 + MAC {
            cache.put(&id(1), &image(b"abc")).unwrap();
            let mut bytes = fs::read(&path).unwrap();
            bytes[position] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(cache.get(&id(1)).is_none(), "byte {position}");
        }
        for len in [0, 10, HEADER, HEADER + 3 + MAC - 1] {
            cache.put(&id(1), &image(b"abc")).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(len as u64)
                .unwrap();
            assert!(cache.get(&id(1)).is_none(), "cut to {len}");
        }
    }

    #[test]
    fn stays_within_its_bytes_and_keeps_what_is_used() {
        let temp = tempfile::tempdir().unwrap();
        let cache = cache(temp.path(), 1, 2_500);
        for number in 1..=2 {
            cache.put(&id(number), &image(&[number; 1_000])).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(cache.get(&id(1)).is_some());
        std::thread::sleep(std::time::Duration::from_millis(10));
        cache.put(&id(3), &image(&[3; 1_000])).unwrap();
        assert!(cache.get(&id(2)).is_none(), "longest unused");
        assert!(cache.get(&id(1)).is_some() && cache.get(&id(3)).is_some());
        cache.put(&id(4), &image(&[4; 5_000])).unwrap();
        assert!(cache.get(&id(4)).is_none(), "larger than the cache");
        assert_eq!(cache.rejected(), 0);
    }

    #[test]
    fn two_that_keep_one_function_at_once_do_not_disturb_each_other() {
        let temp = tempfile::tempdir().unwrap();
        let code = vec![5; 1 << 20];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let cache = cache(temp.path(), 1, 1 << 30);
                    for _ in 0..5 {
                        cache.put(&id(1), &image(&code)).unwrap();
                        assert!(cache.get(&id(1)).is_some());
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
