//! A token's life at the provider, from its receipt to its end.
//!
//! ```text
//! verified -> received with a request -> spent on it -> (the request runs) -> reply cached
//!          -> closed
//! ```
//!
//! A token is spent on the *request* it came with, durably, before anything
//! costly is done. The same request is answered again from memory, or run
//! again if the reply was lost, and not billed twice; another request with
//! the same token is refused. The acknowledgement closes the token; without
//! one it expires.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlambda_proto::{
    ANSWER_KEPT_SECONDS, CallToken, Completion, Plan, Reply, RequestDigest, TokenProblem,
};
use tokio::sync::OwnedMutexGuard;

use crate::epoch::Epochs;
use crate::store::{SpendOutcome, Store, StoreError};

/// How long a reply waits for its acknowledgement, from the last time that
/// it was given.
const KEEP: Duration = Duration::from_secs(ANSWER_KEPT_SECONDS);
/// How long a request that ran, and was never answered, may come again.
const KEEP_UNANSWERED: Duration = Duration::from_secs(3600);
/// Largest reply that is cached; a larger one is run again when asked for again.
const MAX_CACHED_BYTES: usize = 256 << 10;
/// Replies cached; beyond, none are until some are closed: 64 MiB if all are
/// of the largest.
const MAX_CACHED: usize = 256;
/// How often one request runs for one token: a caller that hangs up and comes
/// again must not get work for nothing.
const MAX_RUNS: u8 = 3;
/// Requests that are known at a time.
const MAX_ENTRIES: usize = 1 << 16;
/// How often expired entries are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Redeems tokens for calls.
pub(crate) struct Redeemer(Arc<Inner>);

struct Inner {
    store: Store,
    cached: Arc<AtomicUsize>,
    entries: Mutex<Entries>,
}

/// A request with its token, being served. Others with the same token wait
/// until it is dropped; a token that was not spent by then is forgotten.
pub(crate) struct Redemption {
    // Given back before the reference, whose drop looks at it.
    state: OwnedMutexGuard<EntryState>,
    entry: EntryRef,
}

/// A reference to an entry, from outside the map.
struct EntryRef {
    entry: Arc<Entry>,
    redeemer: Arc<Inner>,
}

/// Why a token is not redeemed now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum RedeemError {
    /// It never will be.
    Unpaid(TokenProblem),
    /// Too many come at once.
    Busy,
    /// The disk failed.
    Fault,
}

#[derive(Default)]
struct Entries {
    by_nonce: HashMap<[u8; 32], Arc<Entry>>,
    swept: Option<Instant>,
}

/// A token, and the request that it came with first.
struct Entry {
    token: CallToken,
    request: RequestDigest,
    state: Arc<tokio::sync::Mutex<EntryState>>,
}

struct EntryState {
    spent: bool,
    closed: bool,
    runs: u8,
    /// Whether a final reply was given, cached or not.
    answered: bool,
    /// When it was last of interest.
    last: Instant,
    reply: Option<(Arc<Reply>, CachePermit)>,
}

/// A permit for one cached reply.
struct CachePermit(Arc<AtomicUsize>);

/// The token that a call on this plan is paid with, if the plan needs one. It
/// is one of ours; it may be spent.
///
/// # Errors
///
/// [`TokenProblem`] if it is missing, of an epoch that is over, or not ours.
pub(crate) fn verify(
    epochs: &Epochs,
    plan: &Plan,
    token: Option<CallToken>,
) -> Result<Option<CallToken>, TokenProblem> {
    if !plan.needs_token {
        return Ok(None);
    }
    let token = token.ok_or(TokenProblem::Missing)?;
    let issuers = epochs.token_issuers(token.epoch);
    let issuers = issuers.ok_or(TokenProblem::Expired)?;
    let issuer = issuers.calls.get(&plan.name);
    if issuer.is_some_and(|issuer| issuer.recognises(&token)) {
        Ok(Some(token))
    } else {
        Err(TokenProblem::Invalid)
    }
}

/// Whether this completion is final for the token that paid for it.
pub(crate) fn closes_token(completion: &Completion) -> bool {
    matches!(
        completion,
        Completion::Exited { .. } | Completion::Stopped { .. } | Completion::FunctionUnusable(_)
    )
}

