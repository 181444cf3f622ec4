//! The desk where tokens are taken: each pays for one call, which may come
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

use crate::ledger::{Ledger, LedgerError, Spending};

/// How long an answer waits for its acknowledgement, from the last time that
/// it was given.
const KEEP: Duration = Duration::from_secs(ANSWER_KEPT_SECONDS);
/// How long a request that ran, and was never answered, may come again.
const KEEP_UNANSWERED: Duration = Duration::from_secs(3600);
/// Largest answer that is kept; what is larger is run again when asked for again.
const KEEP_ONE: usize = 256 << 10;
/// Answers kept; beyond, none are until some are fetched or forgotten: 64 MiB
/// if all are of the largest.
const KEEP_COUNT: usize = 256;
/// How often one request runs for one token: a caller that hangs up and comes
/// again must not get work for nothing.
const MAX_RUNS: u8 = 3;
/// Requests that are known at a time.
const MAX_TICKETS: usize = 1 << 16;
/// How often forgotten requests are looked for.
const SWEEP: Duration = Duration::from_secs(10);

/// Takes tokens.
pub(crate) struct Desk {
    ledger: Arc<Ledger>,
    kept: Arc<AtomicUsize>,
    tickets: Arc<Mutex<Tickets>>,
}

/// A request with its token, being served. Others with the same token wait
/// until it is dropped; a token that was not spent by then is forgotten.
pub(crate) struct Turn {
    // Given back before the claim, which looks at it.
    serving: OwnedMutexGuard<Serving>,
    claim: Claim,
}

/// Someone's interest in a ticket.
struct Claim {
    ticket: Arc<Ticket>,
    among: Arc<Mutex<Tickets>>,
}

/// Why a token does not pay now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NotNow {
    /// It never will.
    Unpaid(TokenProblem),
    /// Too many come at once.
    Busy,
    /// Our disk failed us.
    Fault,
}

#[derive(Default)]
struct Tickets {
    by_nonce: HashMap<[u8; 32], Arc<Ticket>>,
    swept: Option<Instant>,
}

struct Ticket {
    token: CallToken,
    request: RequestDigest,
    serving: Arc<tokio::sync::Mutex<Serving>>,
}

struct Serving {
    spent: bool,
    closed: bool,
    runs: u8,
    /// Whether a final answer was given, kept or not.
    answered: bool,
    /// When it was last of interest.
    last: Instant,
    answer: Option<(Arc<Reply>, Kept)>,
}

/// A place among the answers that are kept.
struct Kept(Arc<AtomicUsize>);

impl Desk {
    pub(crate) fn new(ledger: Arc<Ledger>) -> Self {
        Self {
            ledger,
            kept: Arc::default(),
            tickets: Arc::default(),
        }
    }

