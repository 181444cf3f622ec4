//! One session: one stream, and on it one call or one negotiation.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_crypto::seal::OpenedCall;
use dlambda_crypto::{SealError, padding};
use dlambda_privacy::WireError;
use dlambda_privacy::transport::Incoming;
use dlambda_privacy::wire::{
    Lease, read_frame, read_frame_watched, write_frame, write_frame_watched,
};
use dlambda_proto::{
    CallEnvelope, Completion, Frame, FrameError, FrameKind, Plan, Refusal, Reply, decode, encode,
};
use tokio::io::AsyncReadExt as _;
use tokio::time::timeout;

use crate::cold;
use crate::execute::{busy, run};
use crate::keyring::Opening;
use crate::observe::{SessionRecord, Tee};
use crate::places::{Place, Standing};
use crate::service::Shared;
use crate::status::Ending;

/// A frame of the size that the mixnet carries takes no longer to leave.
const MOST_LEAVING: Duration = Duration::from_secs(150);

/// How long the work that a greeting asks for is enough. Streams that are opened while little is asked, and kept, do
/// not pay less later.
const EFFORT_HOLDS: Duration = Duration::from_secs(60);

/// Bytes that every stream may hold without their being counted; the number of streams bounds them.
const UNCOUNTED: usize = 128 << 10;

/// Serves one stream to its end.
///
/// # Cancel safety
///
/// Cancel safe: a running function is ended, the stream closed.
pub(crate) async fn serve(shared: &Arc<Shared>, incoming: Incoming, place: &Place) {
    let observer = shared.observer();
    let mut tee = Tee {
        stream: incoming.stream,
        record: observer
            .is_some()
            .then(|| SessionRecord::new(incoming.circuit)),
    };
    let ending = tokio::select! {
        ending = converse(shared, &mut tee, incoming.largest_frame, place) => ending,
        // Nothing is said to it: a refusal could be waited for.
        () = place.lost() => Ending::TurnedOut,
    };
    shared.counters.count(ending);
    if let (Some(observer), Some(mut record)) = (observer, tee.record) {
        record.ended = std::time::SystemTime::now();
        observer.session_ended(record);
    }
}

/// The whole conversation. What the caller did wrong is answered with a
/// refusal where that makes sense; a caller that vanished is let go.
async fn converse(shared: &Arc<Shared>, tee: &mut Tee, largest: usize, place: &Place) -> Ending {
    let deadlines = shared.config.deadlines;
    let effort = shared.effort();
    let greeted = Instant::now();
    let greeting = shared.keyring().greeting(effort);
    let Some(greeting) = greeting else {
        return Ending::Fault;
    };
    if write_frame(tee, &greeting, deadlines.advert).await.is_err() {
        return Ending::Vanished;
    }
    let budget = &shared.receive_budget;
    let expected = [FrameKind::Call, FrameKind::Contract];
    let moved = || place.moves();
    let first = read_frame_watched(tee, &expected, deadlines.call, budget, moved);
    let received = tokio::select! {
        received = first => received,
        // Only calls that are here already are finished when we stop.
        () = shared.stop.cancelled() => return Ending::Vanished,
    };
    let served = match received {
        Ok((frame, _lease)) if !place.comes_to(Standing::Asked) => {
            drop(frame);
            Err(Refusal::Busy)
        }
        Ok((frame, _lease)) if frame.kind() == FrameKind::Contract => {
            let effort = match greeted.elapsed() {
                recent if recent <= EFFORT_HOLDS => effort,
                _ => effort.max(shared.effort()),
            };
            Box::pin(cold::serve(shared, tee, frame, effort, place)).await
        }
        Ok(received) => Box::pin(call(shared, tee, received, largest, place)).await,
        Err(WireError::Lost(_)) => return Ending::Vanished,
        Err(error) => Err(refusal_for(&error)),
    };
    let _ = place.comes_to(Standing::Over);
    match served {
        Ok(ending) => ending,
        Err(refusal) => refuse(shared, tee, refusal).await,
    }
}

/// Serves a call, whose frame is here. The transport carries frames of `largest` bytes.
async fn call(
    shared: &Arc<Shared>,
    tee: &mut Tee,
    (frame, lease): (Frame, Lease),
    largest: usize,
    place: &Place,
) -> Result<Ending, Refusal> {
    let deadlines = &shared.config.deadlines;
    let _running = shared.counters.start_call();
    let arrived = Instant::now();
    let opened = open(shared, frame).await?;
    if let Some(record) = &mut tee.record {
        record.reply_secret = Some(opened.call.replier.dangerously_reveal());
        record.encapsulated_key = Some(opened.encapsulated_key);
        record.request = Some(encode(&opened.call.request));
    }
    let OpenedCall { request, replier } = opened.call;
    // On a plan for everybody nobody has looked at it.
    let token = request.token.filter(|_| opened.plan.needs_token);
    let mut answer = tokio::select! {
        reply = run(shared, request, &opened.plan, &opened.keys, arrived, place) => reply,
        () = hang_up(tee) => return Ok(Ending::Vanished),
    };
    // The request is gone; its memory must not wait for the answer to be taken.
    drop(lease);
    // Many callers who take their time to take large replies must not fill
    // our memory: what is over the budget becomes a short "busy".
    let sending = reserve_reply(shared, &mut answer).await;
    if let Some(record) = &mut tee.record {
        record.reply = Some(encode(&answer));
    }
    let ending = Ending::of(&answer);
    let over = is_over(&answer.completion);
    let sealing = tokio::task::spawn_blocking(move || {
        let body = replier.seal(&answer).ok()?;
        Frame::new(FrameKind::Reply, body).ok()
    });
    let Ok(Some(frame)) = sealing.await else {
        return Ok(Ending::Fault);
    };
    if frame.body().len() > largest {
        return Err(Refusal::AnswerTooLarge);
    }
    let leaving = leaving(&frame);
    let moved = || place.moves();
    let sent = write_frame_watched(tee, &frame, deadlines.reply, &sending, moved).await;
    if sent.is_err() {
        return Ok(Ending::Vanished);
    }
    drop(sending);
    let _ = place.comes_to(Standing::Over);
    // The acknowledgement closes the call; without one, time does.
    let budget = &shared.receive_budget;
    let ack = read_frame(tee, &[FrameKind::Ack], deadlines.ack + leaving, budget).await;
    if let (Ok(_), Some(token), true) = (ack, token, over) {
        shared.desk.close(&token).await;
    }
    Ok(ending)
}

