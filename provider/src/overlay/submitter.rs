//! The way of a listing to the overlay for a provider without a node: as a guest, which submits it
//! to nodes that its transport reaches.

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dlambda_broker::guest::Link;
use dlambda_privacy::network::{OverlayNetwork, TransportName};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::Transport;
use dlambda_proto::{
    Answer, Ask, Authentic, Endpoint, Listing, NetworkId, ProviderId, SignedListing, SubmitRefusal,
};
use rand_core::Rng as _;
use tokio::sync::watch;
use tokio::time::sleep;

use super::{ListingState, seal};

/// For one request: over Nym a helper starts, and a client connects.
const REQUEST: Duration = Duration::from_secs(120);
/// Longest wait before a submission: it should not tell when its provider started, or changed.
const DELAY_MILLIS: u64 = 20_000;
/// Nodes that should take a listing: gossip does the rest.
const ENOUGH: usize = 2;
/// Nodes that are tried at a time.
const TRIED: usize = 5;
/// Nodes that are asked what they know of this provider.
const ASKED: usize = 3;
/// Pages of a bucket that are looked through.
const PAGES: u32 = 16;
/// Nodes that are known beside the bootstrap nodes.
const OTHERS: usize = 16;

/// Submits listings, and hears what nodes list of the same identity.
pub(crate) struct Submitter {
    link: Link,
    network: NetworkId,
    reaches: Vec<TransportName>,
    bootstrap: Vec<Endpoint>,
    heard: Mutex<Heard>,
    taken: AtomicUsize,
    pub(crate) listing: watch::Sender<ListingState>,
}

/// What nodes have answered.
#[derive(Default)]
struct Heard {
    /// The latest listing of this identity: others cannot sign one.
    own: Option<Authentic<Listing>>,
    /// Nodes that listings name.
    others: Vec<Endpoint>,
}

/// What became of a submission.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Submitted {
    /// So many nodes took it.
    Taken(usize),
    /// None did, and one said why.
    Refused(SubmitRefusal),
    /// None answered.
    Unanswered,
}

impl Submitter {
    /// A guest of this overlay. `own` are the provider's own endpoints: its transport reaches
    /// others of these sorts.
    pub(crate) fn new(
        settings: &OverlayNetwork,
        transport: Arc<dyn Transport>,
        own: &[Endpoint],
    ) -> Self {
        let reaches: Vec<_> = own.iter().filter_map(TransportName::of).collect();
        let bootstrap = settings.bootstrap_at(|it| is_reached(&reaches, it));
        let state = match bootstrap.is_empty() {
            true => ListingState::Unreachable,
            false => ListingState::None,
        };
        Self {
            link: Link::new(transport, Arc::new(seal(settings)), REQUEST),
            network: settings.id,
            reaches,
            bootstrap,
            heard: Mutex::default(),
            taken: AtomicUsize::new(0),
            listing: watch::channel(state).0,
        }
    }

    /// Whether there is a node to submit to.
    pub(crate) fn has_nodes(&self) -> bool {
        !self.bootstrap.is_empty()
    }

    /// Nodes that took the latest listing.
    pub(crate) fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// The latest listing of this identity that was heard of.
    pub(crate) fn own(&self) -> Option<Authentic<Listing>> {
        self.heard().own.clone()
    }

    /// Submits a listing to two nodes, or to fewer if no more take it, each after a random wait.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the listing may have been submitted.
    pub(crate) async fn submit(&self, listing: &SignedListing) -> Submitted {
        self.taken.store(0, Ordering::Relaxed);
        let ask = Ask::SubmitListing(listing.clone());
        let mut refusal = None;
        for node in self.nodes(TRIED) {
            sleep(Duration::from_millis(os_rng().next_u64() % DELAY_MILLIS)).await;
            match self.link.ask(&node, &ask, &mut os_rng()).await {
                Ok(Answer::Accepted) => {
                    if self.taken.fetch_add(1, Ordering::Relaxed) + 1 == ENOUGH {
                        break;
                    }
                }
                Ok(Answer::Refused(reason)) => refusal = Some(reason),
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a node did not take the listing"),
            }
        }
        match (self.taken(), refusal) {
            (0, Some(reason)) => Submitted::Refused(reason),
            (0, None) => Submitted::Unanswered,
            (taken, _) => Submitted::Taken(taken),
        }
    }

    /// Asks some nodes for the bucket that this provider's listing is in. What they may withhold
    /// the next one may tell.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn hear_of(&self, provider: &ProviderId) {
        for node in self.nodes(ASKED) {
            let asked = self.link.ask(&node, &Ask::Manifest, &mut os_rng()).await;
            let Ok(Answer::Manifest(manifest)) = asked else {
                continue;
            };
            for page in 0..PAGES {
                let bucket = provider.as_bytes()[0];
                let ask = Ask::Bucket(manifest.snapshot, bucket, page);
                let asked = self.link.ask(&node, &ask, &mut os_rng()).await;
                let Ok(Answer::Listings(listings)) = asked else {
                    break;
                };
                let is_last = listings.len() < Answer::MAX_LISTINGS;
                for listing in listings {
                    self.hear(provider, listing);
                }
                if is_last {
                    break;
                }
            }
        }
    }

    fn hear(&self, provider: &ProviderId, signed: SignedListing) {
        let Ok(claimed) = signed.claims(self.network) else {
            return;
        };
        let mut heard = self.heard();
        if claimed.provider == *provider {
            let is_newer = heard
                .own
                .as_ref()
                .is_none_or(|it| it.number < claimed.number);
            if is_newer && let Ok(own) = signed.authenticate(self.network) {
                heard.own = Some(own);
            }
        } else if let Some(node) = claimed.node.iter().find(|it| is_reached(&self.reaches, it))
            && heard.others.len() < OTHERS
            && !heard.others.contains(node)
            && !self.bootstrap.contains(node)
        {
            heard.others.push(*node);
        }
    }

    /// Bootstrap nodes in random order, and then others.
    fn nodes(&self, most: usize) -> Vec<Endpoint> {
        let mut nodes = shuffled(&self.bootstrap);
        nodes.append(&mut shuffled(&self.heard().others));
        nodes.truncate(most);
        nodes
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Whole between any two operations on it.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_reached(reaches: &[TransportName], endpoint: &Endpoint) -> bool {
    TransportName::of(endpoint).is_some_and(|it| reaches.contains(&it))
}

fn shuffled(nodes: &[Endpoint]) -> Vec<Endpoint> {
    let mut drawn: Vec<_> = nodes.iter().map(|it| (os_rng().next_u64(), *it)).collect();
    drawn.sort_by_key(|(random, _)| *random);
    drawn.into_iter().map(|(_, it)| it).collect()
}

impl fmt::Debug for Submitter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Submitter")
    }
}
