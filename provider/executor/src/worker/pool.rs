//! The worker processes, seen from the process that starts them.
//!
//! Each worker has a keeper: a task that starts the process, talks to it, and starts another when it has died. A call
//! goes to the worker with the least to do. A worker that does not answer in time is killed, and only its calls with it.

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

use crate::engine::MEMORIES_PER_CALL;
use crate::ipc::{self, HelperError};
use crate::wall::Walls;
use crate::worker::channel::{Outbox, Receiver};
use crate::worker::messages::{Order, Report, Setup};
use crate::worker::patience::patiently;
use crate::worker::serve;
use crate::{
    Absence, ExecutorConfig, ExecutorError, Function, Invocation, Limits, Outcome, Wall,
    fingerprint,
};

/// For a call to wait for a worker to start: it reserves address space and puts up its walls.
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
pub(crate) struct Pool(Arc<Shared>);

struct Shared {
    program: PathBuf,
    setup: Setup,
    workers: Vec<Worker>,
    next_call: AtomicU64,
    deaths: AtomicU64,
    changed: Notify,
    /// Why no worker could be started, if so.
    broken: Mutex<Option<String>>,
    walls: Mutex<Walls>,
    stop: watch::Sender<bool>,
}

#[derive(Default)]
struct Worker {
    state: Mutex<State>,
}

/// One life of a worker, and nothing before and after it.
#[derive(Default)]
struct State {
    orders: Option<Arc<Outbox>>,
    /// Told to die by a call that waited for too long, or was lied to.
    condemned: Arc<Notify>,
    process: Option<u32>,
    loaded: HashSet<u64>,
    calls: HashMap<u64, oneshot::Sender<Result<Outcome, HelperError>>>,
}

type Answer = oneshot::Receiver<Result<Outcome, HelperError>>;

/// A call that a worker was given, and that worker.
struct Ordered {
    answer: Answer,
    condemned: Arc<Notify>,
    process: Option<u32>,
}

/// Lets workers forget a function once nobody can call it any more.
pub(crate) struct Retire {
    slot: u64,
    pool: Weak<Shared>,
}

impl Pool {
    /// Starts the keepers. Needs a runtime. Workers come up meanwhile; calls wait for them.
    pub(crate) fn start(config: &ExecutorConfig, program: PathBuf, workers: usize) -> Self {
        let workers = workers.max(1);
        // A memory that a call has had stays as large, though empty, until another call has its place. So over time all
        // places come to be as large as the largest call.
        let places = config.max_concurrent.max(1) as u64 * u64::from(MEMORIES_PER_CALL);
        let memory = (config.max_memory_bytes as u64).saturating_mul(places);
        let setup = Setup {
            // Any call may come to any worker, and places are given out for all workers together.
            calls: config.max_concurrent as u64,
            memory_bytes: config.max_memory_bytes as u64,
            data_bytes: memory.saturating_add(WORKER_BYTES),
            message_bytes: LARGEST + OVERHEAD,
        };
        let shared = Arc::new(Shared {
            program,
            setup,
            workers: (0..workers).map(|_| Worker::default()).collect(),
            next_call: AtomicU64::new(0),
            deaths: AtomicU64::new(0),
            changed: Notify::new(),
            broken: Mutex::default(),
            walls: Mutex::default(),
            stop: watch::channel(false).0,
        });
        for number in 0..workers {
            let stopped = shared.stop.subscribe();
            tokio::spawn(keep(Arc::downgrade(&shared), number, stopped));
        }
        Self(shared)
    }

    /// A fresh name for a function among workers.
    pub(crate) fn retire(&self) -> Retire {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Retire {
            slot: NEXT.fetch_add(1, Ordering::Relaxed),
            pool: Arc::downgrade(&self.0),
        }
    }

    /// Workers that died so far.
    pub(crate) fn deaths(&self) -> u64 {
        self.0.deaths.load(Ordering::Relaxed)
    }

    /// The walls around every worker, once one has started.
    pub(crate) fn walls(&self) -> Walls {
        lock(&self.0.walls).clone()
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
        // One that is too long for a message would cost the worker, and the calls of others with it.
        let output = limits.output_bytes.saturating_add(limits.stderr_bytes) as u64;
        if invocation.bytes() > LARGEST || output > LARGEST {
            return Err(ExecutorError::BadInvocation(
                "too much input, or room for too much output",
            ));
        }
        let worker = shared.least_busy().await?;
        let call = shared.next_call.fetch_add(1, Ordering::Relaxed);
        let slot = function.slot();
        let order = minicbor::to_vec(Order::Run {
            call,
            slot,
            invocation,
            limits: limits.clone(),
        });
        let order = order.map_err(|_| ExecutorError::Fault("a call cannot be written"))?;
        let ordered = worker
            .order(call, function, &order)
            .map_err(|_| ExecutorError::WorkerDied)?;
        let pending = PendingCall { worker, call };
        let condemned = Arc::clone(&ordered.condemned);
        let Some(answer) = ordered.answer(limits.wall_time).await else {
            condemned.notify_one();
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
            // An impossible result: somebody has broken out of the guest.
            condemned.notify_one();
            return Err(ExecutorError::WorkerDied);
        }
        Ok(outcome)
    }
}

impl Ordered {
    /// What the worker says, which should have ended the call after its wall time; `None` if it hangs.
    async fn answer(
        mut self,
        wall_time: Duration,
    ) -> Option<Result<Result<Outcome, HelperError>, oneshot::error::RecvError>> {
        if let Ok(answer) = timeout(wall_time, &mut self.answer).await {
            return Some(answer);
        }
        patiently(self.process, self.answer).await
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
            state.tell(&Order::Cancel { call: self.call });
        }
    }
}

