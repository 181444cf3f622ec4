//! Keeps the listing fresh: work, the disk, and then the overlay, in this order.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dlambda_crypto::work;
use dlambda_node::{Announcement, GossipTopic, NodeError};
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::os_rng;
use dlambda_proto::{Day, SignedListing, Work};
use rand_core::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::chain::{self, Due, Facts};
use super::{ListingState, Shared};
use crate::ProviderError;
use crate::epoch::Epochs;
use crate::store::{Store, StoredListing};

/// How often the listing is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the listing is made from.
pub(crate) struct Lister {
    pub(crate) settings: OverlayNetwork,
    pub(crate) shared: Shared,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) store: Store,
}

/// Ends the work with the service that waits for it.
struct StopOnDrop(Arc<AtomicBool>);

/// Makes, stores and publishes listings. Returns on errors only.
///
/// # Errors
///
/// [`ProviderError::Store`] if a listing cannot be stored: nothing is published then.
pub(crate) async fn keep_listed(lister: Lister) -> Result<(), ProviderError> {
    let mut published: Option<SignedListing> = None;
    // Work that was done and is not used yet.
    let mut done: Option<Work> = None;
    loop {
        if let Some(latest) = lister.look(&mut done).await?
            && published.as_ref() != Some(&latest.listing)
            && lister.publish(&latest).await
        {
            published = Some(latest.listing);
        }
        sleep(LOOK).await;
    }
}

impl Lister {
    /// The listing to publish, if there is one: the latest on disk, or the next one, on disk.
    async fn look(&self, done: &mut Option<Work>) -> Result<Option<StoredListing>, ProviderError> {
        let latest = self.latest().await?;
        let Ok(advert) = self.epochs.signed_advert().authenticate() else {
            return Ok(None);
        };
        let node = [self.shared.endpoint];
        let facts = Facts {
            network: self.settings.id,
            advert: &advert,
            node: &node,
        };
        let day = match chain::due(latest.as_ref(), &facts, self.epochs.now()) {
            Due::Nothing => return Ok(latest),
            Due::Quota => {
                self.say(ListingState::OverQuota);
                return Ok(None);
            }
            Due::Next(day) => day,
        };
        let kept = latest.as_ref().and_then(|it| self.work_of(it));
        let known = done.take().or(kept).filter(|work| work.day == day);
        let work = match known {
            Some(work) => work,
            None => {
                self.say(ListingState::Working);
                self.work(day).await?
            }
        };
        *done = Some(work.clone());
        // The epoch may have turned meanwhile: the next look sees that.
        let identity = &self.epochs.template().identity;
        let next = chain::next(latest.as_ref(), &facts, work, self.epochs.now(), identity);
        let next = match next {
            Ok(next) => next,
            Err(error) => {
                tracing::error!(%error, "no listing can be made");
                self.say(ListingState::Impossible);
                return Ok(None);
            }
        };
        self.put(next.clone()).await?;
        Ok(Some(next))
    }

    /// Offers it to our own node, which gossips it. Says whether that is done.
    async fn publish(&self, latest: &StoredListing) -> bool {
        let item = Announcement::Listing(latest.listing.clone()).to_bytes();
        let handle = &self.shared.handle;
        match handle.publish(GossipTopic::Listings, item).await {
            // Known is what was published before a restart.
            Ok(()) | Err(NodeError::Refused("known")) => {
                self.say(ListingState::Listed);
                true
            }
            // Our own node says why: it has no reason that other nodes would not have.
            Err(NodeError::Refused(reason)) => {
                tracing::error!(reason, "the overlay does not take this provider's listing");
                self.say(ListingState::Refused(reason.to_owned()));
                true
            }
            Err(_) => false,
        }
    }

    fn work_of(&self, latest: &StoredListing) -> Option<Work> {
        let read = latest.listing.clone().authenticate(self.settings.id);
        read.ok().map(|listing| listing.work.clone())
    }

    /// The day's work: about a minute of one processor unless the network asks for less.
    async fn work(&self, day: Day) -> Result<Work, ProviderError> {
        let provider = self.epochs.template().identity.id();
        let challenge = Work::for_listing(self.settings.id, &provider, day);
        let effort = self.settings.effort;
        let mut start = [0; 16];
        os_rng().fill_bytes(&mut start);
        let stopped = Arc::new(AtomicBool::new(false));
        let _stop = StopOnDrop(Arc::clone(&stopped));
        let stop = move || stopped.load(Ordering::Relaxed);
        let working = spawn_blocking(move || work::perform(&challenge, day, effort, start, stop));
        let done = working.await.map_err(|_| ProviderError::Interrupted)?;
        done.ok_or(ProviderError::Interrupted)
    }

    async fn latest(&self) -> Result<Option<StoredListing>, ProviderError> {
        let (store, network) = (self.store.clone(), self.settings.id);
        let reading = spawn_blocking(move || store.listing(network));
        Ok(reading.await.map_err(|_| ProviderError::Interrupted)??)
    }

    async fn put(&self, listing: StoredListing) -> Result<(), ProviderError> {
        let (store, network) = (self.store.clone(), self.settings.id);
        let writing = spawn_blocking(move || store.put_listing(network, &listing));
        Ok(writing.await.map_err(|_| ProviderError::Interrupted)??)
    }

    fn say(&self, state: ListingState) {
        self.shared.listing.send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
