//! Which provider a call goes to next, and when it is over.
//!
//! No network, no clock, no randomness: the times are passed in, and tests run it under virtual
//! time against providers that follow a script.
//!
//! A provider that fails is followed by the next at once. One that only takes long keeps its call:
//! after its *slot* the next one is asked, too, and the first answer counts. So an answer that is
//! late, and may be paid for already, is still of use.

use std::time::Duration;

/// Providers that one copy of a call may go to: each learns its content.
const MOST_PROVIDERS: usize = 3;
/// Slots that the time for a call is divided into, at least.
const SLOTS: u32 = 3;
/// A slot is this time, doubled or halved some times: two providers that collude see it, and the
/// time that a caller waits for its calls would tell it from others.
const SLOT_STEP: Duration = Duration::from_secs(5);
/// After an agreement, others have as long again to be compared, and at least this.
const LEAST_GRACE: Duration = Duration::from_secs(5);

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Policy {
    /// No provider is asked after this time.
    pub(crate) max_time: Duration,
    /// Answers to compare: 1 for a call that is not replicated.
    pub(crate) replicas: usize,
    /// Equal answers that are enough.
    pub(crate) agree: usize,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Ask the candidate of this index.
    Start(usize),
    /// Wait for an attempt to end, and at most until this time.
    Wait(Option<Duration>),
    /// Nothing more is to be done.
    Over(Verdict),
}

/// How it came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The answer of this candidate counts: the first of those that agree.
    Answered(usize),
    /// There are answers, but too few are equal.
    NoAgreement,
    /// There is no answer.
    Failed,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With an answer, and this digest of it.
    Answer([u8; 32]),
    /// Without: another provider may do better.
    Failed,
    /// Without, and no other provider would do better.
    Hopeless,
}

/// The state of one call.
#[derive(Debug)]
pub(crate) struct Race {
    policy: Policy,
    candidates: usize,
    attempts: Vec<Attempt>,
    decided: Option<Decided>,
    is_hopeless: bool,
}

#[derive(Clone, Copy, Debug)]
struct Attempt {
    slot_ends: Duration,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug)]
struct Decided {
    first: usize,
    grace_ends: Duration,
}

impl Race {
    /// A call that may go to so many candidates, in their order.
    pub(crate) fn new(policy: Policy, candidates: usize) -> Self {
        let most = policy.replicas.max(1) + MOST_PROVIDERS - 1;
        Self {
            policy,
            candidates: candidates.min(most),
            attempts: Vec::new(),
            decided: None,
            is_hopeless: false,
        }
    }

    /// What to do at `now`, counted from the start of the call.
    pub(crate) fn next(&mut self, now: Duration) -> Step {
        let is_idle = self.running().next().is_none();
        if let Some(Decided { first, grace_ends }) = self.decided {
            if is_idle || now >= grace_ends {
                return Step::Over(Verdict::Answered(first));
            }
            return Step::Wait(Some(grace_ends));
        }
        if self.may_start(now) {
            return Step::Start(self.start(now));
        }
        if is_idle || self.is_hopeless {
            let has_answer = self.answers().next().is_some();
            let verdict = [Verdict::Failed, Verdict::NoAgreement][usize::from(has_answer)];
            return Step::Over(verdict);
        }
        Step::Wait(self.next_slot_end(now))
    }

    /// An attempt has ended.
    pub(crate) fn ended(&mut self, candidate: usize, end: End, now: Duration) {
        let Some(attempt) = self.attempts.get_mut(candidate) else {
            return;
        };
        attempt.end = Some(end);
        self.is_hopeless |= end == End::Hopeless;
        if let (End::Answer(digest), None) = (end, self.decided) {
            let equal = self.answers().filter(|(_, it)| *it == digest);
            let equal: Vec<usize> = equal.map(|(candidate, _)| candidate).collect();
            if equal.len() >= self.policy.agree.max(1) {
                let grace = match self.policy.replicas {
                    // Nothing is compared with the answer of one.
                    ..=1 => Duration::ZERO,
                    _ => now.max(LEAST_GRACE),
                };
                self.decided = equal.first().map(|first| Decided {
                    first: *first,
                    grace_ends: now + grace,
                });
            }
        }
    }

    /// Whether this candidate was asked, has not ended and had its whole slot.
    pub(crate) fn is_overdue(&self, candidate: usize, now: Duration) -> bool {
        let attempt = self.attempts.get(candidate);
        attempt.is_some_and(|it| it.end.is_none() && now >= it.slot_ends)
    }

    /// The candidates that answered, and the digests of their answers.
    fn answers(&self) -> impl Iterator<Item = (usize, [u8; 32])> {
        let ends = self.attempts.iter().enumerate();
        ends.filter_map(|(candidate, attempt)| match attempt.end {
            Some(End::Answer(digest)) => Some((candidate, digest)),
            _ => None,
        })
    }

    fn running(&self) -> impl Iterator<Item = &Attempt> {
        self.attempts.iter().filter(|it| it.end.is_none())
    }

    fn may_start(&self, now: Duration) -> bool {
        let in_slot = self.running().filter(|it| now < it.slot_ends).count();
        let wanted = self.policy.replicas.max(1);
        // Answers that are there need not be had once more; but those that differ from each other
        // are settled by one more.
        let answers = self.answers().count();
        let missing = wanted.saturating_sub(answers + in_slot);
        let is_split = in_slot == 0 && answers >= wanted;
        let is_first = self.attempts.is_empty();
        (missing > 0 || is_split)
            && !self.is_hopeless
            && (is_first || now < self.policy.max_time)
            && self.attempts.len() < self.candidates
    }

    fn start(&mut self, now: Duration) -> usize {
        self.attempts.push(Attempt {
            slot_ends: now.saturating_add(slot(self.policy.max_time)),
            end: None,
        });
        self.attempts.len() - 1
    }

    /// When the next candidate would be asked, if there is one.
    fn next_slot_end(&self, now: Duration) -> Option<Duration> {
        if self.attempts.len() >= self.candidates {
            return None;
        }
        let ends = self.running().map(|it| it.slot_ends);
        let ends = ends.filter(|it| *it > now && *it < self.policy.max_time);
        ends.min()
    }
}

/// The longest one of which as many fit into the time for a call.
fn slot(max_time: Duration) -> Duration {
    let most = max_time / SLOTS;
    let mut slot = SLOT_STEP;
    while slot > most && !slot.is_zero() {
        slot /= 2;
    }
    while slot.saturating_mul(2) <= most && !slot.is_zero() {
        slot = slot.saturating_mul(2);
    }
    slot
}

#[cfg(test)]
mod tests;
