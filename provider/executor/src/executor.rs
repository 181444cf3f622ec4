//! The public face: prepare a function once, run it often.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{self, JoinHandle};
use wasmtime::Engine;

use crate::cache::Cache;
use crate::compile::Compiler;
use crate::function;
use crate::host::Host;
use crate::{
    ExecutorConfig, ExecutorError, Function, FunctionDigest, Invocation, Limits, Outcome, engine,
    inspect, run,
};

/// Prepares and runs functions. Cheap to clone: clones share everything.
///
/// All methods that are `async` need a tokio runtime with a timer. Guests run on its workers, a few milliseconds at a
/// time.
#[derive(Clone)]
pub struct Executor(Arc<Shared>);

/// Whether a function had to be compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Start {
    /// This request had it compiled.
    Cold,
    /// It was compiled already, or was being compiled for somebody else.
    Warm,
}

struct Shared {
    compiler: Compiler,
    compiling: Semaphore,
    functions: Mutex<Functions>,
    /// Places to run in.
    running: Arc<Semaphore>,
    /// Places to run or to wait in.
    admitted: Arc<Semaphore>,
}

struct Functions {
    ready: Cache,
    pending: HashMap<FunctionDigest, Pending>,
}

type Compiled = Result<Function, ExecutorError>;
type Pending = watch::Receiver<Option<Compiled>>;

impl Executor {
    /// Sets up the engine and its ticker thread, which ends when the last executor and function are gone.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Setup`] when the machine refuses a thread or the address space.
    pub fn new(config: ExecutorConfig) -> Result<Self, ExecutorError> {
        let engine = engine::start(&config)?;
        let running = config.max_concurrent.clamp(1, Semaphore::MAX_PERMITS);
        let admitted = running
            .saturating_add(config.max_queued)
            .min(Semaphore::MAX_PERMITS);
        let functions = Functions {
            ready: Cache::new(config.cache_bytes),
            pending: HashMap::new(),
        };
        Ok(Self(Arc::new(Shared {
            compiler: Compiler::new(&engine, config)?,
            compiling: Semaphore::new(1),
            functions: Mutex::new(functions),
            running: Arc::new(Semaphore::new(running)),
            admitted: Arc::new(Semaphore::new(admitted)),
        })))
    }

    /// The function with this digest, if its compiled code is still there. Costs next to nothing.
    pub fn prepared(&self, digest: &FunctionDigest) -> Option<Function> {
        self.0.functions().ready.get(digest)
    }

    /// Compiles a function, checks its imports and its entry point, and keeps it. Runs none of its code.
    ///
    /// Callers who bring the same function while it is being compiled wait for that one compilation. One function is
    /// compiled at a time, on a blocking thread.
    ///
    /// # Errors
    ///
    /// Any error of kind [`BadFunction`](crate::ErrorKind::BadFunction) for a function that cannot run here,
    /// [`ExecutorError::Overloaded`] when too many functions wait to be compiled, [`ExecutorError::Fault`].
    ///
    /// # Cancel safety
    ///
    /// A compilation that has been started goes on, and its result is kept.
    pub async fn prepare(&self, wasm: Bytes) -> Result<(Function, Start), ExecutorError> {
        inspect::size(&wasm, self.0.compiler.config())?;
        let (digest, wasm) = digest(wasm).await?;
        let (mut pending, start) = {
            let mut functions = self.0.functions();
            if let Some(function) = functions.ready.get(&digest) {
                return Ok((function, Start::Warm));
            }
            match functions.pending.get(&digest) {
                Some(pending) => (pending.clone(), Start::Warm),
                None => (
                    self.start_compiling(&mut functions, digest, wasm)?,
                    Start::Cold,
                ),
            }
        };
        let compiled = pending.wait_for(Option::is_some).await;
        let compiled = compiled.ok().and_then(|compiled| compiled.clone());
        let function = compiled.unwrap_or(Err(ExecutorError::Fault("the compiler failed")))?;
        Ok((function, start))
    }

    /// Runs a function in a fresh instance and waits for its end.
    ///
    /// Waits for a free place first, unless [`ExecutorConfig::max_queued`] others wait already; the wait does not
    /// count as wall time. Whatever the guest does is an [`Outcome`].
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Overloaded`], [`ExecutorError::WrongExecutor`], or [`ExecutorError::Fault`] when the host failed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the guest within milliseconds.
    pub async fn run(
        &self,
        function: &Function,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        let engine = self.0.compiler.engine();
        if !Engine::same(engine, function.engine()) {
            return Err(ExecutorError::WrongExecutor);
        }
        let _admitted = self
            .0
            .admitted
            .try_acquire()
            .map_err(|_| ExecutorError::Overloaded)?;
        let place = self.place().await?;
        let store = Host::store(engine, self.0.compiler.config(), invocation, limits);
        let store = store.map_err(|_| ExecutorError::Fault("no store"))?;
        // A task of its own, so that a panic in a host function ends here.
        let call = run::run(place, function.clone(), store, limits.clone());
        let mut call = AbortOnDrop(task::spawn(call));
        let ended = (&mut call.0).await;
        ended.unwrap_or(Err(ExecutorError::Fault("a call was cut short")))
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, ExecutorError> {
        let place = Arc::clone(&self.0.running).acquire_owned().await;
        place.map_err(|_| ExecutorError::Fault("no place"))
    }

    fn start_compiling(
        &self,
        functions: &mut Functions,
        digest: FunctionDigest,
        wasm: Bytes,
    ) -> Result<Pending, ExecutorError> {
        if functions.pending.len() > self.0.compiler.config().max_queued {
            return Err(ExecutorError::Overloaded);
        }
        let (sender, receiver) = watch::channel(None);
        functions.pending.insert(digest, receiver.clone());
        let entry = PendingEntry {
            shared: Arc::clone(&self.0),
            digest,
        };
        task::spawn(async move {
            let compiled = Shared::compile(&entry.shared, digest, wasm).await;
            if let Ok(function) = &compiled {
                entry.shared.functions().ready.insert(function);
            }
            sender.send_replace(Some(compiled));
        });
        Ok(receiver)
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("config", self.0.compiler.config())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn functions(&self) -> MutexGuard<'_, Functions> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn compile(shared: &Arc<Self>, digest: FunctionDigest, wasm: Bytes) -> Compiled {
        let _turn = shared.compiling.acquire().await;
        let compiler = Arc::clone(shared);
        let compiled = task::spawn_blocking(move || compiler.compiler.compile(digest, &wasm)).await;
        compiled.unwrap_or(Err(ExecutorError::Fault("the compiler failed")))
    }
}

/// Takes the entry away however the compilation ends, so that the function can be tried again.
struct PendingEntry {
    shared: Arc<Shared>,
    digest: FunctionDigest,
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        self.shared.functions().pending.remove(&self.digest);
    }
}

/// Hashes on a blocking thread if it takes long enough to matter.
async fn digest(wasm: Bytes) -> Result<(FunctionDigest, Bytes), ExecutorError> {
    const SHORT: usize = 64 << 10;
    if wasm.len() <= SHORT {
        return Ok((function::digest(&wasm), wasm));
    }
    let hashed = task::spawn_blocking(move || (function::digest(&wasm), wasm)).await;
    hashed.map_err(|_| ExecutorError::Fault("hashing failed"))
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
