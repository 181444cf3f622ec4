//! Streams whose bytes are on their way for a while.

use std::collections::VecDeque;
use std::io;
use std::ops::RangeInclusive;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand_core::Rng as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

/// Two ends of a stream, over which each write takes one of these times, at random, and none
/// overtakes another. At most `buffer` bytes are on their way in each direction.
pub(super) fn delayed(delay: &RangeInclusive<Duration>, buffer: usize) -> (Delayed, Delayed) {
    let way = || {
        Arc::new(Mutex::new(Way {
            delay: delay.clone(),
            room: buffer,
            chunks: VecDeque::new(),
            is_closed: false,
            reader: None,
            writer: None,
        }))
    };
    let (there, back) = (way(), way());
    let near = Delayed::new(Arc::clone(&back), Arc::clone(&there));
    (near, Delayed::new(there, back))
}

/// One end.
pub(super) struct Delayed {
    from: Arc<Mutex<Way>>,
    to: Arc<Mutex<Way>>,
    arrival: Pin<Box<Sleep>>,
}

/// One direction.
struct Way {
    delay: RangeInclusive<Duration>,
    room: usize,
    /// When they arrive, and how much of them has been read.
    chunks: VecDeque<(Instant, Vec<u8>, usize)>,
    is_closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Delayed {
    fn new(from: Arc<Mutex<Way>>, to: Arc<Mutex<Way>>) -> Self {
        let arrival = Box::pin(sleep_until(Instant::now()));
        Self { from, to, arrival }
    }
}

impl Way {
    fn push(&mut self, bytes: &[u8]) {
        let (least, most) = (*self.delay.start(), *self.delay.end());
        let share = f64::from(crate::os_rng().next_u32()) / f64::from(u32::MAX);
        let arrives = Instant::now() + least + most.saturating_sub(least).mul_f64(share);
        let last = self.chunks.back().map(|(arrives, ..)| *arrives);
        let arrives = last.map_or(arrives, |last| last.max(arrives));
        self.chunks.push_back((arrives, bytes.to_vec(), 0));
        self.room -= bytes.len();
        wake(&mut self.reader);
    }

    fn close(&mut self) {
        self.is_closed = true;
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

fn lock(way: &Mutex<Way>) -> MutexGuard<'_, Way> {
    // It is whole between any two operations on it.
    way.lock().unwrap_or_else(PoisonError::into_inner)
}

impl AsyncRead for Delayed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { from, arrival, .. } = self.get_mut();
        let mut way = lock(from);
        let Some((arrives, bytes, read)) = way.chunks.front_mut() else {
            if way.is_closed {
                return Poll::Ready(Ok(()));
            }
            way.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if *arrives > Instant::now() {
            arrival.as_mut().reset(*arrives);
            // Whatever it says, another look is due no sooner.
            if arrival.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
        let len = buffer.remaining().min(bytes.len() - *read);
        buffer.put_slice(&bytes[*read..*read + len]);
        *read += len;
        if *read == bytes.len() {
            way.chunks.pop_front();
        }
        way.room += len;
        wake(&mut way.writer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Delayed {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut way = lock(&self.to);
        if way.is_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let len = bytes.len().min(way.room);
        if len == 0 && !bytes.is_empty() {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        way.push(&bytes[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.to).close();
        Poll::Ready(Ok(()))
    }
}

impl Drop for Delayed {
    fn drop(&mut self) {
        lock(&self.to).close();
        // Nobody will read what is on its way to us.
        let mut from = lock(&self.from);
        from.chunks.clear();
        from.close();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn bytes_arrive_in_order_each_after_its_time() {
        let (mut near, mut far) = delayed(&(150 * MS..=400 * MS), 1 << 10);
        let begun = Instant::now();
        for number in 0..50_u8 {
            near.write_all(&[number]).await.expect("is open");
        }
        drop(near);
        let first = far.read_u8().await.expect("arrives");
        let took = begun.elapsed();
        assert!(
            first == 0 && (150 * MS..=401 * MS).contains(&took),
            "{took:?}"
        );
        let mut rest = Vec::new();
        far.read_to_end(&mut rest).await.expect("ends");
        assert_eq!(rest, (1..50).collect::<Vec<u8>>());
        assert!(begun.elapsed() <= 401 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_writer_waits_for_room_and_learns_that_its_reader_is_gone() {
        let (mut near, mut far) = delayed(&(MS..=MS), 10);
        let writing = near.write_all(&[7; 25]);
        let reading = async {
            let mut read = [0; 25];
            far.read_exact(&mut read).await.map(|_| read)
        };
        let (written, read) = tokio::join!(writing, reading);
        written.expect("is open");
        assert_eq!(read.expect("arrives"), [7; 25]);
        drop(far);
        assert!(near.write_all(&[7]).await.is_err());
    }
}
