//! Guests in this process, with nothing but WebAssembly around them.

use std::sync::Arc;

use tokio::task::{self, JoinHandle};

use crate::error::fault;
use crate::queue::QueuePermit;
use crate::runtime::{Code, GuestRuntime};
use crate::{ExecutorConfig, ExecutorError, Function, Invocation, Limits, Outcome};

/// Runs guests on this process's tokio runtime.
pub(crate) struct InProcess(Arc<GuestRuntime>);

impl InProcess {
    pub(crate) fn new(config: &ExecutorConfig) -> Result<Self, ExecutorError> {
        let memory = config.max_memory_bytes;
        let engine = GuestRuntime::engine(config.max_concurrent, memory)?;
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runtime = GuestRuntime::new(engine, memory, threads)?;
        Ok(Self(Arc::new(runtime)))
    }

    /// Runs a call to its end; the permit is given back after all that the call held.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the guest.
    pub(crate) async fn run(
        &self,
        permit: QueuePermit,
        function: &Function,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        let (runtime, function, limits) = (Arc::clone(&self.0), function.clone(), limits.clone());
        // A task of its own, so that a panic in a host function ends here.
        let call = task::spawn(async move {
            let code = load_code(&runtime, &function)?;
            let outcome = runtime.run(code, invocation, &limits).await;
            drop(permit);
            outcome
        });
        let mut call = AbortOnDrop(call);
        let ended = (&mut call.0).await;
        ended.unwrap_or(Err(ExecutorError::Fault("a call was cut short")))
    }
}

#[allow(
    unsafe_code,
    reason = "code is loaded that this process has made or authenticated"
)]
fn load_code<'a>(
    runtime: &GuestRuntime,
    function: &'a Function,
) -> Result<&'a Code, ExecutorError> {
    if let Some(code) = function.here().get() {
        return Ok(code);
    }
    let image = function.image();
    let code = image.handle().map_err(fault("no descriptor"))?;
    // SAFETY: the digest was taken when the code had come from our compiler, or had passed its
    // check of authenticity.
    let code = unsafe { runtime.load(image.abi(), code)? };
    Ok(function.here().get_or_init(|| code))
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
