//! One side of a stream over the mixnet, without I/O and without a clock.
//!
//! The mixnet delivers messages in any order, and now and then, when a gateway
//! restarts, not at all; the SDK repeats packets that were lost on the way.
//! So segments are numbered, and each says what has arrived. Only the caller
//! may speak at any time; the provider needs a reply block for everything that
//! it sends. So only the caller has a timer: when it has heard nothing for a
//! while, it repeats what may be lost, or probes. Whatever brings the provider
//! nothing new makes it repeat what is not acknowledged.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::segment::{Kind, Malformed, Segment, SessionName};

/// Bytes of data in one segment.
pub(super) const PIECE: usize = 48 << 10;
/// Bytes that one side sends in one session: a frame of 4 MiB, and a little.
pub(super) const MAX_BYTES: usize = (4 << 20) + (256 << 10);
/// Segments that may be ahead of the one expected.
pub(super) const WINDOW: u32 = 256;

/// Reply blocks with the first segment: an advert takes three, a provider
/// keeps two, and some are for what is lost.
const OPENING_BLOCKS: u16 = 8;
/// Reply blocks with an acknowledgement, and with a probe.
const FEW_BLOCKS: u16 = 4;
/// Reply blocks with a call of the smallest size: for a reply of the smallest
/// size, three packets. A provider with more to say asks for more.
const BLOCKS: u16 = 8;
/// Reply blocks with a larger call, to which a larger reply is likely.
const MORE_BLOCKS: u16 = 16;

/// When the caller first wonders; then after twice as long, and so on.
const FIRST_PROBE: Duration = Duration::from_secs(6);
const SLOWEST_PROBE: Duration = Duration::from_secs(48);
/// What was sent so recently is not repeated; and after each repetition, for
/// twice as long.
const RECENT: Duration = Duration::from_secs(3);
/// Data that may take a second to leave: under cover traffic it leaves at the
/// pace of that.
const PER_SECOND: usize = 64 << 10;
/// How often the time is doubled at most.
const DOUBLINGS: u32 = 5;
/// Segments repeated at a time.
const REPEATS: usize = 16;

/// One side of one stream. `T` goes with every piece of data until it is read.
pub(super) struct ReliableStream<T> {
    session: SessionName,
    is_caller: bool,
    next: u32,
    unacknowledged: VecDeque<Sent>,
    sent_bytes: usize,
    said_last: bool,
    expected: u32,
    early: BTreeMap<u32, (Vec<u8>, bool, T)>,
    received_bytes: usize,
    heard_last: bool,
    probe_at: Duration,
    patience: Duration,
}

struct Sent {
    number: u32,
    last: bool,
    data: Vec<u8>,
    /// It is not repeated before.
    due: Duration,
    repeated: u32,
}

/// What comes after something that is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// More, at once.
    More,
    /// An answer, perhaps.
    Wait,
    /// Nothing.
    End,
}

/// A message to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub(super) message: Vec<u8>,
    /// Reply blocks to send along; a provider's have none.
    pub(super) blocks: u16,
}

/// What came of a message that was received.
#[derive(Debug)]
pub(super) struct Received<T> {
    /// The next pieces of the stream, in order.
    pub(super) pieces: Vec<(Vec<u8>, T)>,
    /// The stream has ended: no piece comes after these.
    pub(super) is_last: bool,
    /// To be sent now.
    pub(super) send: Vec<Outgoing>,
}

/// Why a stream cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamError {
    /// More than a session may carry.
    TooMuch,
    /// The peer broke the rules.
    Malformed,
    /// The peer has forgotten the session.
    Reset,
}

impl<T> ReliableStream<T> {
    /// The caller's side, and the message that opens the stream.
    pub(super) fn call(session: SessionName, now: Duration) -> (Self, Outgoing) {
        let mut flow = Self::new(session, true, now);
        let opening = flow.number(Vec::new(), false, now, OPENING_BLOCKS);
        (flow, opening)
    }

