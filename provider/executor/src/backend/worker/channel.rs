//! Messages over a socket pair: `length (4, little endian) | message`, with a descriptor beside
//! some.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, BytesMut};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tokio::io::{AsyncReadExt as _, Interest};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::Notify;

const PREFIX: usize = 4;
/// Most of a buffer that is kept for, or shared with, the next message.
const KEPT: usize = 256 << 10;
/// Descriptors that may arrive with one piece of data.
const DESCRIPTORS: usize = 4;

/// Sends messages: at once if there is room in the socket, and otherwise as soon as there is.
///
/// The sender of a message writes it, without a task in between that would have to be woken first.
pub(crate) struct Outbox {
    stream: OwnedWriteHalf,
    waiting: Mutex<VecDeque<Chunk>>,
    more: Notify,
}

/// Bytes, and the descriptor that goes beside the first of them.
struct Chunk {
    bytes: BytesMut,
    descriptor: Option<OwnedFd>,
}

/// Receives messages of at most `most` bytes.
pub(crate) struct Receiver {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    most: usize,
    /// Whether descriptors are accepted. A worker is not trusted to send any.
    accepts: bool,
    descriptors: VecDeque<OwnedFd>,
}

impl Outbox {
    pub(crate) fn new(stream: OwnedWriteHalf) -> Self {
        Self {
            stream,
            waiting: Mutex::default(),
            more: Notify::new(),
        }
    }

    /// Sends a message after all that were sent before. What does not fit now is left to
    /// [`Outbox::drain`].
    pub(crate) fn send(&self, message: &[u8], descriptor: Option<OwnedFd>) -> io::Result<()> {
        let len = u32::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let mut waiting = self.waiting();
        let joins = |last: &&mut Chunk| descriptor.is_none() && last.bytes.len() < KEPT;
        let bytes = match waiting.back_mut().filter(joins) {
            Some(last) => &mut last.bytes,
            None => {
                waiting.push_back(Chunk {
                    bytes: BytesMut::with_capacity(PREFIX + message.len()),
                    descriptor,
                });
                // It was put there a moment ago.
                &mut waiting.back_mut().ok_or(io::ErrorKind::Other)?.bytes
            }
        };
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes.extend_from_slice(message);
        if !self.push(&mut waiting)? {
            self.more.notify_one();
        }
        Ok(())
    }

    /// Sends what did not fit, until the other end is gone.
    pub(crate) async fn drain(&self) -> io::Result<Infallible> {
        loop {
            self.more.notified().await;
            self.flush().await?;
        }
    }

    /// Waits until all is sent.
    pub(crate) async fn flush(&self) -> io::Result<()> {
        loop {
            self.stream.writable().await?;
            if self.push(&mut self.waiting())? {
                return Ok(());
            }
        }
    }

    /// Sends as much as fits now, and says whether that was all.
    fn push(&self, waiting: &mut VecDeque<Chunk>) -> io::Result<bool> {
        let stream: &UnixStream = self.stream.as_ref();
        while let Some(chunk) = waiting.front_mut() {
            let sent = match &chunk.descriptor {
                Some(descriptor) => stream.try_io(Interest::WRITABLE, || {
                    send_once(stream.as_fd(), &chunk.bytes, descriptor.as_fd())
                }),
                None => stream.try_write(&chunk.bytes),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                sent => chunk.bytes.advance(sent?),
            }
            chunk.descriptor = None;
            if chunk.bytes.is_empty() {
                waiting.pop_front();
            }
        }
        Ok(true)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Chunk>> {
        // Every change is whole in itself.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_once(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptor: BorrowedFd<'_>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    let bytes = [io::IoSlice::new(bytes)];
    Ok(sendmsg(
        socket,
        &bytes,
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?)
}

impl Receiver {
    pub(crate) fn new(stream: OwnedReadHalf, most: usize, accepts: bool) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            most,
            accepts,
            descriptors: VecDeque::new(),
        }
    }

    /// The next message, or nothing at the end.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what has arrived stays in the buffer.
    pub(crate) async fn receive(&mut self) -> io::Result<Option<BytesMut>> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The descriptor that came with a message.
    pub(crate) fn descriptor(&mut self) -> Option<OwnedFd> {
        self.descriptors.pop_front()
    }

    fn take(&mut self) -> io::Result<Option<BytesMut>> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let len = u32::from_le_bytes(*prefix) as usize;
        if len > self.most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if self.buffer.len() < PREFIX + len {
            return Ok(None);
        }
        self.buffer.advance(PREFIX);
        if len > KEPT {
            // The message has the large buffer for its own, and gives it back when it is done.
            let rest = BytesMut::from(&self.buffer[len..]);
            let mut message = std::mem::replace(&mut self.buffer, rest);
            message.truncate(len);
            return Ok(Some(message));
        }
        Ok(Some(self.buffer.split_to(len)))
    }

