//! Why a call brought no answer.

use dlambda_crypto::{NegotiationError, SealError};

use dlambda_privacy::{ExchangeError, TransportError};
use dlambda_proto::{
    ContractRefusal, EquivocationProof, ErrorKind, FunctionId, HasKind, PlanName, ReceiptError,
    Retry, TokenProblem,
};
use thiserror::Error;
use tokio::task::JoinError;

use crate::patience::Patience;
use crate::{ListingMismatch, WalletError};

/// Why a call brought no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CallError {
    /// No connection to the provider.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The conversation with the provider went wrong.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// There is no token of any provider that the call may go to.
    #[error("the wallet has no token of a provider that meets the requirements")]
    NoCandidate,
    /// Too few providers gave the same answer.
    #[error("providers disagree: only {equal} of {answers} answers are equal")]
    Disagreement {
        /// Providers that answered.
        answers: usize,
        /// The most of them that gave one answer.
        equal: usize,
    },
    /// The call cannot be sealed.
    #[error("the call cannot be sealed")]
    Seal(#[from] SealError),
    /// The time for the call is over.
    #[error("the call did not end within {0} seconds")]
    Deadline(u64),
    /// The provider's advert has no function of this name.
    #[error("the provider publishes no function of this name (it publishes: {})", .known.join(", "))]
    UnknownAlias {
        /// What it does publish.
        known: Vec<String>,
    },
    /// Providers give this alias to different functions.
    #[error("providers give this name to different functions: {}", list(.ids))]
    AmbiguousAlias {
        /// The functions.
        ids: Vec<FunctionId>,
    },
    /// The provider offers no such plan.
    #[error("the provider offers no such plan (it offers: {})", .known.join(", "))]
    UnknownPlan {
        /// What it does offer.
        known: Vec<String>,
    },
    /// The provider does not have the function, and we have only its name.
    #[error("the provider does not have this function; give a path to its .wasm file to send it")]
    FunctionMissing,
    /// The provider does not run this function.
    #[error("the provider does not take this function: {0}")]
    FunctionUnusable(String),
    /// The input or the function is larger than the plan or provider allows.
    #[error("the input or the function is larger than the provider allows; try a larger plan")]
    TooLarge,
    /// The provider has too much to do; for how long, in seconds, by its own
    /// account, rounded up to one of six steps.
    #[error("the provider has too much to do, by its own account for {0} seconds more")]
    Busy(u32),
    /// The provider failed at its own task.
    #[error("the provider failed to run the function; the function is not at fault")]
    ProviderFault,
    /// The function ended with a failure of its own.
    #[error("the function ended with exit status {status}")]
    FunctionFailed {
        /// Its exit status, 1 to 255.
        status: u8,
        /// Its standard output until then.
        stdout: Vec<u8>,
        /// Its standard error.
        stderr: Vec<u8>,
    },
    /// The function was ended: a trap, or a limit of the plan.
    #[error("the function was ended: {reason}")]
    FunctionStopped {
        /// Why, in a sentence.
        reason: String,
        /// Its standard error until then.
        stderr: Vec<u8>,
    },
    /// The provider showed us two adverts that contradict each other: the way to
    /// tag callers. The two together convince anybody.
    #[error("the provider shows different keys to different visitors in one epoch")]
    Equivocation(Box<EquivocationProof>),
    /// The provider's advert does not list the one that the token was bought under.
    #[error(
        "the provider does not list the epoch and keys that the token was bought under: \
         they may have been made for one buyer"
    )]
    Unlisted,
    /// The provider's advert is not the one in the catalogue.
    #[error(transparent)]
    Listing(#[from] ListingMismatch),
    /// The provider has ended too many epochs early.
    #[error("the provider has ended {0} epochs before their time: few callers share an epoch")]
    EarlyEnds(usize),
    /// There are tokens, but the provider's keys were seen only once.
    #[error("the tokens for plan {0} wait for a second look at the provider's keys")]
    Unchecked(PlanName),
    /// The plan needs a token, and the wallet has none for it.
    #[error("plan {0} of this provider needs a token, and the wallet has none")]
    NoToken(PlanName),
    /// The tokens were sold by another provider, which was at this address before.
    #[error("another provider answers at this address than the one that sold the wallet's tokens")]
    OtherProvider,
    /// The provider does not take the token, and may be right: the call was interrupted before, or
    /// the token is about to end.
    #[error("the provider does not take the call's token: {}", problem(.0))]
    Unpaid(TokenProblem),
    /// The provider does not take a token that it sold, with a proof that it is good, and that
    /// nothing was sent with before. Its answer is not signed, so this convinces no third party.
    #[error("the provider refuses a good token that it sold itself: {}", problem(.0))]
    TokenRefused(TokenProblem),
    /// The interrupted call that was to be taken up is none, or none any more.
    #[error("the wallet has no token with which this very call was interrupted")]
    NothingToResume,
    /// The provider's receipt is missing or contradicts its reply.
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    /// The wallet.
    #[error("the wallet cannot be used")]
    Wallet(#[from] WalletError),
    /// A task was ended before its time.
    #[error("interrupted")]
    Interrupted,
    /// The provider speaks a later dialect of this protocol version.
    #[error("the provider's answer is of a kind that we do not know")]
    UnknownAnswer,
}

impl CallError {
    /// Whether a fresh try on another circuit may do better, without asking anybody.
    pub(crate) fn is_worth_another_circuit(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_worth_another_circuit(),
            Self::Exchange(error) => error.is_worth_another_circuit(),
            _ => false,
        }
    }

    /// Whether another provider may do better. One that was not reached in time says nothing of the
    /// others: they still work, and a stream to them that ended now would show the time.
    pub(crate) fn is_worth_another_provider(&self) -> bool {
        !matches!(
            self.kind(),
            ErrorKind::Bug | ErrorKind::Local | ErrorKind::NetworkDown | ErrorKind::Usage
        ) && !matches!(self, Self::Wallet(_))
            || self.is_worth_another_circuit()
    }

    /// Whether the provider is the reason, and not this machine, its network or the call.
    pub(crate) fn is_of_the_provider(&self) -> bool {
        match self {
            Self::Transport(error) => error.kind() == ErrorKind::NoProvider,
            Self::Exchange(_)
            | Self::EarlyEnds(_)
            | Self::Listing(_)
            | Self::OtherProvider
            | Self::Seal(SealError::BadKey)
            | Self::Unlisted
            | Self::UnknownAnswer => true,
            _ => false,
        }
    }

    /// Whether the provider has turned the call away, and chose that moment.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Exchange(ExchangeError::Refused(_)))
    }
}

