//! gossipsub, set up for few small messages of unknown origin over slow circuits.

use std::time::Duration;

use dlambda_proto::NetworkId;
use libp2p_gossipsub::{
    Behaviour, Config, ConfigBuilder, IdentityTransform, MaxCountSubscriptionFilter, Message,
    MessageAuthenticity, MessageId, PeerScoreParams, PeerScoreThresholds, TopicScoreParams,
    ValidationMode, Version, WhitelistSubscriptionFilter, score_parameter_decay,
};
use sha2::{Digest as _, Sha256};

use super::topic::Topics;
use crate::NodeError;

/// gossipsub for our topics only.
pub(crate) type Gossip =
    Behaviour<IdentityTransform, MaxCountSubscriptionFilter<WhitelistSubscriptionFilter>>;

/// Bytes of the largest message, and of all that is sent at once.
pub(crate) const MAX_MESSAGE: usize = 16 << 10;

/// A peer with a lower score is not listened to. Two messages that a peer should have known to
/// be invalid are forgiven within an hour, the third is not.
pub(crate) const GRAYLIST: f64 = -80.0;

const HOUR: Duration = Duration::from_secs(3600);

/// gossipsub, subscribed to the network's topics.
pub(super) fn new(network: NetworkId, heartbeat: Duration) -> Result<Gossip, NodeError> {
    let topics = Topics::new(network);
    let count = topics.hashes().len();
    let filter = MaxCountSubscriptionFilter {
        filter: WhitelistSubscriptionFilter(topics.hashes()),
        max_subscribed_topics: count,
        max_subscriptions_per_request: 2 * count,
    };
    let mut gossip = Gossip::new_with_subscription_filter(
        MessageAuthenticity::Anonymous,
        config(network, heartbeat)?,
        filter,
    )
    .map_err(NodeError::Settings)?;
    gossip
        .with_peer_score(peer_score(&topics), thresholds())
        .map_err(|_| NodeError::Settings("the scores of peers"))?;
    for topic in topics.all() {
        gossip
            .subscribe(topic)
            .map_err(|_| NodeError::Settings("the topics of gossip"))?;
    }
    Ok(gossip)
}

fn config(network: NetworkId, heartbeat: Duration) -> Result<Config, NodeError> {
    ConfigBuilder::default()
        .protocol_id(format!("/dlambda/{network}/meshsub/1"), Version::V1_1)
        // Messages carry neither author nor number, so what they say is all that tells them apart.
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(message_id)
        // Nothing is forwarded before the catalogue has accepted it.
        .validate_messages()
        .heartbeat_interval(heartbeat)
        .heartbeat_initial_delay(heartbeat)
        .mesh_n(6)
        .mesh_n_low(4)
        .mesh_n_high(9)
        .mesh_outbound_min(2)
        // Longer than the cache of messages lives, as circuits are slow.
        .duplicate_cache_time(Duration::from_secs(180))
        .iwant_followup_time(Duration::from_secs(15))
        .max_transmit_size(MAX_MESSAGE)
        .max_publish_messages(32)
        .max_control_message_size(8 << 10)
        .max_control_messages_sent(256)
        .connection_handler_queue_len(256)
        .publish_queue_duration(Duration::from_secs(30))
        .forward_queue_duration(Duration::from_secs(15))
        // Addresses of others are learned from the routing table and from listings.
        .prune_peers(0)
        .build()
        .map_err(|_| NodeError::Settings("gossip"))
}

fn message_id(message: &Message) -> MessageId {
    let mut hash = Sha256::new();
    hash.update(message.topic.as_str());
    hash.update([0]);
    hash.update(&message.data);
    MessageId::from(hash.finalize().to_vec())
}

/// The defaults would punish every peer of a topic on which little is said, and all peers for
/// sharing an IP address, which none of them has.
fn peer_score(topics: &Topics) -> PeerScoreParams {
    PeerScoreParams {
        topics: topics
            .hashes()
            .into_iter()
            .map(|topic| (topic, topic_score()))
            .collect(),
        topic_score_cap: 20.0,
        app_specific_weight: 1.0,
        ip_colocation_factor_weight: 0.0,
        // A promise that a slow circuit breaks now and then costs nothing.
        behaviour_penalty_weight: -10.0,
        behaviour_penalty_threshold: 6.0,
        behaviour_penalty_decay: score_parameter_decay(Duration::from_secs(600)),
        slow_peer_weight: -0.2,
        slow_peer_threshold: 10.0,
        slow_peer_decay: score_parameter_decay(Duration::from_secs(60)),
        retain_score: HOUR,
        ..PeerScoreParams::default()
    }
}

fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.02,
        time_in_mesh_quantum: Duration::from_secs(60),
        time_in_mesh_cap: 60.0,
        first_message_deliveries_weight: 0.2,
        first_message_deliveries_decay: score_parameter_decay(HOUR),
        first_message_deliveries_cap: 20.0,
        // Silence is no fault.
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // Squared: three are fatal whatever else a peer has done.
        invalid_message_deliveries_weight: -20.0,
        invalid_message_deliveries_decay: score_parameter_decay(HOUR),
        ..TopicScoreParams::default()
    }
}

fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -10.0,
        publish_threshold: -40.0,
        graylist_threshold: GRAYLIST,
        accept_px_threshold: f64::MAX,
        opportunistic_graft_threshold: 0.5,
    }
}
