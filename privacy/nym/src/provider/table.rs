//! The sessions that arrived: who they are, and what waits to be sent to them.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use dlambda_nym_link::{Reason, SessionId};
use nym_sdk::mixnet::AnonymousSenderTag;
use tokio::time::Instant;

use super::window::Window;

/// Sessions at one time. The one that was idle longest makes room.
pub(super) const SESSIONS: usize = 4096;

/// A session without a message for so long is forgotten.
const IDLE: Duration = Duration::from_secs(10 * 60);

/// A session that has ended is remembered for so long: its last answers may
/// still need reply blocks, and what straggles in must not look like a new
/// sender.
const AFTERGLOW: Duration = Duration::from_secs(60);

/// Messages that may wait in one session.
const MESSAGES_WAITING: usize = 128;

/// Bytes that may wait in all sessions together.
const BYTES_WAITING: usize = 64 << 20;

/// All sessions.
#[derive(Default)]
pub(super) struct Table {
    sessions: HashMap<SessionId, Session>,
    by_tag: HashMap<AnonymousSenderTag, SessionId>,
    /// Sessions with waiting messages, in turn.
    turns: VecDeque<SessionId>,
    bytes_waiting: usize,
    named: u64,
}

/// One session.
pub(super) struct Session {
    /// The SDK's name for the sender.
    pub(super) tag: AnonymousSenderTag,
    /// How far the SDK is with its answers.
    pub(super) window: Window,
    waiting: VecDeque<Vec<u8>>,
    used: Instant,
    /// Whether its sender has written more than once.
    is_proven: bool,
    ended: bool,
}

/// From whom a message came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// A session.
    Known(SessionId),
    /// A session that has ended.
    Ended,
    /// Nobody yet.
    New,
}

impl Table {
    /// Who sends under this tag.
    pub(super) fn sender(&mut self, tag: &AnonymousSenderTag, now: Instant) -> Sender {
        let Some(id) = self.by_tag.get(tag) else {
            return Sender::New;
        };
        match self.sessions.get_mut(id) {
            Some(session) if !session.ended => {
                session.used = now;
                session.is_proven = true;
                Sender::Known(*id)
            }
            _ => Sender::Ended,
        }
    }

    /// Names a new sender; says which live session had to make room, if one
    /// had to.
    pub(super) fn add(
        &mut self,
        tag: AnonymousSenderTag,
        now: Instant,
    ) -> (SessionId, Option<SessionId>) {
        let evicted = (self.sessions.len() >= SESSIONS).then(|| self.evict());
        self.named += 1;
        let id = SessionId(self.named);
        let session = Session {
            tag,
            window: Window::new(now),
            waiting: VecDeque::new(),
            used: now,
            is_proven: false,
            ended: false,
        };
        self.sessions.insert(id, session);
        self.by_tag.insert(tag, id);
        (id, evicted.flatten())
    }

    /// Queues an answer.
    pub(super) fn queue(
        &mut self,
        id: SessionId,
        message: Vec<u8>,
        now: Instant,
    ) -> Result<(), Reason> {
        let Some(session) = self.sessions.get_mut(&id).filter(|session| !session.ended) else {
            return Ok(());
        };
        if session.waiting.len() >= MESSAGES_WAITING {
            self.end(id, now);
            self.discard(id);
            return Err(Reason::Busy);
        }
        let bytes = self.bytes_waiting + message.len();
        if session.waiting.is_empty() {
            self.turns.push_back(id);
        }
        self.bytes_waiting = bytes;
        session.waiting.push_back(message);
        session.used = now;
        Ok(())
    }

