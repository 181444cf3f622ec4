//! Runs a stranger's WebAssembly function under hard limits and reports what it used.
//!
//! A function is a WASI command: a preview 1 core module with `_start`, or a preview 2 component that exports
//! `wasi:cli/run`. Its input is standard input, its output standard output. It gets its arguments and nothing else:
//! no files, no network, no environment, no real clock and no real randomness.
//!
//! ```no_run
//! # async fn demo(wasm: bytes::Bytes) -> Result<(), dlambda_executor::ExecutorError> {
//! use dlambda_executor::{Executor, ExecutorConfig, Invocation, Limits};
//!
//! let executor = Executor::new(ExecutorConfig::default())?;
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
//! * The same function, invocation and limits give the same status, output, fuel and peak memory, on every machine
//!   with this version, as long as [`Status::is_reproducible`] says so. Clocks are virtual (each reading moves them by a
//!   microsecond), random numbers are ChaCha20 from [`Invocation::seed`], NaNs are canonical.
//! * A guest's failure is an [`Outcome`]; an [`ExecutorError`] means that there was no call, or that the host failed.
//! * A guest that spins never holds an async worker for longer than a few milliseconds at a time.
//!
//! # Not in this crate
//!
//! * Isolation beyond WebAssembly: the process around the executor is to be locked down by whoever starts it.
//! * Bounds on the *cost of compiling*. Compilation happens in this process, one function at a time, after limits on
//!   the module's size, number of functions and largest function. A module built for it can still hold that one slot
//!   for many seconds and take gigabytes; a compiler in a child process with its own limits is what comes next.
//! * `wasi:http` handlers, and compiled code on disk.
//! * Virtual sleep: a guest that sleeps does so in real time, within its deadline, and its clock does not notice.

#![forbid(unsafe_code)]

mod cache;
mod clock;
mod compile;
mod engine;
mod error;
mod executor;
mod function;
mod host;
mod inspect;
mod limits;
mod outcome;
mod output;
mod run;

pub use engine::ExecutorConfig;
pub use error::{ErrorKind, ExecutorError, Measure};
pub use executor::{Executor, Start};
pub use function::{Abi, Function, FunctionDigest};
pub use limits::Limits;
pub use outcome::{Outcome, Status, TrapKind, Usage};
pub use run::Invocation;

#[cfg(test)]
mod tests;