    async fn read(&mut self) -> io::Result<usize> {
        const PIECE: usize = 64 << 10;
        self.buffer.reserve(PIECE);
        if !self.accepts {
            return self.stream.read_buf(&mut self.buffer).await;
        }
        loop {
            self.stream.readable().await?;
            let stream: &UnixStream = self.stream.as_ref();
            let (buffer, descriptors) = (&mut self.buffer, &mut self.descriptors);
            match stream.try_io(Interest::READABLE, || {
                receive_once(stream.as_fd(), buffer, descriptors)
            }) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                received => return received,
            }
        }
    }
}

fn receive_once(
    socket: BorrowedFd<'_>,
    buffer: &mut BytesMut,
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    let mut piece = [0; 64 << 10];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = [io::IoSliceMut::new(&mut piece)];
    let received = recvmsg(socket, &mut bytes, &mut ancillary, RecvFlags::CMSG_CLOEXEC)?.bytes;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    buffer.extend_from_slice(&piece[..received]);
    Ok(received)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    use super::*;
    use crate::code_cache::memory_file;

    fn pair(most: usize, accepts: bool) -> (Outbox, Receiver) {
        let (here, there) = UnixStream::pair().unwrap();
        (
            Outbox::new(here.into_split().1),
            Receiver::new(there.into_split().0, most, accepts),
        )
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive_in_order() {
        let (outbox, mut receiver) = pair(1 << 20, true);
        for number in 0..20_u8 {
            let large = vec![number; 300_000];
            let descriptor = (number % 3 == 0).then(|| {
                let mut file = File::from(memory_file().unwrap());
                file.write_all(&[number]).unwrap();
                file.into()
            });
            outbox.send(&large, descriptor).unwrap();
        }
        let draining = tokio::spawn(async move { outbox.drain().await });
        for number in 0..20_u8 {
            let message = receiver.receive().await.unwrap().unwrap();
            assert_eq!((message.len(), message[0]), (300_000, number));
            let Some(descriptor) = (number % 3 == 0).then(|| receiver.descriptor().unwrap()) else {
                continue;
            };
            let mut file = File::from(descriptor);
            file.rewind().unwrap();
            let mut content = Vec::new();
            file.read_to_end(&mut content).unwrap();
            assert_eq!(content, [number]);
        }
        draining.abort();
        assert!(draining.await.is_err());
        assert!(receiver.receive().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_long_message_and_an_unwanted_descriptor_are_refused() {
        let (outbox, mut receiver) = pair(10, false);
        outbox.send(&[1; 10], Some(memory_file().unwrap())).unwrap();
        outbox.flush().await.unwrap();
        assert_eq!(receiver.receive().await.unwrap().unwrap().len(), 10);
        assert!(receiver.descriptor().is_none());
        outbox.send(&[1; 11], None).unwrap();
        assert!(receiver.receive().await.is_err());
    }
}
