//! Where guests run: in worker processes, or in this one.

mod in_process;
pub(crate) mod worker;

use std::pin::Pin;

use crate::backend::in_process::InProcess;
use crate::backend::worker::{SlotGuard, WorkerPool};
use crate::confinement::Confinement;
use crate::queue::QueuePermit;
use crate::{ExecutorConfig, ExecutorError, Function, Invocation, Isolation, Limits, Outcome};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The guests of one executor.
pub(crate) enum Backend {
    Workers(WorkerPool),
    InProcess(InProcess),
}

impl Backend {
    pub(crate) fn new(config: &ExecutorConfig) -> Result<Self, ExecutorError> {
        Ok(match &config.isolation {
            Isolation::Processes { program, workers } => {
                Self::Workers(WorkerPool::start(config, program.clone(), *workers))
            }
            Isolation::DangerouslyInProcess => Self::InProcess(InProcess::new(config)?),
        })
    }

    pub(crate) fn new_slot(&self) -> SlotGuard {
        match self {
            Self::Workers(pool) => pool.new_slot(),
            Self::InProcess(_) => SlotGuard::detached(),
        }
    }

    pub(crate) fn confinement(&self) -> Confinement {
        match self {
            Self::Workers(pool) => pool.confinement(),
            Self::InProcess(_) => Confinement::default(),
        }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Workers(pool) => pool.trouble(),
            Self::InProcess(_) => None,
        }
    }

    pub(crate) fn deaths(&self) -> u64 {
        match self {
            Self::Workers(pool) => pool.deaths(),
            Self::InProcess(_) => 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn processes(&self) -> Vec<u32> {
        match self {
            Self::Workers(pool) => pool.processes(),
            Self::InProcess(_) => Vec::new(),
        }
    }

    pub(crate) async fn ready(&self) -> Result<(), ExecutorError> {
        match self {
            Self::Workers(pool) => pool.ready().await,
            Self::InProcess(_) => Ok(()),
        }
    }

    /// Runs a call to its end; the permit is given back after all that the call held.
    ///
    /// Boxed, so that the engine's code is compiled here, and not again in every crate that runs
    /// functions.
    pub(crate) fn run<'a>(
        &'a self,
        permit: QueuePermit,
        function: &'a Function,
        invocation: Invocation,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<Outcome, ExecutorError>> {
        Box::pin(async move {
            match self {
                Self::Workers(pool) => {
                    let outcome = pool.run(function, invocation, limits).await;
                    drop(permit);
                    outcome
                }
                Self::InProcess(here) => here.run(permit, function, invocation, limits).await,
            }
        })
    }
}
