//! Answers on their way to the SDK, and the reply blocks that carry them.

use std::time::Duration;

use dlambda_nym_link::Reason;
use time::OffsetDateTime;
use tokio::time::Instant;

use super::Provider;

/// Packets given to the SDK at one look.
const PACKETS_AT_ONCE: usize = 256;

/// Reply blocks kept of one caller. It may send more; it pays for them.
const SURBS_KEPT: usize = 1_000;

/// How long the reply blocks of an unknown sender are kept: those of a message
/// come a little before the message.
const SURBS_ALONE: Duration = Duration::from_secs(60);

impl Provider {
    /// Gives answers to the SDK, as far as it takes them.
    pub(super) async fn pump(&mut self) {
        let mut packets = 0;
        for _ in 0..self.table.turns() {
            match self.answer_one().await {
                Some(given) => packets += given,
                None => break,
            }
            if packets >= PACKETS_AT_ONCE {
                break;
            }
        }
    }

    /// Sends the next message of whose turn it is, and says how many packets
    /// it takes; `None` if the client takes no more.
    async fn answer_one(&mut self) -> Option<usize> {
        let client = self.client.as_ref().filter(|client| client.has_room())?;
        let now = Instant::now();
        let (id, session) = self.table.turn()?;
        let tag = session.tag;
        let surbs = self.plan.replies.0.surbs_storage_ref();
        let newest = surbs.surbs_last_received_at(&tag);
        session
            .window
            .look(surbs.available_surbs(&tag), newest, now);
        if session.window.is_stuck(now) {
            self.part(id, Reason::Lost);
            return Some(0);
        }
        if !session.window.is_open() {
            return Some(0);
        }
        let message = self.table.take(id, now)?;
        let packets = self.table.give(id, &message);
        if client.reply(tag, &message).await.is_err() {
            tracing::warn!("an answer was not taken");
        }
        Some(packets)
    }

    /// Forgets sessions that are idle, and reply blocks that nobody needs.
    pub(super) fn sweep(&mut self) {
        for session in self.table.expire(Instant::now()) {
            self.farewells.push_back((session, Reason::Lost));
        }
        let recent = OffsetDateTime::now_utc() - SURBS_ALONE;
        let table = &self.table;
        let all = self.plan.replies.0.surbs_storage_ref();
        all.retain(|tag, surbs| {
            let mut kept = 0;
            if surbs.fresh_left() > SURBS_KEPT {
                surbs.retain_fresh_surbs(|_| {
                    kept += 1;
                    kept <= SURBS_KEPT
                });
            }
            table.knows(tag) || surbs.surbs_last_received_at() > recent
        });
    }
}
