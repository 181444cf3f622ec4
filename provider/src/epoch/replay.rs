//! Messages that were opened under one sealing key, so that none is opened twice.
//!
//! Sans-I/O.

use std::collections::HashSet;

use dlambda_proto::Refusal;
use sha2::{Digest as _, Sha256};

/// Messages remembered for a sealing key, 16 bytes each: 16 MiB. When it is full, the key is
/// replaced, and with it what has to be remembered.
pub(super) const MAX_REMEMBERED: usize = 1 << 20;

/// Remembers calls and proofs of work by their one-time keys.
#[derive(Default)]
pub(super) struct ReplayMemory {
    pub(super) marks: HashSet<[u8; 16]>,
}

impl ReplayMemory {
    /// Whether no more can be remembered.
    pub(super) fn is_full(&self) -> bool {
        self.marks.len() >= MAX_REMEMBERED
    }

    /// Whether a message under this one-time key is remembered.
    pub(super) fn contains(&self, one_time: &[u8; 32]) -> bool {
        self.marks.contains(&mark(one_time))
    }

    /// Remembers a message. Of several copies, exactly one gets past this.
    ///
    /// # Errors
    ///
    /// [`Refusal::Replayed`] if it is remembered already, [`Refusal::Busy`] if the memory is full.
    pub(super) fn remember(&mut self, one_time: &[u8; 32]) -> Result<(), Refusal> {
        if self.is_full() {
            return Err(Refusal::Busy);
        }
        if self.marks.insert(mark(one_time)) {
            Ok(())
        } else {
            Err(Refusal::Replayed)
        }
    }
}

fn mark(one_time: &[u8; 32]) -> [u8; 16] {
    let digest = Sha256::digest(one_time);
    *digest.first_chunk::<16>().unwrap_or(&[0; 16])
}