    /// A turn for a request whose token is good; nothing is spent yet. Of
    /// several copies of a request one has its turn and the others wait.
    ///
    /// # Errors
    ///
    /// [`NotNow`] if the token was seen with another request.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn receive(
        &self,
        token: CallToken,
        request: RequestDigest,
    ) -> Result<Turn, NotNow> {
        let claim = Claim {
            ticket: self.ticket(token, request)?,
            among: Arc::clone(&self.tickets),
        };
        if claim.ticket.request != request {
            return Err(NotNow::Unpaid(TokenProblem::Spent));
        }
        let mut serving = Arc::clone(&claim.ticket.serving).lock_owned().await;
        if serving.closed {
            return Err(NotNow::Unpaid(TokenProblem::Spent));
        }
        serving.last = Instant::now();
        Ok(Turn { serving, claim })
    }

    /// Spends the token: durably, before this returns. Before anything costly.
    ///
    /// # Errors
    ///
    /// [`NotNow`] if it was spent on something else, or too often on this.
    ///
    /// # Cancel safety
    ///
    /// The token may then be spent or not; the same request can come again.
    pub(crate) async fn spend(&self, turn: &mut Turn) -> Result<(), NotNow> {
        let Turn { serving, claim } = turn;
        if serving.runs >= MAX_RUNS {
            return Err(NotNow::Unpaid(TokenProblem::Spent));
        }
        if !serving.spent {
            let Ticket { token, request, .. } = &*claim.ticket;
            match self.ledger.spend(token.epoch, &token.nonce, request).await {
                Ok(Spending::First | Spending::Again) => serving.spent = true,
                Ok(Spending::Other | Spending::Closed) => {
                    return Err(NotNow::Unpaid(TokenProblem::Spent));
                }
                Err(LedgerError::Busy) => return Err(NotNow::Busy),
                Err(LedgerError::UnknownEpoch) => {
                    return Err(NotNow::Unpaid(TokenProblem::Expired));
                }
                Err(error) => {
                    tracing::error!(%error, "a spent token could not be written down");
                    return Err(NotNow::Fault);
                }
            }
        }
        serving.runs += 1;
        Ok(())
    }

    /// Keeps the answer for the same request, if it is one that is final.
    pub(crate) fn keep(&self, turn: &mut Turn, answer: &Reply) {
        let is_final = matches!(
            answer.completion,
            Completion::Exited { .. }
                | Completion::Stopped { .. }
                | Completion::FunctionUnusable(_)
        );
        let Turn { serving, .. } = turn;
        serving.last = Instant::now();
        serving.answered |= is_final;
        if matches!(answer.completion, Completion::Busy { .. }) {
            // It did not run.
            serving.runs = serving.runs.saturating_sub(1);
        } else if is_final && size(answer) <= KEEP_ONE {
            let place = Kept::one_more(&self.kept);
            serving.answer = place.map(|place| (Arc::new(answer.clone()), place));
        }
    }

    /// The caller has its answer: the token is closed for good.
    pub(crate) async fn close(&self, token: &CallToken) {
        // Before the ticket goes: whoever comes then asks the ledger.
        self.ledger.close(token.epoch, &token.nonce);
        let known = Tickets::lock(&self.tickets)
            .by_nonce
            .get(&token.nonce)
            .cloned();
        if let Some(ticket) = known {
            // Who still waits with this very request comes too late.
            let mut serving = ticket.serving.lock().await;
            serving.closed = true;
            Tickets::lock(&self.tickets).by_nonce.remove(&token.nonce);
        }
    }

    fn ticket(&self, token: CallToken, request: RequestDigest) -> Result<Arc<Ticket>, NotNow> {
        let mut tickets = Tickets::lock(&self.tickets);
        tickets.sweep(&self.ledger, Instant::now());
        if let Some(ticket) = tickets.by_nonce.get(&token.nonce) {
            return Ok(Arc::clone(ticket));
        }
        if tickets.by_nonce.len() >= MAX_TICKETS {
            return Err(NotNow::Busy);
        }
        let ticket = Arc::new(Ticket {
            token,
            request,
            serving: Arc::default(),
        });
        tickets.by_nonce.insert(token.nonce, Arc::clone(&ticket));
        Ok(ticket)
    }
}

impl Default for Serving {
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

impl Turn {
    /// The answer that was given before.
    pub(crate) fn answer(&self) -> Option<Arc<Reply>> {
        let (answer, _) = self.serving.answer.as_ref()?;
        Some(Arc::clone(answer))
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut tickets = Tickets::lock(&self.among);
        // Beside the list's own and ours.
        let is_last = Arc::strong_count(&self.ticket) == 2;
        let unspent = self.ticket.serving.try_lock().is_ok_and(|it| !it.spent);
        if is_last && unspent {
            tickets.by_nonce.remove(&self.ticket.token.nonce);
        }
    }
}

impl Tickets {
    fn lock(tickets: &Mutex<Self>) -> MutexGuard<'_, Self> {
        // Whole between any two operations on it.
        tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets requests whose answers nobody fetched, and closes them.
    fn sweep(&mut self, ledger: &Ledger, now: Instant) {
        if self.swept.is_some_and(|swept| now - swept < SWEEP) {
            return;
        }
        self.swept = Some(now);
        self.by_nonce.retain(|_, ticket| {
            let Ok(mut serving) = ticket.serving.try_lock() else {
                return true;
            };
            let idle = now.saturating_duration_since(serving.last);
            // What never ran may come as late as it likes: the ledger knows it.
            let has_run = serving.runs > 0;
            let limit = if has_run && !serving.answered {
                KEEP_UNANSWERED
            } else {
                KEEP
            };
            if idle < limit {
                return true;
            }
            if has_run {
                serving.closed = true;
                ledger.close(ticket.token.epoch, &ticket.token.nonce);
            }
            false
        });
    }
}

impl Kept {
    fn one_more(kept: &Arc<AtomicUsize>) -> Option<Self> {
        let before = kept.fetch_add(1, Ordering::Relaxed);
        let place = Self(Arc::clone(kept));
        (before < KEEP_COUNT).then_some(place)
    }
}

impl Drop for Kept {
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
