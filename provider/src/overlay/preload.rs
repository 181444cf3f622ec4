//! Fetches functions that are in demand at other providers, at random times, and compiles them
//! ahead. Nothing here is caused by a call.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dlambda_broker::schedule::until_next;
use dlambda_broker::spread::{self, Demanded, Fetch, Held};
use dlambda_executor::Executor;
use dlambda_node::FetchError;
use dlambda_privacy::os_rng;
use dlambda_proto::{Endpoint, FunctionId, FunctionPrefix, ProviderId};
use rand_core::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::{PreloadCounters, Shared};
use crate::ProviderError;
use crate::state::functions::FunctionStore;

/// For a function to come whole.
const FETCH: Duration = Duration::from_secs(900);

/// Nodes that are asked for a function at one look, one after the other.
const SOURCES: usize = 3;

/// Functions that failed are passed over for so many looks on average, and these for longer: they
/// will fail the same way.
const PASSED_OVER: u32 = 4;
const UNUSABLE: Duration = Duration::from_secs(24 * 3600);

/// Functions that are passed over; the one that may come first goes first.
const MAX_PASSED_OVER: usize = 256;

/// What preloading needs.
pub(crate) struct Preloader {
    pub(crate) shared: Shared,
    pub(crate) own: ProviderId,
    pub(crate) functions: Arc<FunctionStore>,
    pub(crate) executor: Executor,
    pub(crate) counters: Arc<PreloadCounters>,
    /// Between two looks, on average.
    pub(crate) every: Duration,
    /// Largest function, in bytes.
    pub(crate) max_function_bytes: u32,
}

/// A fetch, and who may be asked.
struct Planned {
    fetch: Fetch,
    sources: Vec<Endpoint>,
}

/// Why a function was not preloaded.
enum Failure {
    /// It may be another time.
    Now,
    /// It will not be.
    Unusable,
}

/// Looks at random times, and fetches one function at most each time. Never returns.
pub(crate) async fn keep_preloaded(preloader: Preloader) -> Result<(), ProviderError> {
    // What is compiled and on disk need not be compiled again.
    for id in preloader.functions.preloaded().sizes().into_keys() {
        preloader.compile_again(id).await;
    }
    let mut passed_over = BTreeMap::new();
    loop {
        sleep(until_next(preloader.every, os_rng().next_u64())).await;
        let now = Instant::now();
        passed_over.retain(|_, until| *until > now);
        let Some(planned) = preloader.plan(&passed_over).await else {
            continue;
        };
        let function = planned.fetch.function;
        let again = match preloader.preload(planned).await {
            Ok(()) => continue,
            Err(Failure::Now) => UNUSABLE.min(preloader.every.saturating_mul(PASSED_OVER)),
            Err(Failure::Unusable) => UNUSABLE,
        };
        pass_over(&mut passed_over, function, Instant::now() + again);
    }
}

fn pass_over(all: &mut BTreeMap<FunctionId, Instant>, function: FunctionId, until: Instant) {
    if all.len() >= MAX_PASSED_OVER {
        let first = all.iter().min_by_key(|(_, until)| **until);
        if let Some(id) = first.map(|(id, _)| *id) {
            all.remove(&id);
        }
    }
    all.insert(function, until);
}

impl Preloader {
    async fn compile_again(&self, id: FunctionId) {
        let functions = Arc::clone(&self.functions);
        let read = spawn_blocking(move || functions.preloaded().get(&id));
        if let Ok(Some(wasm)) = read.await
            && let Err(error) = self.executor.prepare(wasm).await
            && error.problem().is_some()
        {
            self.counters.failed("unusable");
            self.remove(id).await;
        }
    }

