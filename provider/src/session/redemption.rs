//! The redeemer where tokens are taken: each pays for one call, which may come
//! again until it is closed.
//!
//! A token is spent on the *request* it came with, durably, before anything
//! costly is done. The same request is answered again from memory, or run
//! again if the answer was lost, and not billed twice; another request with
//! the same token is refused. The acknowledgement closes the call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlambda_proto::{
    ANSWER_KEPT_SECONDS, CallToken, Completion, Reply, RequestDigest, TokenProblem,
};
use tokio::sync::OwnedMutexGuard;

use crate::store::{SpendOutcome, Store, StoreError};

/// How long an answer waits for its acknowledgement, from the last time that
/// it was given.
const KEEP: Duration = Duration::from_secs(ANSWER_KEPT_SECONDS);
/// How long a request that ran, and was never answered, may come again.
const KEEP_UNANSWERED: Duration = Duration::from_secs(3600);
/// Largest answer that is kept; what is larger is run again when asked for again.
const MAX_CACHED_BYTES: usize = 256 << 10;
/// Answers kept; beyond, none are until some are fetched or forgotten: 64 MiB
/// if all are of the largest.
const MAX_CACHED: usize = 256;
/// How often one request runs for one token: a caller that hangs up and comes
/// again must not get work for nothing.
const MAX_RUNS: u8 = 3;
/// Requests that are known at a time.
const MAX_ENTRIES: usize = 1 << 16;
/// How often forgotten requests are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Takes tokens.
pub(crate) struct Redeemer {
    store: Arc<Store>,
    kept: Arc<AtomicUsize>,
    entries: Arc<Mutex<Entries>>,
}

/// A request with its token, being served. Others with the same token wait
/// until it is dropped; a token that was not spent by then is forgotten.
pub(crate) struct Redemption {
    // Given back before the entry_ref, which looks at it.
    state: OwnedMutexGuard<EntryState>,
    entry_ref: EntryRef,
}

/// Someone's interest in a entry.
struct EntryRef {
    entry: Arc<Entry>,
    among: Arc<Mutex<Entries>>,
}

/// Why a token does not pay now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RedeemError {
    /// It never will.
    Unpaid(TokenProblem),
    /// Too many come at once.
    Busy,
    /// Our disk failed us.
    Fault,
}

#[derive(Default)]
struct Entries {
    by_nonce: HashMap<[u8; 32], Arc<Entry>>,
    swept: Option<Instant>,
}

struct Entry {
    token: CallToken,
    request: RequestDigest,
    state: Arc<tokio::sync::Mutex<EntryState>>,
}

struct EntryState {
    spent: bool,
    closed: bool,
    runs: u8,
    /// Whether a final answer was given, kept or not.
    answered: bool,
    /// When it was last of interest.
    last: Instant,
    answer: Option<(Arc<Reply>, CachePermit)>,
}

/// A place among the answers that are kept.
struct CachePermit(Arc<AtomicUsize>);

impl Redeemer {
    pub(crate) fn new(store: Arc<Store>) -> Self {
        Self {
            store,
            kept: Arc::default(),
            entries: Arc::default(),
        }
    }

