//! What pays for one call: a token from the wallet, for all its attempts.
//!
//! All attempts of a call carry the same token, the same seed and so the same
//! request: to the provider they are one call that came more than once.

use dlambda_privacy::os_rng;
use dlambda_proto::{
    ANSWER_KEPT_SECONDS, Advert, Authentic, CLOCK_BLUR_SECONDS, Completion, Endpoint,
    EquivocationProof, Plan, ProviderId, TokenProblem, UnixSeconds, equivocation,
};
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use crate::wallet::{ReservedToken, Resuming, TokenQuery, Unchecked, Wallet};
use crate::{Call, CallError, FunctionName};

/// By how much a provider's clock may be ahead of ours, in seconds.
const CLOCK_TOLERANCE: u64 = 3600;

/// The payment of one call.
pub(crate) struct Payment {
    wallet: Option<Wallet>,
    query: TokenQuery,
    held: Option<ReservedToken>,
    /// When the token may first have left this machine, if it may have.
    sent: Option<UnixSeconds>,
}

impl Payment {
    pub(crate) fn new(
        wallet: Option<&Wallet>,
        call: &Call,
        endpoint: &Endpoint,
        now: UnixSeconds,
    ) -> Self {
        Self {
            wallet: wallet.cloned(),
            query: token_query(call, endpoint, now),
            held: None,
            sent: None,
        }
    }

    /// Takes a token for the plan that the call will probably be on, while the
    /// circuit is being built.
    pub(crate) async fn prepare(&mut self) -> Result<(), CallError> {
        if self.held.is_none() {
            self.hold(self.query.clone()).await?;
            if self.held.is_none() && self.is_resuming() {
                return Err(CallError::NothingToResume);
            }
        }
        Ok(())
    }

    /// Makes sure that there is a token of just this provider for just this
    /// plan, or none if it needs none.
    ///
    /// Who answers at an address may change, and somebody who shows each
    /// customer another identity would know by which key a token is good whose
    /// it is.
    pub(crate) async fn bind_to(
        &mut self,
        provider: &ProviderId,
        plan: &Plan,
    ) -> Result<(), CallError> {
        let sold_here = |held: &ReservedToken| held.provider() == provider;
        let fits =
            |held: &ReservedToken| plan.needs_token && *held.plan() == plan.name && sold_here(held);
        if self.held.as_ref().is_some_and(fits) {
            return Ok(());
        }
        let is_other = self.held.as_ref().is_some_and(|held| !sold_here(held));
        if self.held.is_some() && self.sent.is_some() {
            // Somebody who shows something else on each circuit would get a token on each.
            return Err(match is_other {
                true => CallError::OtherProvider,
                false => CallError::NoToken(plan.name.clone()),
            });
        }
        self.put_back().await;
        if plan.needs_token {
            let query = TokenQuery {
                plan: Some(plan.name.clone()),
                provider: Some(*provider),
                ..self.query.clone()
            };
            self.hold(query).await?;
            return match self.held {
                Some(_) => Ok(()),
                None if is_other => Err(CallError::OtherProvider),
                None if self.is_resuming() => Err(CallError::NothingToResume),
                None if self.has_unchecked().await? => Err(CallError::Unchecked(plan.name.clone())),
                None => Err(CallError::NoToken(plan.name.clone())),
            };
        }
        Ok(())
    }

    /// The token, if there is one.
    pub(crate) fn held(&self) -> Option<&ReservedToken> {
        self.held.as_ref()
    }

    /// The seed of the next attempt: the token's, or a fresh one.
    pub(crate) fn seed(&self) -> [u8; 32] {
        match &self.held {
            Some(held) => *held.seed(),
            None => {
                let mut seed = [0; 32];
                os_rng().fill_bytes(&mut seed);
                seed
            }
        }
    }

    /// From now on the token may be known to the provider.
    pub(crate) fn is_about_to_leave(&mut self, now: UnixSeconds) {
        self.sent.get_or_insert(now);
    }

    /// Whether another attempt would still be answered as one with the first. Later, a token that
    /// was sent already would only tell when its caller is here.
    pub(crate) fn may_be_sent_again(&self, now: UnixSeconds) -> bool {
        let first = self.sent.filter(|_| self.held.is_some());
        first.is_none_or(|first| first.0.abs_diff(now.0) < ANSWER_KEPT_SECONDS)
    }

    /// Whether the token was good for all that we know, and the provider says that it is not.
    ///
    /// Its own proof said so when it sold the token. One that was sent in an earlier process may be
    /// spent by now, and of one that is good for an hour more at most the provider's clock may
    /// think otherwise.
    pub(crate) fn was_wrongly_refused(&self, completion: &Completion, now: UnixSeconds) -> bool {
        let (Completion::Unpaid(problem), Some(held)) = (completion, &self.held) else {
            return false;
        };
        match problem {
            TokenProblem::Spent => !held.resumed(),
            TokenProblem::Expired => now.plus(CLOCK_TOLERANCE) < held.validity().until,
            _ => true,
        }
    }

    fn is_resuming(&self) -> bool {
        self.query.resuming == Resuming::AtAnyTime
    }

    /// The proof that an advert that the wallet has a contract under contradicts
    /// this one; it looks no further if the token itself was bought under this one.
    pub(crate) async fn equivocation(
        &self,
        shown: &Authentic<Advert>,
    ) -> Result<Option<EquivocationProof>, CallError> {
        let same = |held: &ReservedToken| held.advert() == shown.signed();
        let Some(wallet) = self.wallet.clone() else {
            return Ok(None);
        };
        if self.held.as_ref().is_some_and(same) {
            return Ok(None);
        }
        let provider = shown.provider;
        let known = blocking(move || wallet.adverts(&provider)).await?;
        Ok(equivocation(&known, shown))
    }

