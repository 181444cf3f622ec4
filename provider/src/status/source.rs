//! Puts a status together.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use data_encoding::HEXLOWER;
use dlambda_executor::{CallQueue, Executor};
use dlambda_proto::PlanName;
use tokio_util::sync::CancellationToken;

use super::counters::Counters;
use super::usage::{Queue, UsageCounters};
use super::{ContractLine, ContractTotals, ProviderState, Snapshot};
use crate::config::Spread;
use crate::epoch::Epochs;
use crate::overlay::{OverlayStatus, PreloadCounters, Presence};
use crate::state::demand::DemandCounts;
use crate::state::functions::FunctionStore;
use crate::store::Store;

/// Contracts that are shown to the operator.
const LATEST_CONTRACTS: usize = 100;

/// All that a status is made from.
pub(crate) struct StatusSource {
    /// In the order of the menu.
    pub(crate) plans: Vec<PlanName>,
    pub(crate) queues: Arc<HashMap<PlanName, CallQueue>>,
    pub(crate) executor: Executor,
    pub(crate) functions: Arc<FunctionStore>,
    pub(crate) store: Store,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) usage: Arc<UsageCounters>,
    pub(crate) demand: Arc<DemandCounts>,
    pub(crate) preloads: Arc<PreloadCounters>,
    pub(crate) stop: CancellationToken,
    pub(crate) overlay: Option<Presence>,
    /// Calls that run at a time, over all plans.
    pub(crate) most_calls: usize,
    pub(crate) spread: Spread,
    pub(crate) ready: AtomicBool,
    pub(crate) started: Instant,
}

impl StatusSource {
    /// Counts from now on, and says that the provider is ready: what was
    /// counted before was its own call to itself.
    pub(crate) fn become_ready(&self) {
        self.counters.reset();
        self.usage.reset();
        self.demand.reset();
        self.ready.store(true, Ordering::Relaxed);
    }

    /// How the overlay is doing, if this provider is on one.
    pub(crate) async fn overlay(&self) -> Option<OverlayStatus> {
        match &self.overlay {
            None => None,
            Some(overlay) => Some(overlay.status().await),
        }
    }

    /// The status now. Blocks on the disk.
    pub(crate) fn snapshot(&self, overlay: Option<OverlayStatus>) -> Snapshot {
        let (published_functions, uploaded_functions) = self.functions.counts();
        let counters = &self.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Snapshot {
            state: self.state(),
            epoch: self.epochs.number(),
            uptime_seconds: self.started.elapsed().as_secs(),
            open_sessions: counters.sessions.load(Ordering::Relaxed),
            running_calls: counters.running.load(Ordering::Relaxed),
            published_functions,
            uploaded_functions,
            succeeded: read(&counters.succeeded),
            failed: read(&counters.failed),
            refused: read(&counters.refused),
            disconnected: read(&counters.disconnected),
            evicted: read(&counters.evicted),
            faults: read(&counters.faults),
            contracts_granted: read(&counters.granted),
            contracts_refused: read(&counters.not_granted),
            contracts: self.contract_totals(),
            tokens_redeemed: self.tokens_redeemed(),
            latest_contracts: self.latest_contracts(),
            queues: self.queues(),
            functions: self.usage.functions(),
            execution: self.usage.execution(&self.executor),
            preload: self.preloads.status(self.functions.preloaded()),
            overlay,
        }
    }

    fn state(&self) -> ProviderState {
        match (self.stop.is_cancelled(), self.ready.load(Ordering::Relaxed)) {
            (true, _) => ProviderState::Draining,
            (false, true) => ProviderState::Ready,
            (false, false) => ProviderState::Starting,
        }
    }

    fn contract_totals(&self) -> Vec<ContractTotals> {
        let counts = self.store.contract_counts().unwrap_or_else(|error| {
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
        let epochs = self.store.epochs().unwrap_or_default();
        let counts = epochs
            .iter()
            .map(|(epoch, _)| self.store.spent_count(*epoch).unwrap_or(0));
        counts.sum()
    }

    fn latest_contracts(&self) -> Vec<ContractLine> {
        let contracts = self.store.contracts(LATEST_CONTRACTS).unwrap_or_default();
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
        let queues = self.plans.iter().filter_map(|plan| {
            let queue = self.queues.get(plan)?;
            Some(Queue::new(plan, &queue.status()))
        });
        queues.collect()
    }
}
