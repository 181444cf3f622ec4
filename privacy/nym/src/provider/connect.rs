//! Connecting the provider's one client, at first and ever again.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::client::Client;
use crate::error::{HelperError, Trouble};
use crate::network::Network;
use crate::storage::{OnDisk, Replies};

/// The first and the longest pause after a failure.
const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));

/// What a provider's client is built from, each time.
#[derive(Clone)]
pub(super) struct Plan {
    /// The network.
    pub(super) network: Network,
    /// Where the identity is.
    pub(super) path: PathBuf,
    /// The reply blocks, which outlive a client.
    pub(super) replies: Replies,
}

impl Plan {
    /// Connects for the first time, by trying until the deadline.
    pub(super) async fn first(&self, deadline: Duration) -> Result<Client, HelperError> {
        let until = Instant::now() + deadline;
        let mut cause = Trouble::Late;
        let mut pause = PAUSES.0;
        loop {
            match timeout_at(until, self.attempt()).await {
                Ok(Ok(client)) => return Ok(client),
                Ok(Err(trouble)) => cause = trouble,
                Err(_) => break,
            }
            if Instant::now() + pause >= until {
                break;
            }
            sleep(pause).await;
            pause = longer(pause);
        }
        let within = deadline;
        Err(HelperError::Unreachable { within, cause })
    }

    /// Connects again, however long it takes.
    pub(super) async fn again(self, old: Client) -> Client {
        old.end().await;
        self.afresh().await
    }

    /// Connects, when there is no client left to end.
    pub(super) async fn afresh(self) -> Client {
        // Whatever it has asked for will not come.
        for mut surbs in self.replies.0.surbs_storage_ref().as_raw_iter_mut() {
            surbs.reset_pending_reception();
        }
        let mut pause = PAUSES.0;
        loop {
            sleep(pause).await;
            match self.attempt().await {
                Ok(client) => return client,
                Err(trouble) => tracing::warn!(%trouble, "the provider is not connected"),
            }
            pause = longer(pause);
        }
    }

    /// Connects once. An address that nobody was told yet is dropped if it
    /// does not work: its gateway was chosen by chance, and another may work.
    async fn attempt(&self) -> Result<Client, Trouble> {
        let storage = OnDisk::open(&self.path, self.replies.clone()).await?;
        let is_new = !storage.has_gateway().await?;
        let config = self.network.provider();
        let connected = Client::connect(&self.network, config, storage, None).await;
        if connected.is_err() && is_new {
            let storage = OnDisk::open(&self.path, self.replies.clone()).await?;
            storage.forget_gateways().await?;
        }
        connected
    }
}

fn longer(pause: Duration) -> Duration {
    (pause * 2).min(PAUSES.1)
}
