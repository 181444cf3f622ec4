//! One session: one stream, and on it one call or one negotiation.

pub(crate) mod admission;
pub(crate) mod call;
pub(crate) mod io;
pub(crate) mod issuance;
pub(crate) mod record;
pub(crate) mod redemption;

use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_crypto::padding;
use dlambda_crypto::seal::{OpenedCall, ReplySealer};
use dlambda_privacy::WireError;
use dlambda_privacy::transport::{Connection, Incoming};
use dlambda_privacy::wire::{
    Lease, read_frame, read_frame_watched, write_frame, write_frame_watched,
};
use dlambda_proto::{CallToken, Completion, Frame, FrameError, FrameKind, Refusal, Reply, encode};
use tokio::io::AsyncReadExt as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::epoch::Epochs;
use crate::status::{Counters, SessionOutcome};

use self::admission::{StreamPermit, StreamState};
use self::call::{CallHandler, Opened, busy};
use self::io::SessionIo;
use self::issuance::IssuanceHandler;
use self::record::{Recorder, RecordingStream};
use self::redemption::closes_token;

/// Longest time that a frame of the size that Nym carries may need to drain there.
const MAX_DRAIN: Duration = Duration::from_secs(150);

/// How long the work that a greeting asks for is enough. Streams that are opened while little is
/// asked, and kept, do not pay less later.
const EFFORT_HOLDS: Duration = Duration::from_secs(60);

/// Bytes that every stream may hold without their being counted; the number of streams bounds them.
const UNCOUNTED: usize = 128 << 10;

/// Serves streams. All share it.
pub(crate) struct Session {
    pub(crate) calls: CallHandler,
    pub(crate) contracts: Arc<IssuanceHandler>,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) io: Arc<SessionIo>,
    pub(crate) recorder: Recorder,
    pub(crate) counters: Arc<Counters>,
    pub(crate) stop: CancellationToken,
}

/// One stream.
struct Caller<'a> {
    stream: RecordingStream,
    /// Bytes of the largest frame body that the transport carries.
    max_frame: usize,
    permit: &'a StreamPermit,
}

impl Session {
    /// Serves one stream to its end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a running function is ended, the stream closed.
    pub(crate) async fn serve(&self, incoming: Incoming, permit: &StreamPermit) {
        let _open = self.counters.start_session();
        let Connection {
            stream, max_frame, ..
        } = incoming.connection;
        let mut caller = Caller {
            stream: self.recorder.record(stream, incoming.circuit),
            max_frame,
            permit,
        };
        let outcome = tokio::select! {
            outcome = self.converse(&mut caller) => outcome,
            // Nothing is said to it: a refusal could be waited for.
            () = permit.evicted() => SessionOutcome::Evicted,
        };
        self.counters.count(outcome);
        caller.stream.finish();
    }

    /// The whole conversation. What the caller did wrong is answered with a
    /// refusal where that makes sense; one that disconnected is let go.
    async fn converse(&self, caller: &mut Caller<'_>) -> SessionOutcome {
        let (deadlines, permit) = (&self.io.deadlines, caller.permit);
        let effort = self.contracts.effort();
        let greeted = Instant::now();
        let Some(greeting) = self.epochs.greeting(effort) else {
            return SessionOutcome::Fault;
        };
        let stream = &mut caller.stream;
        let greeting = write_frame(stream, &greeting, deadlines.advert).await;
        if greeting.is_err() {
            return SessionOutcome::Disconnected;
        }
        let budget = &self.io.receive_budget;
        let expected = [FrameKind::Call, FrameKind::Contract];
        let progressed = || permit.progressed();
        let first = read_frame_watched(stream, &expected, deadlines.call, budget, progressed);
        let received = tokio::select! {
            received = first => received,
            // Only calls that are here already are finished when we stop.
            () = self.stop.cancelled() => return SessionOutcome::Disconnected,
        };
        let served = match received {
            Ok((frame, _lease)) if !permit.enter(StreamState::Unpaid) => {
                drop(frame);
                Err(Refusal::Busy)
            }
            Ok((frame, _lease)) if frame.kind() == FrameKind::Contract => {
                let effort = match greeted.elapsed() {
                    recent if recent <= EFFORT_HOLDS => effort,
                    _ => effort.max(self.contracts.effort()),
                };
                Box::pin(self.contracts.serve(stream, frame, effort, permit)).await
            }
            Ok(received) => Box::pin(self.call(caller, received)).await,
            Err(WireError::Lost(_)) => return SessionOutcome::Disconnected,
            Err(error) => Err(refusal_for(&error)),
        };
        let _ = permit.enter(StreamState::Finished);
        match served {
            Ok(outcome) => outcome,
            Err(refusal) => self.refuse(&mut caller.stream, refusal).await,
        }
    }

