//! From WebAssembly to compiled code, within bounds.
//!
//! Compilers are not made for hostile input: a module of 94 KB can take half a minute and three
//! gigabytes. So each compilation is a process of its own that can do nothing else, and is ended
//! when it has had enough. One at a time, with the lowest priority: running calls do not notice.

pub(crate) mod child;

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use dlambda_proto::{Cost, FunctionProblem};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::code_cache::{CodeImage, memory_file};
use crate::error::fault;
use crate::helper::ipc::{self, HelperError};
use crate::inspect::check;
use crate::runtime::Linkers;
use crate::{Abi, ExecutorConfig, ExecutorError, Isolation, engine};

/// Longest verdict of a child.
const VERDICT_BYTES: u64 = 16 << 10;

/// What a child says about a function on standard error: its interface, or why not. The code is on
/// standard output.
pub(crate) type Verdict = Result<Abi, HelperError>;

/// Compiles functions.
pub(crate) enum Compiler {
    /// In a process each.
    Process {
        program: PathBuf,
        config: Box<ExecutorConfig>,
    },
    /// On a blocking thread.
    InProcess(std::sync::Arc<InProcess>),
}

/// Bytes of the largest code that a process of its own makes.
pub(crate) fn largest_code(config: &ExecutorConfig) -> u64 {
    (config.max_module_bytes as u64).saturating_mul(child::GROWTH)
}

/// Compiles in this process.
pub(crate) struct InProcess {
    engine: Engine,
    /// As large as the place for one call.
    pool: Engine,
    linkers: Linkers,
    config: ExecutorConfig,
}

impl Compiler {
    pub(crate) fn new(config: &ExecutorConfig) -> Result<Self, ExecutorError> {
        Ok(match &config.isolation {
            Isolation::Processes { program, .. } => Self::Process {
                program: program.clone(),
                config: Box::new(config.clone()),
            },
            Isolation::DangerouslyInProcess => {
                Self::InProcess(std::sync::Arc::new(InProcess::new(config)?))
            }
        })
    }

    /// Compiles a function and checks its imports and entry point. Runs none of its code.
    pub(crate) async fn compile(&self, wasm: Bytes) -> Result<CodeImage, ExecutorError> {
        match self {
            Self::Process { program, config } => in_child_process(program, config, wasm).await,
            Self::InProcess(here) => {
                let here = std::sync::Arc::clone(here);
                let compiled = spawn_blocking(move || {
                    let (abi, code) = here.compile(&wasm)?;
                    let mut file = File::from(memory_file().map_err(no_memory)?);
                    file.write_all(&code).map_err(no_memory)?;
                    CodeImage::seal(abi, file.into()).map_err(no_memory)
                });
                compiled
                    .await
                    .unwrap_or(Err(ExecutorError::Fault("the compiler failed")))
            }
        }
    }
}

impl InProcess {
    pub(crate) fn new(config: &ExecutorConfig) -> Result<Self, ExecutorError> {
        let engine = engine::for_compiling()?;
        Ok(Self {
            linkers: Linkers::new(&engine)?,
            pool: engine::for_running(1, config.max_memory_bytes)?,
            engine,
            config: config.clone(),
        })
    }

    /// Blocks for as long as it takes.
    #[allow(
        unsafe_code,
        reason = "code is loaded that was compiled a moment ago, and not run"
    )]
    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<(Abi, Vec<u8>), ExecutorError> {
        let unsupported = |_| ExecutorError::BadFunction(FunctionProblem::Unsupported);
        let (abi, code, fits) = if check::check(wasm, &self.config)? {
            let component = Component::from_binary(&self.engine, wasm).map_err(unsupported)?;
            let abi = self.linkers.component(&component)?.abi();
            let code = component.serialize().map_err(unsupported)?;
            // SAFETY: the code is fresh from the compiler.
            let fits = unsafe { Component::deserialize(&self.pool, &code) }.is_ok();
            (abi, code, fits)
        } else {
            let module = Module::from_binary(&self.engine, wasm).map_err(unsupported)?;
            let abi = self.linkers.module(&module)?.abi();
            let code = module.serialize().map_err(unsupported)?;
            // SAFETY: the code is fresh from the compiler.
            let fits = unsafe { Module::deserialize(&self.pool, &code) }.is_ok();
            (abi, code, fits)
        };
        // What is valid and compiles may still not fit the place that a call has.
        fits.then_some((abi, code))
            .ok_or(ExecutorError::BadFunction(FunctionProblem::Unsupported))
    }
}

async fn in_child_process(
    program: &Path,
    config: &ExecutorConfig,
    wasm: Bytes,
) -> Result<CodeImage, ExecutorError> {
    let written = spawn_blocking(move || -> std::io::Result<OwnedFd> {
        let mut file = File::from(memory_file()?);
        file.write_all(&wasm)?;
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0))?;
        Ok(file.into())
    });
    let input = written.await.map_err(no_memory)?.map_err(no_memory)?;
    let code = memory_file().map_err(no_memory)?;
    let mut child = Command::new(program)
        .args(child::arguments(config))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(code.try_clone().map_err(no_memory)?))
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| ExecutorError::Setup(format!("{}: {error}", program.display())))?;
    let stderr = child.stderr.take();
    let ended = timeout(config.compile.wall_time, async {
        let mut verdict = Vec::new();
        if let Some(stderr) = stderr {
            let _ = stderr.take(VERDICT_BYTES).read_to_end(&mut verdict).await;
        }
        (verdict, child.wait().await)
    });
    let (verdict, status) = ended
        .await
        .map_err(|_| ExecutorError::BadFunction(FunctionProblem::TooCostly(Cost::Time)))?;
    let status = status.map_err(fault("the compiler was lost"))?;
    if !status.success() {
        return Err(too_costly(status));
    }
    let verdict: Verdict = ipc::read(&verdict).map_err(fault("the compiler's verdict"))?;
    let abi = verdict?;
    // It has ended, and had no way to hand the memory on.
    let sealed = spawn_blocking(move || CodeImage::seal(abi, code));
    sealed.await.map_err(no_memory)?.map_err(no_memory)
}

/// Why a compiler ended without a verdict: it ran into its limits, since it ends orderly otherwise.
fn too_costly(status: ExitStatus) -> ExecutorError {
    match status.signal() {
        // XCPU at the limit of CPU time, KILL a second later.
        Some(24 | 9) => ExecutorError::BadFunction(FunctionProblem::TooCostly(Cost::Time)),
        // An allocation failed, the compiler overflowed its stack, or its code is too large for a
        // file.
        Some(6 | 11 | 25) => ExecutorError::BadFunction(FunctionProblem::TooCostly(Cost::Memory)),
        _ if status.code() == Some(child::SETUP_FAILED) => {
            ExecutorError::Setup("the compiler's process cannot be confined".into())
        }
        _ => ExecutorError::Fault("the compiler failed"),
    }
}

fn no_memory<E>(_: E) -> ExecutorError {
    ExecutorError::Fault("no memory for code")
}
