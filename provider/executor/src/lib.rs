//! Runs a stranger's WebAssembly function under hard limits and reports what it used.
//!
//! A function is a WASI command (a preview 1 core module with `_start`, or a preview 2 component
//! that exports `wasi:cli/run`) or a `wasi:http` handler (a component that exports
//! `wasi:http/incoming-handler`). A command's input is standard input and its output standard
//! output; a handler gets a request and gives a response. It gets its arguments and nothing else:
//! no files, no network, no environment.
//!
//! ```no_run
//! # async fn demo(wasm: bytes::Bytes) -> Result<(), Box<dyn std::error::Error>> {
//! use dlambda_executor::{Executor, ExecutorConfig, Invocation, Isolation, Limits};
//!
//! let program = dlambda_executor::executor_program()?;
//! let executor = Executor::new(ExecutorConfig::new(Isolation::processes(program)))?;
//! let (function, _start) = executor.prepare(wasm).await?;
//! let invocation = Invocation { input: "hello".into(), ..Invocation::default() };
//! let outcome = executor.run(&function, invocation, &Limits::default()).await?;
//! println!("{:?}: {} bytes, {} fuel", outcome.status, outcome.stdout.len(), outcome.usage.fuel);
//! # Ok(())
//! # }
//! ```
//!
//! # What holds
//!
//! * Every call gets a fresh instance; nothing of one call can be seen by the next.
//! * Under [`Limits::deterministic`], the same function, invocation and limits give the same
//!   status, output, fuel and peak memory on every machine whose [`fingerprint`] is the same, as
//!   long as [`Status::is_reproducible`](dlambda_proto::Status::is_reproducible) says so. Clocks
//!   are virtual (each reading moves them by a microsecond, and sleeping by its length, in no
//!   time), random numbers are ChaCha20 from [`Invocation::seed`], NaNs are canonical.
//! * A guest's failure is an [`Outcome`]; an [`ExecutorError`] means that there was no call, or
//!   that the host failed.
//! * A guest that spins holds a thread for about a millisecond at a time, and long calls wait for
//!   short ones. A single `memory.fill` or `memory.copy` cannot be interrupted: tens of
//!   milliseconds for all of a large memory.
//! * With [`Isolation::Processes`], the process that uses this crate never runs or loads a
//!   stranger's code. Compiling and running happen in processes that can reach neither files nor
//!   network nor other processes.
//!
//! # Modules
//!
//! `inspect` looks at bytes; `compile` makes code of them, in a `helper` process; `code_cache`
//! keeps it; `queue` admits calls; `backend` runs them in worker processes, or in this one;
//! `runtime` is the host that functions see; `confinement` is what both kinds of process are under.
//! [`replay`] is the one module that knows the protocol's requests and completions.

#![deny(unsafe_code)]

mod backend;
mod code_cache;
mod compile;
mod config;
mod confinement;
mod engine;
mod error;
mod executor;
mod function;
mod helper;
mod inspect;
mod invocation;
mod limits;
mod outcome;
mod queue;
pub mod replay;
mod runtime;

pub use config::{CodeCacheConfig, CompileLimits, ExecutorConfig, Isolation};
pub use confinement::{Absence, ConfinementLayer};
pub use engine::{fingerprint, profile};
pub use error::{ErrorKind, ExecutorError};
pub use executor::{Counts, Executor};
pub use function::{Abi, Function};
pub use helper::{ProgramError, executor_program, main};
pub use inspect::{Inspection, inspect_function};
pub use invocation::Invocation;
pub use limits::Limits;
pub use outcome::{Outcome, Usage};
pub use queue::{CallQueue, QueueConfig, QueueStatus};

#[cfg(test)]
mod tests;
