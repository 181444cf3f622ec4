//! What nodes gossip about.

use std::collections::HashSet;

use dlambda_proto::NetworkId;
use libp2p_gossipsub::{IdentTopic, TopicHash};

/// What a gossiped item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GossipTopic {
    /// Listings of providers, and proofs that a provider has equivocated.
    Listings,
    /// Demands for a class of providers.
    Demands,
    /// Providers' public answers to demands.
    Offers,
    /// How often published functions are called, a statement a provider and day.
    FunctionDemand,
}

impl GossipTopic {
    /// All topics.
    pub(crate) const ALL: [Self; 4] = [
        Self::Listings,
        Self::Demands,
        Self::Offers,
        Self::FunctionDemand,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Listings => "listings",
            Self::Demands => "demands",
            Self::Offers => "offers",
            Self::FunctionDemand => "function-demand",
        }
    }
}

/// The topics of one network.
pub(crate) struct Topics([(GossipTopic, IdentTopic); 4]);

impl Topics {
    /// `/dlambda/NETWORK/listings/1`, and so on.
    pub(crate) fn new(network: NetworkId) -> Self {
        Self(GossipTopic::ALL.map(|topic| {
            let name = format!("/dlambda/{network}/{}/1", topic.name());
            (topic, IdentTopic::new(name))
        }))
    }

    /// libp2p's topics.
    pub(crate) fn all(&self) -> impl Iterator<Item = &IdentTopic> {
        self.0.iter().map(|(_, topic)| topic)
    }

    /// What libp2p calls them.
    pub(crate) fn hashes(&self) -> HashSet<TopicHash> {
        self.all().map(IdentTopic::hash).collect()
    }

    /// What libp2p calls a topic.
    pub(crate) fn hash(&self, topic: GossipTopic) -> Option<TopicHash> {
        let found = self.0.iter().find(|(ours, _)| *ours == topic);
        found.map(|(_, topic)| topic.hash())
    }

    /// Which topic libp2p means.
    pub(crate) fn find(&self, hash: &TopicHash) -> Option<GossipTopic> {
        let found = self.0.iter().find(|(_, topic)| topic.hash() == *hash);
        found.map(|(topic, _)| *topic)
    }
}
