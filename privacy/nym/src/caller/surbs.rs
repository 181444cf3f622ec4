//! How many reply blocks a provider makes a client send.
//!
//! A provider that runs out of reply blocks asks for more, and the SDK sends
//! them without asking us: up to a hundred for each packet of the provider's.
//! They carry nothing but themselves, so nobody but the SDK's own table of
//! reply keys knows of them. A key enters it when a block is made and leaves
//! it when the block is used, once for each packet of an answer.

use crate::client::capped;
use crate::storage::Replies;

/// Reply blocks that one session's provider may ask for: 8 MB of answers. An
/// answer of 4 MiB takes 2,700; the rest is for what is repeated.
const MOST: usize = 5_000;

/// Bytes of an answer in one packet, and a little more.
const PACKET: usize = 1_610;

/// Counts them: those that are unused, and those that brought a message. Not
/// counted are those that a provider wastes on packets that make no message;
/// three of these cost us one packet, so it wastes more of its own.
pub(super) struct SurbAudit {
    replies: Replies,
    count: Count,
}

impl SurbAudit {
    /// Watches the client that these belong to.
    pub(super) fn new(replies: &Replies) -> Self {
        Self {
            replies: replies.clone(),
            count: Count::default(),
        }
    }

    /// Our own message is about to take blocks along.
    pub(super) fn sending(&mut self, surbs: u16) {
        self.count.ours += capped(surbs) as usize;
    }

    /// A message has come, of so many bytes.
    pub(super) fn received(&mut self, bytes: usize) {
        self.count.used += bytes / PACKET;
    }

    /// Whether the provider has asked for more than it may.
    pub(super) fn is_too_much(&mut self) -> bool {
        let unused = self.replies.0.key_storage_ref().as_raw_iter().count();
        self.count.look(unused) > MOST
    }
}

#[derive(Default)]
struct Count {
    /// Sent along with our own messages.
    ours: usize,
    /// Used for messages that have come.
    used: usize,
    /// The most that were seen, used and unused.
    most: usize,
}

impl Count {
    /// The blocks beyond our own, if `unused` of all are now unused.
    fn look(&mut self, unused: usize) -> usize {
        self.most = self.most.max(self.used + unused);
        self.most.saturating_sub(self.ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_blocks_do_not_count_and_used_ones_do() {
        let mut count = Count {
            ours: 100,
            ..Count::default()
        };
        assert_eq!(count.look(100), 0);
        assert_eq!(count.look(58), 0);
        count.used += 42;
        assert_eq!(count.look(58), 0);
        assert_eq!(count.look(108), 50);
        assert_eq!(count.look(0), 50);
        count.used += MOST;
        assert_eq!(count.look(60), MOST + 2);
    }
}