    /// Makes sure that the token's epoch and advert are in the advert that is
    /// shown: a provider that leaves a customer's epoch out, or made it up for
    /// this customer, gets no token. It is then not used before the advert that
    /// it was bought under is seen listed somewhere.
    pub(crate) async fn check_listed(
        &mut self,
        shown: &Authentic<Advert>,
    ) -> Result<(), CallError> {
        let Some(held) = &self.held else {
            return Ok(());
        };
        let is_listed = held.advert() == shown.signed()
            || (held.advert().clone().authenticate()).is_ok_and(|it| shown.vouches_for(&it));
        if is_listed {
            return Ok(());
        }
        if let Some(held) = self.held.take()
            && self.sent.is_none()
        {
            forget_error(spawn_blocking(move || held.release_in_doubt()).await);
        }
        Err(CallError::Unlisted)
    }

    /// Keeps this advert beside those that the tokens were bought under: the
    /// two show that an epoch ended before it was to.
    pub(crate) async fn note_early_ends(&self, shown: &Authentic<Advert>) -> Result<(), CallError> {
        let Some(wallet) = self.wallet.clone() else {
            return Ok(());
        };
        let shown = shown.clone();
        blocking(move || wallet.saw(&shown)).await
    }

    /// The call was answered, with an answer that [`is_final`] or not.
    pub(crate) async fn end(mut self, is_final: bool) {
        let held = self.held.take();
        if let Some(held) = held.filter(|_| is_final) {
            forget_error(spawn_blocking(move || held.commit()).await);
        }
        // Otherwise the provider has not spent it and never will, on this request.
        // For another request it would link the two: so it waits, for this.
    }

    /// The call failed: a token that never left is as good as new.
    pub(crate) async fn give_up(mut self) {
        if self.sent.is_none() {
            self.put_back().await;
        }
    }

    /// Whether a contract with this provider waits for a second look.
    async fn has_unchecked(&self) -> Result<bool, CallError> {
        let Some(wallet) = self.wallet.clone() else {
            return Ok(false);
        };
        let (endpoint, now) = (self.query.endpoint, self.query.now);
        let waits = move |it: &Unchecked| it.endpoint == endpoint && it.validity.contains(now);
        blocking(move || Ok(wallet.unchecked(now)?.iter().any(waits))).await
    }

    async fn put_back(&mut self) {
        if let Some(held) = self.held.take()
            && self.sent.is_none()
        {
            forget_error(spawn_blocking(move || held.release()).await);
        }
    }

    async fn hold(&mut self, query: TokenQuery) -> Result<(), CallError> {
        self.held = self.take(query).await?;
        Ok(())
    }

    async fn take(&self, query: TokenQuery) -> Result<Option<ReservedToken>, CallError> {
        let Some(wallet) = self.wallet.clone() else {
            return Ok(None);
        };
        blocking(move || wallet.reserve(&query)).await
    }
}

/// Which tokens a call may be paid with at an endpoint.
fn token_query(call: &Call, endpoint: &Endpoint, now: UnixSeconds) -> TokenQuery {
    token_queries(call, now)(endpoint)
}

/// The same for any number of endpoints: the call, which may be large, is hashed once.
pub(crate) fn token_queries(
    call: &Call,
    now: UnixSeconds,
) -> impl Fn(&Endpoint) -> TokenQuery + Send + use<> {
    let (plan, resuming, call) = (call.plan.clone(), call.resuming, hash(call));
    // A provider sets the end, and sees whether the token still comes.
    let valid_at = now.blurred(os_rng().next_u64()).plus(CLOCK_BLUR_SECONDS);
    move |endpoint| TokenQuery {
        endpoint: *endpoint,
        plan: plan.clone(),
        provider: None,
        call,
        now,
        valid_at,
        resuming,
    }
}

/// Whether a call with this answer needs its token no more.
pub(crate) fn is_final(completion: &Completion) -> bool {
    matches!(
        completion,
        Completion::Exited { .. }
            | Completion::Stopped { .. }
            | Completion::FunctionUnusable(_)
            // It will never pay for anything.
            | Completion::Unpaid(_)
    )
}

/// At worst a token stays marked as used by this very call.
fn forget_error<T, E, F>(result: Result<Result<T, E>, F>) {
    if !matches!(result, Ok(Ok(_))) {
        tracing::warn!("a token's use could not be written down");
    }
}

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::WalletError> + Send + 'static,
) -> Result<T, CallError> {
    match spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(CallError::Interrupted),
    }
}

/// All that is called, in 32 bytes: by it the wallet knows a call that was
/// interrupted.
pub(crate) fn hash(call: &Call) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"dlambda/interrupted-call/v1\0");
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match &call.function {
        FunctionName::Alias(alias) => {
            part(b"alias");
            part(alias.as_bytes());
        }
        FunctionName::Id(id) => {
            part(b"id");
            part(id.digest());
        }
        FunctionName::Wasm(wasm) => {
            part(b"id");
            part(dlambda_proto::FunctionId::of(wasm).digest());
        }
    }
    part(&dlambda_proto::encode(&call.args));
    part(&call.input);
    part(&dlambda_proto::encode(&call.http));
    hash.finalize().into()
}
