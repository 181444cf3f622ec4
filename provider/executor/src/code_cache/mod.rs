//! Compiled code outside of an engine: in sealed memory, on disk, and the set that is kept warm.

mod budget;
mod disk;
mod image;
mod memory;

pub(crate) use budget::{CodeBudget, CodeShare};
pub(crate) use disk::DiskCache;
pub(crate) use image::{CodeDigest, CodeHandle, CodeImage, memory_file};
pub(crate) use memory::MemoryCache;
