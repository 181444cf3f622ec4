//! The provider as a whole: start, serve, rotate epochs, stop.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use dlambda_crypto::negotiation::Terms;
use dlambda_crypto::tokens::BlindedCalls;
use dlambda_executor::{CallQueue, Executor};
use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::{Incoming, Listener, Transport};
use dlambda_privacy::wire::Budget;
use dlambda_privacy::{TransportError, os_rng};
use dlambda_proto::{
    BatchSize, CallToken, Cpu, Endpoint, Endpoints, Epoch, PlanName, ProviderId, PublishedFunction,
    Specs, UnixSeconds,
};
use futures::future::BoxFuture;
use rand_core::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use zeroize::Zeroizing;

use crate::cold::ContractDesk;
use crate::effort::Effort;
use crate::keyring::{self, EpochKeys, Keyring, Offer};
use crate::ledger::{EpochRecord, Ledger};
use crate::places::{Place, Places};
use crate::redeem::Desk;
use crate::status::{ContractLine, ContractTotals, Counters, Ending, Queue, Snapshot, Work};
use crate::store::FunctionStore;
use crate::{DataDir, Observer, ProviderConfig, ProviderError, self_test, session, status};

/// Contracts that are shown to the operator.
const LATEST_CONTRACTS: usize = 100;

/// How often the age of the epoch is looked at.
const ROTATION_CHECK: Duration = Duration::from_secs(1);

/// A provider that is listening.
pub struct Provider {
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
    listener: Box<dyn Listener>,
    data: DataDir,
    id: ProviderId,
}

/// Tells a provider to stop: no new calls, running ones are finished.
#[derive(Clone, Debug)]
pub struct Stop(CancellationToken);

/// What all sessions share.
pub(crate) struct Shared {
    pub(crate) config: ProviderConfig,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) executor: Executor,
    /// A queue for each plan.
    pub(crate) lanes: HashMap<PlanName, CallQueue>,
    pub(crate) work: Work,
    pub(crate) functions: FunctionStore,
    pub(crate) receive_budget: Budget,
    pub(crate) send_budget: Budget,
    pub(crate) counters: Counters,
    pub(crate) stop: CancellationToken,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) desk: Desk,
    pub(crate) contracts: ContractDesk,
    pub(crate) terms: Terms,
    effort: Mutex<Effort>,
    keyring: Mutex<Keyring>,
    observer: OnceLock<Arc<dyn Observer>>,
    ready: AtomicBool,
    started: Instant,
}

impl Provider {
    /// Loads functions and identity, starts the engine, and listens. Callers
    /// are served from [`Provider::serve`] on.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] naming the file, function or network that is at fault.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    // Boxed, as below, so that it is compiled here, and not again in every crate that has a provider.
    pub fn start(
        config: ProviderConfig,
        functions: &Path,
        data: DataDir,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> BoxFuture<'_, Result<Self, ProviderError>> {
        Box::pin(Self::start_here(config, functions, data, transport, clock))
    }

    async fn start_here(
        config: ProviderConfig,
        functions: &Path,
        data: DataDir,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        let store = FunctionStore::open(
            functions,
            config.max_function_bytes,
            data.uploaded_functions()?,
            config.store_bytes,
        )?;
        let executor = config.executor(data.compiled_functions(), data.code_key()?)?;
        let executor = Executor::new(executor)?;
        executor.ready().await?;
        let lanes = config.plans.iter().map(|plan| {
            let lane = executor.queue(config.lane(&plan.name));
            (plan.name.clone(), lane)
        });
        let lanes = lanes.collect();
        compile_published(&executor, &store, functions).await?;
        let identity = data.identity()?;
        let id = identity.id();
        let listener = transport.listen().await?;
        let endpoints = Endpoints::try_from(listener.endpoints());
        let endpoints = endpoints.map_err(|error| TransportError::Local(error.into()))?;
        let offer = Offer {
            identity,
            endpoints,
            specs: machine(),
            plans: config.plans.clone(),
            functions: store.published(),
            max_function_bytes: config.max_function_bytes,
            epoch: config.epoch,
            overlap: config.overlap,
            admission: config.contracts.admission,
            service: config.service(),
        };
        let ledger = Arc::new(open_ledger(&data).await?);
        let keyring = start_keyring(offer, &data, &ledger, clock.now()).await?;
        let shared = Arc::new(Shared {
            clock,
            executor,
            lanes,
            work: Work::new(&store),
            functions: store,
            receive_budget: Budget::new(config.receive_bytes),
            send_budget: Budget::new(config.send_bytes),
            counters: Counters::default(),
            stop: CancellationToken::new(),
            desk: Desk::new(Arc::clone(&ledger)),
            ledger,
            contracts: ContractDesk::new(),
            terms: config.contracts.terms(),
            effort: Mutex::new(config.contracts.effort()),
            keyring: Mutex::new(keyring),
            observer: OnceLock::new(),
            ready: AtomicBool::new(false),
            started: Instant::now(),
            config,
        });
        Ok(Self {
            shared,
            transport,
            listener,
            data,
            id,
        })
    }

