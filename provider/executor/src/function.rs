//! A function that is ready to run.

use std::fmt;
use std::sync::{Arc, OnceLock};

use dlambda_proto::FunctionId;
use minicbor::{Decode, Encode};

use crate::backend::worker::SlotGuard;
use crate::code_cache::{CodeImage, CodeShare};
use crate::runtime::Code;

/// A compiled function, ready for [`Executor::run`](crate::Executor::run) of the executor that made
/// it. Cheap to clone; the compiled code lives until the last clone is gone and the executor has
/// let go of it.
#[derive(Clone)]
pub struct Function(Arc<Compiled>);

/// The interface that a function was written for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
#[non_exhaustive]
pub enum Abi {
    /// A core module with `_start`, importing `wasi_snapshot_preview1`.
    #[n(1)]
    Preview1,
    /// A component exporting `wasi:cli/run`.
    #[n(2)]
    Preview2,
    /// A component exporting `wasi:http/incoming-handler`.
    #[n(3)]
    Http,
}

struct Compiled {
    id: FunctionId,
    executor: u64,
    image: CodeImage,
    /// Of the memory for code; given back after the code.
    _share: CodeShare,
    /// The code in this process, if guests run here.
    here: OnceLock<Code>,
    /// The code in worker processes, if guests run there.
    slot: SlotGuard,
}

impl Function {
    pub(crate) fn new(
        executor: u64,
        id: FunctionId,
        (image, share): (CodeImage, CodeShare),
        slot: SlotGuard,
    ) -> Self {
        Self(Arc::new(Compiled {
            id,
            executor,
            image,
            _share: share,
            here: OnceLock::new(),
            slot,
        }))
    }

    /// The WebAssembly that this was made from.
    pub fn id(&self) -> FunctionId {
        self.0.id
    }

    /// The interface it was written for.
    pub fn abi(&self) -> Abi {
        self.0.image.abi()
    }

    /// Bytes of compiled code.
    pub fn compiled_bytes(&self) -> u64 {
        self.0.image.len()
    }

    /// The executor that made it.
    pub(crate) fn executor(&self) -> u64 {
        self.0.executor
    }

    pub(crate) fn image(&self) -> &CodeImage {
        &self.0.image
    }

    pub(crate) fn here(&self) -> &OnceLock<Code> {
        &self.0.here
    }

    /// Its name among workers.
    pub(crate) fn slot(&self) -> u64 {
        self.0.slot.slot()
    }

    #[cfg(test)]
    pub(crate) fn for_test(id: FunctionId, size: usize) -> Self {
        let memory = crate::code_cache::memory_file().unwrap();
        rustix::fs::ftruncate(&memory, size as u64).unwrap();
        let image = CodeImage::seal(Abi::Preview1, memory).unwrap();
        let share = crate::code_cache::CodeBudget::new(u64::MAX).take(size as u64);
        Self::new(0, id, (image, share.unwrap()), SlotGuard::detached())
    }
}

/// Two functions are equal if they were made from the same WebAssembly.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for Function {}

/// Names nothing that would tell one function from another in a log.
impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Function")
            .field("abi", &self.abi())
            .finish_non_exhaustive()
    }
}
