//! Frames on a stream, with deadlines and a memory budget on every one.

use std::io;
use std::time::Duration;

use dlambda_proto::{FRAME_HEADER_LEN, Frame, FrameHeader, FrameKind};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::timeout;

use crate::WireError;
use crate::budget::STEP;

pub use crate::budget::{Budget, Lease};

/// For each 64 KiB of a frame, in either direction: 2 KiB a second, below which a peer stalls.
const STEP_DEADLINE: Duration = Duration::from_secs(30);

/// Receives one frame of an expected kind.
///
/// Its first 64 KiB are not counted; what is beyond them comes out of the
/// budget as it arrives. A frame that stalls loses its memory, and is given
/// up, when other streams need it.
///
/// # Errors
///
/// [`WireError`]: the header is unacceptable, the stream ends, `deadline`
/// passes, 64 KiB take longer than 30 s, or the budget is exhausted.
///
/// # Cancel safety
///
/// Not cancel safe: bytes already received are lost. Drop the stream too.
pub async fn read_frame<S>(
    stream: &mut S,
    expected: &[FrameKind],
    deadline: Duration,
    budget: &Budget,
) -> Result<(Frame, Lease), WireError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    read_frame_watched(stream, expected, deadline, budget, || {}).await
}

/// The same as [`read_frame`]; `moved` is called after the header, and after every 64 KiB.
///
/// # Errors
///
/// The same.
///
/// # Cancel safety
///
/// The same.
pub async fn read_frame_watched<S>(
    stream: &mut S,
    expected: &[FrameKind],
    deadline: Duration,
    budget: &Budget,
    moved: impl FnMut(),
) -> Result<(Frame, Lease), WireError>
where
    S: AsyncRead + Unpin + ?Sized,
{
    timeout(deadline, read_steps(stream, expected, budget, moved)).await?
}

async fn read_steps<S>(
    stream: &mut S,
    expected: &[FrameKind],
    budget: &Budget,
    mut moved: impl FnMut(),
) -> Result<(Frame, Lease), WireError>
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
    let mut lease = budget.lease(total);
    let mut body = Vec::new();
    while body.len() < total {
        moved();
        let start = body.len();
        let end = total.min(start + STEP);
        if start > 0 {
            lease.grow(end - start).await?;
        }
        lease.moves();
        body.resize(end, 0);
        step(&lease, stream.read_exact(&mut body[start..end])).await?;
    }
    lease.rests();
    Ok((Frame::new(header.kind(), body)?, lease))
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
        .await?
        .map_err(|error: io::Error| WireError::Lost(error))
}

/// Sends one frame, whose memory `lease` counts, and flushes it; `moved` is called after every 64
/// KiB.
///
/// # Errors
///
/// Those of [`write_frame`]; [`WireError::Deadline`] also if 64 KiB take
/// longer than 30 s, and [`WireError::NoBudget`] if the peer stalls and other
/// streams need the memory.
///
/// # Cancel safety
///
/// Not cancel safe: a part of the frame may have been sent. Drop the stream too.
pub async fn write_frame_watched<S>(
    stream: &mut S,
    frame: &Frame,
    deadline: Duration,
    lease: &Lease,
    mut moved: impl FnMut(),
) -> Result<(), WireError>
where
    S: AsyncWrite + Unpin + ?Sized,
{
    let send = async {
        step(lease, stream.write_all(&frame.header())).await?;
        for part in frame.body().chunks(STEP) {
            moved();
            lease.moves();
            step(lease, stream.write_all(part)).await?;
        }
        step(lease, stream.flush()).await
    };
    timeout(deadline, send).await?
}

