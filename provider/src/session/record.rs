//! A provider's complete record of a session.
//!
//! Unlinkability is defined on this record: two calls by one caller must look
//! like two calls by two. Tests play the provider that keeps it; an operator
//! who wants to check the claim can keep it too.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::SystemTime;

use dlambda_privacy::transport::{BoxStream, CircuitFacts};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Receives the record of every session.
pub trait Observer: Send + Sync {
    /// A session ended, and this is all that could be seen of it.
    fn session_ended(&self, record: SessionRecord);
}

/// Everything a provider can see of one session.
#[derive(Clone)]
#[non_exhaustive]
pub struct SessionRecord {
    /// What the transport knows of the circuit.
    pub circuit: CircuitFacts,
    /// When the stream opened.
    pub opened: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// Every byte received.
    pub received: Vec<u8>,
    /// Every byte sent.
    pub sent: Vec<u8>,
    /// The caller's one-time key, if a call was opened.
    pub encapsulated_key: Option<[u8; 32]>,
    /// The secret that the reply's key is made of, if a call was opened.
    pub reply_secret: Option<[u8; 32]>,
    /// The opened request, as sealed.
    pub request: Option<Vec<u8>>,
    /// The reply, before sealing.
    pub reply: Option<Vec<u8>>,
    /// What was opened before on the same stream: a negotiation has several
    /// requests.
    pub earlier: Vec<OpenedRecord>,
}

/// A request of a negotiation, and its answer.
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenedRecord {
    /// The caller's one-time key.
    pub encapsulated_key: Option<[u8; 32]>,
    /// The secret that the answer's key is made of.
    pub reply_secret: Option<[u8; 32]>,
    /// The opened request, as sealed.
    pub request: Option<Vec<u8>>,
    /// The answer, before sealing.
    pub reply: Option<Vec<u8>>,
}

/// Gives every stream a record, from when there is an observer.
#[derive(Default)]
pub(crate) struct Recorder {
    observer: OnceLock<Arc<dyn Observer>>,
}

/// A stream that copies what passes into a record, if there is an observer.
pub(crate) struct RecordingStream {
    stream: BoxStream,
    recording: Option<Recording>,
}

struct Recording {
    observer: Arc<dyn Observer>,
    record: SessionRecord,
}

impl Recorder {
    /// Streams that are opened from now on are recorded. Only the first observer counts.
    pub(crate) fn observe(&self, observer: Arc<dyn Observer>) {
        let _ = self.observer.set(observer);
    }

    /// Records a stream from its beginning.
    pub(crate) fn record(&self, stream: BoxStream, circuit: CircuitFacts) -> RecordingStream {
        let recording = self.observer.get().map(|observer| Recording {
            observer: Arc::clone(observer),
            record: SessionRecord::new(circuit),
        });
        RecordingStream { stream, recording }
    }
}

/// The methods do nothing without an observer.
impl RecordingStream {
    /// A request under this one-time key is about to be opened.
    pub(crate) fn request_received(&mut self, encapsulated_key: [u8; 32]) {
        if let Some(record) = self.record() {
            record.begin_request();
            record.encapsulated_key = Some(encapsulated_key);
        }
    }

    /// A request was opened: its bytes, and the secret that the reply's key is made of.
    pub(crate) fn request_opened(&mut self, opened: impl FnOnce() -> (Vec<u8>, [u8; 32])) {
        if let Some(record) = self.record() {
            let (request, secret) = opened();
            record.request = Some(request);
            record.reply_secret = Some(secret);
        }
    }

    /// This is about to be sealed as the reply.
    pub(crate) fn replying(&mut self, reply: impl FnOnce() -> Vec<u8>) {
        if let Some(record) = self.record() {
            record.reply = Some(reply());
        }
    }

    /// Closes the stream, and hands the record to the observer.
    pub(crate) fn finish(self) {
        if let Some(Recording {
            observer,
            mut record,
        }) = self.recording
        {
            record.ended = SystemTime::now();
            observer.session_ended(record);
        }
    }

    fn record(&mut self) -> Option<&mut SessionRecord> {
        self.recording
            .as_mut()
            .map(|recording| &mut recording.record)
    }
}

impl SessionRecord {
    fn new(circuit: CircuitFacts) -> Self {
        let now = SystemTime::now();
        Self {
            circuit,
            opened: now,
            ended: now,
            received: Vec::new(),
            sent: Vec::new(),
            encapsulated_key: None,
            reply_secret: None,
            request: None,
            reply: None,
            earlier: Vec::new(),
        }
    }

    /// Makes room for the next request on the stream.
    fn begin_request(&mut self) {
        if self.encapsulated_key.is_some() {
            self.earlier.push(OpenedRecord {
                encapsulated_key: self.encapsulated_key.take(),
                reply_secret: self.reply_secret.take(),
                request: self.request.take(),
                reply: self.reply.take(),
            });
        }
    }
}

impl AsyncRead for RecordingStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(record) = self.record() {
            record.received.extend(&buf.filled()[before..]);
        }
        polled
    }
}

impl AsyncWrite for RecordingStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let (Poll::Ready(Ok(written)), Some(record)) = (&polled, self.record()) {
            record.sent.extend(&buf[..*written]);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl fmt::Debug for OpenedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OpenedRecord([scrubbed])")
    }
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionRecord([scrubbed])")
    }
}
