//! Says once a day how often published functions were called on the day before.

use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::schedule::until_next;
use dlambda_node::{GossipTopic, NodeError};
use dlambda_privacy::os_rng;
use dlambda_proto::{Day, FunctionDemand, encode};
use rand_core::Rng as _;
use tokio::time::sleep;

use super::Shared;
use crate::ProviderError;
use crate::epoch::Epochs;
use crate::state::demand::DemandCounts;

/// Between two looks, on average, and less if functions are looked for more often. The times are
/// random, so that a statement tells nothing of the clock.
const LOOK: Duration = Duration::from_secs(3600);

/// Publishes a statement a day while there is something to tell. Never returns.
pub(crate) async fn tell_demand(
    shared: Shared,
    epochs: Arc<Epochs>,
    counts: Arc<DemandCounts>,
    every: Duration,
) -> Result<(), ProviderError> {
    let mut told: Option<Day> = None;
    loop {
        sleep(until_next(LOOK.min(every), os_rng().next_u64())).await;
        let yesterday = counts.of_yesterday(epochs.now());
        let Some((day, counts)) = yesterday.filter(|(day, _)| Some(*day) != told) else {
            continue;
        };
        let identity = &epochs.template().identity;
        let network = shared.state().catalogue.rules().network;
        let demand = FunctionDemand::of_counts(network, identity.id(), day, counts);
        let Some(signed) = demand.and_then(|it| it.sign(identity).ok()) else {
            told = Some(day);
            continue;
        };
        let topic = GossipTopic::FunctionDemand;
        match shared.handle.publish(topic, encode(&signed)).await {
            // Over the quota is what was told before a restart.
            Ok(()) | Err(NodeError::Refused("known" | "over-quota")) => told = Some(day),
            // Not listed yet, perhaps: the next look tries again.
            Err(_) => {}
        }
    }
}
