//! A provider's executor on this machine: for one command, one call at a time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_executor::{
    Abi, ConfinementLayer, ErrorKind as ExecutorErrorKind, Executor, ExecutorConfig, ExecutorError,
    Isolation, executor_program, replay,
};
use dlambda_proto::{ErrorKind, Plan, Report, Start};

use crate::cli::{Common, RunArgs};
use crate::home;
use crate::output::say;

/// An executor that is ready, with a function in it.
pub(crate) struct Local {
    pub(crate) executor: Executor,
    pub(crate) function: dlambda_executor::Function,
    pub(crate) start: Start,
    pub(crate) confinement: Vec<ConfinementLayer>,
    /// Time until the executor was ready.
    pub(crate) setup: Duration,
    /// Time until the function was.
    pub(crate) prepare: Duration,
}

/// Sets up an executor that can run all plans of the menu, and compiles the function.
pub(crate) async fn prepare(
    args: &RunArgs,
    common: &Common,
    menu: &[Plan],
    wasm: Bytes,
) -> Result<Local, Report> {
    let started = Instant::now();
    let config = ExecutorConfig {
        max_concurrent: 1,
        // As a provider with this menu has it.
        max_memory_bytes: replay::max_memory_bytes(menu),
        code_cache: Some(home::code_cache(common)?),
        ..ExecutorConfig::new(isolation(args)?)
    };
    let executor = Executor::new(config).map_err(report)?;
    executor.ready().await.map_err(report)?;
    let setup = started.elapsed();
    let (function, start) = executor.prepare(wasm).await.map_err(report)?;
    Ok(Local {
        confinement: executor.confinement_layers(),
        prepare: started.elapsed().saturating_sub(setup),
        executor,
        function,
        start,
        setup,
    })
}

fn isolation(args: &RunArgs) -> Result<Isolation, Report> {
    if args.no_process_isolation {
        say("DANGER: the function runs in this process; only the WebAssembly engine confines it");
        return Ok(Isolation::DangerouslyInProcess);
    }
    confined(
        "install it in the same directory as dlambda; \
         or, for a function that you trust, run with --no-process-isolation",
    )
}

/// Isolation with one worker process; the hint is for who lacks the program.
pub(crate) fn confined(hint: &str) -> Result<Isolation, Report> {
    let program = executor_program()
        .map_err(|error| Report::new(ErrorKind::Local, error.to_string()).with_hint(hint))?;
    Ok(Isolation::Processes {
        program,
        workers: 1,
    })
}

/// What stood in the way, by what a provider would have made of it.
pub(crate) fn report(error: ExecutorError) -> Report {
    match (error.kind(), &error) {
        (ExecutorErrorKind::BadFunction | ExecutorErrorKind::BadInvocation, _) => {
            let message = format!("no provider takes this: {error}");
            Report::new(ErrorKind::Refused, message).with_hint(
                "look at the function with `dlambda function inspect`; \
                 it must be a WASI command or a wasi:http handler",
            )
        }
        (_, ExecutorError::Setup(_)) => Report::new(ErrorKind::Local, error.to_string()).with_hint(
            "check that dlambda-executor is of the same version as dlambda, and that this \
             machine lets it start; --no-process-isolation does without it",
        ),
        (_, ExecutorError::WorkerDied) => Report::new(ErrorKind::Local, error.to_string())
            .with_hint("check that this machine has memory left, and try again"),
        _ => Report::new(ErrorKind::Bug, error.to_string()),
    }
}

/// A word for the interface of a function.
pub(crate) fn kind(abi: Abi) -> &'static str {
    match abi {
        Abi::Preview1 => "preview1",
        Abi::Preview2 => "preview2",
        Abi::Http => "http",
        _ => "other",
    }
}
