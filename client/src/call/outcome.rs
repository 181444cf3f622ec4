//! A call that came to an end: what the provider said, and its proof.

use std::fmt;
use std::time::Duration;

use dlambda_proto::{
    Advert, Completion, FunctionId, Plan, Receipt, ReceiptEvidence, Reply, Verified,
};

use super::output::{Output, Stages, Traffic};
use crate::error::coarse_wait;
use crate::{CallError, stop_reason};

/// What one call brought, whether its function succeeded or not.
///
/// If the function ran, the provider has signed what it says, and that was
/// checked: `evidence` convinces others of it.
#[non_exhaustive]
pub struct CallOutcome {
    /// What the provider answered. Its receipt agrees with it.
    pub reply: Reply,
    /// The function.
    pub function: FunctionId,
    /// Where all its randomness came from: with it the call can be run again.
    pub seed: [u8; 32],
    /// The plan.
    pub plan: Plan,
    /// The advert that the call was made under.
    pub advert: Verified<Advert>,
    /// What the receipt says, if the function ran.
    pub receipt: Option<Receipt>,
    /// The receipt as it was signed, with the advert that its key is in.
    pub evidence: Option<ReceiptEvidence>,
    /// Where the time went.
    pub stages: Stages,
    /// What crossed the wire.
    pub traffic: Traffic,
    /// Circuits tried, the last one included.
    pub attempts: u32,
    /// Whether the function travelled with the call.
    pub attached: bool,
    /// Whether the provider refused a token that must be good. That is misbehaviour, and cannot be
    /// proven.
    pub refused_a_good_token: bool,
}

impl CallOutcome {
    /// The answer, if the function ended by itself with success.
    ///
    /// # Errors
    ///
    /// [`CallError`] for every other end.
    pub fn into_output(self) -> Result<Output, CallError> {
        let (stdout, stderr, http) = match self.reply.completion {
            Completion::Exited {
                status: 0,
                stdout,
                stderr,
                http,
            } => (stdout, stderr, http),
            Completion::Exited {
                status,
                stdout,
                stderr,
                http: _,
            } => {
                return Err(CallError::FunctionFailed {
                    status,
                    stdout,
                    stderr,
                });
            }
            Completion::Stopped {
                kind,
                limit,
                stderr,
            } => {
                let reason = stop_reason(kind, limit, &self.plan.name);
                return Err(CallError::FunctionStopped { reason, stderr });
            }
            Completion::FunctionMissing => return Err(CallError::FunctionMissing),
            Completion::FunctionUnusable(problem) => {
                let reason = printable(&problem.to_string());
                return Err(CallError::FunctionUnusable(reason));
            }
            Completion::TooLarge => return Err(CallError::TooLarge),
            Completion::ProviderFault => return Err(CallError::ProviderFault),
            Completion::Busy { retry_seconds } => {
                return Err(CallError::Busy(coarse_wait(retry_seconds)));
            }
            Completion::Unpaid(problem) if self.refused_a_good_token => {
                return Err(CallError::TokenRefused(problem));
            }
            Completion::Unpaid(problem) => return Err(CallError::Unpaid(problem)),
            _ => return Err(CallError::UnknownAnswer),
        };
        Ok(Output {
            seed: self.seed,
            traffic: Traffic {
                output_bytes: stdout.len() as u64,
                ..self.traffic
            },
            stages: self.stages,
            stdout,
            stderr,
            http,
            function: self.function,
            provider: self.advert.provider,
            epoch: self.advert.epoch,
            early_ends: self.advert.early_ends(),
            plan: self.plan.name,
            usage: self.reply.usage,
            engine: self.reply.engine,
            attempts: self.attempts,
            attached: self.attached,
        })
    }

    /// Whether the function ran, or cannot run anywhere: another provider would say the same.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(
            self.reply.completion,
            Completion::Exited { .. }
                | Completion::Stopped { .. }
                | Completion::FunctionUnusable(_)
        )
    }

    /// Whether the provider turned the call away for a reason of its own.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(
            self.reply.completion,
            Completion::Busy { .. } | Completion::ProviderFault | Completion::Unpaid(_)
        )
    }

    pub(crate) fn after(mut self, attempts: u32, total: Duration) -> Self {
        self.attempts = attempts;
        self.stages.total = total;
        self
    }
}

/// A stranger's words, safe to show: a provider must not get to write escape
/// sequences to our caller's terminal, or pages of text.
fn printable(text: &str) -> String {
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(300).collect()
}

impl fmt::Debug for CallOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CallOutcome({:?})", self.reply.completion)
    }
}
