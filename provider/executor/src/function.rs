//! A function that is ready to run.

use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use wasmtime::{Engine, InstancePre};
use wasmtime_wasi::p2::bindings::CommandPre;

use crate::host::Host;

/// SHA-256 of a function's WebAssembly.
pub type FunctionDigest = [u8; 32];

/// A compiled function with its imports resolved, ready for [`Executor::run`](crate::Executor::run) of the executor
/// that made it. Cheap to clone; the compiled code lives until the last clone is gone and the cache has let go of it.
#[derive(Clone)]
pub struct Function(Arc<Compiled>);

/// The interface that a function was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Abi {
    /// A core module with `_start`, importing `wasi_snapshot_preview1`.
    Preview1,
    /// A component exporting `wasi:cli/run`.
    Preview2,
}

/// Pre-linked code.
pub(crate) enum Code {
    Preview1(InstancePre<Host>),
    Preview2(CommandPre<Host>),
}

struct Compiled {
    digest: FunctionDigest,
    code: Code,
    size: usize,
}

impl Function {
    /// `size` is about what the code takes in memory, in bytes.
    pub(crate) fn new(digest: FunctionDigest, code: Code, size: usize) -> Self {
        Self(Arc::new(Compiled { digest, code, size }))
    }

    /// SHA-256 of the WebAssembly that this was made from.
    pub fn digest(&self) -> FunctionDigest {
        self.0.digest
    }

    /// The interface it was written for.
    pub fn abi(&self) -> Abi {
        match self.0.code {
            Code::Preview1(_) => Abi::Preview1,
            Code::Preview2(_) => Abi::Preview2,
        }
    }

    /// About how many bytes of memory the compiled code takes.
    pub fn compiled_bytes(&self) -> usize {
        self.0.size
    }

    pub(crate) fn engine(&self) -> &Engine {
        match &self.0.code {
            Code::Preview1(pre) => pre.module().engine(),
            Code::Preview2(pre) => pre.engine(),
        }
    }

    pub(crate) fn code(&self) -> &Code {
        &self.0.code
    }
}

/// Two functions are equal if they were made from the same WebAssembly.
impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
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

pub(crate) fn digest(wasm: &[u8]) -> FunctionDigest {
    Sha256::digest(wasm).into()
}