    /// Serves a call, whose frame is here.
    async fn call(
        &self,
        caller: &mut Caller<'_>,
        (frame, lease): (Frame, Lease),
    ) -> Result<SessionOutcome, Refusal> {
        let _running = self.counters.start_call();
        let arrived = Instant::now();
        let opened = self.open(frame).await?;
        let stream = &mut caller.stream;
        stream.request_received(opened.encapsulated_key);
        stream.request_opened(|| {
            let secret = opened.call.replier.dangerously_reveal();
            (encode(&opened.call.request), secret)
        });
        let OpenedCall { request, replier } = opened.call;
        // It was not looked at on a plan that needs no token.
        let token = request.token.filter(|_| opened.plan.needs_token);
        let (plan, keys) = (&opened.plan, &opened.keys);
        let running = self.calls.run(request, plan, keys, arrived, caller.permit);
        let reply = tokio::select! {
            reply = running => reply,
            () = hang_up(stream) => return Ok(SessionOutcome::Disconnected),
        };
        // The request is gone; its memory must not wait for the reply to be taken.
        drop(lease);
        self.deliver(caller, reply, replier, token).await
    }

    /// Seals and sends a reply, and waits for its acknowledgement, which closes the token.
    async fn deliver(
        &self,
        caller: &mut Caller<'_>,
        mut reply: Reply,
        replier: ReplySealer,
        token: Option<CallToken>,
    ) -> Result<SessionOutcome, Refusal> {
        let (deadlines, permit) = (&self.io.deadlines, caller.permit);
        // Many callers who take their time to take large replies must not fill
        // our memory: what is over the budget becomes a short "busy".
        let sending = self.reserve_reply(&mut reply).await;
        let stream = &mut caller.stream;
        stream.replying(|| encode(&reply));
        let outcome = SessionOutcome::of(&reply);
        let closes = closes_token(&reply.completion);
        let sealing = spawn_blocking(move || {
            let body = replier.seal(&reply).ok()?;
            Frame::new(FrameKind::Reply, body).ok()
        });
        let Ok(Some(frame)) = sealing.await else {
            return Ok(SessionOutcome::Fault);
        };
        if frame.body().len() > caller.max_frame {
            return Err(Refusal::AnswerTooLarge);
        }
        let drain = drain_time(&frame);
        let progressed = || permit.progressed();
        let sent = write_frame_watched(stream, &frame, deadlines.reply, &sending, progressed).await;
        if sent.is_err() {
            return Ok(SessionOutcome::Disconnected);
        }
        drop(sending);
        let _ = permit.enter(StreamState::Finished);
        let budget = &self.io.receive_budget;
        let ack = read_frame(stream, &[FrameKind::Ack], deadlines.ack + drain, budget).await;
        if let (Ok(_), Some(token), true) = (ack, token, closes) {
            self.calls.redeemer.acknowledge(&token).await;
        }
        Ok(outcome)
    }

    /// Opens a call, if there is memory for it.
    async fn open(&self, frame: Frame) -> Result<Opened, Refusal> {
        // While it is opened it is here four times: sealed, padded, taken apart,
        // and encoded again to see that there was no other way. One is counted.
        let more = 3 * frame.body().len();
        let counted = if more > UNCOUNTED { more } else { 0 };
        let more = self.io.receive_budget.reserve_to_work(counted).await;
        let _more = more.map_err(|_| Refusal::Busy)?;
        self.calls.open(frame).await
    }

    async fn reserve_reply(&self, reply: &mut Reply) -> Lease {
        let weight = match &reply.completion {
            Completion::Exited { stdout, stderr, .. } => stdout.len() + stderr.len() + 1024,
            _ => 0,
        };
        // The reply and its sealed copy, as large as its bucket. A small one never waits behind
        // large ones.
        let needed = weight + padding::bucket(weight).unwrap_or(weight);
        let counted = if needed > UNCOUNTED { needed } else { 0 };
        if let Ok(lease) = self.io.send_budget.reserve(counted).await {
            return lease;
        }
        reply.completion = busy();
        reply.receipt = None;
        self.io.send_budget.nothing()
    }

    /// Tells the caller why, and lets go.
    async fn refuse(&self, stream: &mut RecordingStream, refusal: Refusal) -> SessionOutcome {
        tracing::debug!(?refusal, "call refused");
        if let Ok(frame) = Frame::new(FrameKind::Refusal, encode(&refusal)) {
            let _ = write_frame(stream, &frame, self.io.deadlines.ack).await;
            linger(stream).await;
        }
        SessionOutcome::Refused
    }
}

/// How long a frame may take to drain after it was written: over the mixnet it
/// leaves at the pace of cover traffic, 32 KiB a second when others have replies, too.
fn drain_time(frame: &Frame) -> Duration {
    let seconds = frame.body().len() >> 15;
    Duration::from_secs(seconds as u64).min(MAX_DRAIN)
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

/// Closing at once while the caller still sends would destroy the refusal on
/// its way; so a bounded rest is read and thrown away.
async fn linger(stream: &mut RecordingStream) {
    let mut sink = [0; 4096];
    let drain = async {
        for _ in 0..256 {
            if !matches!(stream.read(&mut sink).await, Ok(1..)) {
                return;
            }
        }
    };
    let _ = timeout(Duration::from_secs(5), drain).await;
}

/// Returns when the caller closes the stream, or sends what it has no business
/// sending while its function runs.
async fn hang_up(stream: &mut RecordingStream) {
    let _ = stream.read_u8().await;
}
