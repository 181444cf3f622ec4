//! The public face: prepare a function once, run it often.

mod counts;

pub use counts::Counts;

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dlambda_proto::{FunctionId, Start};
use tokio::sync::{Semaphore, watch};
use tokio::task;

use crate::backend::Backend;
use crate::code_cache::{CodeBudget, CodeImage, DiskCache, MemoryCache};
use crate::compile::{Compiler, largest_code};
use crate::error::fault;
use crate::inspect::check;
use crate::queue::MemoryBudget;
use crate::{
    Absence, CallQueue, ConfinementLayer, ExecutorConfig, ExecutorError, Function, Invocation,
    Limits, Outcome, QueueConfig, engine,
};

/// Prepares and runs functions. Cheap to clone: clones share everything.
///
/// All methods that are `async` need a tokio runtime with a timer.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

struct Inner {
    name: u64,
    config: ExecutorConfig,
    compiler: Compiler,
    compiling: Semaphore,
    disk: Option<DiskCache>,
    functions: Mutex<Functions>,
    /// For functions that are kept, in use, or wait for their turn.
    code: CodeBudget,
    backend: Backend,
    queue: CallQueue,
    memory: MemoryBudget,
    counters: Counters,
}

struct Functions {
    ready: MemoryCache,
    pending: HashMap<FunctionId, Pending>,
}

#[derive(Default)]
struct Counters {
    warm: AtomicU64,
    cached: AtomicU64,
    compiled: AtomicU64,
    not_compiled: AtomicU64,
}

type Prepared = Result<(Function, Start), ExecutorError>;
type Pending = watch::Receiver<Option<Prepared>>;

