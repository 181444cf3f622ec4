//! Compiled code in sealed memory, and how a process that was handed it makes sure that it is the
//! right code.
//!
//! Everything is read by position: a descriptor may share its position with others, in other
//! processes too.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;

use minicbor::{Decode, Encode};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, memfd_create};

use crate::Abi;

/// Says which bytes some code consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct CodeDigest {
    #[n(0)]
    len: u64,
    /// BLAKE3.
    #[cbor(n(1), with = "minicbor::bytes")]
    hash: [u8; 32],
}

/// Compiled code in memory that can no longer be changed. Workers map it instead of copying it.
#[derive(Debug)]
pub(crate) struct CodeImage {
    abi: Abi,
    memory: File,
    digest: CodeDigest,
}

/// Compiled code as another process, or another part of this one, is handed it: nothing is believed
/// of the descriptor.
#[derive(Debug)]
pub(crate) struct CodeHandle {
    memory: File,
    digest: CodeDigest,
}

/// Reads from the start, whatever the position of the descriptor.
struct ReadAt<'a> {
    file: &'a File,
    position: u64,
}

impl CodeImage {
    /// Seals `memory`, which holds the whole code. Blocks while it is hashed.
    pub(crate) fn seal(abi: Abi, memory: OwnedFd) -> io::Result<Self> {
        // Not `WRITE`, which fails while the kernel moves a page of it about. It is not mapped
        // for writing.
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        fcntl_add_seals(&memory, seals)?;
        let memory = File::from(memory);
        // Of the sealed memory, so that nothing can come between.
        let digest = digest(&memory)?;
        Ok(Self {
            abi,
            memory,
            digest,
        })
    }

    pub(crate) fn abi(&self) -> Abi {
        self.abi
    }

    /// Bytes of code.
    pub(crate) fn len(&self) -> u64 {
        self.digest.len
    }

    pub(crate) fn digest(&self) -> CodeDigest {
        self.digest
    }

    /// A descriptor of its own for another process: it cannot write, and shares no position.
    pub(crate) fn open_again(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.memory.as_raw_fd());
        // Without /proc the position is shared. Readers do not depend on it, and the seal keeps
        // writers out as well.
        let again = File::open(path).or_else(|_| self.memory.try_clone())?;
        Ok(again.into())
    }

    /// The code for this process.
    pub(crate) fn handle(&self) -> io::Result<CodeHandle> {
        Ok(CodeHandle::new(self.open_again()?, self.digest))
    }

    /// A descriptor that shares its position with the image's own.
    #[cfg(test)]
    pub(crate) fn shared(&self) -> File {
        self.memory.try_clone().unwrap()
    }

    /// Reads the code from its start.
    pub(crate) fn reader(&self) -> impl Read + '_ {
        ReadAt::new(&self.memory)
    }
}

impl CodeHandle {
    /// `digest` comes from the code that made or authenticated it.
    pub(crate) fn new(memory: OwnedFd, digest: CodeDigest) -> Self {
        Self {
            memory: memory.into(),
            digest,
        }
    }

    /// A copy of the code, which was checked after it was made.
    pub(crate) fn copy(&self) -> io::Result<Vec<u8>> {
        // Before so much is allocated.
        if self.memory.metadata()?.len() != self.digest.len {
            return Err(other_code());
        }
        let len = usize::try_from(self.digest.len).map_err(|_| other_code())?;
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, 0)?;
        if *blake3::hash(&bytes).as_bytes() == self.digest.hash {
            Ok(bytes)
        } else {
            Err(other_code())
        }
    }

    /// The file, to map: it has this code, and will never have another.
    pub(crate) fn unchangeable(self) -> io::Result<File> {
        let seals = fcntl_get_seals(&self.memory)?;
        let resizable = !seals.contains(SealFlags::SHRINK | SealFlags::GROW);
        let writable = !seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE);
        let right_size = self.memory.metadata()?.len() == self.digest.len;
        if resizable || writable || !right_size || digest(&self.memory)? != self.digest {
            return Err(other_code());
        }
        Ok(self.memory)
    }
}

