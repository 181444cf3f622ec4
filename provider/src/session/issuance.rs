//! Issuance: contracts asked for, granted and confirmed.
//!
//! What costs little comes first: work before opening, terms before tokens.
//! Tokens are issued one proposal at a time, so that calls keep their
//! processors, and everything is on disk before it is answered.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dlambda_crypto::negotiation::{Terms, consider, grant, is_confirmed};
use dlambda_crypto::pow;
use dlambda_crypto::seal::OpenedContractRequest;
use dlambda_privacy::WireError;
use dlambda_privacy::wire::{read_frame, write_frame};
use dlambda_proto::{
    Admission, ContractAnswer, ContractEnvelope, ContractId, ContractRefusal, ContractRequest,
    Frame, FrameKind, Proposal, Refusal, decode, encode,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::config::Contracts;
use crate::epoch::Epochs;
use crate::epoch::effort::Effort;
use crate::epoch::keys::EpochKeysRef;
use crate::session::admission::{StreamPermit, StreamState};
use crate::session::io::SessionIo;
use crate::session::record::RecordingStream;
use crate::status::{Counters, SessionOutcome};
use crate::store::{Store, StoreError};

/// Requests on one stream: a proposal, two counter-offers, a confirmation.
const MAX_REQUESTS: usize = 4;
/// Requests that wait, or are served.
const MAX_WAITING: usize = 16;
/// A request that would wait for longer is refused.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Contracts of one epoch: 10 KB each on disk at most, two epochs at a time. A
/// flood must not fill the disk, on which calls depend, too.
const MAX_CONTRACTS: u64 = 1 << 17;
/// For the next request on a stream.
const NEXT: Duration = Duration::from_secs(60);

/// Negotiates contracts, and issues their tokens.
pub(crate) struct IssuanceHandler {
    store: Store,
    epochs: Arc<Epochs>,
    terms: Terms,
    effort: Mutex<Effort>,
    /// The effort's time starts here.
    started: Instant,
    limits: IssuanceLimits,
    io: Arc<SessionIo>,
    counters: Arc<Counters>,
}

/// Bounds how many requests wait, and serves one at a time.
struct IssuanceLimits {
    waiting: Semaphore,
    serving: Semaphore,
}

/// The state of one stream. One proof of work buys one contract.
struct Issuance {
    /// Work that the next request must show.
    effort: Option<u8>,
    /// The proposal that was granted.
    granted: Option<[u8; 32]>,
}

impl IssuanceLimits {
    fn new() -> Self {
        Self {
            waiting: Semaphore::new(MAX_WAITING),
            serving: Semaphore::new(1),
        }
    }

    /// Waits to be the one request that is served; it counts as waiting until it is done.
    async fn acquire(&self) -> Result<[SemaphorePermit<'_>; 2], Refusal> {
        let waiting = self.waiting.try_acquire().map_err(|_| Refusal::Busy)?;
        match timeout(MAX_WAIT, self.serving.acquire()).await {
            Ok(Ok(serving)) => Ok([waiting, serving]),
            _ => Err(Refusal::Busy),
        }
    }
}

impl IssuanceHandler {
    pub(crate) fn new(
        config: &Contracts,
        store: Store,
        epochs: Arc<Epochs>,
        io: Arc<SessionIo>,
        counters: Arc<Counters>,
    ) -> Self {
        Self {
            store,
            epochs,
            terms: config.terms(),
            effort: Mutex::new(config.effort()),
            started: Instant::now(),
            limits: IssuanceLimits::new(),
            io,
            counters,
        }
    }

    /// The work that a contract takes now.
    pub(crate) fn effort(&self) -> u8 {
        let mut effort = self.effort.lock().unwrap_or_else(PoisonError::into_inner);
        effort.at(self.started.elapsed())
    }

    /// Serves a stream whose first request is in `frame`; `effort` is what its
    /// greeting asked for.
    ///
    /// # Errors
    ///
    /// The refusal to send instead of an answer.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        stream: &mut RecordingStream,
        frame: Frame,
        effort: u8,
        permit: &StreamPermit,
    ) -> Result<SessionOutcome, Refusal> {
        let mut frame = frame;
        let mut issuance = Issuance {
            effort: Some(effort),
            granted: None,
        };
        for _ in 0..MAX_REQUESTS {
            let answer = self.answer(stream, frame, &mut issuance).await?;
            // It keeps its permit while it goes on.
            permit.progressed();
            let within = self.io.deadlines.reply;
            if write_frame(stream, &answer, within).await.is_err() {
                return Ok(SessionOutcome::Disconnected);
            }
            let expected = [FrameKind::Contract, FrameKind::Ack];
            let next = read_frame(stream, &expected, NEXT, &self.io.receive_budget).await;
            frame = match next {
                Ok((next, _)) if next.kind() != FrameKind::Contract => break,
                Ok((next, _)) if permit.enter(StreamState::Unpaid) => next,
                Ok(_) => return Err(Refusal::Busy),
                Err(WireError::Lost(_) | WireError::Deadline) => break,
                Err(_) => return Err(Refusal::Malformed),
            };
        }
        Ok(SessionOutcome::Negotiated)
    }

    async fn answer(
        self: &Arc<Self>,
        stream: &mut RecordingStream,
        frame: Frame,
        issuance: &mut Issuance,
    ) -> Result<Frame, Refusal> {
        let envelope: ContractEnvelope =
            decode(&frame.into_body()).map_err(|_| Refusal::Malformed)?;
        let keys = self.epochs.keys(envelope.epoch)?;
        let _permits = self.limits.acquire().await?;
        let started = Instant::now();
        stream.request_received(envelope.encapsulated_key);
        let opened = self
            .open(keys.clone(), envelope, issuance.effort.take())
            .await?;
        stream.request_opened(|| {
            let secret = opened.answerer.dangerously_reveal();
            (encode(&opened.request), secret)
        });
        let request = opened.request;
        let proposed = match &request {
            ContractRequest::Propose(proposal) => Some(proposal.digest()),
            _ => None,
        };
        let is_another =
            proposed.is_some() && issuance.granted.is_some() && proposed != issuance.granted;
        if is_another {
            return Err(Refusal::Malformed);
        }
        let this = Arc::clone(self);
        let deciding = spawn_blocking(move || this.decide(&keys, request));
        let decided = deciding.await.unwrap_or(Err(Refusal::Busy));
        self.count_time(started.elapsed());
        let decided = decided?;
        match &decided {
            ContractAnswer::Granted(_) => issuance.granted = proposed,
            ContractAnswer::Confirmed => {}
            _ => self.counters.count_not_granted(),
        }
        stream.replying(|| encode(&decided));
        opened.answerer.seal(&decided).map_err(|_| Refusal::Busy)
    }

    /// Checks the proof of work, then opens the request.
    async fn open(
        self: &Arc<Self>,
        keys: EpochKeysRef,
        envelope: ContractEnvelope,
        effort: Option<u8>,
    ) -> Result<OpenedContractRequest, Refusal> {
        let epochs = Arc::clone(&self.epochs);
        let opened = spawn_blocking(move || {
            if keys.advert.admission == Admission::Pow
                && let Some(effort) = effort
            {
                check_work(&epochs, &keys, &envelope, effort)?;
            }
            let opened = keys.secret.open_contract(&envelope);
            opened.map_err(|_| Refusal::CannotOpen)
        });
        opened.await.unwrap_or(Err(Refusal::Busy))
    }

    /// Blocks, on processor and disk.
    fn decide(
        &self,
        keys: &EpochKeysRef,
        request: ContractRequest,
    ) -> Result<ContractAnswer, Refusal> {
        match request {
            ContractRequest::Propose(proposal) => self.propose(keys, &proposal),
            ContractRequest::Confirm {
                contract,
                signature,
            } => self.confirm(&contract, signature),
            _ => Ok(ContractAnswer::Refused(ContractRefusal::Malformed)),
        }
    }

    fn propose(&self, keys: &EpochKeysRef, proposal: &Proposal) -> Result<ContractAnswer, Refusal> {
        let digest = proposal.digest();
        if let Some(stored) = self.store.grant(&digest).map_err(fault)? {
            return Ok(ContractAnswer::Granted(stored.grant));
        }
        if let Err(answer) = consider(proposal, &keys.advert, &self.terms) {
            return Ok(answer);
        }
        let contract = &proposal.contract;
        if self.store.granted_in(contract.epoch).map_err(fault)? >= MAX_CONTRACTS {
            return Ok(ContractAnswer::Refused(ContractRefusal::Exhausted));
        }
        let template = self.epochs.template();
        let granted = match grant(proposal, &template.identity, &keys.issuers) {
            Ok(granted) => granted,
            Err(reason) => return Ok(ContractAnswer::Refused(reason)),
        };
        match self.store.record_grant(digest, contract, &granted) {
            Ok(stored) => {
                self.counters.count_granted();
                Ok(ContractAnswer::Granted(stored.grant))
            }
            Err(StoreError::ContractTaken) => {
                Ok(ContractAnswer::Refused(ContractRefusal::Malformed))
            }
            Err(error) => Err(fault(error)),
        }
    }

    fn confirm(&self, id: &ContractId, signature: [u8; 64]) -> Result<ContractAnswer, Refusal> {
        let Some((contract, ours)) = self.store.contract(id).map_err(fault)? else {
            return Ok(ContractAnswer::Refused(ContractRefusal::UnknownContract));
        };
        if !is_confirmed(contract, ours, signature) {
            return Ok(ContractAnswer::Refused(ContractRefusal::BadSignature));
        }
        self.store.confirm(id, signature).map_err(fault)?;
        Ok(ContractAnswer::Confirmed)
    }

    /// Counts time that was spent on a request.
    fn count_time(&self, time: Duration) {
        let mut effort = self.effort.lock().unwrap_or_else(PoisonError::into_inner);
        effort.spent(self.started.elapsed(), time);
    }
}

/// A proof of work is accepted once.
fn check_work(
    epochs: &Epochs,
    keys: &EpochKeysRef,
    envelope: &ContractEnvelope,
    effort: u8,
) -> Result<(), Refusal> {
    let (epoch, one_time) = (envelope.epoch, &envelope.encapsulated_key);
    // First what costs nothing.
    if epochs.remembers(epoch, one_time) {
        return Err(Refusal::Replayed);
    }
    if !pow::verify(&keys.advert.provider, envelope, effort) {
        return Err(Refusal::TooLittleWork);
    }
    epochs.remember(epoch, one_time)
}

fn fault(error: StoreError) -> Refusal {
    tracing::error!(%error, "a contract could not be written down");
    Refusal::Busy
}
