//! The caller's side of one call on one stream, step by step.
//!
//! ```text
//! provider -> caller   Advert    at once, unasked: no round trip is spent on it
//! caller -> provider   Call      sealed to the key that came with it
//! provider -> caller   Reply     or Refusal
//! caller -> provider   Ack       and the stream closes
//! ```
//!
//! The key comes on the call's own circuit, so a provider that hands out a
//! different key to every visitor learns nothing from seeing the key again.

use std::time::Duration;

use dlambda_proto::{
    Advert, AdvertError, ContractAnswer, Endpoint, Frame, FrameKind, Greeting, Refusal, Reply,
    SealingKey, UnixSeconds, Verified, decode,
};

use rand_core::Rng as _;
use tokio::io::AsyncReadExt as _;

use crate::transport::{BoxStream, Stream};
use crate::wire::{Budget, read_frame, write_frame};
use crate::{ExchangeError, WireError, os_rng};
use dlambda_crypto::seal::{SealedCall, SealedContractRequest};

/// A reply, opened, and what it weighed on the wire.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exchanged {
    /// The reply.
    pub reply: Reply,
    /// Bytes of the frames sent.
    pub sent_bytes: u64,
    /// Bytes of the frames received after the advert.
    pub received_bytes: u64,
}

/// A caller holds at most one advert and one reply at a time.
const HELD: usize = 66 << 20;

/// Time for the acknowledgement to be sent, and for the stream to close.
const ACK: Duration = Duration::from_secs(5);

/// What a provider says when a stream opens, believed.
#[derive(Debug)]
#[non_exhaustive]
pub struct VerifiedGreeting {
    /// The advert.
    pub advert: Verified<Advert>,
    /// What is sealed on this stream is sealed to this key.
    pub sealing: SealingKey,
    /// The work that a contract takes now.
    pub effort: u8,
}

/// Receives and verifies what a provider sends when a stream opens.
///
/// The advert has to be valid at a time up to half an hour before or after `now`, drawn anew each
/// time: so a provider that sets an edge near to `now` and watches whether we go on does not learn
/// what our clock shows.
///
/// # Errors
///
/// [`ExchangeError`]: nothing arrives before `deadline`
/// ([`ExchangeError::Silent`]), or what arrives must not be believed.
///
/// # Cancel safety
///
/// Not cancel safe: drop the stream too.
pub async fn receive_greeting(
    stream: &mut (impl Stream + ?Sized),
    served_by: &Endpoint,
    now: UnixSeconds,
    deadline: Duration,
) -> Result<VerifiedGreeting, ExchangeError> {
    let budget = Budget::new(HELD);
    let expected = [FrameKind::Advert, FrameKind::Refusal];
    let read = read_frame(stream, &expected, deadline, &budget).await;
    let (frame, _lease) = read.map_err(|error| match error {
        WireError::Deadline => ExchangeError::Silent,
        error => error.into(),
    })?;
    if frame.kind() == FrameKind::Refusal {
        return Err(refusal(&frame));
    }
    let greeting: Greeting = decode(frame.body())?;
    // The provider chose the edges, and sees whether we go on.
    let blurred = now.blurred(os_rng().next_u64());
    let advert = greeting.advert.verify(blurred, served_by)?;
    if greeting.effort > Greeting::MAX_EFFORT {
        return Err(AdvertError::Bound("effort").into());
    }
    let sealing = greeting.sealing.verify(&advert)?;
    Ok(VerifiedGreeting {
        advert,
        sealing,
        effort: greeting.effort,
    })
}

/// The advert of [`receive_greeting`], for those who want no contract.
///
/// # Errors
///
/// The same.
///
/// # Cancel safety
///
/// Not cancel safe: drop the stream too.
pub async fn receive_advert(
    stream: &mut (impl Stream + ?Sized),
    served_by: &Endpoint,
    now: UnixSeconds,
    deadline: Duration,
) -> Result<Verified<Advert>, ExchangeError> {
    let welcome = receive_greeting(stream, served_by, now, deadline).await?;
    Ok(welcome.advert)
}

