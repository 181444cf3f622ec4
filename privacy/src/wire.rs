//! Frames on a stream, with a deadline and a memory budget on every one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use dlambda_proto::{FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::WireError;

/// Bytes that may be in the process of being received, over all streams.
///
/// A peer that announces a long frame gets memory only as its bytes arrive,
/// and only while the budget lasts.
#[derive(Clone, Debug)]
pub struct ReceiveBudget(Arc<Semaphore>);

/// A part of a [`ReceiveBudget`], given back when dropped.
#[derive(Debug, Default)]
pub struct Reservation(Option<OwnedSemaphorePermit>);

/// Received bodies grow by this much at a time.
const STEP: usize = 64 << 10;

impl ReceiveBudget {
    /// A budget of `bytes`, rounded up to 64 KiB.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes.div_ceil(STEP))))
    }

    /// Takes `bytes` at once, rounded up to 64 KiB; `None` if they are not left.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<Reservation> {
        let steps = u32::try_from(bytes.div_ceil(STEP)).ok()?;
        let permit = Arc::clone(&self.0).try_acquire_many_owned(steps).ok()?;
        Some(Reservation(Some(permit)))
    }

    fn grow(&self, reservation: &mut Reservation) -> Result<(), WireError> {
        let permit = Arc::clone(&self.0)
            .try_acquire_owned()
            .map_err(|_| WireError::NoBudget)?;
        match &mut reservation.0 {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }
}

/// Receives one frame of an expected kind.
///
/// # Errors
///
/// [`WireError`]: the header is unacceptable, the stream ends, `deadline`
/// passes, or the budget is exhausted.
///
/// # Cancel safety
///
/// Not cancel safe: bytes already received are lost. Drop the stream too.
pub async fn read_frame<S>(
    stream: &mut S,
    expected: &[FrameKind],
    deadline: Duration,
    budget: &ReceiveBudget,
) -> Result<(Frame, Reservation), WireError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    timeout(deadline, read_frame_inner(stream, expected, budget))
        .await
        .map_err(|_| WireError::Deadline)?
}

async fn read_frame_inner<S>(
    stream: &mut S,
    expected: &[FrameKind],
    budget: &ReceiveBudget,
) -> Result<(Frame, Reservation), WireError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    let mut header = [0; FRAME_HEADER_LEN];
    stream
        .read_exact(&mut header)
        .await
        .map_err(WireError::Lost)?;
    let header = FrameHeader::parse(header, expected)?;
    let total = header.body_len() as usize;
    let mut reservation = Reservation::default();
    let mut body = Vec::new();
    while body.len() < total {
        budget.grow(&mut reservation)?;
        let start = body.len();
        let end = total.min(start + STEP);
        body.resize(end, 0);
        stream
            .read_exact(&mut body[start..end])
            .await
            .map_err(WireError::Lost)?;
    }
    Ok((Frame::new(header.kind(), body)?, reservation))
}

/// Sends one frame and flushes it.
///
/// # Errors
///
/// [`WireError::Lost`] if the stream ends, [`WireError::Deadline`] if the peer
/// does not take it in time.
///
/// # Cancel safety
///
/// Not cancel safe: a part of the frame may have been sent. Drop the stream too.
pub async fn write_frame<S>(
    stream: &mut S,
    frame: &Frame,
    deadline: Duration,
) -> Result<(), WireError>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    let send = async {
        stream.write_all(&frame.header()).await?;
        stream.write_all(frame.body()).await?;
        stream.flush().await
    };
    timeout(deadline, send)
        .await
        .map_err(|_| WireError::Deadline)?
        .map_err(|error: io::Error| WireError::Lost(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn call(len: usize) -> Frame {
        Frame::new(FrameKind::Call, vec![1; len]).expect("within limits")
    }

    async fn pass(
        frame: &Frame,
        budget: &ReceiveBudget,
    ) -> Result<(Frame, Reservation), WireError> {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let sent = write_frame(&mut near, frame, SECOND);
        let received = read_frame(&mut far, &[FrameKind::Call], SECOND, budget);
        let (_, received) = tokio::join!(sent, received);
        received
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_passes_and_gives_its_memory_back() {
        let budget = ReceiveBudget::new(1 << 20);
        let (frame, reservation) = pass(&call(300_000), &budget).await.expect("passes");
        assert_eq!(frame.body().len(), 300_000);
        assert_eq!(budget.0.available_permits(), 16 - 5);
        drop(reservation);
        assert_eq!(budget.0.available_permits(), 16);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_costs_no_memory() {
        let budget = ReceiveBudget::new(1 << 20);
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let header = call(0).header();
        let lie = [&header[..2], &(50_u32 << 20).to_be_bytes()].concat();
        near.write_all(&lie).await.expect("fits");
        let read = read_frame(&mut far, &[FrameKind::Call], SECOND, &budget);
        let held = async {
            tokio::time::sleep(SECOND / 2).await;
            budget.0.available_permits()
        };
        let (read, held) = tokio::join!(read, held);
        assert_eq!(held, 15, "one step only");
        assert!(matches!(read, Err(WireError::Deadline)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_bounds_what_is_received_at_once() {
        let budget = ReceiveBudget::new(128 << 10);
        let result = pass(&call(200_000), &budget).await;
        assert!(matches!(result, Err(WireError::NoBudget)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_truncated_frame_is_a_lost_connection() {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        near.write_all(&call(100).header()).await.expect("fits");
        drop(near);
        let budget = ReceiveBudget::new(1 << 20);
        let result = read_frame(&mut far, &[FrameKind::Call], SECOND, &budget).await;
        assert!(matches!(result, Err(WireError::Lost(_))));
    }
}
