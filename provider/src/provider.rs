//! The provider as a whole: start, serve, stop.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use dlambda_executor::{CallQueue, Executor};
use dlambda_node::PublishedFunctions;
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::{Incoming, Listener, Service, Transport};
use dlambda_proto::{Endpoint, Endpoints, IdentityKey, PlanName, ProviderId, PublishedFunction};
use futures::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::specs;
use crate::epoch::Epochs;
use crate::epoch::advert::AdvertTemplate;
use crate::epoch::rotation;
use crate::overlay::Overlay;
use crate::session::Session;
use crate::session::admission::{StreamLimiter, StreamPermit};
use crate::session::call::CallHandler;
use crate::session::io::SessionIo;
use crate::session::issuance::IssuanceHandler;
use crate::session::record::Recorder;
use crate::session::redemption::Redeemer;
use crate::state::demand::DemandCounts;
use crate::state::functions::FunctionStore;
use crate::state::preloaded::PreloadedFunctions;
use crate::status::{Counters, SessionOutcome, StatusSource, UsageCounters};
use crate::store::Store;
use crate::supervisor::Supervisor;
use crate::{DataDir, Observer, ProviderConfig, ProviderError, self_test, status};

/// For services to end once the sessions have.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// A provider that is listening.
pub struct Provider {
    session: Arc<Session>,
    status: Arc<StatusSource>,
    limiter: StreamLimiter,
    transport: Arc<dyn Transport>,
    listener: Box<dyn Listener>,
    overlay: Option<Overlay>,
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
            PreloadedFunctions::open(data.preloaded_functions()?, config.spread.preload_bytes)?,
        )?;
        let functions = Arc::new(functions);
        let executor = start_executor(&config, &data, &functions, published).await?;
        let identity = data.identity()?;
        let id = identity.id();
        let listener = transport.listen(Service::Calls).await?;
        let template = template(&config, identity, listener.endpoints(), &functions)?;
        let store = open_store(&data).await?;
        let keyring = rotation::start_keyring(template, &data, &store, clock.now()).await?;
        let epochs = Arc::new(Epochs::new(keyring, Arc::clone(&clock)));
        let overlay = match &config.overlay {
            None => None,
            Some(overlay) => {
                let own = listener.endpoints();
                let functions = Arc::clone(&functions) as Arc<dyn PublishedFunctions>;
                let started = Overlay::start(overlay, &transport, &own, &data, &clock, functions);
                Some(started.await?)
            }
        };
        let (session, mut status) = assemble(&config, executor, functions, store, epochs);
        status.overlay = overlay.as_ref().map(Overlay::presence);
        Ok(Self {
            stop: session.stop.clone(),
            session: Arc::new(session),
            status: Arc::new(status),
            limiter: StreamLimiter::new(config.max_sessions),
            transport,
            listener,
            overlay,
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

    /// Where its overlay node is reached: nowhere if it has none; by other nodes at the first
    /// endpoint, by guests at all of them.
    #[must_use]
    pub fn node(&self) -> Vec<Endpoint> {
        let presence = self.overlay.as_ref().map(Overlay::presence);
        presence.map_or_else(Vec::new, |it| it.endpoints().to_vec())
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
        self,
        ready_within: Duration,
        observer: Option<Arc<dyn Observer>>,
        ready: Box<dyn FnOnce() + Send + '_>,
    ) -> Result<(), ProviderError> {
        // Dropped last: no other provider may use the directory before this one has ended, and
        // the listener may need its transport.
        let _used = (Arc::clone(&self.data), Arc::clone(&self.transport));
        let stop = self.stop.clone();
        let (session, status) = (Arc::clone(&self.session), Arc::clone(&self.status));
        let sessions = TaskTracker::new();
        let (mut services, reachable) = self.start_services(ready_within, &sessions);
        let become_ready = async {
            // Otherwise the self test failed, which the supervisor says.
            if reachable.await.is_ok() {
                status.become_ready();
                if let Some(observer) = observer {
                    session.recorder.observe(observer);
                }
                ready();
            }
            std::future::pending().await
        };
        let ended = tokio::select! {
            () = stop.cancelled() => Ok(()),
            error = services.failure() => Err(error),
            result = become_ready => result,
        };
        stop.cancel();
        sessions.close();
        // The services go on meanwhile: newcomers hear at once that nobody serves them any more,
        // and the operator sees that the provider drains.
        let drain = session.io.deadlines.drain;
        if timeout(drain, sessions.wait()).await.is_err() {
            tracing::warn!("stopped with calls still running");
        }
        if !services.shutdown(SHUTDOWN_WITHIN).await {
            tracing::warn!("stopped with services still running");
        }
        ended
    }

    /// Starts everything that runs until the stop. The channel says when the self test has
    /// succeeded.
    fn start_services(
        self,
        ready_within: Duration,
        sessions: &TaskTracker,
    ) -> (Supervisor, oneshot::Receiver<()>) {
        let mut services = Supervisor::new(self.stop.clone());
        let (reached, reachable) = oneshot::channel();
        let epochs = Arc::clone(&self.session.epochs);
        let endpoints = self.listener.endpoints();
        let testing = self_test::run(self.transport, endpoints, Arc::clone(&epochs), ready_within);
        services.finite(
            "self test",
            until(self.stop.clone(), async {
                testing.await?;
                let _ = reached.send(());
                Ok(())
            }),
        );
        let store = self.status.store.clone();
        let writer = store.writer_ended();
        services.essential("store writer", async {
            writer.await;
            Ok(())
        });
        let data = self.data.path().to_owned();
        let rotating = rotation::rotate(epochs, self.data, store);
        services.essential("epoch rotation", until(self.stop.clone(), rotating));
        let status = self.status;
        if let Some(overlay) = self.overlay {
            overlay_services::start(&mut services, overlay, &self.stop, &status);
        }
        services.restarting("status", move || {
            status::answer(data.clone(), Arc::clone(&status))
        });
        let accepting = accept(self.session, self.listener, self.limiter, sessions.clone());
        services.essential("accepting streams", accepting);
        (services, reachable)
    }
}

impl Stop {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(token)
    }

    /// Stops the provider, gently.
    pub fn stop(&self) {
        self.0.cancel();
    }
}