    /// A redemption for a request whose token is good; nothing is spent yet. Of
    /// several copies of a request one has its redemption and the others wait.
    ///
    /// # Errors
    ///
    /// [`RedeemError`] if the token was seen with another request.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn receive(
        &self,
        token: CallToken,
        request: RequestDigest,
    ) -> Result<Redemption, RedeemError> {
        let entry_ref = EntryRef {
            entry: self.entry(token, request)?,
            among: Arc::clone(&self.entries),
        };
        if entry_ref.entry.request != request {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        let mut state = Arc::clone(&entry_ref.entry.state).lock_owned().await;
        if state.closed {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        state.last = Instant::now();
        Ok(Redemption { state, entry_ref })
    }

    /// Spends the token: durably, before this returns. Before anything costly.
    ///
    /// # Errors
    ///
    /// [`RedeemError`] if it was spent on something else, or too often on this.
    ///
    /// # Cancel safety
    ///
    /// The token may then be spent or not; the same request can come again.
    pub(crate) async fn spend(&self, redemption: &mut Redemption) -> Result<(), RedeemError> {
        let Redemption { state, entry_ref } = redemption;
        if state.runs >= MAX_RUNS {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        if !state.spent {
            let Entry { token, request, .. } = &*entry_ref.entry;
            match self.store.spend(token.epoch, &token.nonce, request).await {
                Ok(SpendOutcome::First | SpendOutcome::Again) => state.spent = true,
                Ok(SpendOutcome::Other | SpendOutcome::Closed) => {
                    return Err(RedeemError::Unpaid(TokenProblem::Spent));
                }
                Err(StoreError::Busy) => return Err(RedeemError::Busy),
                Err(StoreError::UnknownEpoch) => {
                    return Err(RedeemError::Unpaid(TokenProblem::Expired));
                }
                Err(error) => {
                    tracing::error!(%error, "a spent token could not be written down");
                    return Err(RedeemError::Fault);
                }
            }
        }
        state.runs += 1;
        Ok(())
    }

    /// Keeps the answer for the same request, if it is one that is final.
    pub(crate) fn keep(&self, redemption: &mut Redemption, answer: &Reply) {
        let is_final = matches!(
            answer.completion,
            Completion::Exited { .. }
                | Completion::Stopped { .. }
                | Completion::FunctionUnusable { .. }
        );
        let Redemption { state, .. } = redemption;
        state.last = Instant::now();
        state.answered |= is_final;
        if matches!(answer.completion, Completion::Busy { .. }) {
            // It did not run.
            state.runs = state.runs.saturating_sub(1);
        } else if is_final && size(answer) <= MAX_CACHED_BYTES {
            let permit = CachePermit::acquire(&self.kept);
            state.answer = permit.map(|permit| (Arc::new(answer.clone()), permit));
        }
    }

    /// The caller has its answer: the token is closed for good.
    pub(crate) async fn close(&self, token: &CallToken) {
        // Before the entry goes: whoever comes then asks the store.
        self.store.close(token.epoch, &token.nonce);
        let known = Entries::lock(&self.entries)
            .by_nonce
            .get(&token.nonce)
            .cloned();
        if let Some(entry) = known {
            // Who still waits with this very request comes too late.
            let mut state = entry.state.lock().await;
            state.closed = true;
            Entries::lock(&self.entries).by_nonce.remove(&token.nonce);
        }
    }

    fn entry(&self, token: CallToken, request: RequestDigest) -> Result<Arc<Entry>, RedeemError> {
        let mut entries = Entries::lock(&self.entries);
        entries.sweep(&self.store, Instant::now());
        if let Some(entry) = entries.by_nonce.get(&token.nonce) {
            return Ok(Arc::clone(entry));
        }
        if entries.by_nonce.len() >= MAX_ENTRIES {
            return Err(RedeemError::Busy);
        }
        let entry = Arc::new(Entry {
            token,
            request,
            state: Arc::default(),
        });
        entries.by_nonce.insert(token.nonce, Arc::clone(&entry));
        Ok(entry)
    }
}

impl Default for EntryState {
    fn default() -> Self {
        Self {
            spent: false,
            closed: false,
            runs: 0,
            answered: false,
            last: Instant::now(),
            answer: None,
        }
    }
}

impl Redemption {
    /// The answer that was given before.
    pub(crate) fn answer(&self) -> Option<Arc<Reply>> {
        let (answer, _) = self.state.answer.as_ref()?;
        Some(Arc::clone(answer))
    }
}

impl Drop for EntryRef {
    fn drop(&mut self) {
        let mut entries = Entries::lock(&self.among);
        // Beside the list's own and ours.
        let is_last = Arc::strong_count(&self.entry) == 2;
        let unspent = self.entry.state.try_lock().is_ok_and(|it| !it.spent);
        if is_last && unspent {
            entries.by_nonce.remove(&self.entry.token.nonce);
        }
    }
}

impl Entries {
    fn lock(entries: &Mutex<Self>) -> MutexGuard<'_, Self> {
        // Whole between any two operations on it.
        entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets requests whose answers nobody fetched, and closes them.
    fn sweep(&mut self, store: &Store, now: Instant) {
        if self.swept.is_some_and(|swept| now - swept < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.by_nonce.retain(|_, entry| {
            let Ok(mut state) = entry.state.try_lock() else {
                return true;
            };
            let idle = now.saturating_duration_since(state.last);
            // What never ran may come as late as it likes: the store knows it.
            let has_run = state.runs > 0;
            let limit = if has_run && !state.answered {
                KEEP_UNANSWERED
            } else {
                KEEP
            };
            if idle < limit {
                return true;
            }
            if has_run {
                state.closed = true;
                store.close(entry.token.epoch, &entry.token.nonce);
            }
            false
        });
    }
}

impl CachePermit {
    fn acquire(kept: &Arc<AtomicUsize>) -> Option<Self> {
        let before = kept.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(kept));
        (before < MAX_CACHED).then_some(place)
    }
}

impl Drop for CachePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn size(answer: &Reply) -> usize {
    match &answer.completion {
        Completion::Exited { stdout, stderr, .. } => stdout.len() + stderr.len(),
        Completion::Stopped { stderr, .. } => stderr.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