impl Executor {
    /// Sets up an executor. With process isolation its workers start in the background; see
    /// [`Executor::ready`].
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Setup`] when the machine refuses a thread, the address space or the cache
    /// directory.
    ///
    /// # Panics
    ///
    /// With process isolation, outside of a tokio runtime.
    pub fn new(config: ExecutorConfig) -> Result<Self, ExecutorError> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let disk = config.code_cache.clone().map(|cache| {
            let compatibility = engine::code_compatibility(&engine::for_compiling()?);
            DiskCache::open(cache, compatibility).map_err(engine::setup)
        });
        let memory = MemoryBudget::new(config.memory_budget);
        let queue = QueueConfig {
            concurrent: config.max_concurrent,
            queued: config.max_queued,
            max_wait: config.max_wait,
        };
        Ok(Self(Arc::new(Inner {
            name: NEXT.fetch_add(1, Ordering::Relaxed),
            compiler: Compiler::new(&config)?,
            compiling: Semaphore::new(1),
            disk: disk.transpose()?,
            functions: Mutex::new(Functions {
                ready: MemoryCache::new(config.warm_bytes as u64),
                pending: HashMap::new(),
            }),
            code: CodeBudget::new(code_bytes(&config)),
            backend: Backend::new(&config)?,
            queue: CallQueue::new(queue, memory.clone()),
            memory,
            counters: Counters::default(),
            config,
        })))
    }

    /// Waits until guests can run.
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Setup`] if no worker process can be started.
    pub async fn ready(&self) -> Result<(), ExecutorError> {
        self.0.backend.ready().await
    }

    /// The function with this id, if its compiled code is in memory. Costs next to nothing.
    pub fn prepared(&self, id: &FunctionId) -> Option<Function> {
        let function = self.0.functions().ready.get(id)?;
        self.0.counters.warm.fetch_add(1, Ordering::Relaxed);
        Some(function)
    }

    /// The function with this id, if its compiled code is in memory or on disk.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn find(&self, id: &FunctionId) -> Option<(Function, Start)> {
        self.prepare_from(*id, None).await.ok()
    }

    /// Compiles a function unless it is here already, checks its imports and its entry point, and
    /// keeps it. Runs none of its code.
    ///
    /// Callers who bring the same function while it is being compiled wait for that one
    /// compilation. One function is compiled at a time.
    ///
    /// # Errors
    ///
    /// Any error of kind [`BadFunction`](crate::ErrorKind::BadFunction) for a function that cannot
    /// run here, [`ExecutorError::Overloaded`] when too many functions wait to be compiled,
    /// [`ExecutorError::Fault`].
    ///
    /// # Cancel safety
    ///
    /// A compilation that has been started goes on, and its result is kept.
    pub async fn prepare(&self, wasm: Bytes) -> Result<(Function, Start), ExecutorError> {
        check::size(&wasm, &self.0.config)?;
        let (id, wasm) = identify(wasm).await?;
        self.prepare_from(id, Some(wasm)).await
    }

    /// Prepares a function and keeps it in memory from now on, whatever its demand.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::prepare`].
    pub async fn preload(&self, wasm: Bytes) -> Result<(Function, Start), ExecutorError> {
        let (function, start) = self.prepare(wasm).await?;
        self.0.functions().ready.pin(&function.id());
        Ok((function, start))
    }

    /// A queue of its own for some calls, all within the executor's memory budget.
    pub fn queue(&self, config: QueueConfig) -> CallQueue {
        CallQueue::new(config, self.0.memory.clone())
    }

    /// Runs a function in a fresh instance and waits for its end.
    ///
    /// Waits for a free place first, which does not count as wall time. Whatever the guest does is
    /// an [`Outcome`].
    ///
    /// # Errors
    ///
    /// [`ExecutorError::Overloaded`], [`ExecutorError::BadInvocation`],
    /// [`ExecutorError::WrongExecutor`], [`ExecutorError::WorkerDied`], or [`ExecutorError::Fault`]
    /// when the host failed.
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
        self.run_in(&self.0.queue, function, invocation, limits)
            .await
    }

    /// The same in this queue.
    ///
    /// # Errors
    ///
    /// Those of [`Executor::run`].
    pub async fn run_in(
        &self,
        queue: &CallQueue,
        function: &Function,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        if function.executor() != self.0.name {
            return Err(ExecutorError::WrongExecutor);
        }
        let permit = queue.enter(limits.memory_bytes).await?;
        self.0
            .backend
            .run(permit, function, invocation, limits)
            .await
    }

    /// The active layers of confinement between guests and the machine, once a worker has started.
    /// Nothing without process isolation.
    pub fn confinement_layers(&self) -> Vec<ConfinementLayer> {
        self.0.backend.confinement().active
    }

    /// The other layers, which this system does not offer, once a worker has started. Nothing
    /// without process isolation.
    pub fn absent_layers(&self) -> Vec<(ConfinementLayer, Absence)> {
        self.0.backend.confinement().absent
    }

    /// Why the last worker process that was to start did not: a confinement layer that is available
    /// and failed, for one. Workers that had started before go on. For this machine's operator: it
    /// may name files.
    pub fn trouble(&self) -> Option<String> {
        self.0.backend.trouble()
    }

    /// The workers that live.
    #[cfg(test)]
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.0.backend.processes()
    }

    /// What has happened so far.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let functions = self.0.functions();
        Counts {
            warm_starts: read(&self.0.counters.warm),
            cached_starts: read(&self.0.counters.cached),
            compiled: read(&self.0.counters.compiled),
            not_compiled: read(&self.0.counters.not_compiled),
            warm_functions: functions.ready.len(),
            warm_bytes: functions.ready.bytes(),
            cache_rejected: self.0.disk.as_ref().map_or(0, DiskCache::rejected),
            workers_lost: self.0.backend.deaths(),
        }
    }

    /// Boxed, so that it is compiled here, and not again in every crate that prepares functions.
    fn prepare_from(
        &self,
        id: FunctionId,
        wasm: Option<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Prepared> + Send + '_>> {
        Box::pin(self.prepare_here(id, wasm))
    }

    async fn prepare_here(&self, id: FunctionId, wasm: Option<Bytes>) -> Prepared {
        let (mut pending, ours) = {
            let mut functions = self.0.functions();
            if let Some(function) = functions.ready.get(&id) {
                self.0.counters.warm.fetch_add(1, Ordering::Relaxed);
                return Ok((function, Start::Warm));
            }
            match functions.pending.get(&id) {
                Some(pending) => (pending.clone(), false),
                None => (
                    self.start_preparing(&mut functions, id, wasm.clone())?,
                    true,
                ),
            }
        };
        let prepared = pending.wait_for(Option::is_some).await;
        let prepared = prepared.ok().and_then(|prepared| prepared.clone());
        match prepared.unwrap_or(Err(ExecutorError::Fault("the compiler failed"))) {
            Ok((function, _)) if !ours => {
                self.0.counters.warm.fetch_add(1, Ordering::Relaxed);
                Ok((function, Start::Warm))
            }
            // A caller looked for it without bringing it.
            Err(MISSING) if !ours && wasm.is_some() => self.prepare_from(id, wasm).await,
            prepared => prepared,
        }
    }

    fn start_preparing(
        &self,
        functions: &mut Functions,
        id: FunctionId,
        wasm: Option<Bytes>,
    ) -> Result<Pending, ExecutorError> {
        if functions.pending.len() > self.0.config.max_queued {
            return Err(ExecutorError::Overloaded {
                retry_after: self.0.config.compile.wall_time / 10,
            });
        }
        let (sender, receiver) = watch::channel(None);
        functions.pending.insert(id, receiver.clone());
        let entry = PendingEntry {
            inner: Arc::clone(&self.0),
            id,
        };
        task::spawn(async move {
            let prepared = entry.inner.image(id, wasm).await;
            let prepared = prepared.and_then(|(image, start)| {
                let share = entry.inner.code.take(image.len());
                // Others are in use, or wait to be.
                let share = share.ok_or(ExecutorError::Overloaded {
                    retry_after: CODE_IN_USE,
                })?;
                let slot = entry.inner.backend.new_slot();
                let function = Function::new(entry.inner.name, id, (image, share), slot);
                Ok((function, start))
            });
            if let Ok((function, _)) = &prepared {
                entry.inner.functions().ready.insert(function);
            }
            // Gone before anybody hears of the end, so that who comes then starts anew.
            drop(entry);
            sender.send_replace(Some(prepared));
        });
        Ok(receiver)
    }
}

