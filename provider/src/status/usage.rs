//! What functions did, and who waits.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use dlambda_executor::{Executor, QueueStatus, Usage};
use dlambda_proto::FunctionId;
use dlambda_proto::PlanName;
use serde::{Deserialize, Serialize};

use crate::state::functions::FunctionStore;

/// One plan's queue.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Queue {
    /// The plan.
    pub plan: String,
    /// Calls running now.
    pub running: usize,
    /// Calls waiting now.
    pub waiting: usize,
    /// Calls refused because the queue was full or the wait too long.
    pub refused: u64,
}

/// What a published function did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FunctionUsage {
    /// Its alias.
    pub alias: String,
    /// Calls that ran.
    pub calls: u64,
    /// Fuel they used.
    pub fuel: u64,
    /// Time they ran, in milliseconds.
    pub execute_ms: u64,
}

/// What the executor did.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecutionStatus {
    /// Calls that ran.
    pub calls: u64,
    /// Fuel they used.
    pub fuel: u64,
    /// Time they ran, in milliseconds.
    pub execute_ms: u64,
    /// Calls whose function was in memory.
    pub warm_starts: u64,
    /// Calls whose function was on disk, compiled.
    pub cached_starts: u64,
    /// Functions that had to be compiled.
    pub compiled: u64,
    /// Functions that could not be compiled.
    pub not_compiled: u64,
    /// Compiled functions in memory now.
    pub warm_functions: usize,
    /// Bytes of their code.
    pub warm_bytes: u64,
    /// Compiled files that were changed by others, or broken.
    pub cache_rejected: u64,
    /// Worker processes that died and were replaced.
    pub workers_lost: u64,
    /// The active layers of confinement between functions and this machine; nothing without
    /// process isolation.
    pub confinement: Vec<String>,
    /// The other layers, and why this system does not offer them.
    pub absent_layers: Vec<AbsentLayer>,
    /// Why the last worker process that was to start did not, such as a
    /// confinement layer that this system offers and that failed.
    pub trouble: Option<String>,
}

/// A confinement layer that this system does not offer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AbsentLayer {
    /// Its name.
    pub layer: String,
    /// Why.
    pub reason: String,
}

/// Counts what functions did.
pub(crate) struct UsageCounters {
    published: HashMap<FunctionId, (String, Totals)>,
    all: Totals,
}

#[derive(Default)]
struct Totals {
    calls: AtomicU64,
    fuel: AtomicU64,
    micros: AtomicU64,
}

impl UsageCounters {
    pub(crate) fn new(store: &FunctionStore) -> Self {
        let published = store.published().into_iter();
        let published = published.map(|f| (f.id, (f.alias, Totals::default())));
        Self {
            published: published.collect(),
            all: Totals::default(),
        }
    }

    pub(crate) fn count(&self, function: &FunctionId, usage: &Usage) {
        self.all.count(usage);
        if let Some((_, totals)) = self.published.get(function) {
            totals.count(usage);
        }
    }

    pub(crate) fn reset(&self) {
        self.all.reset();
    }

    pub(crate) fn functions(&self) -> Vec<FunctionUsage> {
        let mut functions: Vec<_> = self
            .published
            .values()
            .map(|(alias, totals)| {
                let (calls, fuel, execute_ms) = totals.read();
                FunctionUsage {
                    alias: alias.clone(),
                    calls,
                    fuel,
                    execute_ms,
                }
            })
            .collect();
        functions.sort_by(|a, b| a.alias.cmp(&b.alias));
        functions
    }

    pub(crate) fn execution(&self, executor: &Executor) -> ExecutionStatus {
        let counts = executor.counts();
        let (calls, fuel, execute_ms) = self.all.read();
        ExecutionStatus {
            calls,
            fuel,
            execute_ms,
            warm_starts: counts.warm_starts,
            cached_starts: counts.cached_starts,
            compiled: counts.compiled,
            not_compiled: counts.not_compiled,
            warm_functions: counts.warm_functions,
            warm_bytes: counts.warm_bytes,
            cache_rejected: counts.cache_rejected,
            workers_lost: counts.workers_lost,
            confinement: executor
                .confinement_layers()
                .iter()
                .map(|layer| layer.name().to_owned())
                .collect(),
            absent_layers: executor
                .absent_layers()
                .iter()
                .map(|(layer, why)| AbsentLayer {
                    layer: layer.name().to_owned(),
                    reason: why.reason().to_owned(),
                })
                .collect(),
            trouble: executor.trouble(),
        }
    }
}

impl Totals {
    fn count(&self, usage: &Usage) {
        let micros = u64::try_from(usage.wall.as_micros()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.fuel.fetch_add(usage.fuel, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    fn reset(&self) {
        for counter in [&self.calls, &self.fuel, &self.micros] {
            counter.store(0, Ordering::Relaxed);
        }
    }

    /// Calls, fuel and milliseconds.
    fn read(&self) -> (u64, u64, u64) {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (
            read(&self.calls),
            read(&self.fuel),
            read(&self.micros) / 1_000,
        )
    }
}

impl Queue {
    pub(crate) fn new(plan: &PlanName, status: &QueueStatus) -> Self {
        Self {
            plan: plan.to_string(),
            running: status.running,
            waiting: status.waiting,
            refused: status.refused,
        }
    }
}
