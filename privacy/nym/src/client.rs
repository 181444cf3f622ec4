//! One client of the mixnet.

use std::time::Duration;

use dlambda_nym_link::{MAX_MESSAGE, NymRecipient};
use nym_sdk::mixnet::{
    AnonymousSenderTag, IncludedSurbs, LaneQueueLengths, MixnetClient, MixnetClientBuilder,
    MixnetClientSender, MixnetClientStorage, MixnetMessageSender as _, Recipient,
    ReconstructedMessage,
};
use nym_sdk::{DebugConfig, ShutdownToken, ShutdownTracker};
use tokio::time::timeout;

use crate::error::Trouble;
use crate::network::{Network, SURBS_AT_ONCE};
use crate::storage::Replies;

/// How long one client may take to connect.
pub(crate) const CONNECT_DEADLINE: Duration = Duration::from_secs(20);

/// How long the SDK may take to accept a message.
const SEND_DEADLINE: Duration = Duration::from_secs(30);

/// How long a client may take to end.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Packets that may wait in the SDK, which itself sets no limit.
const PACKETS_WAITING: usize = 256;

/// A connected client. Dropping it ends it.
pub(crate) struct Client {
    mixnet: MixnetClient,
    sender: MixnetClientSender,
    lanes: LaneQueueLengths,
    replies: Replies,
    ending: EndOnDrop,
}

/// Ends a client's tasks, also those of one that was never connected: the SDK
/// leaves them running when a client or its connecting is dropped.
struct EndOnDrop(ShutdownToken);

/// The SDK did not take a message: the client is of no more use.
pub(crate) struct NotSent;

impl Client {
    /// Connects a client that keeps its identity in `storage`, at this gateway or at a random one.
    pub(crate) async fn connect<K, G>(
        network: &Network,
        config: DebugConfig,
        storage: crate::storage::Storage<K, G>,
        gateway: Option<String>,
    ) -> Result<Self, Trouble>
    where
        crate::storage::Storage<K, G>: MixnetClientStorage + Clone + Send + Sync + 'static,
    {
        let replies = storage.replies();
        // Without a shutdown of its own, the SDK ends a client when anything
        // at all panics in this process.
        let ending = EndOnDrop(ShutdownToken::new());
        let tracker = ShutdownTracker::new_from_external_shutdown_token(ending.0.clone());
        let mut client = MixnetClientBuilder::new_with_storage(storage)
            .network_details(network.details.clone())
            .debug_config(config)
            .custom_shutdown(tracker);
        if let Some(gateway) = gateway {
            client = client.request_gateway(gateway);
        }
        let client = client.build()?;
        let connecting = Box::pin(client.connect_to_mixnet());
        let mixnet = timeout(CONNECT_DEADLINE, connecting)
            .await
            .map_err(|_| Trouble::Late)??;
        Ok(Self {
            sender: mixnet.split_sender(),
            lanes: mixnet.shared_lane_queue_lengths(),
            mixnet,
            replies,
            ending,
        })
    }

    /// Its address.
    pub(crate) fn address(&self) -> NymRecipient {
        NymRecipient(self.mixnet.nym_address().to_bytes())
    }

    /// The identity of its gateway, in base 58.
    pub(crate) fn gateway(&self) -> String {
        self.mixnet.nym_address().gateway().to_base58_string()
    }

    /// Its reply blocks.
    pub(crate) fn replies(&self) -> &Replies {
        &self.replies
    }

    /// Whether it has not given up yet.
    pub(crate) fn is_alive(&self) -> bool {
        !self.ending.0.is_cancelled()
    }

    /// Whether it should be given more to send.
    pub(crate) fn has_room(&self) -> bool {
        self.lanes.total() < PACKETS_WAITING
    }

    /// Whether it has sent everything at least once.
    pub(crate) fn is_idle(&self) -> bool {
        self.lanes.total() == 0
    }

    /// Waits for messages; `None` if the client has ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Vec<ReconstructedMessage>> {
        let ended = self.ending.0.clone();
        tokio::select! {
            messages = self.mixnet.wait_for_messages() => messages,
            () = ended.cancelled() => None,
        }
    }

    /// Sends a message with reply blocks, and never its own address.
    pub(crate) async fn send(
        &self,
        to: Recipient,
        message: &[u8],
        surbs: u16,
    ) -> Result<(), NotSent> {
        let surbs = IncludedSurbs::Amount(capped(surbs));
        let sending = self.sender.send_message(to, message, surbs);
        deliver(sending).await
    }

    /// Sends a message to this very client.
    pub(crate) async fn send_to_itself(&self, message: &[u8]) -> Result<(), NotSent> {
        self.send(*self.mixnet.nym_address(), message, 0).await
    }

    /// Answers a message.
    pub(crate) async fn reply(
        &self,
        to: AnonymousSenderTag,
        message: &[u8],
    ) -> Result<(), NotSent> {
        deliver(self.sender.send_reply(to, message)).await
    }

    /// Ends it for good.
    pub(crate) async fn end(self) {
        let Self { mixnet, ending, .. } = self;
        ending.0.cancel();
        if timeout(END_DEADLINE, mixnet.disconnect()).await.is_err() {
            tracing::warn!("a client did not end in time");
        }
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The reply blocks that are sent along if `asked` are asked for.
pub(crate) fn capped(asked: u16) -> u32 {
    u32::from(asked).min(SURBS_AT_ONCE)
}

/// Whether a message that arrived is passed on.
pub(crate) fn is_acceptable(message: &ReconstructedMessage) -> bool {
    !message.message.is_empty() && message.message.len() <= MAX_MESSAGE
}

async fn deliver(sending: impl Future<Output = nym_sdk::Result<()>>) -> Result<(), NotSent> {
    match timeout(SEND_DEADLINE, sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(NotSent),
    }
}
