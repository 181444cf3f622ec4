//! The process that runs functions until its parent is gone.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdStream;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::SetOnce;
use tokio::task::{AbortHandle, LocalSet, spawn_blocking, spawn_local};

use crate::backend::worker::channel::{Outbox, Receiver};
use crate::backend::worker::messages::{Request, Response, Setup};
use crate::code_cache::CodeHandle;
use crate::confinement::{Confinement, ConfinementConfig, confine};
use crate::engine::setup as cannot;
use crate::helper::ipc::{self, HelperError};
use crate::runtime::{Code, GuestRuntime};
use crate::{Abi, ExecutorError, Invocation, Limits, Outcome, fingerprint};

/// The command that starts it.
pub(crate) const COMMAND: &str = "work";

/// How much others go first, 0 to 19.
const NICENESS: i32 = 10;
/// Bytes of initial contents of one memory, which live in something like a file; no function is
/// longer.
const INITIAL_BYTES: u64 = 64 << 20;
/// Longest setup message.
const SETUP_BYTES: u32 = 1 << 10;

/// Serves the parent at the other end of standard input.
pub(crate) fn run() -> ExitCode {
    match start() {
        Ok((worker, runtime)) => {
            LocalSet::new().block_on(&runtime, worker.serve());
            ExitCode::SUCCESS
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// Everything up to the point where a stranger's code could run; says so to the parent.
pub(crate) fn start() -> io::Result<(Worker, Runtime)> {
    let mut socket = StdStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let setup = read_setup(&mut socket)?;
    // Before the confinement: it makes a socket pair for signals.
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let prepared = prepare(&setup);
    let _inside = runtime.enter();
    socket.set_nonblocking(true)?;
    let (reading, writing) = tokio::net::UnixStream::from_std(socket)?.into_split();
    let most = usize::try_from(setup.message_bytes).unwrap_or(usize::MAX);
    let receiver = Receiver::new(reading, most, true);
    let outbox = Outbox::new(writing);
    let response = match &prepared {
        Ok((_, confinement)) => Response::Ready {
            engine: fingerprint(),
            active: confinement.active.clone(),
            absent: confinement.absent.clone(),
        },
        Err(error) => Response::Failed(error.to_string()),
    };
    outbox.send(&minicbor::to_vec(response).map_err(io::Error::other)?, None)?;
    runtime.block_on(outbox.flush())?;
    let (guests, _) = prepared.map_err(io::Error::other)?;
    drop(_inside);
    let worker = Worker {
        guests: Arc::new(guests),
        receiver,
        outbox: Rc::new(outbox),
        slots: HashMap::new(),
        calls: Rc::default(),
    };
    Ok((worker, runtime))
}

fn read_setup(socket: &mut StdStream) -> io::Result<Setup> {
    let mut prefix = [0; 4];
    socket.read_exact(&mut prefix)?;
    let len = u32::from_le_bytes(prefix);
    if len > SETUP_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; len as usize];
    socket.read_exact(&mut message)?;
    ipc::read(&message)
}

fn prepare(setup: &Setup) -> Result<(GuestRuntime, Confinement), ExecutorError> {
    let size = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let memory = size(setup.memory_bytes);
    let engine = GuestRuntime::engine(size(setup.calls), memory)?;
    let confinement = confine(&ConfinementConfig {
        data_bytes: setup.data_bytes,
        cpu_seconds: None,
        file_bytes: INITIAL_BYTES,
        niceness: 0,
    })?;
    let guests = GuestRuntime::new(engine, memory, 1)?;
    // Of this thread, after that of the ticker has started: a tick that comes late lets a guest
    // keep this thread for as long. And the network process goes first.
    rustix::process::setpriority_process(None, NICENESS).map_err(cannot)?;
    Ok((guests, confinement))
}

/// A worker at work. All guests share its one thread.
pub(crate) struct Worker {
    guests: Arc<GuestRuntime>,
    receiver: Receiver,
    outbox: Rc<Outbox>,
    slots: HashMap<u64, Slot>,
    calls: Rc<RefCell<HashMap<u64, AbortHandle>>>,
}

/// Code, from the moment that its descriptor arrives.
type Slot = Rc<SetOnce<Result<Arc<Code>, ExecutorError>>>;

impl Worker {
    async fn serve(mut self) {
        let outbox = Rc::clone(&self.outbox);
        spawn_local(async move { outbox.drain().await.map(drop) });
        while let Ok(Some(request)) = self.receiver.receive().await {
            // A parent that makes no sense is no parent of ours.
            let Ok(request) = ipc::read::<Request>(&request) else {
                return;
            };
            self.handle(request);
        }
    }

    fn handle(&mut self, request: Request) {
        match request {
            Request::Load {
                slot,
                abi,
                code: digest,
            } => {
                let handle = self.receiver.descriptor();
                let handle = handle.map(|memory| CodeHandle::new(memory, digest));
                let code: Slot = Rc::new(SetOnce::new());
                self.slots.insert(slot, Rc::clone(&code));
                let guests = Arc::clone(&self.guests);
                spawn_local(async move {
                    // It is set here only.
                    let _ = code.set(load(guests, abi, handle).await);
                });
            }
            Request::Unload { slot } => drop(self.slots.remove(&slot)),
            Request::Cancel { call } => {
                if let Some(task) = self.calls.borrow_mut().remove(&call) {
                    task.abort();
                }
            }
            Request::Run {
                call,
                slot,
                invocation,
                limits,
            } => {
                let slot = self.slots.get(&slot).cloned();
                let task =
                    spawn_local(run_call(Arc::clone(&self.guests), slot, invocation, limits));
                self.calls.borrow_mut().insert(call, task.abort_handle());
                let (calls, outbox) = (Rc::clone(&self.calls), Rc::clone(&self.outbox));
                // Two tasks, so that a panic in a host function is an answer like any other.
                spawn_local(async move {
                    let outcome = task.await.unwrap_or(Err(HelperError::Fault));
                    calls.borrow_mut().remove(&call);
                    // If it cannot be sent, the parent is gone, and this process soon.
                    if let Ok(response) = minicbor::to_vec(Response::Done { call, outcome }) {
                        let _ = outbox.send(&response, None);
                    }
                });
            }
        }
    }
}

async fn run_call(
    guests: Arc<GuestRuntime>,
    slot: Option<Slot>,
    invocation: Invocation,
    limits: Limits,
) -> Result<Outcome, HelperError> {
    let slot = slot.ok_or(HelperError::Fault)?;
    let code = slot.wait().await.clone()?;
    Ok(guests.run(&code, invocation, &limits).await?)
}

#[allow(
    unsafe_code,
    reason = "code is loaded that the parent has made or authenticated"
)]
async fn load(
    guests: Arc<GuestRuntime>,
    abi: Abi,
    code: Option<CodeHandle>,
) -> Result<Arc<Code>, ExecutorError> {
    let broken = ExecutorError::Fault("no code came");
    let code = code.ok_or_else(|| broken.clone())?;
    let loading = spawn_blocking(move || {
        // SAFETY: the digest comes from the parent, which made the code or checked its
        // authenticity.
        unsafe { guests.load(abi, code) }
    });
    loading.await.unwrap_or(Err(broken)).map(Arc::new)
}
