//! Where guests run: an engine, the host functions, and one call after another.
//!
//! The runtime is the same whether it lives in a worker process or in this one.

mod host;
mod http;
mod instance;
mod linker;
mod memory;
mod metering;
mod scheduler;
mod wasi;

use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Module};
use wasmtime_wasi::p2::bindings::CommandPre;
use wasmtime_wasi_http::p2::bindings::ProxyPre;

pub(crate) use linker::Linkers;

use crate::code_cache::CodeHandle;
use crate::engine::{self, Ticker};
use crate::error::fault;
use crate::runtime::host::Host;
use crate::runtime::scheduler::Scheduler;
use crate::{Abi, ExecutorError, Invocation, Limits, Outcome};

/// Runs compiled functions.
pub(crate) struct GuestRuntime {
    engine: Engine,
    linkers: Linkers,
    largest_memory: u64,
    ticker: Ticker,
    scheduler: Scheduler,
}

/// Pre-linked code.
pub(crate) enum Code {
    Preview1(InstancePre<Host>),
    Preview2(CommandPre<Host>),
    Http(ProxyPre<Host>),
}

impl GuestRuntime {
    /// The engine of a runtime for `calls` calls at a time. Starts no thread.
    pub(crate) fn engine(calls: usize, memory_bytes: usize) -> Result<Engine, ExecutorError> {
        engine::for_running(calls, memory_bytes)
    }

    /// A runtime on this engine, whose guests share `threads` threads.
    pub(crate) fn new(
        engine: Engine,
        memory_bytes: usize,
        threads: usize,
    ) -> Result<Self, ExecutorError> {
        Ok(Self {
            linkers: Linkers::new(&engine)?,
            largest_memory: memory_bytes as u64,
            ticker: Ticker::start(&engine)?,
            scheduler: Scheduler::new(threads),
            engine,
        })
    }

    /// Loads compiled code and links it. Blocks for milliseconds.
    ///
    /// # Safety
    ///
    /// The digest of `code` must be that of what an engine of this version made of a function: it
    /// is native code, and will run. The bytes need no trust: they are checked against the digest
    /// here.
    #[allow(
        unsafe_code,
        reason = "native code is loaded; the caller vouches for its digest"
    )]
    pub(crate) unsafe fn load(&self, abi: Abi, code: CodeHandle) -> Result<Code, ExecutorError> {
        let loaded = match abi {
            Abi::Preview1 => {
                let file = code.unchangeable().map_err(|_| STALE)?;
                // SAFETY: the file was read after it was sealed, and has the digest for which the
                // caller vouches. What is mapped is what was read: the seal lets nobody write or
                // resize it.
                let module = unsafe { Module::deserialize_open_file(&self.engine, file) };
                module
                    .map_err(|_| STALE)
                    .and_then(|module| self.linkers.module(&module))?
            }
            Abi::Preview2 | Abi::Http => {
                let bytes = code.copy().map_err(|_| STALE)?;
                // SAFETY: the copy, which is nobody else's, has the digest for which the caller
                // vouches.
                let component = unsafe { Component::deserialize(&self.engine, bytes) };
                component
                    .map_err(|_| STALE)
                    .and_then(|component| self.linkers.component(&component))?
            }
        };
        if loaded.abi() == abi {
            Ok(loaded)
        } else {
            Err(STALE)
        }
    }

    /// Runs a call to its end in a fresh instance.
    pub(crate) async fn run(
        &self,
        code: &Code,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        let _ticking = self.ticker.ticking();
        let slot = self.scheduler.register();
        let abi = code.abi();
        let store = Host::store(
            &self.engine,
            slot,
            self.largest_memory,
            abi,
            &invocation,
            limits,
        );
        let store = store.map_err(fault("no store"))?;
        instance::run(code, store, invocation, limits).await
    }
}

const STALE: ExecutorError = ExecutorError::Fault("compiled code cannot be loaded");