/// How long a frame may take to leave after it was written: over the mixnet it
/// leaves at the pace of cover traffic, 32 KiB a second when others have answers, too.
fn leaving(frame: &Frame) -> Duration {
    let seconds = frame.body().len() >> 15;
    Duration::from_secs(seconds as u64).min(MOST_LEAVING)
}

/// Whether there is nothing more to be had for the token.
fn is_over(completion: &Completion) -> bool {
    matches!(
        completion,
        Completion::Exited { .. } | Completion::Stopped { .. } | Completion::FunctionUnusable(_)
    )
}

async fn reserve_reply(shared: &Shared, answer: &mut Reply) -> Lease {
    let weight = match &answer.completion {
        Completion::Exited { stdout, stderr, .. } => stdout.len() + stderr.len() + 1024,
        _ => 0,
    };
    // The answer and its sealed copy, as large as its bucket. A small one never waits behind large ones.
    let needed = weight + padding::bucket(weight).unwrap_or(weight);
    let counted = if needed > UNCOUNTED { needed } else { 0 };
    if let Ok(lease) = shared.send_budget.reserve(counted).await {
        return lease;
    }
    answer.completion = busy();
    answer.receipt = None;
    shared.send_budget.nothing()
}

struct Opened {
    call: OpenedCall,
    encapsulated_key: [u8; 32],
    plan: Plan,
    keys: Opening,
}

/// Opens a call on a blocking thread: a large one takes a while.
async fn open(shared: &Arc<Shared>, frame: Frame) -> Result<Opened, Refusal> {
    // While it is opened it is here four times: sealed, padded, taken apart,
    // and encoded again to see that there was no other way. One is counted.
    let more = 3 * frame.body().len();
    let counted = if more > UNCOUNTED { more } else { 0 };
    let more = shared.receive_budget.reserve_to_work(counted).await;
    let _more = more.map_err(|_| Refusal::Busy)?;
    let shared = Arc::clone(shared);
    let opening = tokio::task::spawn_blocking(move || open_blocking(&shared, frame));
    opening.await.unwrap_or(Err(Refusal::Busy))
}

fn open_blocking(shared: &Shared, frame: Frame) -> Result<Opened, Refusal> {
    let envelope: CallEnvelope = decode(&frame.into_body()).map_err(|_| Refusal::Malformed)?;
    let plan = shared.keyring().plan(&envelope).cloned();
    let plan = plan.ok_or(Refusal::UnknownPlan)?;
    let now = shared.clock.now();
    let keys = shared.keyring().opening(envelope.header.epoch, now)?;
    let call = keys.secret.open(&envelope).map_err(|error| match error {
        SealError::Open | SealError::BadKey => Refusal::CannotOpen,
        _ => Refusal::Malformed,
    })?;
    if !plan.needs_token {
        let (epoch, one_time) = (envelope.header.epoch, &envelope.encapsulated_key);
        shared.keyring().remember(epoch, one_time)?;
    }
    Ok(Opened {
        call,
        encapsulated_key: envelope.encapsulated_key,
        plan,
        keys,
    })
}

fn refusal_for(error: &WireError) -> Refusal {
    match error {
        WireError::Frame(FrameError::Version { .. }) => Refusal::UnsupportedVersion,
        WireError::Frame(FrameError::TooLong { .. }) => Refusal::TooLong,
        WireError::Deadline => Refusal::TooSlow,
        WireError::NoBudget => Refusal::Busy,
        _ => Refusal::Malformed,
    }
}

/// Tells the caller why, and lets go.
async fn refuse(shared: &Shared, tee: &mut Tee, refusal: Refusal) -> Ending {
    tracing::debug!(?refusal, "call refused");
    if let Ok(frame) = Frame::new(FrameKind::Refusal, encode(&refusal)) {
        let _ = write_frame(tee, &frame, shared.config.deadlines.ack).await;
        linger(tee).await;
    }
    Ending::Refused
}

/// Closing at once while the caller still sends would destroy the refusal on
/// its way; so a bounded rest is read and thrown away.
async fn linger(tee: &mut Tee) {
    let mut sink = [0; 4096];
    let drain = async {
        for _ in 0..256 {
            if !matches!(tee.read(&mut sink).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), drain).await;
}

/// Returns when the caller closes the stream, or sends what it has no business
/// sending while its function runs.
async fn hang_up(tee: &mut Tee) {
    let _ = tee.read_u8().await;
}
