//! How much of an answer the SDK holds for want of reply blocks.
//!
//! It takes any number of answers, and waits with them for reply blocks that
//! the caller may never send; it does not say how many wait. But the reply
//! blocks are ours to look at: as long as more than the reserve are there,
//! nothing waits, and when new ones have come, something has moved.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::storage::RESERVE;

/// Packets that may wait for one caller's reply blocks.
const WIDEST: usize = 200;

/// After so long without a new reply block, the caller is gone.
const STUCK: Duration = Duration::from_secs(60);

/// Bytes of an answer in one packet, less a little.
const PACKET: usize = 1_550;

/// What the SDK was given for one session since something last moved.
pub(super) struct Window {
    packets: usize,
    moved: Instant,
    newest: Option<OffsetDateTime>,
}

impl Window {
    /// Nothing was given.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            packets: 0,
            moved: now,
            newest: None,
        }
    }

    /// Looks at the reply blocks: how many there are, and when the newest
    /// came.
    pub(super) fn look(&mut self, blocks: usize, newest: Option<OffsetDateTime>, now: Instant) {
        if blocks > RESERVE || newest != self.newest || self.packets == 0 {
            self.packets = 0;
            self.moved = now;
            self.newest = newest;
        }
    }

    /// Whether more may be given.
    pub(super) fn is_open(&self) -> bool {
        self.packets < WIDEST
    }

    /// Whether nothing has moved for too long.
    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        !self.is_open() && now.duration_since(self.moved) > STUCK
    }

    /// Gives a message, and says how many packets it takes.
    pub(super) fn give(&mut self, message: &[u8]) -> usize {
        let packets = message.len() / PACKET + 1;
        self.packets += packets;
        packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_closes_without_reply_blocks_and_opens_with_them() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let first = Some(OffsetDateTime::UNIX_EPOCH);
        window.look(RESERVE, first, start);
        while window.is_open() {
            window.give(&[0; 64 << 10]);
            window.look(RESERVE, first, start);
        }
        let late = start + STUCK + Duration::from_secs(1);
        assert!(!window.is_stuck(start));
        assert!(window.is_stuck(late));
        let second = Some(OffsetDateTime::UNIX_EPOCH + Duration::from_secs(1));
        window.look(0, second, late);
        assert!(window.is_open() && !window.is_stuck(late));
        window.give(&[0; WIDEST * PACKET]);
        assert!(!window.is_open());
        window.look(RESERVE + 1, second, late);
        assert!(window.is_open());
    }
}
