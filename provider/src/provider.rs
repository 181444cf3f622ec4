//! The provider as a whole: start, serve, stop.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dlambda_executor::{Executor, Lane};
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::{Incoming, Listener, Transport};
use dlambda_proto::{Endpoint, Endpoints, IdentityKey, PlanName, ProviderId, PublishedFunction};
use futures::future::BoxFuture;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::machine;
use crate::epoch::Epochs;
use crate::epoch::advert::AdvertTemplate;
use crate::epoch::rotation;
use crate::session::Session;
use crate::session::admission::{StreamLimiter, StreamPermit};
use crate::session::call::CallHandler;
use crate::session::io::SessionIo;
use crate::session::issuance::IssuanceHandler;
use crate::session::record::Recorder;
use crate::session::redemption::Redeemer;
use crate::state::functions::FunctionStore;
use crate::status::{Counters, Ending, StatusSource, UsageCounters};
use crate::store::Store;
use crate::{DataDir, Observer, ProviderConfig, ProviderError, self_test, status};

/// A provider that is listening.
pub struct Provider {
    session: Arc<Session>,
    status: Arc<StatusSource>,
    limiter: StreamLimiter,
    transport: Arc<dyn Transport>,
    listener: Box<dyn Listener>,
    data: Arc<DataDir>,
    id: ProviderId,
    stop: CancellationToken,
}

