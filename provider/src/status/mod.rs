//! What a running provider tells its operator, over a socket in its data directory.
//!
//! Totals only: nothing about any one call, and nothing on disk.

mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dlambda_proto::{Completion, Epoch, ErrorKind, HasKind, Reply};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

pub(crate) use work::Work;
pub use work::{AbsentLayer, ExecutionStatus, FunctionWork, Queue};

const SOCKET: &str = "status.sock";
const DEADLINE: Duration = Duration::from_secs(5);

/// Totals since the provider started.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Snapshot {
    /// `starting`, `ready` or `draining`.
    pub state: String,
    /// The current epoch.
    pub epoch: Epoch,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Streams open now.
    pub open_sessions: usize,
    /// Calls running now.
    pub running_calls: usize,
    /// Functions published by the operator.
    pub published_functions: usize,
    /// Functions kept that callers brought.
    pub uploaded_functions: usize,
    /// Calls whose function ended by itself with success.
    pub succeeded: u64,
    /// Calls whose function failed or broke a limit.
    pub failed: u64,
    /// Calls that were turned away, or named a function that is not here.
    pub refused: u64,
    /// Streams that ended without an answer to give.
    pub vanished: u64,
    /// Streams that lost their place, or got none, since too many came at once.
    pub turned_out: u64,
    /// Calls that the provider itself failed.
    pub faults: u64,
    /// Contracts that were granted, since the start.
    pub contracts_granted: u64,
    /// Proposals that were refused or countered, since the start.
    pub contracts_refused: u64,
    /// Contracts and tokens of the epochs whose tokens can still be spent.
    pub contracts: Vec<ContractTotals>,
    /// Call tokens that were redeemed, of those epochs.
    pub tokens_redeemed: u64,
    /// The latest contracts, at most 100. No call can be tied to one.
    pub latest_contracts: Vec<ContractLine>,
    /// Who waits, by plan.
    pub queues: Vec<Queue>,
    /// What each published function did. Those that callers brought have no
    /// line of their own: a function that only one person uses is a name.
    pub functions: Vec<FunctionWork>,
    /// What the executor did.
    pub execution: ExecutionStatus,
}

/// Contracts and tokens of one plan in one epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContractTotals {
    /// The epoch.
    pub epoch: Epoch,
    /// The plan.
    pub plan: String,
    /// Contracts granted.
    pub granted: u64,
    /// Of them, signed by both.
    pub confirmed: u64,
    /// Call tokens issued.
    pub calls_issued: u64,
    /// Rating tokens issued.
    pub ratings_issued: u64,
}

/// One contract, for the operator's books.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ContractLine {
    /// The contract's name between its parties, in hexadecimal.
    pub id: String,
    /// The plan.
    pub plan: String,
    /// Calls sold.
    pub calls: u16,
    /// The epoch whose keys issued the tokens.
    pub epoch: Epoch,
    /// Whether both sides have signed.
    pub confirmed: bool,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Failed,
    Fault,
    Negotiated,
    Refused,
    Succeeded,
    TurnedOut,
    Vanished,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) sessions: AtomicUsize,
    running: AtomicUsize,
    succeeded: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
    vanished: AtomicU64,
    turned_out: AtomicU64,
    faults: AtomicU64,
    granted: AtomicU64,
    not_granted: AtomicU64,
}

/// Counts one running call until dropped.
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl Ending {
    pub(crate) fn of(reply: &Reply) -> Self {
        match &reply.completion {
            Completion::Exited { status: 0, .. } => Self::Succeeded,
            Completion::Exited { .. } | Completion::Stopped { .. } => Self::Failed,
            Completion::ProviderFault => Self::Fault,
            _ => Self::Refused,
        }
    }
}

impl Counters {
    pub(crate) fn count(&self, ending: Ending) {
        let counter = match ending {
            Ending::Failed => &self.failed,
            Ending::Fault => &self.faults,
            // Counted by what was answered.
            Ending::Negotiated => return,
            Ending::Refused => &self.refused,
            Ending::Succeeded => &self.succeeded,
            Ending::TurnedOut => &self.turned_out,
            Ending::Vanished => &self.vanished,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a contract; one that was granted before does not count again.
    pub(crate) fn count_granted(&self) {
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a proposal or confirmation that got something else.
    pub(crate) fn count_not_granted(&self) {
        self.not_granted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn start_call(&self) -> Running<'_> {
        Running::new(&self.running)
    }

    pub(crate) fn start_session(&self) -> Running<'_> {
        Running::new(&self.sessions)
    }

    /// Forgets what was counted so far: our own call to ourselves.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.succeeded,
            &self.failed,
            &self.refused,
            &self.vanished,
            &self.turned_out,
            &self.faults,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            state: String::new(),
            epoch: Epoch(0),
            uptime_seconds: 0,
            open_sessions: self.sessions.load(Ordering::Relaxed),
            running_calls: self.running.load(Ordering::Relaxed),
            published_functions: 0,
            uploaded_functions: 0,
            succeeded: read(&self.succeeded),
            failed: read(&self.failed),
            refused: read(&self.refused),
            vanished: read(&self.vanished),
            turned_out: read(&self.turned_out),
            faults: read(&self.faults),
            contracts_granted: read(&self.granted),
            contracts_refused: read(&self.not_granted),
            contracts: Vec::new(),
            tokens_redeemed: 0,
            latest_contracts: Vec::new(),
            queues: Vec::new(),
            functions: Vec::new(),
            execution: ExecutionStatus::default(),
        }
    }
}

impl<'a> Running<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why there is no status.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StatusError {
    /// Nobody answers.
    #[error("no provider is running on {}", .0.display())]
    NotRunning(PathBuf),
    /// Something answers, but not with a status.
    #[error("the provider does not answer")]
    NoAnswer(#[source] io::Error),
}

impl HasKind for StatusError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoProvider
    }
}

/// Asks the provider that runs on this data directory.
///
/// # Errors
///
/// [`StatusError::NotRunning`] if there is none.
pub async fn query_status(data: &Path) -> Result<Snapshot, StatusError> {
    let mut socket = UnixStream::connect(data.join(SOCKET))
        .await
        .map_err(|_| StatusError::NotRunning(data.to_owned()))?;
    let mut text = Vec::new();
    let mut bounded = (&mut socket).take(512 << 10);
    timeout(DEADLINE, bounded.read_to_end(&mut text))
        .await
        .map_err(|_| StatusError::NoAnswer(io::ErrorKind::TimedOut.into()))?
        .map_err(StatusError::NoAnswer)?;
    serde_json::from_slice(&text).map_err(|error| StatusError::NoAnswer(error.into()))
}

/// Answers every connection with a snapshot. The directory is the owner's
/// alone, so nobody else can connect.
pub(crate) async fn answer(data: PathBuf, snapshot: impl Fn() -> Snapshot + Send + Sync + 'static) {
    let snapshot = Arc::new(snapshot);
    let path = data.join(SOCKET);
    // Left by a provider that was killed; we hold the directory's lock.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(kind = ?error.kind(), "no status socket: is the data directory's path too long?");
            return;
        }
    };
    loop {
        if let Ok((mut socket, _)) = listener.accept().await {
            // It looks into the ledger, on disk.
            let snapshot = Arc::clone(&snapshot);
            let taken = tokio::task::spawn_blocking(move || serde_json::to_vec(&snapshot()));
            let text = taken.await.ok().and_then(Result::ok).unwrap_or_default();
            let _ = timeout(DEADLINE, socket.write_all(&text)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
