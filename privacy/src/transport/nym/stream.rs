//! A stream of bytes over a session of the mixnet.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use dlambda_nym_link::{Command, SessionId};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_util::sync::PollSender;

use super::flow::{MAX_BYTES, Next, Outgoing, PIECE, ReliableStream, StreamError, WINDOW};
use super::link::{HelperProcess, SessionEvent};

/// Writes that wait to be sent.
const WRITES: usize = 4;
/// Pieces that wait to be read: twice as many as can come at once.
const PIECES: usize = 2 * (WINDOW as usize + 1);
/// How long the end of a stream waits until all of it has arrived.
const LINGER: Duration = Duration::from_secs(30);
/// The same, once the other side has said that it sends no more: for our own
/// last words to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// A stream; its driver does the work.
pub(super) struct NymStream {
    pieces: mpsc::Receiver<io::Result<Chunk>>,
    current: Chunk,
    ended: bool,
    written: BytesMut,
    total: usize,
    writes: PollSender<Written>,
}

/// Written; an answer may come if it `is_all` for now.
struct Written {
    data: Bytes,
    is_all: bool,
}

/// Received and not yet read, with its share of the memory for that.
#[derive(Default)]
struct Chunk {
    data: Bytes,
    _share: Option<OwnedSemaphorePermit>,
}

/// What a driver needs.
pub(super) struct Session {
    /// The helper lives for as long as it has sessions.
    pub(super) _link: Arc<HelperProcess>,
    pub(super) id: SessionId,
    pub(super) is_caller: bool,
    pub(super) events: mpsc::Receiver<SessionEvent>,
    /// Messages that came before the one that opens the stream.
    pub(super) early: Vec<Vec<u8>>,
    pub(super) commands: mpsc::Sender<Command>,
    /// Bytes that may be received and not read, in KiB, over all sessions.
    pub(super) memory: Arc<Semaphore>,
    pub(super) started: Instant,
}

/// Moves bytes between a stream and its session until both are done.
struct Driver {
    session: Session,
    flow: ReliableStream<OwnedSemaphorePermit>,
    pieces: mpsc::Sender<io::Result<Chunk>>,
    writes: mpsc::Receiver<Written>,
}

impl NymStream {
    /// A stream on a session that `flow` describes; `first` is sent at once.
    pub(super) fn start(
        session: Session,
        flow: ReliableStream<OwnedSemaphorePermit>,
        first: Vec<Outgoing>,
    ) -> Self {
        let (to_stream, pieces) = mpsc::channel(PIECES);
        let (writes, from_stream) = mpsc::channel(WRITES);
        let driver = Driver {
            session,
            flow,
            pieces: to_stream,
            writes: from_stream,
        };
        tokio::spawn(driver.run(first));
        Self {
            pieces,
            current: Chunk::default(),
            ended: false,
            written: BytesMut::new(),
            total: 0,
            writes: PollSender::new(writes),
        }
    }

    /// Hands over what was written.
    fn poll_hand_over(&mut self, cx: &mut Context<'_>, is_all: bool) -> Poll<io::Result<()>> {
        if self.written.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let gone = |_| io::Error::from(io::ErrorKind::BrokenPipe);
        ready!(self.writes.poll_reserve(cx)).map_err(gone)?;
        let data = self.written.split().freeze();
        Poll::Ready(
            self.writes
                .send_item(Written { data, is_all })
                .map_err(gone),
        )
    }
}

impl AsyncRead for NymStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.data.is_empty() && !self.ended {
            match ready!(self.pieces.poll_recv(cx)) {
                Some(Ok(piece)) => self.current = piece,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => self.ended = true,
            }
        }
        let len = buf.remaining().min(self.current.data.len());
        buf.put_slice(&self.current.data[..len]);
        self.current.data.advance(len);
        if self.current.data.is_empty() {
            self.current = Chunk::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for NymStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.written.len() >= PIECE {
            ready!(self.poll_hand_over(cx, false))?;
        }
        let len = buf.len().min(PIECE - self.written.len());
        if self.total + len > MAX_BYTES {
            let reason = "more than a session of the mixnet carries";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::FileTooLarge, reason)));
        }
        self.total += len;
        self.written.extend_from_slice(&buf[..len]);
        Poll::Ready(Ok(len))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_hand_over(cx, true)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_hand_over(cx, true))?;
        self.writes.close();
        Poll::Ready(Ok(()))
    }
}

