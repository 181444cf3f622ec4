//! What a provider tells its operator of the overlay.

use std::collections::BTreeMap;
use std::fmt;

use dlambda_broker::spread::Demanded;
use serde::{Deserialize, Serialize};

use super::{Presence, Shared};

/// Functions in demand that are shown to the operator.
const SHOWN: usize = 10;

/// The node and the listing of a provider: numbers, and no address of others.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OverlayStatus {
    /// What became of this provider's own listing.
    pub listing: ListingState,
    /// Nodes that took the listing, for a provider without a node, for which all numbers below
    /// are 0.
    #[serde(default)]
    pub submitted_to: Option<usize>,
    /// Nodes that this one is connected to.
    pub peers: usize,
    /// Nodes of which it has an address.
    pub known_nodes: usize,
    /// Providers in its catalogue.
    pub listings: usize,
    /// Of these, such as have been listed for seven days.
    pub seniors: usize,
    /// Proofs that a provider has shown two listings.
    pub forks: usize,
    /// Offers that are of use now.
    pub offers: usize,
    /// Bytes received from other nodes.
    pub bytes_received: u64,
    /// Bytes sent to other nodes.
    pub bytes_sent: u64,
    /// Guests that were answered.
    pub guests_answered: u64,
    /// Guests that asked for nothing, too late, or did not take the answer.
    pub guests_failed: u64,
    /// Bytes of published functions sent to other nodes.
    #[serde(default)]
    pub function_bytes_sent: u64,
    /// Published functions in demand, as other providers say and this one, the most wanted first:
    /// at most 10.
    #[serde(default)]
    pub demand: Vec<DemandedFunctionStatus>,
    /// What was refused, by reason.
    pub refusals: BTreeMap<String, u64>,
}

/// A published function in demand.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DemandedFunctionStatus {
    /// Its CID.
    pub function: String,
    /// How many providers say that it is called.
    pub providers: usize,
    /// The median of what they say: calls a day, rounded down to a power of two.
    pub calls: u64,
}

/// What became of a provider's own listing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ListingState {
    /// There is none: this node has no provider, or has just begun.
    #[default]
    None,
    /// The day's work is being done.
    Working,
    /// It is being submitted to nodes; none has taken it yet.
    Submitting,
    /// It is published.
    Listed,
    /// This provider runs no node, and reaches no bootstrap node of the network file.
    Unreachable,
    /// As many as a provider may publish on a day are published: the next one comes tomorrow.
    OverQuota,
    /// What the provider offers does not fit into a listing.
    Impossible,
    /// The node, or one that it was submitted to, refuses it, for this reason; it is tried again
    /// once in a while.
    Refused(String),
    /// Others know listings of this identity that this data directory cannot continue: it was put
    /// back from a backup, or the identity runs elsewhere, too.
    Conflict,
    /// The node has ended; the provider goes on without it until it is started again.
    Ended,
}

impl Presence {
    /// The status now.
    pub(crate) async fn status(&self) -> OverlayStatus {
        match self {
            Self::Node(shared) => shared.status().await,
            Self::Guest(submitter) => OverlayStatus {
                listing: submitter.listing.borrow().clone(),
                submitted_to: Some(submitter.taken()),
                ..OverlayStatus::default()
            },
        }
    }
}

impl Shared {
    /// The status now; without what only the node knows if it does not answer.
    pub(crate) async fn status(&self) -> OverlayStatus {
        let node = self.handle.status().await.unwrap_or_default();
        let guests = self.guests.status();
        let demand = self.in_demand(None).await;
        let state = self.state();
        let catalogue = &state.catalogue;
        let mut refusals: BTreeMap<String, u64> = BTreeMap::new();
        for (reason, count) in node.refusals {
            refusals.insert(reason.to_owned(), count);
        }
        OverlayStatus {
            listing: self.listing.borrow().clone(),
            submitted_to: None,
            peers: node.peers,
            known_nodes: node.known,
            listings: catalogue.len(),
            seniors: catalogue.seniors(),
            forks: catalogue.forks().len(),
            offers: catalogue.offer_count(),
            bytes_received: node.bytes_received,
            bytes_sent: node.bytes_sent,
            guests_answered: guests.answered,
            guests_failed: guests.failed,
            function_bytes_sent: node.function_bytes_sent,
            demand: demand.into_iter().take(SHOWN).map(Into::into).collect(),
            refusals,
        }
    }
}

impl From<Demanded> for DemandedFunctionStatus {
    fn from(it: Demanded) -> Self {
        Self {
            function: it.function.unredacted(),
            providers: it.providers.len(),
            calls: it.calls,
        }
    }
}

impl fmt::Display for ListingState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Working => f.write_str("the day's work is being done"),
            Self::Submitting => f.write_str("being submitted to nodes"),
            Self::Listed => f.write_str("listed"),
            Self::Unreachable => {
                f.write_str("none: no bootstrap node of the network file can be reached from here")
            }
            Self::OverQuota => f.write_str("no more listings today"),
            Self::Impossible => f.write_str("the offer does not fit into a listing"),
            Self::Refused(reason) => write!(f, "refused: {reason}"),
            Self::Conflict => {
                f.write_str("in conflict with later listings of this identity: take a new identity")
            }
            Self::Ended => f.write_str("the overlay has ended: start the provider again"),
        }
    }
}
