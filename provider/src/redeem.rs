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

use dlambda_proto::{CallToken, Completion, Reply, RequestDigest, TokenProblem};
use tokio::sync::OwnedMutexGuard;

use crate::ledger::{Ledger, LedgerError, Spending};

/// How long an answer waits for its acknowledgement, from the last time that
/// it was given.
const KEEP: Duration = Duration::from_secs(300);
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
        let serving = Arc::clone(&claim.ticket.serving).lock_owned().await;
        if serving.closed {
            return Err(NotNow::Unpaid(TokenProblem::Spent));
        }
        let mut turn = Turn { serving, claim };
        turn.serving.last = Instant::now();
        Ok(turn)
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
                | Completion::FunctionUnusable { .. }
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
            let has_run = serving.spent && (serving.answered || serving.runs > 0);
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
mod tests {
    use dlambda_proto::{Epoch, UnixSeconds, Usage, Validity};
    use zeroize::Zeroizing;

    use super::*;
    use crate::ledger::EpochRecord;

    const EPOCH: Epoch = Epoch(1);

    fn desk(dir: &std::path::Path) -> Desk {
        let ledger = Ledger::open(&dir.join("ledger.redb")).expect("opens");
        let record = EpochRecord {
            seed: Zeroizing::new([1; 32]),
            validity: Validity {
                from: UnixSeconds(0),
                until: UnixSeconds(10),
            },
            plans: vec!["small".parse().expect("a name")],
        };
        // On the second start it is there already.
        let _ = ledger.begin_epoch(EPOCH, &record);
        Desk::new(Arc::new(ledger))
    }

    fn token(nonce: u8) -> CallToken {
        CallToken {
            epoch: EPOCH,
            nonce: [nonce; 32],
            authenticator: [0; 64],
        }
    }

    fn request(number: u8) -> RequestDigest {
        RequestDigest([number; 32])
    }

    fn answer(stdout: usize) -> Reply {
        Reply {
            completion: Completion::Exited {
                status: 0,
                stdout: vec![1; stdout],
                stderr: vec![],
                http: None,
            },
            usage: Usage::default(),
            engine: [0; 32],
            receipt: None,
        }
    }

    async fn serve(desk: &Desk, nonce: u8, number: u8) -> Result<Turn, NotNow> {
        let mut turn = desk.receive(token(nonce), request(number)).await?;
        desk.spend(&mut turn).await.map(|()| turn)
    }

    const SPENT: Option<NotNow> = Some(NotNow::Unpaid(TokenProblem::Spent));

