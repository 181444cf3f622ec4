//! Counts of sessions, calls and contracts.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use dlambda_proto::{Completion, Reply};

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionOutcome {
    Failed,
    Fault,
    Negotiated,
    Refused,
    Succeeded,
    Evicted,
    Disconnected,
}

/// Counts sessions, calls and contracts since the start.
#[derive(Default)]
pub(crate) struct Counters {
    pub(super) sessions: AtomicUsize,
    pub(super) running: AtomicUsize,
    pub(super) succeeded: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) disconnected: AtomicU64,
    pub(super) evicted: AtomicU64,
    pub(super) faults: AtomicU64,
    pub(super) granted: AtomicU64,
    pub(super) not_granted: AtomicU64,
}

/// Counts one running call until dropped.
pub(crate) struct Running<'a>(&'a AtomicUsize);

impl SessionOutcome {
    pub(crate) fn of(reply: &Reply) -> Self {
        match &reply.completion {
            Completion::Exited { status: 0, .. } => Self::Succeeded,
            Completion::Exited { .. } | Completion::Stopped { .. } => Self::Failed,
            Completion::ProviderFault => Self::Fault,
            _ => Self::Refused,
        }
    }
}

impl Counters {
    pub(crate) fn count(&self, outcome: SessionOutcome) {
        let counter = match outcome {
            SessionOutcome::Failed => &self.failed,
            SessionOutcome::Fault => &self.faults,
            // Counted by what was answered.
            SessionOutcome::Negotiated => return,
            SessionOutcome::Refused => &self.refused,
            SessionOutcome::Succeeded => &self.succeeded,
            SessionOutcome::Evicted => &self.evicted,
            SessionOutcome::Disconnected => &self.disconnected,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a contract; one that was granted before does not count again.
    pub(crate) fn count_granted(&self) {
        self.granted.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a proposal or confirmation that got something else.
    pub(crate) fn count_not_granted(&self) {
        self.not_granted.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn start_call(&self) -> Running<'_> {
        Running::new(&self.running)
    }

    pub(crate) fn start_session(&self) -> Running<'_> {
        Running::new(&self.sessions)
    }

    /// Forgets what was counted so far: our own call to ourselves.
    pub(crate) fn reset(&self) {
        for counter in [
            &self.succeeded,
            &self.failed,
            &self.refused,
            &self.disconnected,
            &self.evicted,
            &self.faults,
        ] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

impl<'a> Running<'a> {
    fn new(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::Relaxed);
        Self(counter)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
