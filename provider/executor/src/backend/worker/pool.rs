//! The worker processes, seen from the process that starts them.
//!
//! Each worker has a supervisor: a task that starts the process, talks to it, and starts another
//! when it has died. A call goes to the worker with the least to do. A worker that does not answer
//! in time is killed, and only its calls with it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{sleep, timeout};

use crate::backend::worker::channel::{Outbox, Receiver};
use crate::backend::worker::liveness::unless_hung;
use crate::backend::worker::messages::{Request, Response, Setup};
use crate::backend::worker::serve;
use crate::confinement::Confinement;
use crate::engine::MEMORIES_PER_CALL;
use crate::error::fault;
use crate::helper::ipc::{self, HelperError};
use crate::{ExecutorConfig, ExecutorError, Function, Invocation, Limits, Outcome, fingerprint};

/// For a call to wait for a worker to start: it reserves address space and confines itself.
const START: Duration = Duration::from_secs(30);
/// Between a death and the next start, growing to the last with every start that fails.
const RESTART: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(100),
    Duration::from_secs(1),
    Duration::from_secs(5),
    Duration::from_secs(30),
];
/// Bytes of a message beside input, output and the like.
const OVERHEAD: u64 = 1 << 20;
/// Input or output of one call with all that goes with it, in bytes.
const LARGEST: u64 = 64 << 20;
/// Memory of a worker beside its guests' memories: engine, code, stacks, input and output.
const WORKER_BYTES: u64 = 1 << 30;

/// All workers.
pub(crate) struct WorkerPool(Arc<Inner>);

struct Inner {
    program: PathBuf,
    setup: Setup,
    workers: Vec<Worker>,
    next_call: AtomicU64,
    deaths: AtomicU64,
    changed: Notify,
    /// Why no worker could be started, if so.
    broken: Mutex<Option<String>>,
    confinement: Mutex<Confinement>,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Worker {
    state: Mutex<State>,
}

/// One life of a worker, and nothing before and after it.
#[derive(Default)]
struct State {
    outbox: Option<Arc<Outbox>>,
    /// Told to die by a call that waited for too long, or was lied to.
    kill: Arc<Notify>,
    process: Option<u32>,
    loaded: HashSet<u64>,
    calls: HashMap<u64, oneshot::Sender<Result<Outcome, HelperError>>>,
}

type PendingResponse = oneshot::Receiver<Result<Outcome, HelperError>>;

/// A call that a worker was given, and that worker.
struct Dispatched {
    answer: PendingResponse,
    kill: Arc<Notify>,
    process: Option<u32>,
}

/// Lets workers forget a function once it can no longer be called.
pub(crate) struct SlotGuard {
    slot: u64,
    pool: Weak<Inner>,
}

impl WorkerPool {
    /// Starts the supervisors. Needs a runtime. Workers come up meanwhile; calls wait for them.
    pub(crate) fn start(config: &ExecutorConfig, program: PathBuf, workers: usize) -> Self {
        let workers = workers.max(1);
        // A memory that a call has had stays as large, though empty, until another call has its
        // place. So over time all places come to be as large as the largest call.
        let places = config.max_concurrent.max(1) as u64 * u64::from(MEMORIES_PER_CALL);
        let memory = (config.max_memory_bytes as u64).saturating_mul(places);
        let setup = Setup {
            // Any call may come to any worker, and places are given out for all workers together.
            calls: config.max_concurrent as u64,
            memory_bytes: config.max_memory_bytes as u64,
            data_bytes: memory.saturating_add(WORKER_BYTES),
            message_bytes: LARGEST + OVERHEAD,
        };
        let shared = Arc::new(Inner {
            program,
            setup,
            workers: (0..workers).map(|_| Worker::default()).collect(),
            next_call: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            changed: Notify::new(),
            broken: Mutex::default(),
            confinement: Mutex::default(),
            stop: watch::channel(false).0,
        });
        for number in 0..workers {
            let stopped = shared.stop.subscribe();
            tokio::spawn(supervise(Arc::downgrade(&shared), number, stopped));
        }
        Self(shared)
    }

    /// A fresh name for a function among workers.
    pub(crate) fn new_slot(&self) -> SlotGuard {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        SlotGuard {
            slot: NEXT.fetch_add(1, Ordering::Relaxed),
            pool: Arc::downgrade(&self.0),
        }
    }

    /// Workers that died so far.
    pub(crate) fn deaths(&self) -> u64 {
        self.0.deaths.load(Ordering::Relaxed)
    }

    /// The confinement of every worker, once one has started.
    pub(crate) fn confinement(&self) -> Confinement {
        lock(&self.0.confinement).clone()
    }

    /// Why the last worker that was to start did not.
    pub(crate) fn trouble(&self) -> Option<String> {
        lock(&self.0.broken).clone()
    }

