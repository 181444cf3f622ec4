//! Answers demands in public: one offer in ten minutes at most, in three steps of capacity.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use dlambda_executor::CallQueue;
use dlambda_node::GossipTopic;
use dlambda_privacy::os_rng;
use dlambda_proto::{Capacity, Class, Offer, PlanName, encode};
use rand_core::Rng as _;
use tokio::time::sleep;

use super::Shared;
use crate::ProviderError;
use crate::epoch::Epochs;

/// Demands are answered after a random time up to this, so that an offer does not time a demand.
const LOOK: Duration = Duration::from_secs(4);

/// Publishes offers while there are demands that this provider can meet. Never returns.
pub(crate) async fn answer_demands(
    shared: Shared,
    epochs: Arc<Epochs>,
    queues: Arc<HashMap<PlanName, CallQueue>>,
    most: usize,
) -> Result<(), ProviderError> {
    let mut latest = 0;
    loop {
        let millis = u64::try_from(LOOK.as_millis()).unwrap_or(u64::MAX);
        sleep(Duration::from_millis(1 + os_rng().next_u64() % millis)).await;
        let minute = epochs.now().0 / 60;
        if minute < latest + Offer::INTERVAL_MINUTES {
            continue;
        }
        if let Some(offer) = offer(&shared, &epochs, capacity(&queues, most), minute) {
            let published = shared.handle.publish(GossipTopic::Offers, offer).await;
            if published.is_ok() {
                latest = minute;
            }
        }
    }
}

/// An offer for one of the classes that are demanded and that this provider belongs to.
fn offer(shared: &Shared, epochs: &Epochs, capacity: Capacity, minute: u64) -> Option<Vec<u8>> {
    let template = epochs.template();
    let provider = template.identity.id();
    let (class, listing, network) = {
        let mut state = shared.state();
        let listing = state.catalogue.get(&provider)?;
        let (resources, digest) = (listing.resources, listing.digest());
        let network = state.catalogue.rules().network;
        let demanded = state.catalogue.take_demanded();
        let met: Vec<Class> = demanded
            .into_iter()
            .filter(|class| class.is_met_by(&resources))
            .collect();
        let count = u64::try_from(met.len()).ok().filter(|count| *count > 0)?;
        let drawn = usize::try_from(os_rng().next_u64() % count).unwrap_or(0);
        (*met.get(drawn)?, digest, network)
    };
    let offer = Offer {
        network,
        provider,
        listing,
        class,
        capacity,
        minute,
    };
    Some(encode(&offer.sign(&template.identity).ok()?))
}

/// How much is free, over all plans.
fn capacity(queues: &HashMap<PlanName, CallQueue>, most: usize) -> Capacity {
    let status = queues.values().map(CallQueue::status);
    let used: usize = status.map(|it| it.running + it.waiting).sum();
    if used >= most {
        Capacity::None
    } else if used * 2 > most {
        Capacity::Some
    } else {
        Capacity::Ample
    }
}
