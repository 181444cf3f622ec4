//! Issuance: getting contracts, and finishing those that were interrupted.

use std::collections::HashSet;
use std::time::Duration;

use dlambda_broker::offload;
use dlambda_crypto::negotiation::{
    Agreement, ContractOptions, Counter, Negotiation, Proposed, Step, confirmation,
};
use dlambda_crypto::seal::SealedContractRequest;
use dlambda_crypto::{NegotiationError, pow};
use dlambda_privacy::exchange::{
    VerifiedGreeting, acknowledge, exchange_contract, receive_greeting,
};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::{BoxStream, Service};
use dlambda_privacy::{ExchangeError, WireError};
use dlambda_proto::{
    Admission, Contract, ContractAnswer, ContractId, ContractRefusal, ContractRequest, Endpoint,
    Proposal, SealingKey, SignedContract,
};
use futures::future::BoxFuture;
use rand_core::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::{sleep_until, timeout_at};
use zeroize::Zeroizing;

use crate::patience::{Patience, Wire};
use crate::wallet::{Draft, Wallet};
use crate::{ContractError, Querier};

/// Circuits that one proposal may try.
const MAX_ATTEMPTS: u32 = 3;
/// For the greeting once a stream is open.
const GREETING: Duration = Duration::from_secs(20);

/// How far a contract has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContractProgress {
    /// Building a circuit, for this many attempts now.
    Connecting {
        /// 1 for the first.
        attempt: u32,
    },
    /// Doing the work that the provider asks for.
    Working {
        /// Twice as much for each one more: 2^effort hashes of about a millisecond.
        effort: u8,
    },
    /// The proposal is on its way.
    Proposing,
}

/// How a proposal came out.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProposalOutcome {
    /// Signed by both, and the tokens are in the wallet.
    Signed(Box<SignedContract>),
    /// The provider would agree to something else.
    Countered(Counter),
}

/// A stream on which the greeting was read and believed.
pub(crate) struct Open {
    pub(crate) stream: BoxStream,
    pub(crate) welcome: VerifiedGreeting,
    wire: Wire,
}

/// Hears how far a contract has come.
type Watch<'a> = dyn FnMut(ContractProgress) + Send + 'a;

/// What became of contracts that were interrupted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// Proposals that were granted after all.
    pub granted: usize,
    /// Confirmations that have arrived now.
    pub confirmed: usize,
    /// Proposals that came to nothing.
    pub lapsed: usize,
    /// Those that could not be settled this time.
    pub left: usize,
}

impl Querier {
    /// Proposes a contract. `agree` sees it before anything is sent; nothing is stored or sent
    /// without its consent. It must answer at once: a stream is open meanwhile, and the provider
    /// would see how long a person reads.
    ///
    /// The tokens can be spent after [`Querier::look_again`].
    ///
    /// A stream that is open when `max_time` is over is given up within
    /// [`WIRE_STEP`](crate::WIRE_STEP) after it.
    ///
    /// # Errors
    ///
    /// [`ContractError`]. If the connection is lost or the time is over, the
    /// provider may have granted it: [`Querier::recover`] finds out.
    ///
    /// # Cancel safety
    ///
    /// What was proposed stays in the wallet, as if the connection was lost.
    pub async fn contract(
        &self,
        provider: &Endpoint,
        wish: &ContractOptions,
        max_time: Duration,
        agree: impl FnOnce(&Contract) -> bool + Send,
        mut progress: impl FnMut(ContractProgress) + Send,
    ) -> Result<ProposalOutcome, ContractError> {
        let mut agree = Some(agree);
        let mut agree = |contract: &Contract| agree.take().is_some_and(|agree| agree(contract));
        let patience = Patience::new(max_time);
        self.negotiate_boxed(provider, wish, patience, &mut agree, &mut progress)
            .await
    }