/// One step of a frame: in time, and as long as no other frame needs the memory.
async fn step<T>(
    lease: &Lease,
    moving: impl Future<Output = io::Result<T>>,
) -> Result<(), WireError> {
    tokio::select! {
        biased;
        moved = timeout(STEP_DEADLINE, moving) => {
            moved?.map_err(WireError::Lost)?;
            Ok(())
        }
        () = lease.evicted() => Err(WireError::NoBudget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LONG: Duration = Duration::from_secs(300);

    fn call(len: usize) -> Frame {
        Frame::new(FrameKind::Call, vec![1; len]).expect("within limits")
    }

    async fn pass(frame: &Frame, budget: &Budget) -> Result<(Frame, Lease), WireError> {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let sent = write_frame(&mut near, frame, SECOND);
        let received = read_frame(&mut far, &[FrameKind::Call], SECOND, budget);
        let (_, received) = tokio::join!(sent, received);
        received
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_passes_and_gives_its_memory_back() {
        let budget = Budget::new(1 << 20);
        let (frame, lease) = pass(&call(300_000), &budget).await.expect("passes");
        assert_eq!(frame.body().len(), 300_000);
        assert_eq!(
            budget.free_bytes(),
            (16 - 4) * STEP,
            "the first is not counted"
        );
        drop(lease);
        assert_eq!(budget.free_bytes(), 16 * STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn an_announced_length_costs_no_memory() {
        let budget = Budget::new(1 << 20);
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        let header = call(0).header();
        let lie = [&header[..2], &(50_u32 << 20).to_be_bytes()].concat();
        near.write_all(&lie).await.expect("fits");
        let read = read_frame(&mut far, &[FrameKind::Call], SECOND, &budget);
        let held = async {
            tokio::time::sleep(SECOND / 2).await;
            budget.free_bytes()
        };
        let (read, held) = tokio::join!(read, held);
        assert_eq!(held, 1 << 20, "one step only, which is not counted");
        assert!(matches!(read, Err(WireError::Deadline)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_bounds_what_is_received_at_once() {
        let budget = Budget::new(128 << 10);
        let result = pass(&call(200_000), &budget).await;
        assert!(matches!(result, Err(WireError::NoBudget)));
    }

    #[tokio::test(start_paused = true)]
    async fn small_frames_pass_whatever_large_ones_hold() {
        let budget = Budget::new(1 << 20);
        let _all = budget.reserve(1 << 20).await.expect("is there");
        assert!(pass(&call(STEP), &budget).await.is_ok());
        assert!(pass(&call(STEP + 1), &budget).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stalls_gives_way_to_one_that_does_not() {
        let budget = Budget::new(1 << 20);
        let (mut near, mut far) = tokio::io::duplex(2 << 20);
        let frame = call(2 << 20);
        near.write_all(&frame.header()).await.expect("fits");
        near.write_all(&frame.body()[..1 << 20])
            .await
            .expect("fits");
        let stalled = read_frame(&mut far, &[FrameKind::Call], LONG, &budget);
        let other = async {
            tokio::time::sleep(3 * SECOND).await;
            pass(&call(300_000), &budget).await
        };
        let (stalled, other) = tokio::join!(stalled, other);
        assert!(matches!(stalled, Err(WireError::NoBudget)));
        assert!(other.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_gives_way_to_another() {
        let budget = Budget::new(1 << 20);
        let lease = budget.reserve(1 << 20).await.expect("is there");
        let (mut near, _far) = tokio::io::duplex(1 << 10);
        let frame = call(1 << 20);
        let slow = async move {
            let sent = write_frame_watched(&mut near, &frame, LONG, &lease, || {}).await;
            drop(lease);
            sent
        };
        let other = async {
            tokio::time::sleep(3 * SECOND).await;
            budget.reserve(1 << 20).await.is_ok()
        };
        let (slow, other) = tokio::join!(slow, other);
        assert!(matches!(slow, Err(WireError::NoBudget)));
        assert!(other);
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_too_slow_long_before_the_deadline() {
        let budget = Budget::new(1 << 20);
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        near.write_all(&call(100_000).header()).await.expect("fits");
        let begun = tokio::time::Instant::now();
        let trickle = async {
            while near.write_all(&[1]).await.is_ok() {
                tokio::time::sleep(SECOND).await;
            }
        };
        let read = read_frame(&mut far, &[FrameKind::Call], LONG, &budget);
        let ended = tokio::select! { read = read => read, () = trickle => unreachable!() };
        assert!(matches!(ended, Err(WireError::Deadline)));
        assert_eq!(begun.elapsed(), STEP_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_truncated_frame_is_a_lost_connection() {
        let (mut near, mut far) = tokio::io::duplex(1 << 10);
        near.write_all(&call(100).header()).await.expect("fits");
        drop(near);
        let budget = Budget::new(1 << 20);
        let result = read_frame(&mut far, &[FrameKind::Call], SECOND, &budget).await;
        assert!(matches!(result, Err(WireError::Lost(_))));
    }
}