    #[cfg(test)]
    pub(crate) fn processes(&self) -> Vec<u32> {
        let workers = self.0.workers.iter();
        workers
            .filter_map(|worker| worker.state().process)
            .collect()
    }

    /// Waits until a worker is ready.
    pub(crate) async fn ready(&self) -> Result<(), ExecutorError> {
        self.0.least_busy().await.map(drop)
    }

    /// Runs a call on the worker with the least to do.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the guest.
    pub(crate) async fn run(
        &self,
        function: &Function,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        let shared = &*self.0;
        // One that is too long for a message would cost the worker, and the calls of others with
        // it.
        let output = limits.output_bytes.saturating_add(limits.stderr_bytes) as u64;
        if invocation.bytes() > LARGEST || output > LARGEST {
            return Err(ExecutorError::BadInvocation(
                "too much input, or room for too much output",
            ));
        }
        let worker = shared.least_busy().await?;
        let call = shared.next_call.fetch_add(1, Ordering::Relaxed);
        let slot = function.slot();
        let request = minicbor::to_vec(Request::Run {
            call,
            slot,
            invocation,
            limits: limits.clone(),
        });
        let request = request.map_err(fault("a call cannot be written"))?;
        let dispatched = worker
            .request(call, function, &request)
            .map_err(|_| ExecutorError::WorkerDied)?;
        let pending = PendingCall { worker, call };
        let kill = Arc::clone(&dispatched.kill);
        let Some(answer) = dispatched.answer(limits.wall_time).await else {
            kill.notify_one();
            return Err(ExecutorError::WorkerDied);
        };
        let answer = answer.map_err(|_| ExecutorError::WorkerDied)?;
        drop(pending);
        if matches!(answer, Err(HelperError::Fault)) {
            // Its code may not have been loaded; next time it is sent again.
            worker.forget(slot);
        }
        let outcome = answer?;
        if !outcome.keeps_to(limits) {
            // An impossible result: the guest has broken out.
            kill.notify_one();
            return Err(ExecutorError::WorkerDied);
        }
        Ok(outcome)
    }
}

impl Dispatched {
    /// What the worker says, which should have ended the call after its wall time; `None` if it
    /// hangs.
    async fn answer(
        mut self,
        wall_time: Duration,
    ) -> Option<Result<Result<Outcome, HelperError>, oneshot::error::RecvError>> {
        if let Ok(answer) = timeout(wall_time, &mut self.answer).await {
            return Some(answer);
        }
        unless_hung(self.process, self.answer).await
    }
}

/// Takes a call back unless it is answered.
struct PendingCall<'a> {
    worker: &'a Worker,
    call: u64,
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let mut state = self.worker.state();
        if state.calls.remove(&self.call).is_some() {
            state.tell(&Request::Cancel { call: self.call });
        }
    }
}

impl Worker {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends a call, after the code that it needs.
    fn request(&self, call: u64, function: &Function, request: &[u8]) -> io::Result<Dispatched> {
        let mut state = self.state();
        let outbox = state.outbox.clone().ok_or(io::ErrorKind::NotConnected)?;
        let slot = function.slot();
        if !state.loaded.contains(&slot) {
            let image = function.image();
            let load = Request::Load {
                slot,
                abi: image.abi(),
                code: image.digest(),
            };
            let load = minicbor::to_vec(load).map_err(io::Error::other)?;
            outbox.send(&load, Some(image.open_again()?))?;
            state.loaded.insert(slot);
        }
        let (sender, answer) = oneshot::channel();
        state.calls.insert(call, sender);
        if let Err(error) = outbox.send(request, None) {
            state.calls.remove(&call);
            return Err(error);
        }
        Ok(Dispatched {
            answer,
            kill: Arc::clone(&state.kill),
            process: state.process,
        })
    }

    /// Code that is not needed any more.
    fn forget(&self, slot: u64) {
        let mut state = self.state();
        if state.loaded.remove(&slot) {
            state.tell(&Request::Unload { slot });
        }
    }
}

impl State {
    /// Sends an order that nobody waits for. One that cannot be sent goes to a worker that is about
    /// to be replaced.
    fn tell(&self, request: &Request) {
        if let (Some(outbox), Ok(request)) = (&self.outbox, minicbor::to_vec(request)) {
            let _ = outbox.send(&request, None);
        }
    }
}

impl Inner {
    /// The worker with the fewest calls of those that live; waits for one to start.
    async fn least_busy(&self) -> Result<&Worker, ExecutorError> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let living = self.workers.iter().filter_map(|worker| {
                    let state = worker.state();
                    state.outbox.is_some().then(|| (state.calls.len(), worker))
                });
                if let Some((_, worker)) = living.min_by_key(|(calls, _)| *calls) {
                    return Ok(worker);
                }
                if let Some(reason) = lock(&self.broken).clone() {
                    return Err(ExecutorError::Setup(reason));
                }
                changed.await;
            }
        };
        timeout(START, wait)
            .await
            .unwrap_or(Err(ExecutorError::WorkerDied))
    }
}