/// Ends a service at the stop.
async fn until(
    stop: CancellationToken,
    service: impl Future<Output = Result<(), ProviderError>>,
) -> Result<(), ProviderError> {
    stop.run_until_cancelled(service).await.unwrap_or(Ok(()))
}

/// Serves every stream in a task of its own, up to the bound; beyond it, a
/// stream is closed at once, which costs us less than it costs the caller:
/// the one that has shown least. Waits for nothing but the next stream.
/// After the stop, newcomers are turned away.
async fn accept(
    session: Arc<Session>,
    mut listener: Box<dyn Listener>,
    limiter: StreamLimiter,
    sessions: TaskTracker,
) -> Result<(), ProviderError> {
    while let Some(incoming) = listener.accept().await {
        if session.stop.is_cancelled() {
            continue;
        }
        let Some(permit) = limiter.admit() else {
            session.counters.count(SessionOutcome::Evicted);
            continue;
        };
        let session = Arc::clone(&session);
        sessions.spawn(async move {
            serve_one(&session, incoming, &permit).await;
        });
    }
    tracing::error!("the network accepts no more callers for us");
    Err(TransportError::NetworkDown("the network lets nobody in any more".into()).into())
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
        specs: specs(&config.machine),
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
    Ok(opened??)
}

/// Puts the contexts of sessions and of the status together.
fn assemble(
    config: &ProviderConfig,
    executor: Executor,
    functions: Arc<FunctionStore>,
    store: Store,
    epochs: Arc<Epochs>,
) -> (Session, StatusSource) {
    let stop = CancellationToken::new();
    let queues: Arc<HashMap<PlanName, CallQueue>> = Arc::new(
        config
            .plans
            .iter()
            .map(|plan| (plan.name.clone(), executor.queue(config.queue(&plan.name))))
            .collect(),
    );
    let usage = Arc::new(UsageCounters::new(&functions));
    let demand = Arc::new(DemandCounts::new(&functions.published(), epochs.now()));
    let counters = Arc::new(Counters::default());
    let io = Arc::new(SessionIo::new(config));
    let calls = CallHandler {
        executor: executor.clone(),
        queues: Arc::clone(&queues),
        functions: Arc::clone(&functions),
        redeemer: Redeemer::new(store.clone()),
        epochs: Arc::clone(&epochs),
        usage: Arc::clone(&usage),
        demand: Arc::clone(&demand),
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
        demand,
        preloads: Arc::default(),
        stop,
        overlay: None,
        most_calls: config.execution.max_concurrent,
        spread: config.spread.clone(),
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

mod overlay_services;
#[cfg(test)]
mod tests;
