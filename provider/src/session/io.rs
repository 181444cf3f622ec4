//! What all streams share.

use dlambda_privacy::wire::Budget;

use crate::config::{Deadlines, ProviderConfig};

/// Deadlines, and the memory for what is received and sent, over all streams.
pub(crate) struct SessionIo {
    pub(crate) deadlines: Deadlines,
    pub(crate) receive_budget: Budget,
    pub(crate) send_budget: Budget,
}

impl SessionIo {
    pub(crate) fn new(config: &ProviderConfig) -> Self {
        Self {
            deadlines: config.deadlines,
            receive_budget: Budget::new(config.receive_bytes),
            send_budget: Budget::new(config.send_bytes),
        }
    }
}