impl SlotGuard {
    pub(crate) fn slot(&self) -> u64 {
        self.slot
    }

    /// For functions of an executor without workers.
    pub(crate) fn detached() -> Self {
        Self {
            slot: 0,
            pool: Weak::new(),
        }
    }
}

impl Drop for SlotGuard {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        for worker in &pool.workers {
            worker.forget(self.slot);
        }
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.0.stop.send_replace(true);
    }
}

/// Keeps one worker alive.
async fn supervise(shared: Weak<Inner>, number: usize, mut stopped: watch::Receiver<bool>) {
    let mut failures = 0;
    loop {
        let started = AtomicBool::new(false);
        let ended = tokio::select! {
            ended = run_worker(&shared, number, &started) => ended,
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.deaths.fetch_add(1, Ordering::Relaxed);
        let started = started.into_inner();
        if let (false, Err(error)) = (started, &ended) {
            *lock(&shared.broken) = Some(format!("no worker process: {error}"));
            shared.changed.notify_waiters();
        }
        failures = if started {
            0
        } else {
            (failures + 1).min(RESTART.len() - 1)
        };
        drop(shared);
        tokio::select! {
            () = sleep(RESTART[failures]) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

/// One life of a worker.
async fn run_worker(shared: &Weak<Inner>, number: usize, started: &AtomicBool) -> io::Result<()> {
    let Some(pool) = shared.upgrade() else {
        return Ok(());
    };
    let (child, outbox, mut receiver) = spawn(&pool)?;
    let outbox = Arc::new(outbox);
    outbox.send(
        &minicbor::to_vec(&pool.setup).map_err(io::Error::other)?,
        None,
    )?;
    outbox.flush().await?;
    let ready = unless_hung(child.id(), receiver.receive()).await;
    let ready = ready.ok_or(io::ErrorKind::TimedOut)??;
    let confinement = check(&ready.ok_or(io::ErrorKind::UnexpectedEof)?)?;
    started.store(true, Ordering::Relaxed);
    let kill = {
        let mut state = pool.workers[number].state();
        state.outbox = Some(Arc::clone(&outbox));
        state.process = child.id();
        Arc::clone(&state.kill)
    };
    *lock(&pool.confinement) = confinement;
    *lock(&pool.broken) = None;
    pool.changed.notify_waiters();
    drop(pool);
    let ended = tokio::select! {
        ended = outbox.drain() => ended.map(|never| match never {}),
        ended = read(shared, number, receiver) => ended,
        () = kill.notified() => Ok(()),
    };
    if let Some(pool) = shared.upgrade() {
        // Before the process ends: from here on no call comes to it, and those that wait hear that
        // there is no answer.
        *pool.workers[number].state() = State::default();
    }
    // It is killed here at the latest.
    drop(child);
    ended
}

fn spawn(pool: &Inner) -> io::Result<(Child, Outbox, Receiver)> {
    let (here, there) = UnixStream::pair()?;
    let child = Command::new(&pool.program)
        .arg(serve::COMMAND)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(blocking(there)?)))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| io::Error::other(format!("{}: {error}", pool.program.display())))?;
    let (reading, writing) = here.into_split();
    let most = usize::try_from(pool.setup.message_bytes).unwrap_or(usize::MAX);
    Ok((
        child,
        Outbox::new(writing),
        Receiver::new(reading, most, false),
    ))
}

fn blocking(socket: UnixStream) -> io::Result<std::os::unix::net::UnixStream> {
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Whether a worker is of our version, and how it is confined.
fn check(response: &[u8]) -> io::Result<Confinement> {
    match ipc::read(response)? {
        Response::Ready {
            engine,
            active,
            absent,
        } if engine == fingerprint() => Ok(Confinement { active, absent }),
        Response::Ready { .. } => Err(io::Error::other(
            "the dlambda-executor program is of another version",
        )),
        Response::Failed(reason) => Err(io::Error::other(reason)),
        Response::Done { .. } => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn read(shared: &Weak<Inner>, number: usize, mut receiver: Receiver) -> io::Result<()> {
    while let Some(response) = receiver.receive().await? {
        let Response::Done { call, outcome } = ipc::read(&response)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(pool) = shared.upgrade() else {
            return Ok(());
        };
        let caller = pool.workers[number].state().calls.remove(&call);
        // A call that was cancelled meanwhile is no longer waited for.
        if let Some(caller) = caller {
            let _ = caller.send(outcome);
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change is whole in itself.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