    /// The provider's identity.
    #[must_use]
    pub fn id(&self) -> ProviderId {
        self.id
    }

    /// Where the provider can be reached; the first of several places.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.listener.endpoint()
    }

    /// Everywhere that the provider can be reached.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.listener.endpoints()
    }

    /// The functions in the provider's advert.
    #[must_use]
    pub fn functions(&self) -> Vec<PublishedFunction> {
        self.shared.functions.published()
    }

    /// A handle that stops the provider.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        Stop(self.shared.stop.clone())
    }

    /// Serves until stopped. First calls itself through the network, for at
    /// most `ready_within`, and then calls `ready`; the observer sees
    /// everything after that. When stopped, waits for running calls.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if the provider cannot reach itself, or an epoch
    /// number cannot be stored: it then stops rather than reuse one.
    pub fn serve<'a>(
        self,
        ready_within: Duration,
        observer: Option<Arc<dyn Observer>>,
        ready: impl FnOnce() + Send + 'a,
    ) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.serve_boxed(ready_within, observer, Box::new(ready))
    }

    fn serve_boxed(
        self,
        ready_within: Duration,
        observer: Option<Arc<dyn Observer>>,
        ready: Box<dyn FnOnce() + Send + '_>,
    ) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(self.serve_here(ready_within, observer, ready))
    }

    async fn serve_here(
        mut self,
        ready_within: Duration,
        observer: Option<Arc<dyn Observer>>,
        ready: Box<dyn FnOnce() + Send + '_>,
    ) -> Result<(), ProviderError> {
        let shared = Arc::clone(&self.shared);
        let endpoints = self.listener.endpoints();
        let transport = Arc::clone(&self.transport);
        let become_ready = async {
            let clock = Arc::clone(&shared.clock);
            let mint = || shared.own_token();
            for endpoint in endpoints {
                let testing =
                    self_test::call_ourselves(&*transport, endpoint, &*clock, ready_within, mint);
                testing.await?;
            }
            shared.counters.reset();
            shared.work.reset();
            if let Some(observer) = observer {
                let _ = shared.observer.set(observer);
            }
            shared.ready.store(true, Ordering::Relaxed);
            ready();
            std::future::pending().await
        };
        let for_status = Arc::clone(&shared);
        let status = status::answer(self.data.path().to_owned(), move || for_status.snapshot());
        let mut status = std::pin::pin!(status);
        let sessions = TaskTracker::new();
        let ended = tokio::select! {
            () = shared.stop.cancelled() => Ok(()),
            () = accept(&shared, &mut *self.listener, &sessions) => {
                Err(TransportError::NetworkDown("the network lets nobody in any more".into()).into())
            }
            result = rotate(&shared, &self.data) => result,
            result = become_ready => result,
            () = &mut status => std::future::pending().await,
        };
        shared.stop.cancel();
        sessions.close();
        let turn_away = async { while self.listener.accept().await.is_some() {} };
        let drain = async {
            tokio::select! {
                () = sessions.wait() => {}
                // Newcomers hear at once that nobody serves them any more.
                _ = async { tokio::join!(turn_away, status) } => {}
            }
        };
        if timeout(shared.config.deadlines.drain, drain).await.is_err() {
            tracing::warn!("stopped with calls still running");
        }
        ended
    }
}

impl Stop {
    /// Stops the provider, gently.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

impl Shared {
    pub(crate) fn keyring(&self) -> MutexGuard<'_, Keyring> {
        // Whole between any two operations on it.
        self.keyring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The work that a contract takes now.
    pub(crate) fn effort(&self) -> u8 {
        let mut effort = self.effort.lock().unwrap_or_else(PoisonError::into_inner);
        effort.at(self.started.elapsed())
    }

    /// Counts time that went into contracts.
    pub(crate) fn spent_on_contracts(&self, time: Duration) {
        let mut effort = self.effort.lock().unwrap_or_else(PoisonError::into_inner);
        effort.spent(self.started.elapsed(), time);
    }