    async fn plan(&self, passed_over: &BTreeMap<FunctionId, Instant>) -> Option<Planned> {
        let ranked = self.ranked().await;
        let published = ranked.iter().map(|it| it.function);
        let published = published.filter(|id| self.functions.is_published(id));
        let held = Held {
            passed_over: published.chain(passed_over.keys().copied()).collect(),
            ..self.held()
        };
        let fetch = spread::next_fetch(&ranked, &held)?;
        let wanted = ranked.iter().find(|it| it.function == fetch.function)?;
        let sources = self.sources(wanted);
        Some(Planned { fetch, sources })
    }

    async fn ranked(&self) -> Vec<Demanded> {
        self.shared.in_demand(Some(self.own)).await
    }

    fn held(&self) -> Held {
        let preloaded = self.functions.preloaded();
        Held {
            fetched: preloaded.sizes(),
            budget: preloaded.budget(),
            ..Held::default()
        }
    }

    /// Nodes of providers that publish the function, as they say or their listings do, at random.
    fn sources(&self, wanted: &Demanded) -> Vec<Endpoint> {
        let prefix = FunctionPrefix::of(&wanted.function);
        let state = self.shared.state();
        let listed = state.catalogue.iter().filter(|it| {
            let tells = wanted.providers.binary_search(&it.provider).is_ok();
            it.provider != self.own && (tells || it.functions.contains(&prefix))
        });
        let onion = |it: &&Endpoint| matches!(it, Endpoint::Onion(_));
        let mut nodes: Vec<Endpoint> = listed
            .filter_map(|it| it.node.iter().find(onion).copied())
            .collect();
        drop(state);
        let mut chosen = Vec::new();
        while chosen.len() < SOURCES && !nodes.is_empty() {
            let at = os_rng().next_u64() % nodes.len() as u64;
            chosen.push(nodes.swap_remove(usize::try_from(at).unwrap_or(0)));
        }
        chosen
    }

    async fn preload(&self, planned: Planned) -> Result<(), Failure> {
        let id = planned.fetch.function;
        let wasm = Bytes::from(self.fetch(planned).await?);
        // Compiled first: what cannot run here has no place on the disk.
        if let Err(error) = self.executor.prepare(wasm.clone()).await {
            self.counters.failed("unusable");
            return Err(match error.problem() {
                Some(_) => Failure::Unusable,
                None => Failure::Now,
            });
        }
        // What is wanted may have changed meanwhile.
        let ranked = self.ranked().await;
        let room = spread::make_room(&ranked, &self.held(), &id, wasm.len() as u64);
        let Some(evicted) = room else {
            self.counters.failed("no-room");
            return Err(Failure::Now);
        };
        for id in evicted {
            self.remove(id).await;
            self.counters.evicted();
        }
        let functions = Arc::clone(&self.functions);
        let kept = spawn_blocking(move || functions.preloaded().put(id, &wasm)).await;
        if !kept.unwrap_or(false) {
            self.counters.failed("not-kept");
            return Err(Failure::Now);
        }
        self.counters.fetched();
        Ok(())
    }

    async fn fetch(&self, planned: Planned) -> Result<Vec<u8>, Failure> {
        let Planned { fetch, sources } = planned;
        let most = u32::try_from(fetch.most_bytes).unwrap_or(u32::MAX);
        let most = most.min(self.max_function_bytes);
        let mut failure = Failure::Now;
        if sources.is_empty() {
            self.counters.failed("no-source");
        }
        for source in sources {
            let handle = &self.shared.handle;
            let fetched = handle.fetch_function(source, fetch.function, most, FETCH);
            match fetched.await {
                Ok(wasm) => return Ok(wasm),
                Err(error) => {
                    self.counters.failed(error.name());
                    if error == FetchError::TooLarge {
                        failure = Failure::Unusable;
                    }
                }
            }
        }
        Err(failure)
    }

    async fn remove(&self, id: FunctionId) {
        let functions = Arc::clone(&self.functions);
        // The index is changed at once; a file that stays is found at the next start.
        let _ = spawn_blocking(move || functions.preloaded().remove(&id)).await;
    }
}
