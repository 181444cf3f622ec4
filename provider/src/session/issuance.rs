//! The cold phase: contracts asked for, granted and confirmed.
//!
//! What costs little comes first: work before opening, terms before tokens.
//! Tokens are issued one proposal at a time, so that calls keep their
//! processors, and everything is on disk before it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_crypto::negotiation::{consider, grant, is_confirmed};
use dlambda_crypto::seal::OpenedContractRequest;
use dlambda_crypto::work;
use dlambda_privacy::WireError;
use dlambda_privacy::wire::{read_frame, write_frame};
use dlambda_proto::{
    Admission, ContractAnswer, ContractEnvelope, ContractId, ContractRefusal, ContractRequest,
    Frame, FrameKind, Proposal, Refusal, decode, encode,
};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::epoch::keys::EpochKeysRef;
use crate::provider::Shared;
use crate::session::admission::{StreamPermit, StreamState};
use crate::session::record::RecordingStream;
use crate::status::Ending;
use crate::store::StoreError;

/// Requests on one stream: a proposal, two counter-offers, a confirmation.
const MAX_REQUESTS: usize = 4;
/// Proposals that wait for their turn.
const MAX_WAITING: usize = 16;
/// A proposal that would wait for longer is refused.
const MAX_WAIT: Duration = Duration::from_secs(20);
/// Contracts of one epoch: 10 KB each on disk at most, two epochs at a time. A
/// flood must not fill the disk, on which calls depend, too.
const MAX_CONTRACTS: u64 = 1 << 17;
/// For the next request on a stream.
const NEXT: Duration = Duration::from_secs(60);

/// The desk where contracts are made.
pub(crate) struct IssuanceLimits {
    waiting: Semaphore,
    issuing: Arc<Semaphore>,
}

impl IssuanceLimits {
    pub(crate) fn new() -> Self {
        Self {
            waiting: Semaphore::new(MAX_WAITING),
            issuing: Arc::new(Semaphore::new(1)),
        }
    }
}

/// What a stream has come to. One work pays for one contract.
struct Issuance {
    /// Work that the next request must show.
    effort: Option<u8>,
    /// The proposal that was granted.
    granted: Option<[u8; 32]>,
}

/// Serves a stream whose first request is in `frame`; `effort` is what its
/// greeting asked for.
///
/// # Errors
///
/// The refusal to send instead of an answer.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    tee: &mut RecordingStream,
    frame: Frame,
    effort: u8,
    permit: &StreamPermit,
) -> Result<Ending, Refusal> {
    let mut frame = frame;
    let mut issuance = Issuance {
        effort: Some(effort),
        granted: None,
    };
    for _ in 0..MAX_REQUESTS {
        let answer = answer(shared, tee, frame, &mut issuance).await?;
        let deadlines = &shared.config.deadlines;
        // It keeps its place while it goes on.
        permit.progressed();
        if write_frame(tee, &answer, deadlines.reply).await.is_err() {
            return Ok(Ending::Disconnected);
        }
        let expected = [FrameKind::Contract, FrameKind::Ack];
        let next = read_frame(tee, &expected, NEXT, &shared.receive_budget).await;
        frame = match next {
            Ok((next, _))
                if next.kind() == FrameKind::Contract && permit.enter(StreamState::Unpaid) =>
            {
                next
            }
            Ok((next, _)) if next.kind() == FrameKind::Contract => return Err(Refusal::Busy),
            Ok(_) | Err(WireError::Lost(_) | WireError::Deadline) => break,
            Err(_) => return Err(Refusal::Malformed),
        };
    }
    Ok(Ending::Negotiated)
}

async fn answer(
    shared: &Arc<Shared>,
    tee: &mut RecordingStream,
    frame: Frame,
    issuance: &mut Issuance,
) -> Result<Frame, Refusal> {
    let envelope: ContractEnvelope = decode(&frame.into_body()).map_err(|_| Refusal::Malformed)?;
    let now = shared.clock.now();
    let opening = shared.keyring().keys_ref(envelope.epoch, now)?;
    let place = shared.contracts.waiting.try_acquire();
    let _waiting = place.map_err(|_| Refusal::Busy)?;
    let turn = timeout(MAX_WAIT, shared.contracts.issuing.acquire()).await;
    let Ok(Ok(_turn)) = turn else {
        return Err(Refusal::Busy);
    };
    let started = Instant::now();
    if let Some(record) = &mut tee.record {
        record.begin_request();
        record.encapsulated_key = Some(envelope.encapsulated_key);
    }
    let opened = open(shared, opening.clone(), envelope, issuance.effort.take()).await?;
    if let Some(record) = &mut tee.record {
        record.request = Some(encode(&opened.request));
        record.reply_secret = Some(opened.answerer.dangerously_reveal());
    }
    let for_blocking = Arc::clone(shared);
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
    let deciding = spawn_blocking(move || decide(&for_blocking, &opening, request));
    let decided = deciding.await.unwrap_or(Err(Refusal::Busy));
    shared.spent_on_contracts(started.elapsed());
    let decided = decided?;
    match &decided {
        ContractAnswer::Granted(_) => issuance.granted = proposed,
        ContractAnswer::Confirmed => {}
        _ => shared.counters.count_not_granted(),
    }
    if let Some(record) = &mut tee.record {
        record.reply = Some(encode(&decided));
    }
    opened.answerer.seal(&decided).map_err(|_| Refusal::Busy)
}

