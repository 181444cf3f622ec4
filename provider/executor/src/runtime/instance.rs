//! One call of one function.

use std::time::Instant;

use dlambda_proto::{Status, StopKind};
use tokio::time::timeout;
use wasmtime::{AsContextMut as _, PoolConcurrencyLimitError, Store, Trap, UpdateDeadline};
use wasmtime_wasi::I32Exit;

use crate::runtime::host::Host;
use crate::runtime::memory::is_of_the_system;
use crate::runtime::{Code, http, metering};
use crate::{ExecutorError, Invocation, Limits, Outcome, Usage};

/// Runs a call to its end.
pub(crate) async fn run(
    code: &Code,
    mut store: Store<Host>,
    invocation: Invocation,
    limits: &Limits,
) -> Result<Outcome, ExecutorError> {
    let request = match code {
        Code::Http(_) => Some(http::request(invocation.http, invocation.input)?),
        Code::Preview1(_) | Code::Preview2(_) => None,
    };
    let begun = Instant::now();
    yield_until(&mut store, begun.checked_add(limits.wall_time));
    let mut instantiated = None;
    // Dropping the call at the deadline also ends sleeps, which neither fuel nor epochs reach.
    let call = call(code, &mut store, request, || {
        instantiated = Some(begun.elapsed())
    });
    let ended = timeout(limits.wall_time, call).await;
    let wall = begun.elapsed();

    let fuel = limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0));
    let host = store.data_mut();
    let (status, http) = match ended {
        Err(_) => (Status::Stopped(StopKind::Deadline), None),
        Ok(Ok(Exit::Command(status))) => (Status::Exited(status), None),
        Ok(Ok(Exit::Http(Some(Ok(response))))) => (Status::Exited(0), Some(response)),
        Ok(Ok(Exit::Http(Some(Err(_))))) => (Status::Stopped(StopKind::BadResponse), None),
        Ok(Ok(Exit::Http(None))) => (Status::Stopped(StopKind::NoResponse), None),
        Ok(Err(error)) => (status(&error, host)?, None),
    };
    let stderr_truncated = host.stderr.exceeded();
    let (stdout, stderr) = host.take_output();
    let usage = Usage {
        fuel,
        peak_memory: host.memory.peak(),
        instantiate: instantiated.unwrap_or(wall),
        wall,
    };
    Ok(Outcome {
        status,
        stdout,
        http,
        stderr,
        stderr_truncated,
        usage,
    })
}

/// How a guest ends by itself.
enum Exit {
    Command(u8),
    Http(Option<http::Sendable>),
}

/// Makes the guest yield at each tick of the engine, and ends it at the deadline.
///
/// The timeout alone would do, but late: a runtime with many busy guests looks at its timers
/// seldom.
fn yield_until(store: &mut Store<Host>, deadline: Option<Instant>) {
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(move |store| {
        Ok(match deadline {
            Some(deadline) if Instant::now() >= deadline => UpdateDeadline::Interrupt,
            _ => UpdateDeadline::YieldCustom(1, Box::pin(store.data().slot.clone().next())),
        })
    });
}

/// Instantiates, which may already run guest code, and calls the entry point.
async fn call(
    code: &Code,
    mut store: &mut Store<Host>,
    request: Option<http::Incoming>,
    instantiated: impl FnOnce(),
) -> wasmtime::Result<Exit> {
    match code {
        Code::Preview1(pre) => {
            let instance = pre.instantiate_async(&mut store).await?;
            instantiated();
            let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
            start.call_async(store, ()).await?;
            Ok(Exit::Command(0))
        }
        Code::Preview2(pre) => {
            let command = pre.instantiate_async(&mut store).await?;
            instantiated();
            let result = command.wasi_cli_run().call_run(store).await?;
            Ok(Exit::Command(u8::from(result.is_err())))
        }
        Code::Http(pre) => {
            let proxy = pre.instantiate_async(&mut store).await?;
            instantiated();
            let request = request.ok_or_else(|| wasmtime::Error::msg("no request"))?;
            let (request, response) = store.data_mut().begin_exchange(request)?;
            metering::settle(store.as_context_mut())?;
            let handler = proxy.wasi_http_incoming_handler();
            handler.call_handle(&mut store, request, response).await?;
            let response = store.data_mut().end_exchange()?;
            metering::settle(store.as_context_mut())?;
            Ok(Exit::Http(response))
        }
    }
}

/// What an error of the engine says about the guest, if it is the guest's doing at all.
fn status(error: &wasmtime::Error, host: &Host) -> Result<Status, ExecutorError> {
    if host.memory.host_failed() || is_of_the_system(error) {
        return Err(ExecutorError::Fault("this machine has no memory left"));
    }
    if host.stdout.exceeded() {
        return Ok(Status::Stopped(StopKind::Output));
    }
    if let Some(exit) = error.downcast_ref::<I32Exit>() {
        return Ok(Status::Exited(u8::try_from(exit.0).unwrap_or(u8::MAX)));
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Err(ExecutorError::Fault("no free instance"));
    }
    let kind = match error.downcast_ref::<Trap>() {
        Some(Trap::Interrupt) => return Ok(Status::Stopped(StopKind::Deadline)),
        Some(Trap::OutOfFuel) => return Ok(Status::Stopped(StopKind::Fuel)),
        Some(trap) => trapped(*trap),
        None => StopKind::HostCall,
    };
    if host.memory.refused() && may_follow_refusal(kind) {
        return Ok(Status::Stopped(StopKind::Memory));
    }
    Ok(Status::Stopped(kind))
}

fn trapped(trap: Trap) -> StopKind {
    match trap {
        Trap::BadSignature => StopKind::BadSignature,
        Trap::IndirectCallToNull => StopKind::IndirectCallToNull,
        Trap::IntegerDivisionByZero => StopKind::IntegerDivisionByZero,
        Trap::IntegerOverflow => StopKind::IntegerOverflow,
        Trap::BadConversionToInteger => StopKind::InvalidConversion,
        Trap::MemoryOutOfBounds => StopKind::MemoryOutOfBounds,
        Trap::StackOverflow => StopKind::StackOverflow,
        Trap::TableOutOfBounds => StopKind::TableOutOfBounds,
        Trap::UnreachableCodeReached => StopKind::Unreachable,
        _ => StopKind::OtherTrap,
    }
}

/// Whether a guest that was refused memory may end like this for that reason.
fn may_follow_refusal(kind: StopKind) -> bool {
    matches!(
        kind,
        StopKind::HostCall
            | StopKind::MemoryOutOfBounds
            | StopKind::TableOutOfBounds
            | StopKind::Unreachable
    )
}