    /// Proposes once more what was proposed without an answer, and confirms
    /// what was not confirmed: one contract at each place. Two that are
    /// finished one after the other would be known to have one owner, so the
    /// others are left for another day.
    ///
    /// # Errors
    ///
    /// [`ContractError::Wallet`] if the wallet cannot be read. Providers that
    /// cannot be reached are counted, not errors.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub fn recover(
        &self,
        max_time: Duration,
    ) -> BoxFuture<'_, Result<RecoveryReport, ContractError>> {
        // As below.
        Box::pin(self.settle_here(max_time))
    }

    async fn settle_here(&self, max_time: Duration) -> Result<RecoveryReport, ContractError> {
        let wallet = self.needed_wallet()?;
        let mut settled = RecoveryReport::default();
        let from = wallet.clone();
        let mut visited = HashSet::new();
        for draft in blocking(move || from.drafts()).await? {
            if !visited.insert(draft.endpoint) {
                settled.left += 1;
                continue;
            }
            let silent = &mut |_| {};
            let patience = Patience::new(max_time);
            match Box::pin(self.propose(draft, None, patience, silent)).await {
                Ok(ProposalOutcome::Signed(_)) => settled.granted += 1,
                Ok(ProposalOutcome::Countered(_)) | Err(ContractError::Lapsed(_)) => {
                    settled.lapsed += 1;
                }
                _ => settled.left += 1,
            }
        }
        let now = self.clock().now();
        for open in blocking(move || wallet.unconfirmed(now)).await? {
            // One that was just granted is confirmed already.
            if !visited.insert(open.endpoint) {
                settled.left += 1;
                continue;
            }
            let patience = Patience::new(max_time);
            match Box::pin(self.confirm_again(&open.endpoint, &open.signed, patience)).await {
                Ok(()) => settled.confirmed += 1,
                _ => settled.left += 1,
            }
        }
        Ok(settled)
    }

    /// Boxed, so that it is compiled here, and not again in every crate that makes contracts.
    fn negotiate_boxed<'a>(
        &'a self,
        provider: &'a Endpoint,
        wish: &'a ContractOptions,
        patience: Patience,
        agree: &'a mut (dyn FnMut(&Contract) -> bool + Send),
        progress: &'a mut Watch<'_>,
    ) -> BoxFuture<'a, Result<ProposalOutcome, ContractError>> {
        Box::pin(self.negotiate(provider, wish, patience, agree, progress))
    }

    async fn negotiate(
        &self,
        provider: &Endpoint,
        wish: &ContractOptions,
        patience: Patience,
        agree: &mut (dyn FnMut(&Contract) -> bool + Send),
        progress: &mut Watch<'_>,
    ) -> Result<ProposalOutcome, ContractError> {
        let wallet = self.needed_wallet()?;
        let open = self.greet(provider, patience, progress).await?;
        let welcome = &open.welcome;
        self.check_listing(welcome.advert.authentic())?;
        let early_ends = welcome.advert.early_ends();
        if early_ends > self.max_early_ends() {
            return Err(ContractError::EarlyEnds(early_ends));
        }
        let mut seed = Zeroizing::new([0; 32]);
        os_rng().fill_bytes(&mut *seed);
        let negotiation = Negotiation::begin(&welcome.advert, wish, seed.clone())?;
        if !agree(negotiation.contract()) {
            return Err(ContractError::Declined);
        }
        let draft = Draft {
            endpoint: *provider,
            advert: welcome.advert.authentic().signed().clone(),
            contract: negotiation.contract().clone(),
            seed: *seed,
            invitation: negotiation.invitation(),
        };
        let stored = draft.clone();
        blocking(move || wallet.begin(&stored)).await?;
        self.propose(draft, Some(open), patience, progress).await
    }

    /// Proposes what is in the wallet, until there is an answer.
    async fn propose(
        &self,
        draft: Draft,
        open: Option<Open>,
        patience: Patience,
        progress: &mut Watch<'_>,
    ) -> Result<ProposalOutcome, ContractError> {
        let id = draft.contract.id();
        let mut open = open;
        let mut attempt = 1;
        loop {
            let tried = self.propose_once(&draft, open.take(), patience, progress);
            match tried.await {
                Err(error) if error.is_worth_another_circuit() => {
                    if attempt == MAX_ATTEMPTS {
                        return Err(error.or_deadline(patience));
                    }
                    error.wait_for_another(patience).await?;
                    attempt += 1;
                    tracing::info!(attempt, "proposing again on another circuit");
                }
                Err(ContractError::Negotiation(NegotiationError::Refused(reason))) => {
                    self.abandon(id).await?;
                    return Err(ContractError::Lapsed(reason));
                }
                Ok(ProposalOutcome::Countered(counter)) => {
                    self.abandon(id).await?;
                    return Ok(ProposalOutcome::Countered(counter));
                }
                ended => return ended,
            }
        }
    }

    async fn propose_once(
        &self,
        draft: &Draft,
        open: Option<Open>,
        patience: Patience,
        progress: &mut Watch<'_>,
    ) -> Result<ProposalOutcome, ContractError> {
        let wallet = self.needed_wallet()?;
        let open = match open {
            Some(open) => open,
            None => self.greet(&draft.endpoint, patience, progress).await?,
        };
        let Open {
            mut stream,
            welcome,
            wire,
        } = open;
        let (proposal, proposed) = prepare(draft.clone()).await?;
        let request = ContractRequest::Propose(Box::new(proposal));
        let sealed = self.seal(&welcome, &request, wire, progress).await?;
        progress(ContractProgress::Proposing);
        let answer = exchange_contract(&mut *stream, sealed, wire.left()).await?;
        let step = spawn_blocking(move || proposed.receive(answer)).await;
        let agreement = match step?? {
            Step::Countered(counter) => return Ok(ProposalOutcome::Countered(counter)),
            Step::Agreed(agreement) => *agreement,
        };
        let request = agreement.confirmation();
        let Agreement {
            contract,
            calls,
            ratings,
        } = agreement;
        let (id, stored) = (contract.contract.id(), contract.clone());
        let ratings = ratings.into_iter().map(|(token, seed)| (token, *seed));
        let ratings = ratings.collect();
        let into = wallet.clone();
        blocking(move || into.complete(&id, stored, calls, ratings)).await?;
        // The tokens are ours. A confirmation that is lost is sent again later.
        let confirmed = self.confirm(&mut stream, &welcome.sealing, &request, wire);
        if matches!(confirmed.await, Ok(true)) {
            blocking(move || wallet.confirmed(&id)).await?;
        }
        acknowledge(stream).await;
        Ok(ProposalOutcome::Signed(Box::new(contract)))
    }

    async fn confirm(
        &self,
        stream: &mut BoxStream,
        to: &SealingKey,
        request: &ContractRequest,
        wire: Wire,
    ) -> Result<bool, ContractError> {
        let sealed = SealedContractRequest::seal(to, request, &mut os_rng())?;
        let answer = exchange_contract(&mut **stream, sealed, wire.left()).await?;
        Ok(answer == ContractAnswer::Confirmed)
    }

    async fn confirm_again(
        &self,
        endpoint: &Endpoint,
        contract: &SignedContract,
        patience: Patience,
    ) -> Result<(), ContractError> {
        let wallet = self.needed_wallet()?;
        let Open {
            mut stream,
            welcome,
            wire,
        } = self.greet(endpoint, patience, &mut |_| {}).await?;
        let request = confirmation(contract);
        let sealed = self.seal(&welcome, &request, wire, &mut |_| {}).await?;
        let answer = exchange_contract(&mut *stream, sealed, wire.left()).await?;
        acknowledge(stream).await;
        match answer {
            ContractAnswer::Confirmed => {
                let id = contract.contract.id();
                blocking(move || wallet.confirmed(&id)).await
            }
            ContractAnswer::Refused(reason) => Err(ContractError::Lapsed(reason)),
            _ => Err(NegotiationError::Unexpected.into()),
        }
    }

    /// Opens a stream and believes what is said on it.
    pub(crate) async fn greet(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
        progress: &mut Watch<'_>,
    ) -> Result<Open, ContractError> {
        let mut attempt = 1;
        loop {
            progress(ContractProgress::Connecting { attempt });
            match self.greet_once(endpoint, patience).await {
                Err(error) if error.is_worth_another_circuit() => {
                    if attempt == MAX_ATTEMPTS {
                        return Err(error.or_deadline(patience));
                    }
                    error.wait_for_another(patience).await?;
                    attempt += 1;
                }
                ended => return ended,
            }
        }
    }

    async fn greet_once(
        &self,
        endpoint: &Endpoint,
        patience: Patience,
    ) -> Result<Open, ContractError> {
        self.check_endpoint(endpoint)?;
        let dialling = patience.before_opening(self.transport().dial(endpoint, Service::Calls));
        let dialled = dialling.await;
        let dialled = dialled.ok_or(ContractError::Deadline(patience.seconds()))?;
        let mut stream = dialled?.stream;
        let wire = patience.on_the_wire();
        let now = self.clock().now();
        let welcome = receive_greeting(&mut *stream, endpoint, now, GREETING).await?;
        match self.equivocation(welcome.advert.authentic()).await? {
            // Tokens bought under a key of one's own would say whose they are.
            Some(proof) => Err(ContractError::Equivocation(Box::new(proof))),
            None => Ok(Open {
                stream,
                welcome,
                wire,
            }),
        }
    }

    /// Seals, and does the work that is asked for. With work, it returns at one of few times after
    /// the greeting.
    async fn seal(
        &self,
        welcome: &VerifiedGreeting,
        request: &ContractRequest,
        wire: Wire,
        progress: &mut Watch<'_>,
    ) -> Result<SealedContractRequest, ContractError> {
        let sealed = SealedContractRequest::seal(&welcome.sealing, request, &mut os_rng())?;
        if welcome.advert.admission != Admission::Pow {
            return Ok(sealed);
        }
        let effort = welcome.effort;
        progress(ContractProgress::Working { effort });
        let (provider, envelope) = (welcome.advert.provider, sealed.envelope().clone());
        let starts = [os_rng().next_u64(), os_rng().next_u64()];
        let working = offload(move |stop| {
            pow::perform(&provider, &envelope, effort, starts, || stop.is_asked_for())
        });
        let worked = timeout_at(wire.give_up, async {
            let work = working.await.ok().flatten();
            let time = pow::sending_time(effort, wire.opened.elapsed());
            sleep_until(wire.opened + time).await;
            work
        });
        let worked = worked.await;
        let work = worked
            .map_err(WireError::from)
            .map_err(ExchangeError::from)?;
        Ok(sealed.with_work(work.ok_or(ContractError::Interrupted)?))
    }

    async fn abandon(&self, id: ContractId) -> Result<(), ContractError> {
        let wallet = self.needed_wallet()?;
        blocking(move || wallet.abandon(&id)).await
    }

    pub(crate) fn needed_wallet(&self) -> Result<Wallet, ContractError> {
        let wallet = self.wallet().cloned();
        wallet.ok_or(ContractError::Negotiation(NegotiationError::Unavailable(
            "contracts need a wallet to go into",
        )))
    }
}

/// Blinds the tokens: some milliseconds.
async fn prepare(draft: Draft) -> Result<(Proposal, Proposed), ContractError> {
    let preparing = spawn_blocking(move || {
        let advert = draft.advert.clone().authenticate().map_err(|_| LAPSED)?;
        let seed = Zeroizing::new(draft.seed);
        Negotiation::resume(advert, draft.contract, seed, draft.invitation)?.propose()
    });
    Ok(preparing.await??)
}

const LAPSED: NegotiationError = NegotiationError::Refused(ContractRefusal::StaleKeys);

pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::WalletError> + Send + 'static,
) -> Result<T, ContractError> {
    Ok(spawn_blocking(work).await??)
}
