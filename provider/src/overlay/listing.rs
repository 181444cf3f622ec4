//! Keeps the listing fresh: work, the disk, and then the overlay, in this order.

use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::offload;
use dlambda_crypto::work;
use dlambda_node::{Announcement, GossipTopic, NodeError};
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Advert, AdvertDigest, Authentic, Day, Listing, ProviderId, SignedListing, SubmitRefusal, Work,
};
use rand_core::Rng as _;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::chain::{self, Due, Facts};
use super::submitter::{Submitted, Submitter};
use super::{ListingState, Presence, Shared};
use crate::ProviderError;
use crate::epoch::Epochs;
use crate::store::{Store, StoredListing};

/// How often the listing is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Before a listing that was refused is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// The same at nodes of others: so long at first, and at last.
const SUBMIT_AGAIN: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(1800));
/// For a node that has never listed anything to hear what others know of its identity.
const HEAR: Duration = Duration::from_secs(20);

/// What the listing is made from.
pub(crate) struct Lister {
    pub(crate) settings: OverlayNetwork,
    pub(crate) presence: Presence,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) store: Store,
}

/// There is a proof against this provider.
struct Forked;

/// Makes, stores and publishes listings. Returns on errors only.
///
/// # Errors
///
/// [`ProviderError::Store`] if a listing cannot be stored: nothing is published then.
pub(crate) async fn keep_listed(lister: Lister) -> Result<(), ProviderError> {
    let mut published: Option<SignedListing> = None;
    // Work that was done and is not used yet.
    let mut done: Option<Work> = None;
    let mut failures = 0;
    lister.hear_of_others().await?;
    loop {
        let mut pause = LOOK;
        if let Some(latest) = lister.look(&mut done).await?
            && published.as_ref() != Some(&latest.listing)
        {
            if lister.publish(&latest).await {
                published = Some(latest.listing);
                failures = 0;
            } else {
                pause = lister.again(failures);
                failures = failures.saturating_add(1);
            }
        }
        sleep(pause).await;
    }
}

impl Lister {
    /// An identity without a listing on disk may have had one: waits for the first reconciliation,
    /// if there are other nodes, or asks some.
    async fn hear_of_others(&self) -> Result<(), ProviderError> {
        if self.settings.bootstrap.is_empty() || self.latest().await?.is_some() {
            return Ok(());
        }
        let shared = match &self.presence {
            Presence::Node(shared) => shared,
            Presence::Guest(submitter) => {
                submitter.hear_of(&self.provider()).await;
                return Ok(());
            }
        };
        let heard = async {
            loop {
                let status = shared.handle.status().await.unwrap_or_default();
                if status.runs > 0 {
                    return;
                }
                sleep(LOOK).await;
            }
        };
        // Without others there is nobody to hear of.
        let _ = timeout(HEAR, heard).await;
        Ok(())
    }

    /// The latest listing that is on disk, or a later one of this identity that other nodes have:
    /// it was signed here, and lost with a disk. `None` if it cannot be continued.
    async fn predecessor(
        &self,
        advert: &Advert,
        digest: AdvertDigest,
    ) -> Result<Option<Option<StoredListing>>, ProviderError> {
        let stored = self.latest().await?;
        let Ok(listed) = self.listed(&advert.provider) else {
            return Ok(None);
        };
        let Some(listed) = listed else {
            return Ok(Some(stored));
        };
        let number = stored.as_ref().and_then(|it| {
            let read = it.listing.clone().authenticate(self.settings.id);
            Some(read.ok()?.number)
        });
        if number.is_some_and(|number| number >= listed.number) {
            return Ok(Some(stored));
        }
        let goes_back = advert.epoch < listed.epoch
            || (advert.epoch == listed.epoch && digest != listed.advert);
        Ok((!goes_back).then(|| {
            Some(StoredListing {
                listing: listed.signed().clone(),
                day: listed.work.day,
                of_day: 1,
            })
        }))
    }

