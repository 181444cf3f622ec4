//! Where guests run: in worker processes, or in this one.

use std::pin::Pin;
use std::sync::Arc;

use tokio::task::{self, JoinHandle};

use crate::lane::Place;
use crate::sandbox::{Code, Sandbox};
use crate::wall::Walls;
use crate::worker::{Pool, Retire};
use crate::{ExecutorConfig, ExecutorError, Function, Invocation, Isolation, Limits, Outcome};

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The guests of one executor.
pub(crate) enum Guests {
    Workers(Pool),
    Here(Arc<Sandbox>),
}

impl Guests {
    pub(crate) fn new(config: &ExecutorConfig) -> Result<Self, ExecutorError> {
        Ok(match &config.isolation {
            Isolation::Processes { program, workers } => {
                Self::Workers(Pool::start(config, program.clone(), *workers))
            }
            Isolation::DangerouslyInProcess => {
                let engine = Sandbox::engine(config.max_concurrent, config.max_memory_bytes)?;
                let threads =
                    std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                Self::Here(Arc::new(Sandbox::new(
                    engine,
                    config.max_memory_bytes,
                    threads,
                )?))
            }
        })
    }

    pub(crate) fn retire(&self) -> Retire {
        match self {
            Self::Workers(pool) => pool.retire(),
            Self::Here(_) => Retire::nowhere(),
        }
    }

    pub(crate) fn walls(&self) -> Walls {
        match self {
            Self::Workers(pool) => pool.walls(),
            Self::Here(_) => Walls::default(),
        }
    }

    pub(crate) fn trouble(&self) -> Option<String> {
        match self {
            Self::Workers(pool) => pool.trouble(),
            Self::Here(_) => None,
        }
    }

    pub(crate) fn deaths(&self) -> u64 {
        match self {
            Self::Workers(pool) => pool.deaths(),
            Self::Here(_) => 0,
        }
    }

    #[cfg(test)]
    pub(crate) fn processes(&self) -> Vec<u32> {
        match self {
            Self::Workers(pool) => pool.processes(),
            Self::Here(_) => Vec::new(),
        }
    }

    pub(crate) async fn ready(&self) -> Result<(), ExecutorError> {
        match self {
            Self::Workers(pool) => pool.ready().await,
            Self::Here(_) => Ok(()),
        }
    }

    /// Runs a call to its end; the place is given back after all that the call held.
    ///
    /// Boxed, so that the engine's code is compiled here, and not again in every crate that runs functions.
    pub(crate) fn run<'a>(
        &'a self,
        place: Place,
        function: &'a Function,
        invocation: Invocation,
        limits: &'a Limits,
    ) -> BoxFuture<'a, Result<Outcome, ExecutorError>> {
        Box::pin(self.run_here(place, function, invocation, limits))
    }

    async fn run_here(
        &self,
        place: Place,
        function: &Function,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        match self {
            Self::Workers(pool) => {
                let outcome = pool.run(function, invocation, limits).await;
                drop(place);
                outcome
            }
            Self::Here(sandbox) => {
                let (sandbox, function, limits) =
                    (Arc::clone(sandbox), function.clone(), limits.clone());
                // A task of its own, so that a panic in a host function ends here.
                let call = task::spawn(async move {
                    let code = code_here(&sandbox, &function)?;
                    let outcome = sandbox.run(code, invocation, &limits).await;
                    drop(place);
                    outcome
                });
                let mut call = AbortOnDrop(call);
                let ended = (&mut call.0).await;
                ended.unwrap_or(Err(ExecutorError::Fault("a call was cut short")))
            }
        }
    }
}

#[allow(
    unsafe_code,
    reason = "code is loaded that this process has made or authenticated"
)]
fn code_here<'a>(sandbox: &Sandbox, function: &'a Function) -> Result<&'a Code, ExecutorError> {
    if let Some(code) = function.here().get() {
        return Ok(code);
    }
    let image = function.image();
    let code = image
        .handle()
        .map_err(|_| ExecutorError::Fault("no descriptor"))?;
    // SAFETY: the digest was taken when the code had come from our compiler, or had passed its check of authenticity.
    let code = unsafe { sandbox.load(image.abi(), code)? };
    Ok(function.here().get_or_init(|| code))
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