impl Redeemer {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(Inner {
            store,
            cached: Arc::default(),
            entries: Mutex::default(),
        }))
    }

    /// Receives a request whose token is good; nothing is spent yet. Of
    /// several copies of a request one is served and the others wait.
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
        let entry = EntryRef {
            entry: self.0.entry(token, request)?,
            redeemer: Arc::clone(&self.0),
        };
        if entry.entry.request != request {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        let mut state = Arc::clone(&entry.entry.state).lock_owned().await;
        if state.closed {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        state.last = Instant::now();
        Ok(Redemption { state, entry })
    }

    /// The caller has its reply: the token is closed for good.
    pub(crate) async fn acknowledge(&self, token: &CallToken) {
        // Before the entry is removed: later requests ask the store.
        self.0.store.close(token.epoch, &token.nonce);
        let known = self.0.entries().by_nonce.get(&token.nonce).cloned();
        if let Some(entry) = known {
            // Who still waits with this very request comes too late.
            let mut state = entry.state.lock().await;
            state.closed = true;
            self.0.entries().by_nonce.remove(&token.nonce);
        }
    }
}

impl Redemption {
    /// Spends the token: durably, before this returns. Before anything costly.
    ///
    /// # Errors
    ///
    /// [`RedeemError`] if it was spent on something else, or too often on this.
    ///
    /// # Cancel safety
    ///
    /// The token may then be spent or not; the same request can come again.
    pub(crate) async fn spend(&mut self) -> Result<(), RedeemError> {
        let state = &mut *self.state;
        if state.runs >= MAX_RUNS {
            return Err(RedeemError::Unpaid(TokenProblem::Spent));
        }
        if !state.spent {
            let Entry { token, request, .. } = &*self.entry.entry;
            let store = &self.entry.redeemer.store;
            match store.spend(token.epoch, &token.nonce, request).await {
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

    /// The reply that was given before.
    pub(crate) fn cached_reply(&self) -> Option<Arc<Reply>> {
        let (reply, _) = self.state.reply.as_ref()?;
        Some(Arc::clone(reply))
    }

    /// Caches the reply for the same request, if it is final.
    pub(crate) fn cache(&mut self, reply: &Reply) {
        let is_final = closes_token(&reply.completion);
        let state = &mut *self.state;
        state.last = Instant::now();
        state.answered |= is_final;
        if matches!(reply.completion, Completion::Busy { .. }) {
            // It did not run.
            state.runs = state.runs.saturating_sub(1);
        } else if is_final && size(reply) <= MAX_CACHED_BYTES {
            let permit = CachePermit::acquire(&self.entry.redeemer.cached);
            state.reply = permit.map(|permit| (Arc::new(reply.clone()), permit));
        }
    }
}

impl Inner {
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Whole between any two operations on it.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entry(&self, token: CallToken, request: RequestDigest) -> Result<Arc<Entry>, RedeemError> {
        let mut entries = self.entries();
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
            reply: None,
        }
    }
}

impl Drop for EntryRef {
    fn drop(&mut self) {
        let mut entries = self.redeemer.entries();
        // One reference is the map's, one is ours.
        let is_last = Arc::strong_count(&self.entry) == 2;
        let unspent = self.entry.state.try_lock().is_ok_and(|it| !it.spent);
        if is_last && unspent {
            entries.by_nonce.remove(&self.entry.token.nonce);
        }
    }
}

impl Entries {
    /// Forgets expired entries, and closes the tokens of those that ran.
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
    fn acquire(cached: &Arc<AtomicUsize>) -> Option<Self> {
        let before = cached.fetch_add(1, Ordering::Relaxed);
        let permit = Self(Arc::clone(cached));
        (before < MAX_CACHED).then_some(permit)
    }
}

impl Drop for CachePermit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn size(reply: &Reply) -> usize {
    match &reply.completion {
        Completion::Exited { stdout, stderr, .. } => stdout.len() + stderr.len(),
        Completion::Stopped { stderr, .. } => stderr.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests;