    /// What other nodes list of this provider, as far as is known; an error if there is a proof
    /// against it.
    fn listed(&self, provider: &ProviderId) -> Result<Option<Authentic<Listing>>, Forked> {
        let shared = match &self.presence {
            Presence::Node(shared) => shared,
            Presence::Guest(submitter) => return Ok(submitter.own()),
        };
        let state = shared.state();
        match state.catalogue.fork(provider) {
            Some(_) => Err(Forked),
            None => Ok(state.catalogue.get(provider).cloned()),
        }
    }

    /// The listing to publish, if there is one: the latest on disk, or the next one, on disk.
    async fn look(&self, done: &mut Option<Work>) -> Result<Option<StoredListing>, ProviderError> {
        let Ok(advert) = self.epochs.signed_advert().authenticate() else {
            return Ok(None);
        };
        let digest = advert.signed().digest();
        let Some(latest) = self.predecessor(&advert, digest).await? else {
            self.say(ListingState::Conflict);
            return Ok(None);
        };
        let facts = Facts {
            network: self.settings.id,
            advert: &advert,
            node: self.presence.endpoints(),
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

    /// Says whether it is done.
    async fn publish(&self, latest: &StoredListing) -> bool {
        match &self.presence {
            Presence::Node(shared) => self.publish_at(shared, latest).await,
            Presence::Guest(submitter) => self.submit_by(submitter, latest).await,
        }
    }

    /// Submits it to nodes of others. If none takes it, they are asked what they list instead.
    async fn submit_by(&self, submitter: &Submitter, latest: &StoredListing) -> bool {
        self.say(ListingState::Submitting);
        match submitter.submit(&latest.listing).await {
            Submitted::Taken(_) => {
                self.say(ListingState::Listed);
                return true;
            }
            // One node may lie: it is tried again all the same.
            Submitted::Refused(reason) => {
                let reason = refusal(reason);
                tracing::error!(reason, "no node takes this provider's listing");
                self.say(ListingState::Refused(reason.to_owned()));
            }
            Submitted::Unanswered => {
                tracing::warn!("no node that this provider's listing was submitted to answers");
            }
        }
        submitter.hear_of(&self.provider()).await;
        false
    }

    /// Before the next attempt, after so many that failed in a row.
    fn again(&self, failures: u32) -> Duration {
        if let Presence::Node(_) = &self.presence {
            return AGAIN;
        }
        let (first, last) = SUBMIT_AGAIN;
        let pause = first
            .saturating_mul(2_u32.saturating_pow(failures))
            .min(last);
        let millis = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX).max(1);
        pause + Duration::from_millis(os_rng().next_u64() % millis)
    }

    fn provider(&self) -> ProviderId {
        self.epochs.template().identity.id()
    }

    /// Offers it to our own node, which gossips it.
    async fn publish_at(&self, shared: &Shared, latest: &StoredListing) -> bool {
        let item = Announcement::Listing(latest.listing.clone()).to_bytes();
        let handle = &shared.handle;
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
                false
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
        let provider = self.provider();
        let challenge = Work::for_listing(self.settings.id, &provider, day);
        let effort = self.settings.effort;
        let mut start = [0; 16];
        os_rng().fill_bytes(&mut start);
        let working = offload(move |stop| {
            work::perform(&challenge, day, effort, start, || stop.is_asked_for())
        });
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
        self.presence.listing().send_if_modified(|current| {
            let changed = *current != state;
            *current = state;
            changed
        });
    }
}

/// The names that a node of one's own has for the same.
fn refusal(reason: SubmitRefusal) -> &'static str {
    match reason {
        SubmitRefusal::NotNow => "not-now",
        SubmitRefusal::TooLittleWork => "too-little-work",
        SubmitRefusal::OverQuota => "over-quota",
        SubmitRefusal::Full => "full",
        SubmitRefusal::Fork => "fork",
        SubmitRefusal::Superseded => "superseded",
        _ => "invalid",
    }
}
