//! One call at several providers, whose answers are compared.
//!
//! Replicas have tokens, circuits and seeds of their own: a shared seed would be a mark. Providers
//! that collude still see that the calls are one, by function and input.

use std::fmt;
use std::time::Duration;

use dlambda_proto::{Completion, encode};
use sha2::{Digest as _, Sha256};

use super::driver::Raced;
use super::options::{Call, Candidate};
use super::outcome::CallOutcome;
use super::race::{Policy, Verdict};
use super::{PendingAck, Progress};
use crate::patience::Patience;
use crate::{CallError, Querier};

/// How many answers, and how many of them have to be equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replicas {
    count: u8,
    agree: u8,
}

/// What several providers answered.
#[non_exhaustive]
pub struct Agreement {
    /// The answer that enough of them gave: that of the first.
    pub outcome: CallOutcome,
    /// Its acknowledgement; those of the others are sent already.
    pub ack: PendingAck,
    /// The others that were asked, and did not still work when it was over.
    pub others: Vec<Replica>,
}

/// What one more provider did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Replica {
    /// The provider.
    pub candidate: Candidate,
    /// What came of it.
    pub end: Result<CallOutcome, CallError>,
    /// Whether it gave the answer that counts.
    pub agrees: bool,
}

impl Replicas {
    /// Most answers that are compared.
    pub const MAX: u8 = 5;

    /// `count` answers, 2 to 5, of which `agree` have to be equal: more than half.
    #[must_use]
    pub fn new(count: u8, agree: u8) -> Option<Self> {
        let is_sound = (2..=Self::MAX).contains(&count) && agree <= count && agree > count / 2;
        is_sound.then_some(Self { count, agree })
    }
}

impl Querier {
    /// Makes one call at several providers, of which each is paid, and takes the answer that enough
    /// of them give. The target has to be [`Target::Any`](crate::Target::Any).
    ///
    /// An answer is what a function wrote and how it ended; with randomness in it, answers of
    /// honest providers differ, too.
    ///
    /// # Errors
    ///
    /// [`CallError::Disagreement`] if there are answers, but too few are equal, with all of them;
    /// [`CallError`] otherwise: that of the last provider.
    ///
    /// # Cancel safety
    ///
    /// As for [`Querier::call`].
    pub async fn call_replicas(
        &self,
        call: &Call,
        replicas: Replicas,
        max_time: Duration,
        progress: impl FnMut(Progress) + Send,
    ) -> Result<Agreement, (CallError, Vec<Replica>)> {
        let policy = Policy {
            max_time,
            replicas: replicas.count.into(),
            agree: replicas.agree.into(),
        };
        let patience = Patience::new(max_time);
        let raced = self
            .race_boxed(call, policy, patience, progress)
            .await
            .map_err(|error| (error, Vec::new()))?;
        Box::pin(self.judge(raced)).await
    }

    async fn judge(&self, raced: Raced) -> Result<Agreement, (CallError, Vec<Replica>)> {
        let Raced { verdict, ended } = raced;
        let first = match verdict {
            Verdict::Answered(first) => Some(first),
            Verdict::NoAgreement | Verdict::Failed => None,
        };
        let mut counted = None;
        let mut others = Vec::new();
        for (index, candidate, end) in ended {
            let end = match end {
                Ok((outcome, ack)) if Some(index) == first => {
                    counted = Some((outcome, ack));
                    continue;
                }
                Ok((outcome, ack)) => {
                    self.acknowledge(ack).await;
                    Ok(outcome)
                }
                Err(error) => Err(error),
            };
            others.push(Replica {
                candidate,
                end,
                agrees: false,
            });
        }
        let Some((outcome, ack)) = counted else {
            return Err(disagreement(verdict, others));
        };
        let right = digest(&outcome);
        for other in &mut others {
            other.agrees = other.end.as_ref().is_ok_and(|it| digest(it) == right);
        }
        Ok(Agreement {
            outcome,
            ack,
            others,
        })
    }
}

fn disagreement(verdict: Verdict, mut replicas: Vec<Replica>) -> (CallError, Vec<Replica>) {
    let answers = replicas.iter().filter_map(|it| it.end.as_ref().ok());
    let digests: Vec<_> = answers.filter(|it| it.is_answer()).map(digest).collect();
    if verdict == Verdict::NoAgreement {
        let equal = |it| digests.iter().filter(|other| *other == it).count();
        let equal = digests.iter().map(equal).max().unwrap_or(0);
        let answers = digests.len();
        return (CallError::Disagreement { answers, equal }, replicas);
    }
    // All have failed, and one of them says why.
    let error = match replicas.pop().map(|it| it.end) {
        Some(Ok(outcome)) => outcome
            .into_output()
            .err()
            .unwrap_or(CallError::NoCandidate),
        Some(Err(error)) => error,
        None => CallError::NoCandidate,
    };
    (error, replicas)
}

/// What is compared: how the function ended, and what it wrote to standard output. Where standard
/// error is cut is the provider's matter, and so is its own account of fuel and time.
pub(super) fn digest(outcome: &CallOutcome) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/answer/v1\0");
    hash.update(outcome.function.digest());
    match &outcome.reply.completion {
        Completion::Exited {
            status,
            stdout,
            http,
            ..
        } => {
            hash.update([0, *status]);
            let http = encode(http);
            hash.update((http.len() as u64).to_be_bytes());
            hash.update(http);
            hash.update(stdout);
        }
        Completion::Stopped { kind, .. } => {
            hash.update([1]);
            hash.update(encode(kind));
        }
        Completion::FunctionUnusable(problem) => {
            hash.update([2]);
            hash.update(encode(problem));
        }
        other => {
            hash.update([3]);
            hash.update(encode(other));
        }
    }
    hash.finalize().into()
}

impl fmt::Debug for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Agreement({} others)", self.others.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_half_have_to_agree() {
        for (count, agree) in [(2, 2), (3, 2), (3, 3), (5, 3), (5, 5)] {
            assert!(Replicas::new(count, agree).is_some(), "{count} {agree}");
        }
        for (count, agree) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (3, 1),
            (3, 4),
            (4, 2),
            (6, 4),
            (5, 0),
        ] {
            assert_eq!(Replicas::new(count, agree), None, "{count} {agree}");
        }
    }
}