    /// The provider's side, if `opening` opens a stream.
    ///
    /// # Errors
    ///
    /// The answer for whoever sent something else.
    pub(super) fn answer(opening: &[u8], now: Duration) -> Result<Self, Option<Outgoing>> {
        let segment = Segment::decode(opening).map_err(|Malformed| None)?;
        let opens = Kind::Data {
            number: 0,
            last: false,
            data: Vec::new(),
        };
        let mut flow = Self::new(segment.session, false, now);
        if segment.kind == Kind::Reset {
            return Err(None);
        }
        if segment.kind != opens {
            return Err(Some(flow.outgoing(Kind::Reset, 0)));
        }
        if segment.acknowledged != 1 {
            // There is one opening for each name, so that it can hold no mark.
            return Err(None);
        }
        flow.expected = 1;
        Ok(flow)
    }

    fn new(session: SessionName, is_caller: bool, now: Duration) -> Self {
        Self {
            session,
            is_caller,
            // The caller's 0 opens; so that both count alike, there is no 0 of the provider's.
            next: u32::from(!is_caller),
            unacknowledged: VecDeque::new(),
            sent_bytes: 0,
            said_last: false,
            expected: u32::from(is_caller),
            early: BTreeMap::new(),
            received_bytes: 0,
            heard_last: false,
            probe_at: now + FIRST_PROBE,
            patience: FIRST_PROBE,
        }
    }

    /// Sends data.
    ///
    /// # Errors
    ///
    /// [`StreamError::TooMuch`], and nothing is sent.
    pub(super) fn send(
        &mut self,
        data: &[u8],
        then: Next,
        now: Duration,
    ) -> Result<Vec<Outgoing>, StreamError> {
        let last = then == Next::End;
        if self.said_last {
            return Ok(Vec::new());
        }
        self.sent_bytes += data.len();
        if self.sent_bytes > MAX_BYTES {
            return Err(StreamError::TooMuch);
        }
        self.said_last = last;
        let mut pieces: Vec<&[u8]> = data.chunks(PIECE).collect();
        if pieces.is_empty() && last {
            pieces.push(&[]);
        }
        let count = pieces.len();
        let numbered = pieces.into_iter().enumerate().map(|(at, piece)| {
            let is_final = at + 1 == count;
            let blocks = match then {
                Next::Wait if is_final => blocks(data.len()),
                _ => 0,
            };
            self.number(piece.to_vec(), is_final && last, now, blocks)
        });
        let numbered = numbered.collect();
        self.hope(now);
        Ok(numbered)
    }

    /// Takes a message; `token` is kept with its data until that is read.
    ///
    /// # Errors
    ///
    /// [`StreamError`]: the stream cannot go on.
    pub(super) fn receive(
        &mut self,
        message: &[u8],
        token: T,
        now: Duration,
    ) -> Result<Received<T>, StreamError> {
        let segment = Segment::decode(message).map_err(|Malformed| StreamError::Malformed)?;
        if segment.session != self.session || segment.acknowledged > self.next {
            return Err(StreamError::Malformed);
        }
        let before = self.unacknowledged.len();
        self.unacknowledged
            .retain(|sent| sent.number >= segment.acknowledged);
        let mut is_news = self.unacknowledged.len() < before;
        let mut pieces = Vec::new();
        match segment.kind {
            Kind::Reset => return Err(StreamError::Reset),
            Kind::Probe => {}
            Kind::Data { number, last, data } => {
                if self.keep(number, last, data, token)? {
                    is_news = true;
                    pieces = self.in_order();
                }
            }
        }
        let send = match (is_news, self.is_caller) {
            (true, _) => {
                self.hope(now);
                Vec::new()
            }
            (false, true) => self.repeat(now),
            (false, false) => {
                let mut repeated = self.repeat(now);
                if repeated.is_empty() {
                    repeated.push(self.outgoing(Kind::Probe, 0));
                }
                repeated
            }
        };
        Ok(Received {
            pieces,
            is_last: self.heard_last,
            send,
        })
    }

    /// When [`ReliableStream::probe`] is due; a provider never probes.
    pub(super) fn probe_at(&self) -> Option<Duration> {
        self.is_caller.then_some(self.probe_at)
    }