/// A provider's word for how long it is busy, in one of few steps: with a number
/// of seconds for each caller it would know who comes back by the time.
pub(crate) fn coarse_wait(seconds: u32) -> u32 {
    const STEPS: [u32; 6] = [30, 60, 120, 300, 900, 3600];
    let step = STEPS.into_iter().find(|step| seconds <= *step);
    step.unwrap_or(3600)
}

fn list(ids: &[FunctionId]) -> String {
    let ids = ids.iter().map(FunctionId::unredacted);
    ids.collect::<Vec<_>>().join(", ")
}

fn problem(problem: &TokenProblem) -> &'static str {
    match problem {
        TokenProblem::Missing => "there is none",
        TokenProblem::Spent => "it says that another call was made with it",
        TokenProblem::Expired => "its epoch is over",
        _ => "it says that it did not issue it",
    }
}

/// Why there is no contract.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ContractError {
    /// No connection to the provider.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The conversation with the provider went wrong.
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    /// A message cannot be sealed.
    #[error("the proposal cannot be sealed")]
    Seal(#[from] SealError),
    /// The negotiation came to nothing.
    #[error(transparent)]
    Negotiation(#[from] NegotiationError),
    /// The wallet.
    #[error("the wallet cannot be used")]
    Wallet(#[from] WalletError),
    /// The person who was asked did not agree to the terms.
    #[error("the terms were not agreed to")]
    Declined,
    /// The provider showed us two adverts for one epoch.
    #[error("the provider shows different keys to different visitors in one epoch")]
    Equivocation(Box<EquivocationProof>),
    /// The provider's advert is not the one in the catalogue.
    #[error(transparent)]
    Listing(#[from] ListingMismatch),
    /// The provider has ended too many epochs early.
    #[error("the provider has ended {0} epochs before their time: few callers share an epoch")]
    EarlyEnds(usize),
    /// The time is over. What was proposed is in the wallet, and can be
    /// proposed again.
    #[error("there was no contract within {0} seconds")]
    Deadline(u64),
    /// The provider no longer knows what was proposed.
    #[error("the proposal came to nothing: {0}")]
    Lapsed(ContractRefusal),
    /// A task was ended before its time.
    #[error("interrupted")]
    Interrupted,
}

impl ContractError {
    /// Whether a fresh try on another circuit may do better.
    pub(crate) fn is_worth_another_circuit(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_worth_another_circuit(),
            Self::Exchange(error) => error.is_worth_another_circuit(),
            _ => false,
        }
    }
}

impl ContractError {
    /// This, unless there was no time for more.
    pub(crate) fn or_deadline(self, patience: Patience) -> Self {
        if patience.is_over() {
            return Self::Deadline(patience.seconds());
        }
        self
    }

    /// Waits until another circuit may be tried: for a random time after a refusal, whose moment
    /// the provider chose.
    pub(crate) async fn wait_for_another(&self, patience: Patience) -> Result<(), Self> {
        if matches!(self, Self::Exchange(ExchangeError::Refused(_))) {
            patience.pause().await;
        }
        if patience.is_over() {
            return Err(Self::Deadline(patience.seconds()));
        }
        Ok(())
    }
}

impl From<JoinError> for ContractError {
    /// The text of a panic is written where it happens, and may hold anything: it is not kept.
    fn from(_: JoinError) -> Self {
        Self::Interrupted
    }
}

impl HasKind for ContractError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Transport(error) => error.kind(),
            Self::Exchange(error) => error.kind(),
            Self::Negotiation(error) => error.kind(),
            Self::Listing(error) => error.kind(),
            Self::Wallet(error) => error.kind(),
            Self::Seal(SealError::BadKey) | Self::Equivocation(_) | Self::EarlyEnds(_) => {
                ErrorKind::ProviderMisbehaved
            }
            Self::Declined | Self::Lapsed(_) => ErrorKind::Refused,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Seal(_) | Self::Interrupted => ErrorKind::Bug,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Transport(error) => error.retry(),
            Self::Exchange(error) => error.retry(),
            Self::Negotiation(error) => error.retry(),
            Self::Listing(error) => error.retry(),
            Self::Wallet(error) => error.retry(),
            // The proposal is in the wallet, and is made again from there.
            Self::Deadline(_) | Self::Interrupted => Retry::Later,
            Self::Declined
            | Self::EarlyEnds(_)
            | Self::Equivocation(_)
            | Self::Lapsed(_)
            | Self::Seal(_) => Retry::Never,
        }
    }
}

