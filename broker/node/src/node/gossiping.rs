//! What becomes of what is gossiped.

use std::time::Instant;

use libp2p_gossipsub::{Event, Message, MessageAcceptance, MessageId, PublishError};
use libp2p_identity::PeerId;

use super::connecting::{BAN, SHORT_BAN};
use super::run::Running;
use crate::behaviour::GRAYLIST;
use crate::{GossipTopic, NodeError, Store, Verdict};

/// Items that wait for somebody to be published to; the oldest makes room.
const UNPUBLISHED: usize = 64;

impl<S: Store> Running<S> {
    pub(super) fn gossip_event(&mut self, event: Event) {
        match event {
            Event::Message {
                propagation_source,
                message_id,
                message,
            } => self.judge(propagation_source, &message_id, &message),
            // It does not belong to our network.
            Event::GossipsubNotSupported { peer_id } => {
                self.status.refuse("other protocols");
                self.ban(peer_id, BAN);
            }
            Event::Subscribed { .. } => self.publish_again(),
            Event::Unsubscribed { .. } | Event::SlowPeer { .. } => {}
        }
    }

    fn judge(&mut self, peer: PeerId, id: &MessageId, message: &Message) {
        let verdict = match self.topics.find(&message.topic) {
            Some(topic) => {
                let today = self.today();
                self.store().offer(topic, &message.data, today)
            }
            None => Verdict::Ignore("unknown topic"),
        };
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Reject(_) => MessageAcceptance::Reject,
            Verdict::Ignore(_) | Verdict::Publish(_) => MessageAcceptance::Ignore,
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        gossip.report_message_validation_result(id, &peer, acceptance);
        match verdict {
            Verdict::Accept => self.status.accepted += 1,
            Verdict::Ignore(reason) => {
                self.status.refuse(reason);
                if self.peers.is_useless(&peer, Instant::now()) {
                    self.ban(peer, SHORT_BAN);
                }
            }
            Verdict::Reject(reason) => {
                self.status.refuse(reason);
                let score = self.swarm.behaviour().gossip.peer_score(&peer);
                if score.is_some_and(|score| score < GRAYLIST) {
                    self.ban(peer, BAN);
                }
            }
            Verdict::Publish(proof) => self.publish(GossipTopic::Listings, proof),
        }
    }

    /// Publishes an item of this node's own.
    pub(super) fn publish_own(
        &mut self,
        topic: GossipTopic,
        item: Vec<u8>,
    ) -> Result<(), NodeError> {
        let today = self.today();
        let verdict = self.store().offer(topic, &item, today);
        match verdict {
            Verdict::Accept => {
                self.publish(topic, item);
                Ok(())
            }
            Verdict::Publish(proof) => {
                self.publish(GossipTopic::Listings, proof);
                Ok(())
            }
            Verdict::Ignore(reason) | Verdict::Reject(reason) => Err(NodeError::Refused(reason)),
        }
    }

    /// Publishes an item that the store has accepted; later, if there is nobody to publish it to.
    pub(super) fn publish(&mut self, topic: GossipTopic, item: Vec<u8>) {
        let Some(hash) = self.topics.hash(topic) else {
            return;
        };
        let gossip = &mut self.swarm.behaviour_mut().gossip;
        match gossip.publish(hash, item.clone()) {
            Ok(_) | Err(PublishError::Duplicate) => {}
            Err(PublishError::NoPeersSubscribedToTopic | PublishError::AllQueuesFull(_)) => {
                if self.unpublished.len() >= UNPUBLISHED {
                    self.unpublished.remove(0);
                }
                self.unpublished.push((topic, item));
            }
            Err(_) => self.status.refuse("item that gossip does not take"),
        }
    }

    /// Publishes what could not be published before.
    pub(super) fn publish_again(&mut self) {
        for (topic, item) in std::mem::take(&mut self.unpublished) {
            self.publish(topic, item);
        }
    }
}