impl Driver {
    async fn run(mut self, first: Vec<Outgoing>) {
        let ended = async {
            self.send(first).await?;
            self.serve().await
        };
        if let Err(error) = ended.await {
            // Whoever reads is told; if nobody does, nobody minds.
            let _ = self.pieces.try_send(Err(error));
        }
        let Session { id, commands, .. } = self.session;
        let _ = commands.send(Command::Close { session: id }).await;
    }

    async fn serve(&mut self) -> io::Result<()> {
        let mut until: Option<Duration> = None;
        loop {
            if let Some(message) = self.session.early.pop() {
                self.take(Some(SessionEvent::Message(message))).await?;
                continue;
            }
            let now = self.now();
            if let Some(end) = until {
                let is_done = self.flow.is_acknowledged() && self.pieces.is_closed();
                if is_done || end <= now {
                    return Ok(());
                }
                if self.flow.heard_last() {
                    until = Some(end.min(now + FAREWELL));
                }
            }
            let is_over = until.is_some() && self.flow.heard_last();
            let probe = self.flow.probe_at().filter(|_| !is_over);
            let wake = probe.into_iter().chain(until).min();
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(self.session.started + at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                event = self.session.events.recv() => self.take(event).await?,
                written = self.writes.recv(), if until.is_none() => {
                    let now = self.now();
                    let sent = match written {
                        Some(Written { data, is_all: false }) => self.flow.send(&data, Next::More, now),
                        Some(Written { data, .. }) => self.flow.send(&data, Next::Wait, now),
                        None => {
                            until = Some(now + LINGER);
                            self.flow.send(&[], Next::End, now)
                        }
                    };
                    self.send(sent.map_err(broken)?).await?;
                }
                () = sleep => {
                    let asked = self.flow.probe(self.now());
                    self.send(asked).await?;
                }
            }
        }
    }

    fn now(&self) -> Duration {
        self.session.started.elapsed()
    }

    async fn take(&mut self, event: Option<SessionEvent>) -> io::Result<()> {
        let message = match event {
            Some(SessionEvent::Message(message)) => message,
            Some(SessionEvent::Dialed) => return Ok(()),
            Some(SessionEvent::Closed(_)) | None => {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        };
        if self.pieces.max_capacity() > 1 && self.pieces.capacity() <= PIECES / 2 {
            // As if it was lost on the way.
            return Ok(());
        }
        let share = u32::try_from(message.len().div_ceil(1 << 10)).unwrap_or(u32::MAX);
        let memory = Arc::clone(&self.session.memory);
        let Ok(share) = memory.try_acquire_many_owned(share) else {
            return Ok(());
        };
        let received = self.flow.receive(&message, share, self.now());
        let received = received.map_err(broken)?;
        for (data, share) in received.pieces {
            let piece = Chunk {
                data: data.into(),
                _share: Some(share),
            };
            // There is room, or the reader is gone.
            let _ = self.pieces.try_send(Ok(piece));
        }
        if received.is_last {
            // Nothing is sent to it any more: the reader sees the end.
            let (closed, _) = mpsc::channel(1);
            self.pieces = closed;
        }
        self.send(received.send).await
    }

    async fn send(&self, messages: Vec<Outgoing>) -> io::Result<()> {
        let session = self.session.id;
        for Outgoing { message, blocks } in messages {
            let message = message.into();
            let command = if self.session.is_caller {
                Command::Send {
                    session,
                    message,
                    surbs: blocks,
                }
            } else {
                Command::Reply { session, message }
            };
            let sent = self.session.commands.send(command).await;
            sent.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        }
        Ok(())
    }
}

fn broken(error: StreamError) -> io::Error {
    match error {
        StreamError::TooMuch => io::ErrorKind::FileTooLarge,
        StreamError::Malformed => io::ErrorKind::InvalidData,
        StreamError::Reset => io::ErrorKind::ConnectionReset,
    }
    .into()
}