/// Checks the work, and opens what is worth opening.
async fn open(
    shared: &Arc<Shared>,
    opening: EpochKeysRef,
    envelope: ContractEnvelope,
    effort: Option<u8>,
) -> Result<OpenedContractRequest, Refusal> {
    let shared = Arc::clone(shared);
    let opened = spawn_blocking(move || {
        if opening.advert.admission == Admission::Pow
            && let Some(effort) = effort
        {
            check_work(&shared, &opening, &envelope, effort)?;
        }
        let opened = opening.secret.open_contract(&envelope);
        opened.map_err(|_| Refusal::CannotOpen)
    });
    opened.await.unwrap_or(Err(Refusal::Busy))
}

/// Work is done once and good once: whoever sends it again has done none.
fn check_work(
    shared: &Shared,
    opening: &EpochKeysRef,
    envelope: &ContractEnvelope,
    effort: u8,
) -> Result<(), Refusal> {
    let (epoch, one_time) = (envelope.epoch, &envelope.encapsulated_key);
    // First what costs nothing.
    if shared.keyring().remembers(epoch, one_time) {
        return Err(Refusal::Replayed);
    }
    if !work::verify(&opening.advert.provider, envelope, effort) {
        return Err(Refusal::TooLittleWork);
    }
    shared.keyring().remember(epoch, one_time)
}

/// Blocks, on processor and disk.
fn decide(
    shared: &Shared,
    opening: &EpochKeysRef,
    request: ContractRequest,
) -> Result<ContractAnswer, Refusal> {
    match request {
        ContractRequest::Propose(proposal) => propose(shared, opening, &proposal),
        ContractRequest::Confirm {
            contract,
            signature,
        } => confirm(shared, &contract, signature),
        _ => Ok(ContractAnswer::Refused(ContractRefusal::Malformed)),
    }
}

fn propose(
    shared: &Shared,
    opening: &EpochKeysRef,
    proposal: &Proposal,
) -> Result<ContractAnswer, Refusal> {
    let digest = proposal.digest();
    if let Some(stored) = shared.store.grant(&digest).map_err(fault)? {
        return Ok(ContractAnswer::Granted(stored.grant));
    }
    if let Err(answer) = consider(proposal, &opening.advert, &shared.terms) {
        return Ok(answer);
    }
    let epoch = proposal.contract.epoch;
    if shared.store.granted_in(epoch).map_err(fault)? >= MAX_CONTRACTS {
        return Ok(ContractAnswer::Refused(ContractRefusal::Exhausted));
    }
    let offer = shared.keyring().template();
    let granted = match grant(proposal, &offer.identity, &opening.issuers) {
        Ok(granted) => granted,
        Err(reason) => return Ok(ContractAnswer::Refused(reason)),
    };
    let recorded = shared
        .store
        .record_grant(digest, &proposal.contract, &granted);
    match recorded {
        Ok(stored) => {
            shared.counters.count_granted();
            Ok(ContractAnswer::Granted(stored.grant))
        }
        Err(StoreError::ContractTaken) => Ok(ContractAnswer::Refused(ContractRefusal::Malformed)),
        Err(error) => Err(fault(error)),
    }
}

fn confirm(
    shared: &Shared,
    id: &ContractId,
    signature: [u8; 64],
) -> Result<ContractAnswer, Refusal> {
    let Some((contract, ours)) = shared.store.contract(id).map_err(fault)? else {
        return Ok(ContractAnswer::Refused(ContractRefusal::UnknownContract));
    };
    if !is_confirmed(contract, ours, signature) {
        return Ok(ContractAnswer::Refused(ContractRefusal::BadSignature));
    }
    shared.store.confirm(id, signature).map_err(fault)?;
    Ok(ContractAnswer::Confirmed)
}

fn fault(error: StoreError) -> Refusal {
    tracing::error!(%error, "a contract could not be written down");
    Refusal::Busy
}