impl HasKind for CallError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Transport(error) => error.kind(),
            Self::Exchange(error) => error.kind(),
            Self::Seal(SealError::BadKey)
            | Self::Equivocation(_)
            | Self::Unlisted
            | Self::EarlyEnds(_)
            | Self::OtherProvider
            | Self::TokenRefused(_)
            | Self::Receipt(_)
            | Self::UnknownAnswer => ErrorKind::ProviderMisbehaved,
            Self::Listing(error) => error.kind(),
            Self::Wallet(error) => error.kind(),
            Self::Interrupted => ErrorKind::Bug,
            Self::AmbiguousAlias { .. } | Self::Seal(_) | Self::NothingToResume => ErrorKind::Usage,
            Self::Disagreement { .. } => ErrorKind::ProviderMisbehaved,
            Self::Deadline(_) => ErrorKind::Deadline,
            Self::Busy(_)
            | Self::FunctionMissing
            | Self::FunctionUnusable(_)
            | Self::NoCandidate
            | Self::NoToken(_)
            | Self::Unchecked(_)
            | Self::Unpaid(_)
            | Self::ProviderFault
            | Self::TooLarge
            | Self::UnknownAlias { .. }
            | Self::UnknownPlan { .. } => ErrorKind::Refused,
            Self::FunctionFailed { .. } | Self::FunctionStopped { .. } => ErrorKind::FunctionFailed,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::Transport(error) => error.retry(),
            Self::Exchange(error) => error.retry(),
            Self::Listing(error) => error.retry(),
            Self::Wallet(error) => error.retry(),
            Self::Busy(seconds) => Retry::After { seconds: *seconds },
            Self::Deadline(_)
            | Self::Interrupted
            | Self::NoCandidate
            | Self::NoToken(_)
            | Self::ProviderFault
            | Self::Unchecked(_)
            | Self::Unlisted => Retry::Later,
            Self::AmbiguousAlias { .. }
            | Self::Disagreement { .. }
            | Self::EarlyEnds(_)
            | Self::Equivocation(_)
            | Self::FunctionFailed { .. }
            | Self::FunctionMissing
            | Self::FunctionStopped { .. }
            | Self::FunctionUnusable(_)
            | Self::NothingToResume
            | Self::OtherProvider
            | Self::Receipt(_)
            | Self::Seal(_)
            | Self::TokenRefused(_)
            | Self::TooLarge
            | Self::UnknownAlias { .. }
            | Self::UnknownAnswer
            | Self::UnknownPlan { .. }
            | Self::Unpaid(_) => Retry::Never,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_the_same_way_each_time_is_never_tried_again() {
        for error in [
            CallError::FunctionMissing,
            CallError::FunctionUnusable(String::new()),
            CallError::TooLarge,
            CallError::UnknownAlias { known: vec![] },
            CallError::UnknownPlan { known: vec![] },
            CallError::Transport(TransportError::TooLarge(1)),
        ] {
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert_eq!(error.retry(), Retry::Never, "{error}");
        }
        let busy = CallError::Busy(30);
        assert_eq!(busy.retry(), Retry::After { seconds: 30 });
        assert_eq!(CallError::ProviderFault.retry(), Retry::Later);
    }

    #[test]
    fn a_provider_cannot_mark_callers_by_a_time_to_wait() {
        let mut seen: Vec<u32> = (0..100_000).map(coarse_wait).collect();
        seen.dedup();
        assert_eq!(seen, [30, 60, 120, 300, 900, 3600]);
        assert_eq!(coarse_wait(u32::MAX), 3600);
    }

    /// A provider knows a call that comes a second time by its content.
    #[test]
    fn only_what_has_reached_no_provider_is_tried_again_at_once() {
        let locked = CallError::Wallet(WalletError::Busy {
            path: "lock".into(),
            seconds: 10,
        });
        assert_eq!(locked.retry(), Retry::Now);
        // The last of several circuits; the call may have left on the first.
        let no_circuit = CallError::Transport(TransportError::Deadline("circuit"));
        let sent = CallError::Exchange(ExchangeError::Wire(dlambda_privacy::WireError::Deadline));
        for error in [no_circuit, sent] {
            assert_eq!(error.retry(), Retry::Later, "{error}");
        }
    }
}