/// When code that is in use is likely to be used no longer.
const CODE_IN_USE: Duration = Duration::from_secs(5);

/// What is kept warm, and as much again in use; but one function always has room.
fn code_bytes(config: &ExecutorConfig) -> u64 {
    let warm = config.warm_bytes as u64;
    warm.saturating_add(warm.max(largest_code(config)))
}

/// Not an error that anybody sees.
const MISSING: ExecutorError = ExecutorError::Fault("not here");

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor")
            .field("config", &self.0.config)
            .finish_non_exhaustive()
    }
}

impl Inner {
    fn functions(&self) -> MutexGuard<'_, Functions> {
        self.functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The compiled code: from disk, or from the compiler.
    async fn image(
        self: &Arc<Self>,
        id: FunctionId,
        wasm: Option<Bytes>,
    ) -> Result<(CodeImage, Start), ExecutorError> {
        let inner = Arc::clone(self);
        let cached =
            task::spawn_blocking(move || inner.disk.as_ref().and_then(|disk| disk.get(&id)));
        if let Ok(Some(image)) = cached.await {
            self.counters.cached.fetch_add(1, Ordering::Relaxed);
            return Ok((image, Start::Cached));
        }
        let wasm = wasm.ok_or(MISSING)?;
        let turn = self.compiling.acquire().await;
        let compiled = self.compiler.compile(wasm).await;
        drop(turn);
        let image = compiled.inspect_err(|_| {
            self.counters.not_compiled.fetch_add(1, Ordering::Relaxed);
        })?;
        self.counters.compiled.fetch_add(1, Ordering::Relaxed);
        let inner = Arc::clone(self);
        let kept = task::spawn_blocking(move || {
            if let Some(disk) = &inner.disk {
                // A full or broken disk costs a compilation after the next start, no more.
                let _ = disk.put(&id, &image);
            }
            image
        });
        let image = kept.await.map_err(fault("the code was lost"))?;
        Ok((image, Start::Compiled))
    }
}

/// Takes the entry away however the preparation ends, so that the function can be tried again.
struct PendingEntry {
    inner: Arc<Inner>,
    id: FunctionId,
}

impl Drop for PendingEntry {
    fn drop(&mut self) {
        self.inner.functions().pending.remove(&self.id);
    }
}

/// Hashes on a blocking thread if it takes long enough to matter.
async fn identify(wasm: Bytes) -> Result<(FunctionId, Bytes), ExecutorError> {
    const SHORT: usize = 64 << 10;
    if wasm.len() <= SHORT {
        return Ok((FunctionId::of(&wasm), wasm));
    }
    let hashed = task::spawn_blocking(move || (FunctionId::of(&wasm), wasm)).await;
    hashed.map_err(fault("hashing failed"))
}