    /// Nothing was heard for a while: asks, or repeats what may be lost.
    pub(super) fn probe(&mut self, now: Duration) -> Vec<Outgoing> {
        if !self.is_caller || now < self.probe_at {
            return Vec::new();
        }
        self.patience = SLOWEST_PROBE.min(2 * self.patience);
        self.probe_at = now + self.patience + self.leaving(0);
        let mut send = self.repeat(now);
        match send.last_mut() {
            Some(last) => last.blocks = last.blocks.max(FEW_BLOCKS),
            None => send.push(self.outgoing(Kind::Probe, FEW_BLOCKS)),
        }
        send
    }

    /// Whether everything that was sent has arrived.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    /// Whether the other side has said that it sends no more.
    pub(super) fn heard_last(&self) -> bool {
        self.heard_last
    }

    /// The stream's name.
    pub(super) fn session(&self) -> SessionName {
        self.session
    }

    fn hope(&mut self, now: Duration) {
        self.patience = FIRST_PROBE;
        self.probe_at = now + FIRST_PROBE + self.leaving(0);
    }

    /// How long what is not acknowledged, and so much more, may take to leave.
    fn leaving(&self, more: usize) -> Duration {
        let bytes: usize = self.unacknowledged.iter().map(|sent| sent.data.len()).sum();
        Duration::from_secs(((bytes + more) / PER_SECOND) as u64)
    }

    /// Keeps what has not come before.
    fn keep(
        &mut self,
        number: u32,
        last: bool,
        data: Vec<u8>,
        token: T,
    ) -> Result<bool, StreamError> {
        if number < self.expected || self.early.contains_key(&number) {
            return Ok(false);
        }
        if number - self.expected >= WINDOW || data.len() > PIECE || self.heard_last {
            return Err(StreamError::Malformed);
        }
        self.received_bytes += data.len();
        if self.received_bytes > MAX_BYTES {
            return Err(StreamError::TooMuch);
        }
        self.early.insert(number, (data, last, token));
        Ok(true)
    }

    fn in_order(&mut self) -> Vec<(Vec<u8>, T)> {
        let mut pieces = Vec::new();
        while !self.heard_last
            && let Some((data, last, token)) = self.early.remove(&self.expected)
        {
            self.expected += 1;
            self.heard_last = last;
            if !data.is_empty() {
                pieces.push((data, token));
            }
        }
        pieces
    }

    fn repeat(&mut self, now: Duration) -> Vec<Outgoing> {
        let mut send = Vec::new();
        let (session, acknowledged) = (self.session, self.expected);
        let (is_caller, leaving) = (self.is_caller, self.leaving(0));
        for sent in &mut self.unacknowledged {
            if send.len() == REPEATS || now < sent.due {
                break;
            }
            sent.repeated = DOUBLINGS.min(sent.repeated + 1);
            sent.due = now + RECENT * 2_u32.pow(sent.repeated) + leaving;
            let segment = Segment {
                session,
                kind: Kind::Data {
                    number: sent.number,
                    last: sent.last,
                    data: sent.data.clone(),
                },
                acknowledged,
            };
            send.push(Outgoing {
                message: segment.encode(),
                blocks: if is_caller { 1 } else { 0 },
            });
        }
        send
    }

    fn number(&mut self, data: Vec<u8>, last: bool, now: Duration, blocks: u16) -> Outgoing {
        let number = self.next;
        self.next += 1;
        self.unacknowledged.push_back(Sent {
            number,
            last,
            data: data.clone(),
            due: now + RECENT + self.leaving(data.len()),
            repeated: 0,
        });
        self.outgoing(Kind::Data { number, last, data }, blocks)
    }

    fn outgoing(&self, kind: Kind, blocks: u16) -> Outgoing {
        let segment = Segment {
            session: self.session,
            kind,
            acknowledged: self.expected,
        };
        Outgoing {
            message: segment.encode(),
            blocks: if self.is_caller { blocks } else { 0 },
        }
    }
}

/// Reply blocks with something of this length. The length is public already:
/// frames have few sizes.
fn blocks(len: usize) -> u16 {
    match len {
        0..1024 => FEW_BLOCKS,
        1024..8192 => BLOCKS,
        _ => MORE_BLOCKS,
    }
}

#[cfg(test)]
mod tests;
