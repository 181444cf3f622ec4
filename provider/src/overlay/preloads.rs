//! What a provider tells its operator of functions that were fetched from others.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::state::preloaded::PreloadedFunctions;

/// Functions that are shown to the operator.
const SHOWN: usize = 100;

/// Functions of other providers: what is here, and what became of fetches since the start.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PreloadStatus {
    /// Bytes that they may have together; 0 if none are fetched.
    pub budget_bytes: u64,
    /// How many are here.
    pub held: usize,
    /// Bytes that they have together.
    pub held_bytes: u64,
    /// Those that are here, at most 100 of them.
    pub functions: Vec<PreloadedFunction>,
    /// Functions that were fetched, checked and compiled.
    pub fetched: u64,
    /// Functions that made room for others.
    pub evicted: u64,
    /// What was asked of nodes in vain, and what could not be used, by reason.
    pub failed: BTreeMap<String, u64>,
}

/// A function that was fetched from another provider, which publishes it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PreloadedFunction {
    /// Its CID.
    pub function: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Counts fetches.
#[derive(Default)]
pub(crate) struct PreloadCounters(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    fetched: u64,
    evicted: u64,
    failed: BTreeMap<&'static str, u64>,
}

impl PreloadCounters {
    pub(super) fn fetched(&self) {
        self.lock().fetched += 1;
    }

    pub(super) fn evicted(&self) {
        self.lock().evicted += 1;
    }

    pub(super) fn failed(&self, reason: &'static str) {
        *self.lock().failed.entry(reason).or_default() += 1;
    }

    pub(crate) fn status(&self, held: &PreloadedFunctions) -> PreloadStatus {
        let sizes = held.sizes();
        let functions = sizes
            .iter()
            .take(SHOWN)
            .map(|(id, bytes)| PreloadedFunction {
                function: id.unredacted(),
                bytes: *bytes,
            });
        let counts = self.lock();
        let failed = counts.failed.iter();
        PreloadStatus {
            budget_bytes: held.budget(),
            held: sizes.len(),
            held_bytes: sizes.values().sum(),
            functions: functions.collect(),
            fetched: counts.fetched,
            evicted: counts.evicted,
            failed: failed
                .map(|(why, count)| ((*why).to_owned(), *count))
                .collect(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        // Whole between any two operations on it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