impl Worker {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sends a call, after the code that it needs.
    fn order(&self, call: u64, function: &Function, order: &[u8]) -> io::Result<Ordered> {
        let mut state = self.state();
        let orders = state.orders.clone().ok_or(io::ErrorKind::NotConnected)?;
        let slot = function.slot();
        if !state.loaded.contains(&slot) {
            let image = function.image();
            let load = Order::Load {
                slot,
                abi: image.abi(),
                code: image.digest(),
            };
            let load = minicbor::to_vec(load).map_err(io::Error::other)?;
            orders.send(&load, Some(image.open_again()?))?;
            state.loaded.insert(slot);
        }
        let (sender, answer) = oneshot::channel();
        state.calls.insert(call, sender);
        if let Err(error) = orders.send(order, None) {
            state.calls.remove(&call);
            return Err(error);
        }
        Ok(Ordered {
            answer,
            condemned: Arc::clone(&state.condemned),
            process: state.process,
        })
    }

    /// Code that is not needed any more.
    fn forget(&self, slot: u64) {
        let mut state = self.state();
        if state.loaded.remove(&slot) {
            state.tell(&Order::Unload { slot });
        }
    }
}

impl State {
    /// Sends an order that nobody waits for. One that cannot be sent goes to a worker that is about to be replaced.
    fn tell(&self, order: &Order) {
        if let (Some(orders), Ok(order)) = (&self.orders, minicbor::to_vec(order)) {
            let _ = orders.send(&order, None);
        }
    }
}

impl Shared {
    /// The worker with the fewest calls of those that live; waits for one to start.
    async fn least_busy(&self) -> Result<&Worker, ExecutorError> {
        let wait = async {
            loop {
                let changed = self.changed.notified();
                let living = self.workers.iter().filter_map(|worker| {
                    let state = worker.state();
                    state.orders.is_some().then(|| (state.calls.len(), worker))
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

impl Retire {
    pub(crate) fn slot(&self) -> u64 {
        self.slot
    }

    /// For functions of an executor without workers.
    pub(crate) fn nowhere() -> Self {
        Self {
            slot: 0,
            pool: Weak::new(),
        }
    }
}

impl Drop for Retire {
    fn drop(&mut self) {
        let Some(pool) = self.pool.upgrade() else {
            return;
        };
        for worker in &pool.workers {
            worker.forget(self.slot);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.0.stop.send_replace(true);
    }
}

/// Keeps one worker alive.
async fn keep(shared: Weak<Shared>, number: usize, mut stopped: watch::Receiver<bool>) {
    let mut failures = 0;
    loop {
        let started = AtomicBool::new(false);
        let ended = tokio::select! {
            ended = live(&shared, number, &started) => ended,
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
async fn live(shared: &Weak<Shared>, number: usize, started: &AtomicBool) -> io::Result<()> {
    let Some(pool) = shared.upgrade() else {
        return Ok(());
    };
    let (child, orders, mut receiver) = spawn(&pool)?;
    let orders = Arc::new(orders);
    orders.send(
        &minicbor::to_vec(&pool.setup).map_err(io::Error::other)?,
        None,
    )?;
    orders.flush().await?;
    let ready = patiently(child.id(), receiver.receive()).await;
    let ready = ready.ok_or(io::ErrorKind::TimedOut)??;
    let walls = check(&ready.ok_or(io::ErrorKind::UnexpectedEof)?)?;
    started.store(true, Ordering::Relaxed);
    let condemned = {
        let mut state = pool.workers[number].state();
        state.orders = Some(Arc::clone(&orders));
        state.process = child.id();
        Arc::clone(&state.condemned)
    };
    *lock(&pool.walls) = walls;
    *lock(&pool.broken) = None;
    pool.changed.notify_waiters();
    drop(pool);
    let ended = tokio::select! {
        ended = orders.drain() => ended.map(|never| match never {}),
        ended = read(shared, number, receiver) => ended,
        () = condemned.notified() => Ok(()),
    };
    if let Some(pool) = shared.upgrade() {
        // Before the process ends: from here on no call comes to it, and those that wait hear that there is no answer.
        *pool.workers[number].state() = State::default();
    }
    // It is killed here at the latest.
    drop(child);
    ended
}

fn spawn(pool: &Shared) -> io::Result<(Child, Outbox, Receiver)> {
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

/// Whether a worker is of our version, and which walls it has.
fn check(report: &[u8]) -> io::Result<Walls> {
    let wall = |position: u8| Wall::ALL.get(usize::from(position)).copied();
    let absence = |position: u8| Absence::ALL.get(usize::from(position)).copied();
    match ipc::read(report)? {
        Report::Ready {
            engine,
            walls,
            absent,
        } if engine == fingerprint() => Ok(Walls {
            standing: walls.into_iter().filter_map(wall).collect(),
            absent: absent
                .into_iter()
                .filter_map(|(position, why)| Some((wall(position)?, absence(why)?)))
                .collect(),
        }),
        Report::Ready { .. } => Err(io::Error::other(
            "the dlambda-executor program is of another version",
        )),
        Report::Failed(reason) => Err(io::Error::other(reason)),
        Report::Done { .. } => Err(io::ErrorKind::InvalidData.into()),
    }
}

async fn read(shared: &Weak<Shared>, number: usize, mut receiver: Receiver) -> io::Result<()> {
    while let Some(report) = receiver.receive().await? {
        let Report::Done { call, outcome } = ipc::read(&report)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let Some(pool) = shared.upgrade() else {
            return Ok(());
        };
        let caller = pool.workers[number].state().calls.remove(&call);
        // Nobody waits for a call that was cancelled meanwhile.
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