    /// A token of our own for the default plan, if it needs one: for calling
    /// ourselves.
    fn own_token(&self) -> Option<CallToken> {
        let opening = self.keyring().current();
        let advert = &opening.advert;
        let key = advert.call_key(&advert.plans.first()?.name)?;
        let issuer = opening.issuers.calls.get(&key.plan)?;
        let batch = BatchSize::Calls8;
        let mut seed = Zeroizing::new([0; 32]);
        os_rng().fill_bytes(&mut *seed);
        let blinded =
            BlindedCalls::blind(key, &advert.provider, advert.epoch, batch, &seed).ok()?;
        let response = issuer.issue(blinded.request(), batch).ok()?;
        blinded.unblind(&response).ok()?.pop()
    }

    pub(crate) fn observer(&self) -> Option<Arc<dyn Observer>> {
        self.observer.get().cloned()
    }

    fn snapshot(&self) -> Snapshot {
        let (published_functions, uploaded_functions) = self.functions.counts();
        let state = match (self.stop.is_cancelled(), self.ready.load(Ordering::Relaxed)) {
            (true, _) => "draining",
            (false, true) => "ready",
            (false, false) => "starting",
        };
        Snapshot {
            state: state.to_owned(),
            epoch: self.keyring().epoch(),
            uptime_seconds: self.started.elapsed().as_secs(),
            published_functions,
            uploaded_functions,
            contracts: self.contract_totals(),
            tokens_redeemed: self.tokens_redeemed(),
            latest_contracts: self.latest_contracts(),
            queues: self.queues(),
            functions: self.work.functions(),
            execution: self.work.execution(&self.executor),
            ..self.counters.snapshot()
        }
    }
}

impl Shared {
    fn contract_totals(&self) -> Vec<ContractTotals> {
        let counts = self.ledger.contract_counts().unwrap_or_else(|error| {
            tracing::warn!(%error, "contracts cannot be counted");
            Vec::new()
        });
        let totals = counts.into_iter().map(|count| ContractTotals {
            epoch: count.epoch,
            plan: count.plan.to_string(),
            granted: count.granted,
            confirmed: count.confirmed,
            calls_issued: count.calls,
            ratings_issued: count.ratings,
        });
        totals.collect()
    }

    fn tokens_redeemed(&self) -> u64 {
        let epochs = self.ledger.epochs().unwrap_or_default();
        let counts = epochs
            .iter()
            .map(|(epoch, _)| self.ledger.spent_count(*epoch).unwrap_or(0));
        counts.sum()
    }

    fn latest_contracts(&self) -> Vec<ContractLine> {
        let contracts = self.ledger.contracts(LATEST_CONTRACTS).unwrap_or_default();
        let lines = contracts.into_iter().map(|contract| ContractLine {
            id: HEXLOWER.encode(&contract.id.0),
            plan: contract.plan.to_string(),
            calls: contract.calls.calls(),
            epoch: contract.epoch,
            confirmed: contract.confirmed,
        });
        lines.collect()
    }