/// Tells a provider to stop: no new calls, running ones are finished.
#[derive(Clone, Debug)]
pub struct Stop(CancellationToken);

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
    // Boxed, as below, so that it is compiled here, and not again in every crate that has a
    // provider.
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
        let published = functions;
        let functions = FunctionStore::open(
            published,
            config.max_function_bytes,
            data.uploaded_functions()?,
            config.store_bytes,
        )?;
        let executor = start_executor(&config, &data, &functions, published).await?;
        let identity = data.identity()?;
        let id = identity.id();
        let listener = transport.listen().await?;
        let template = template(&config, identity, listener.endpoints(), &functions)?;
        let store = open_store(&data).await?;
        let keyring = rotation::start_keyring(template, &data, &store, clock.now()).await?;
        let epochs = Arc::new(Epochs::new(keyring, clock));
        let (session, status) = assemble(&config, executor, functions, store, epochs);
        Ok(Self {
            stop: session.stop.clone(),
            session: Arc::new(session),
            status: Arc::new(status),
            limiter: StreamLimiter::new(config.max_sessions),
            transport,
            listener,
            data: Arc::new(data),
            id,
        })
    }

    /// The provider's identity.
    #[must_use]
    pub fn id(&self) -> ProviderId {
        self.id
    }

    /// Where the provider can be reached; the first of several endpoints.
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
        self.status.functions.published()
    }

    /// A handle that stops the provider.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        Stop(self.stop.clone())
    }

    /// Serves until stopped. First calls itself through the network, for at
    /// most `ready_within`, and then calls `ready`; the observer sees
    /// everything after that. When stopped, waits for running calls.
    ///
    /// # Errors
    ///
    /// [`ProviderError`] if the provider cannot reach itself, an epoch number
    /// cannot be stored (it then stops rather than reuse one), or one of its
    /// services ends or panics. Running calls are waited for all the same.
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
        let (session, store) = (Arc::clone(&self.session), self.status.store.clone());
        let epochs = Arc::clone(&session.epochs);
        let endpoints = self.listener.endpoints();
        let transport = Arc::clone(&self.transport);
        let become_ready = async {
            let testing = self_test::run(transport, endpoints, Arc::clone(&epochs), ready_within);
            testing.await?;
            self.status.become_ready();
            if let Some(observer) = observer {
                session.recorder.observe(observer);
            }
            ready();
            std::future::pending().await
        };
        let data = self.data.path().to_owned();
        let mut status = std::pin::pin!(status::answer(data, Arc::clone(&self.status)));
        let sessions = TaskTracker::new();
        let rotating = rotation::rotate(Arc::clone(&epochs), Arc::clone(&self.data), store);
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            () = accept(&session, &mut *self.listener, &self.limiter, &sessions) => {
                Err(TransportError::NetworkDown("the network lets nobody in any more".into()).into())
            }
            result = rotating => result,
            result = become_ready => result,
            never = &mut status => never,
        };
        self.stop.cancel();
        sessions.close();
        let turn_away = async { while self.listener.accept().await.is_some() {} };
        let drain = async {
            tokio::select! {
                () = sessions.wait() => {}
                // Newcomers hear at once that nobody serves them any more.
                _ = async { tokio::join!(turn_away, status) } => {}
            }
        };
        if timeout(session.io.deadlines.drain, drain).await.is_err() {
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

/// Serves every stream in a task of its own, up to the bound; beyond it, a
/// stream is closed at once, which costs us less than it costs the caller:
/// the one that has shown least. Waits for nothing but the next stream.
async fn accept(
    session: &Arc<Session>,
    listener: &mut dyn Listener,
    limiter: &StreamLimiter,
    sessions: &TaskTracker,
) {
    while let Some(incoming) = listener.accept().await {
        let Some(permit) = limiter.admit() else {
            session.counters.count(Ending::Evicted);
            continue;
        };
        let session = Arc::clone(session);
        sessions.spawn(async move {
            serve_one(&session, incoming, &permit).await;
        });
    }
    tracing::error!("the network accepts no more callers for us");
}

async fn serve_one(session: &Session, incoming: Incoming, permit: &StreamPermit) {
    Box::pin(session.serve(incoming, permit)).await;
}

/// Starts the engine, and compiles the functions that are published in a directory.
async fn start_executor(
    config: &ProviderConfig,
    data: &DataDir,
    functions: &FunctionStore,
    directory: &Path,
) -> Result<Executor, ProviderError> {
    let executor = config.executor(data.compiled_functions(), data.code_key()?)?;
    let executor = Executor::new(executor)?;
    executor.ready().await?;
    for (function, wasm) in functions.published_wasm() {
        let preloaded = executor.preload(wasm.clone()).await;
        preloaded.map_err(|error| ProviderError::Function {
            path: directory.join(format!("{}.wasm", function.alias)),
            reason: error.to_string(),
        })?;
    }
    Ok(executor)
}

fn template(
    config: &ProviderConfig,
    identity: IdentityKey,
    endpoints: Vec<Endpoint>,
    functions: &FunctionStore,
) -> Result<AdvertTemplate, ProviderError> {
    let endpoints = Endpoints::try_from(endpoints);
    Ok(AdvertTemplate {
        identity,
        endpoints: endpoints.map_err(|error| TransportError::Local(error.into()))?,
        specs: machine(),
        plans: config.plans.clone(),
        functions: functions.published(),
        max_function_bytes: config.max_function_bytes,
        epoch: config.epoch,
        overlap: config.overlap,
        admission: config.contracts.admission,
        service: config.service(),
    })
}

async fn open_store(data: &DataDir) -> Result<Store, ProviderError> {
    let path = data.store_file();
    let opened = spawn_blocking(move || Store::open(&path)).await;
    Ok(opened.map_err(|_| ProviderError::Interrupted)??)
}

/// Puts the contexts of sessions and of the status together.
fn assemble(
    config: &ProviderConfig,
    executor: Executor,
    functions: FunctionStore,
    store: Store,
    epochs: Arc<Epochs>,
) -> (Session, StatusSource) {
    let stop = CancellationToken::new();
    let queues: Arc<HashMap<PlanName, Lane>> = Arc::new(
        config
            .plans
            .iter()
            .map(|plan| (plan.name.clone(), executor.lane(config.lane(&plan.name))))
            .collect(),
    );
    let usage = Arc::new(UsageCounters::new(&functions));
    let functions = Arc::new(functions);
    let counters = Arc::new(Counters::default());
    let io = Arc::new(SessionIo::new(config));
    let calls = CallHandler {
        executor: executor.clone(),
        queues: Arc::clone(&queues),
        functions: Arc::clone(&functions),
        redeemer: Redeemer::new(store.clone()),
        epochs: Arc::clone(&epochs),
        usage: Arc::clone(&usage),
        max_function_bytes: config.max_function_bytes,
        prepare_within: config.deadlines.prepare,
    };
    let contracts = IssuanceHandler::new(
        &config.contracts,
        store.clone(),
        Arc::clone(&epochs),
        Arc::clone(&io),
        Arc::clone(&counters),
    );
    let session = Session {
        calls,
        contracts: Arc::new(contracts),
        epochs: Arc::clone(&epochs),
        io,
        recorder: Recorder::default(),
        counters: Arc::clone(&counters),
        stop: stop.clone(),
    };
    let status = StatusSource {
        plans: config.plans.iter().map(|plan| plan.name.clone()).collect(),
        queues,
        executor,
        functions,
        store,
        epochs,
        counters,
        usage,
        stop,
        ready: AtomicBool::new(false),
        started: Instant::now(),
    };
    (session, status)
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider([scrubbed])")
    }
}
