//! Compiled code outside of an engine: in sealed memory, on disk, and the set that is kept warm.

mod disk;
mod warm;

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fstat, memfd_create};

pub(crate) use disk::CodeCache;
pub(crate) use warm::Warm;

use crate::Abi;

/// Compiled code in memory that nobody can change any more. Workers map it instead of copying it.
#[derive(Debug)]
pub(crate) struct CodeImage {
    abi: Abi,
    memory: OwnedFd,
    len: u64,
}

impl CodeImage {
    /// Seals `memory`, which holds the whole code.
    pub(crate) fn seal(abi: Abi, memory: OwnedFd) -> io::Result<Self> {
        // Not `WRITE`, which fails while the kernel moves a page of it about. Nobody has it mapped for writing.
        let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
        fcntl_add_seals(&memory, seals)?;
        let len = u64::try_from(fstat(&memory)?.st_size).unwrap_or(0);
        Ok(Self { abi, memory, len })
    }

    pub(crate) fn abi(&self) -> Abi {
        self.abi
    }

    /// Bytes of code.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }

    /// Another handle to the same memory. Handles share their position.
    pub(crate) fn file(&self) -> io::Result<File> {
        Ok(File::from(self.memory.try_clone()?))
    }
}

/// Memory that looks like a file, and can be sealed.
pub(crate) fn memory_file() -> io::Result<OwnedFd> {
    Ok(memfd_create(
        c"dlambda",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?)
}