    /// While more waits than there is room for, ends the session for which most
    /// waits; returns those that were not over yet. A caller that takes large answers
    /// slowly must not be in the way of all others.
    pub(super) fn relieve(&mut self, now: Instant) -> Vec<SessionId> {
        let weight = |session: &Session| session.waiting.iter().map(Vec::len).sum::<usize>();
        let mut ended = Vec::new();
        while self.bytes_waiting > BYTES_WAITING {
            let heaviest = self.sessions.iter().max_by_key(|(_, it)| weight(it));
            let Some(id) = heaviest.map(|(id, _)| *id) else {
                break;
            };
            ended.extend(self.is_live(id).then_some(id));
            self.end(id, now);
            self.discard(id);
        }
        ended
    }

    /// Takes no more from or for a session; what waits is still sent.
    pub(super) fn end(&mut self, id: SessionId, now: Instant) {
        if let Some(session) = self.sessions.get_mut(&id) {
            session.ended = true;
            session.used = now;
        }
    }

    /// Drops what waits for a session.
    pub(super) fn discard(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let bytes: usize = session.waiting.iter().map(Vec::len).sum();
            self.bytes_waiting -= bytes;
            session.waiting.clear();
        }
        self.turns.retain(|turn| *turn != id);
    }

    /// Forgets sessions that were idle for too long, and says which of them had not
    /// ended.
    pub(super) fn expire(&mut self, now: Instant) -> Vec<SessionId> {
        let is_due = |session: &Session| {
            let limit = if session.ended { AFTERGLOW } else { IDLE };
            now.duration_since(session.used) > limit
        };
        let due: Vec<_> = self
            .sessions
            .iter()
            .filter(|(_, session)| is_due(session))
            .map(|(id, _)| *id)
            .collect();
        due.into_iter().filter(|id| self.remove(*id)).collect()
    }

    /// Whether a sender is remembered.
    pub(super) fn knows(&self, tag: &AnonymousSenderTag) -> bool {
        self.by_tag.contains_key(tag)
    }

    /// Whether anything waits to be sent.
    pub(super) fn is_waiting(&self) -> bool {
        !self.turns.is_empty()
    }

    /// Sessions that wait for their turn.
    pub(super) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// Whose turn it is; it goes to the end of the queue.
    pub(super) fn turn(&mut self) -> Option<(SessionId, &mut Session)> {
        let id = self.turns.pop_front()?;
        self.turns.push_back(id);
        let session = self.sessions.get_mut(&id)?;
        Some((id, session))
    }

    /// Takes the next message that waits in a session.
    pub(super) fn take(&mut self, id: SessionId, now: Instant) -> Option<Vec<u8>> {
        let session = self.sessions.get_mut(&id)?;
        let message = session.waiting.pop_front()?;
        session.used = now;
        self.bytes_waiting -= message.len();
        if session.waiting.is_empty() {
            self.turns.retain(|turn| *turn != id);
        }
        Some(message)
    }

    /// Notes that the SDK has a message of a session, and says how many packets
    /// it takes.
    pub(super) fn give(&mut self, id: SessionId, message: &[u8]) -> usize {
        match self.sessions.get_mut(&id) {
            Some(session) => session.window.give(message),
            None => 0,
        }
    }

    /// Whether a session is not over.
    pub(super) fn is_live(&self, id: SessionId) -> bool {
        self.sessions.get(&id).is_some_and(|session| !session.ended)
    }

    /// Those go first that have ended, then those whose sender wrote one message
    /// and no more: a flood is made of them, and a call that runs is not.
    fn evict(&mut self) -> Option<SessionId> {
        let oldest = self
            .sessions
            .iter()
            .min_by_key(|(_, session)| (!session.ended, session.is_proven, session.used))
            .map(|(id, _)| *id)?;
        self.remove(oldest).then_some(oldest)
    }

    /// Forgets a session, and says whether it had not ended.
    fn remove(&mut self, id: SessionId) -> bool {
        self.discard(id);
        let Some(session) = self.sessions.remove(&id) else {
            return false;
        };
        self.by_tag.remove(&session.tag);
        !session.ended
    }
}

#[cfg(test)]
mod tests;