impl<'a> ReadAt<'a> {
    fn new(file: &'a File) -> Self {
        Self { file, position: 0 }
    }
}

impl Read for ReadAt<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

fn digest(memory: &File) -> io::Result<CodeDigest> {
    let mut reader = ReadAt::new(memory);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&mut reader)?;
    Ok(CodeDigest {
        len: reader.position,
        hash: hasher.finalize().into(),
    })
}

fn other_code() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "not the code that was announced",
    )
}

/// Memory that looks like a file, and can be sealed.
pub(crate) fn memory_file() -> io::Result<OwnedFd> {
    Ok(memfd_create(
        c"dlambda",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?)
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, SeekFrom, Write as _};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn file(code: &[u8]) -> File {
        let mut file = File::from(memory_file().unwrap());
        file.write_all(code).unwrap();
        file
    }

    fn image(code: &[u8]) -> CodeImage {
        CodeImage::seal(Abi::Preview2, file(code).into()).unwrap()
    }

    fn content(mut file: File) -> Vec<u8> {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn readers_that_share_a_moving_position_all_get_the_code() {
        let code: Vec<u8> = (0..1 << 20)
            .map(|number: u32| number.to_le_bytes()[1])
            .collect();
        let image = image(&code);
        let done = AtomicBool::new(false);
        let mut moved = image.shared();
        std::thread::scope(|scope| {
            let moving = scope.spawn(|| {
                let mut position = 0;
                while !done.load(Ordering::Relaxed) {
                    position = (position + 4_099) % (1 << 20);
                    moved.seek(SeekFrom::Start(position)).unwrap();
                }
            });
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    // The very description that the others have.
                    let shared = || image.shared().into();
                    let (code, digest) = (&code, image.digest());
                    scope.spawn(move || {
                        for _ in 0..20 {
                            let copy = CodeHandle::new(shared(), digest).copy().unwrap();
                            assert!(copy == *code);
                            CodeHandle::new(shared(), digest).unchangeable().unwrap();
                        }
                    })
                })
                .collect();
            let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
            done.store(true, Ordering::Relaxed);
            moving.join().unwrap();
            assert!(results.iter().all(Result::is_ok));
        });
    }

    #[test]
    fn descriptors_for_workers_cannot_write_and_share_no_position() {
        let image = image(b"code");
        let mut first = File::from(image.open_again().unwrap());
        let mut second = File::from(image.open_again().unwrap());
        first.seek(SeekFrom::Start(3)).unwrap();
        assert_eq!(second.stream_position().unwrap(), 0);
        assert_eq!((&image.memory).stream_position().unwrap(), 4);
        let flags = rustix::fs::fcntl_getfl(&second).unwrap();
        assert_eq!(
            flags & rustix::fs::OFlags::RWMODE,
            rustix::fs::OFlags::RDONLY
        );
        assert!(second.write_all(b"evil").is_err());
    }

    #[test]
    fn truncated_lengthened_and_changed_code_is_refused() {
        let digest = image(b"compiled code").digest();
        for other in [
            &b"compiled cod"[..],
            b"compiled code.",
            b"compiled cOde",
            b"",
        ] {
            let unsealed = CodeHandle::new(file(other).into(), digest);
            assert!(unsealed.copy().is_err(), "{other:?}");
            let sealed = image(other).open_again().unwrap();
            assert!(CodeHandle::new(sealed, digest).copy().is_err(), "{other:?}");
            let sealed = image(other).open_again().unwrap();
            let mapped = CodeHandle::new(sealed, digest).unchangeable();
            assert!(mapped.is_err(), "{other:?}");
        }
    }

    #[test]
    fn what_could_still_change_is_not_mapped() {
        let whole = image(b"code");
        let right = CodeHandle::new(file(b"code").into(), whole.digest());
        assert!(right.unchangeable().is_err());
        let sealed = whole.handle().unwrap().unchangeable().unwrap();
        assert_eq!(content(sealed), b"code");
    }

    #[test]
    fn sealed_code_cannot_be_changed() {
        let image = image(b"code");
        let mut file = image.shared();
        assert!(file.write_all(b"evil").is_err());
        assert!(file.set_len(0).is_err());
    }
}