/// Sends one request of issuance and opens the answer to it. The stream
/// can be used for the next one.
///
/// # Errors
///
/// [`ExchangeError`]: the provider refuses, breaks the protocol, vanishes, or
/// does not answer before `deadline`.
///
/// # Cancel safety
///
/// Not cancel safe: drop the stream too. The provider may have granted a
/// contract; the same proposal gets the same grant.
pub async fn exchange_contract(
    stream: &mut (impl Stream + ?Sized),
    request: SealedContractRequest,
    deadline: Duration,
) -> Result<ContractAnswer, ExchangeError> {
    let budget = Budget::new(HELD);
    let expected = [FrameKind::ContractAnswer, FrameKind::Refusal];
    let round_trip = async {
        let frame = request.frame().map_err(ExchangeError::Seal)?;
        match write_frame(stream, &frame, deadline).await {
            Ok(()) | Err(WireError::Lost(_)) => {}
            Err(error) => return Err(ExchangeError::Wire(error)),
        }
        Ok(read_frame(stream, &expected, deadline, &budget).await?)
    };
    let (frame, _lease) = tokio::time::timeout(deadline, round_trip)
        .await
        .map_err(WireError::from)??;
    if frame.kind() == FrameKind::Refusal {
        return Err(refusal(&frame));
    }
    request.open(frame.body()).map_err(ExchangeError::Open)
}

/// Sends a sealed call, waits for its reply and opens it. Then [`acknowledge`].
///
/// # Errors
///
/// [`ExchangeError`]: the provider refuses, breaks the protocol, vanishes, or
/// does not answer before `deadline`.
///
/// # Cancel safety
///
/// Not cancel safe: drop the stream too. The provider may have run the call.
pub async fn exchange(
    stream: &mut (impl Stream + ?Sized),
    call: SealedCall,
    deadline: Duration,
) -> Result<Exchanged, ExchangeError> {
    let sent = wire_len(call.frame());
    let budget = Budget::new(HELD);
    let expected = [FrameKind::Reply, FrameKind::Refusal];
    let round_trip = async {
        match write_frame(stream, call.frame(), deadline).await {
            // A provider that refuses early stops reading; its refusal is
            // worth more than "connection lost".
            Ok(()) | Err(WireError::Lost(_)) => {}
            Err(error) => return Err(error),
        }
        read_frame(stream, &expected, deadline, &budget).await
    };
    let (frame, _lease) = tokio::time::timeout(deadline, round_trip)
        .await
        .map_err(WireError::from)??;
    if frame.kind() == FrameKind::Refusal {
        return Err(refusal(&frame));
    }
    let reply = call.open(frame.body()).map_err(ExchangeError::Open)?;
    Ok(Exchanged {
        reply,
        sent_bytes: sent,
        received_bytes: wire_len(&frame),
    })
}

/// Acknowledges the reply and waits, briefly, until the provider has closed
/// the stream: only then is the acknowledgement known to have left. The reply
/// is in our hands already, so whatever goes wrong here changes nothing.
///
/// # Cancel safety
///
/// Cancel safe: the provider then waits for its own deadline.
pub async fn acknowledge(mut stream: BoxStream) {
    let Ok(ack) = Frame::new(FrameKind::Ack, Vec::new()) else {
        return;
    };
    if write_frame(&mut *stream, &ack, ACK).await.is_ok() {
        let _ = tokio::time::timeout(ACK, stream.read_u8()).await;
    }
}

fn refusal(frame: &Frame) -> ExchangeError {
    match decode::<Refusal>(frame.body()) {
        Ok(refusal) => ExchangeError::Refused(refusal),
        Err(error) => ExchangeError::Unreadable(error),
    }
}

fn wire_len(frame: &Frame) -> u64 {
    (dlambda_proto::FRAME_HEADER_LEN + frame.body().len()) as u64
}