    fn queues(&self) -> Vec<Queue> {
        let plans = self.config.plans.iter();
        plans
            .filter_map(|plan| {
                Some(Queue::new(
                    &plan.name,
                    &self.lanes.get(&plan.name)?.status(),
                ))
            })
            .collect()
    }
}

/// Serves every stream in a task of its own, up to the bound; beyond it, a
/// stream is closed at once, which costs us less than it costs the caller:
/// the least proven one. Waits for nothing but the next stream.
async fn accept(shared: &Arc<Shared>, listener: &mut dyn Listener, sessions: &TaskTracker) {
    let places = Places::new(shared.config.max_sessions);
    while let Some(incoming) = listener.accept().await {
        let Some(place) = places.enter() else {
            shared.counters.count(Ending::TurnedOut);
            continue;
        };
        let shared = Arc::clone(shared);
        sessions.spawn(async move {
            let _open = shared.counters.start_session();
            serve_one(&shared, incoming, &place).await;
        });
    }
    tracing::error!("the network accepts no more callers for us");
}

async fn serve_one(shared: &Arc<Shared>, incoming: Incoming, place: &Place) {
    Box::pin(session::serve(shared, incoming, place)).await;
}

async fn open_ledger(data: &DataDir) -> Result<Ledger, ProviderError> {
    let path = data.ledger();
    let opened = spawn_blocking(move || Ledger::open(&path)).await;
    Ok(opened.map_err(|_| ProviderError::Interrupted)??)
}

/// The epoch that the restart interrupted, or a first one, and the tokens of those before.
async fn start_keyring(
    offer: Offer,
    data: &DataDir,
    ledger: &Arc<Ledger>,
    now: UnixSeconds,
) -> Result<Keyring, ProviderError> {
    let offer = Arc::new(offer);
    let restored = {
        let ledger = Arc::clone(ledger);
        let restoring = spawn_blocking(move || {
            ledger.end_epochs(now)?;
            ledger.epochs()
        });
        restoring.await.map_err(|_| ProviderError::Interrupted)??
    };
    let first = match resume_epoch(&offer, restored.last(), now).await? {
        Some(resumed) => resumed,
        None => begin_epoch(&offer, data, ledger, now).await?,
    };
    let mut keyring = Keyring::new(offer, first);
    for (epoch, record) in restored {
        keyring.restore(epoch, &record)?;
    }
    Ok(keyring)
}

/// The last epoch's keys, if it goes on.
async fn resume_epoch(
    offer: &Arc<Offer>,
    last: Option<&(Epoch, EpochRecord)>,
    now: UnixSeconds,
) -> Result<Option<EpochKeys>, ProviderError> {
    let Some((epoch, record)) = last.cloned() else {
        return Ok(None);
    };
    let offer = Arc::clone(offer);
    let resuming =
        spawn_blocking(move || EpochKeys::resume(&offer, epoch, &record, now, &mut os_rng()));
    let resumed = resuming.await.map_err(|_| ProviderError::Interrupted)??;
    if resumed.is_none() {
        tracing::warn!(
            epoch = epoch.0,
            "the last epoch is over, or its advert no longer fits; a new one begins"
        );
    }
    Ok(resumed)
}

/// The keys of a new epoch: its number first on disk, then what its tokens
/// are recognised by, and only then is it known to anybody.
async fn begin_epoch(
    offer: &Arc<Offer>,
    data: &DataDir,
    ledger: &Arc<Ledger>,
    now: UnixSeconds,
) -> Result<EpochKeys, ProviderError> {
    let epoch = data.next_epoch()?;
    let (offer, ledger) = (Arc::clone(offer), Arc::clone(ledger));
    let making = spawn_blocking(move || {
        let history = keyring::history(&ledger.epochs()?, now);
        let keys = EpochKeys::make(&offer, epoch, history, now, &mut os_rng())?;
        ledger.begin_epoch(epoch, &keys.record())?;
        if keys.early_ends() > 1 {
            tracing::warn!("the latest epochs ended early: callers will not buy or spend tokens");
        }
        Ok(keys)
    });
    making.await.map_err(|_| ProviderError::Interrupted)?
}

/// Starts a new epoch whenever one is due.
async fn rotate(shared: &Shared, data: &DataDir) -> Result<(), ProviderError> {
    loop {
        sleep(ROTATION_CHECK).await;
        let now = shared.clock.now();
        let (due, offer) = {
            let mut keyring = shared.keyring();
            keyring.expire(now);
            keyring.renew_sealing(&mut os_rng())?;
            (keyring.rotation_due(now), keyring.offer())
        };
        if due {
            let fresh = begin_epoch(&offer, data, &shared.ledger, now).await?;
            shared.keyring().rotate(fresh, now);
            let ledger = Arc::clone(&shared.ledger);
            let ending = spawn_blocking(move || ledger.end_epochs(now)).await;
            ending.map_err(|_| ProviderError::Interrupted)??;
            tracing::info!(epoch = shared.keyring().epoch().0, "new epoch");
        }
    }
}

async fn compile_published(
    executor: &Executor,
    store: &FunctionStore,
    directory: &Path,
) -> Result<(), ProviderError> {
    for (function, wasm) in store.published_wasm() {
        executor
            .preload(wasm.clone())
            .await
            .map_err(|error| ProviderError::Function {
                path: directory.join(format!("{}.wasm", function.alias)),
                reason: error.to_string(),
            })?;
    }
    Ok(())
}

/// This machine, as coarsely as a plan's buyer needs it.
fn machine() -> Specs {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Specs {
        cpu: Cpu {
            cores: u16::try_from(cores).unwrap_or(u16::MAX),
            architecture: std::env::consts::ARCH.to_owned(),
        },
        memory: memory_mib(),
        gpu: Vec::new(),
        tee: None,
    }
}

/// Memory in MiB, rounded down to a power of two.
fn memory_mib() -> u64 {
    let mib = rustix::system::sysinfo().totalram >> 20;
    mib.checked_ilog2().map_or(0, |log| 1 << log)
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider([scrubbed])")
    }
}