    #[tokio::test]
    async fn a_request_is_answered_again_until_it_is_closed() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let mut turn = serve(&desk, 1, 1).await.expect("pays");
        desk.keep(&mut turn, &answer(5));
        drop(turn);
        let again = desk.receive(token(1), request(1)).await.expect("pays");
        assert!(again.answer().is_some_and(|kept| *kept == answer(5)));
        drop(again);
        assert_eq!(serve(&desk, 1, 2).await.err(), SPENT, "another request");
        desk.close(&token(1)).await;
        assert_eq!(serve(&desk, 1, 1).await.err(), SPENT, "it is closed");
    }

    #[tokio::test]
    async fn a_lost_answer_is_run_again_but_not_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        for _ in 0..MAX_RUNS {
            let turn = serve(&desk, 1, 1).await.expect("runs");
            assert!(turn.answer().is_none());
            drop(turn);
        }
        assert_eq!(serve(&desk, 1, 1).await.err(), SPENT);
    }

    #[tokio::test]
    async fn a_busy_provider_uses_up_no_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let busy = Reply {
            completion: Completion::Busy { retry_seconds: 5 },
            ..answer(0)
        };
        for _ in 0..10 {
            let mut turn = serve(&desk, 1, 1).await.expect("pays");
            desk.keep(&mut turn, &busy);
            drop(turn);
        }
    }

    fn later(desk: &Desk, later: Duration) {
        let mut tickets = Tickets::lock(&desk.tickets);
        tickets.swept = None;
        tickets.sweep(&desk.ledger, Instant::now() + later);
    }

    #[tokio::test]
    async fn what_never_ran_may_come_as_late_as_it_likes() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let busy = Reply {
            completion: Completion::Busy { retry_seconds: 300 },
            ..answer(0)
        };
        let mut turn = serve(&desk, 1, 1).await.expect("pays");
        desk.keep(&mut turn, &busy);
        drop(turn);
        later(&desk, 10 * KEEP_UNANSWERED);
        assert!(Tickets::lock(&desk.tickets).by_nonce.is_empty());
        assert_eq!(serve(&desk, 1, 2).await.err(), SPENT, "another request");
        assert!(serve(&desk, 1, 1).await.is_ok(), "the same");
    }

    #[tokio::test]
    async fn what_ran_without_an_answer_may_come_for_an_hour_and_not_run_for_ever() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        for _ in 0..MAX_RUNS {
            // Its caller hangs up.
            drop(serve(&desk, 1, 1).await.expect("runs"));
            later(&desk, 2 * KEEP);
        }
        assert_eq!(serve(&desk, 1, 1).await.err(), SPENT, "too often");
        drop(serve(&desk, 2, 1).await.expect("runs"));
        later(&desk, 2 * KEEP_UNANSWERED);
        assert_eq!(serve(&desk, 2, 1).await.err(), SPENT, "too late");
    }

    #[tokio::test]
    async fn an_answer_waits_for_five_minutes_from_when_it_was_last_given() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let mut turn = serve(&desk, 1, 1).await.expect("pays");
        desk.keep(&mut turn, &answer(KEEP_ONE + 1));
        drop(turn);
        later(&desk, KEEP / 2);
        assert!(
            serve(&desk, 1, 1).await.is_ok(),
            "too large to keep, it runs again"
        );
        later(&desk, KEEP + Duration::from_secs(1));
        assert_eq!(serve(&desk, 1, 1).await.err(), SPENT);
    }

    #[tokio::test]
    async fn a_token_that_was_not_spent_pays_for_another_request() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let turn = desk.receive(token(1), request(1)).await.expect("pays");
        let waiting = desk.receive(token(1), request(1));
        let waited = tokio::time::timeout(Duration::from_millis(20), waiting).await;
        assert!(waited.is_err(), "one at a time");
        drop(turn);
        assert!(serve(&desk, 1, 2).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_spent_stays_spent_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = {
            let first = desk(dir.path());
            drop(serve(&first, 1, 1).await.expect("pays"));
            drop(first);
            desk(dir.path())
        };
        assert_eq!(serve(&desk, 1, 2).await.err(), SPENT);
        assert!(serve(&desk, 1, 1).await.is_ok(), "the same request may");
    }

    #[tokio::test]
    async fn of_copies_that_race_one_runs_and_the_others_get_its_answer() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = Arc::new(desk(dir.path()));
        let copies = (0..20).map(|_| {
            let desk = Arc::clone(&desk);
            tokio::spawn(async move {
                let mut turn = desk.receive(token(1), request(1)).await.expect("pays");
                if turn.answer().is_some() {
                    return 0;
                }
                desk.spend(&mut turn).await.expect("pays");
                desk.keep(&mut turn, &answer(1));
                drop(turn);
                1
            })
        });
        let mut runs = 0;
        for copy in copies.collect::<Vec<_>>() {
            runs += copy.await.expect("ends");
        }
        assert_eq!(runs, 1);
    }

    #[tokio::test]
    async fn large_answers_are_not_kept_and_places_are_given_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let desk = desk(dir.path());
        let mut turn = serve(&desk, 1, 1).await.expect("pays");
        desk.keep(&mut turn, &answer(KEEP_ONE + 1));
        assert!(turn.answer().is_none());
        desk.keep(&mut turn, &answer(1));
        drop(turn);
        assert_eq!(desk.kept.load(Ordering::Relaxed), 1);
        desk.close(&token(1)).await;
        assert_eq!(desk.kept.load(Ordering::Relaxed), 0);
    }
}
