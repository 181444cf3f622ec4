//! One call of one function.

use std::fmt;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::function::Code;
use crate::host::Host;
use crate::{ExecutorError, Function, Limits, Outcome, Status, TrapKind, Usage};

/// What a function is called with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Invocation {
    /// Arguments after `argv[0]`, which is `function` for every function. A NUL ends an argument, as in C.
    pub args: Vec<String>,
    /// Standard input.
    pub input: Bytes,
    /// Where all its random numbers come from; fresh random bytes for a function that keeps secrets.
    pub seed: [u8; 32],
}

/// Shows sizes only.
impl fmt::Debug for Invocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Invocation")
            .field("args", &self.args.len())
            .field("input_bytes", &self.input.len())
            .finish_non_exhaustive()
    }
}

/// Runs a call to its end. `_place` comes first, so that it is given back after all that the store holds.
pub(crate) async fn run(
    _place: OwnedSemaphorePermit,
    function: Function,
    mut store: Store<Host>,
    limits: Limits,
) -> Result<Outcome, ExecutorError> {
    let begun = Instant::now();
    yield_until(&mut store, begun.checked_add(limits.wall_time));
    // Dropping the call at the deadline also ends sleeps, which neither fuel nor epochs reach.
    let ended = timeout(limits.wall_time, call(function.code(), &mut store)).await;
    let wall = begun.elapsed();

    let fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
    let host = store.data_mut();
    let status = match ended {
        Err(_) => Status::DeadlineExceeded,
        Ok(Ok(status)) => Status::Exited(status),
        Ok(Err(error)) => status(&error, host)?,
    };
    let stderr_truncated = host.stderr.exceeded();
    let (stdout, stderr) = host.take_output();
    let usage = Usage {
        fuel,
        peak_memory: host.memory.peak(),
        wall,
    };
    Ok(Outcome {
        status,
        stdout,
        stderr,
        stderr_truncated,
        usage,
    })
}

/// Makes the guest yield at each tick of the engine, and ends it at the deadline.
///
/// The timeout alone would do, but late: a runtime with many busy guests looks at its timers seldom. For the same
/// reason the guest yields in tokio's way, which lets the runtime see to timers and sockets first.
fn yield_until(store: &mut Store<Host>, deadline: Option<Instant>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |_| {
        Ok(match deadline {
            Some(deadline) if Instant::now() >= deadline => UpdateDeadline::Interrupt,
            _ => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
        })
    });
}

/// Instantiates, which may already run guest code, and calls the entry point. Gives the exit status.
async fn call(code: &Code, mut store: &mut Store<Host>) -> wasmtime::Result<i32> {
    match code {
        Code::Preview1(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(store, ()).await?;
            Ok(0)
        }
        Code::Preview2(pre) => {
            let command = pre.instantiate_async(&mut store).await?;
            let result = command.wasi_cli_run().call_run(store).await?;
            Ok(i32::from(result.is_err()))
        }
    }
}

/// What an error of the engine says about the guest, if it is the guest's doing at all.
fn status(error: &wasmtime::Error, host: &Host) -> Result<Status, ExecutorError> {
    if host.stdout.exceeded() {
        return Ok(Status::OutputExceeded);
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ok(Status::Exited(exit.0));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Err(ExecutorError::Fault("no free instance"));
    }
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return Ok(Status::DeadlineExceeded),
        Some(Trap::OutOfFuel) => return Ok(Status::FuelExhausted),
        Some(trap) => TrapKind::new(*trap),
        None => TrapKind::HostCall,
    };
    if host.memory.refused() && kind.may_follow_refusal() {
        return Ok(Status::MemoryExceeded);
    }
    Ok(Status::Trapped(kind))
}
