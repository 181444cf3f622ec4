//! The services of a provider on the overlay.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::until;
use crate::overlay::{
    Lister, Overlay, Preloader, Presence, Shared, answer_demands, keep_listed, keep_preloaded,
    tell_demand,
};
use crate::status::StatusSource;
use crate::supervisor::Supervisor;

/// Starts the services of the overlay: the listing, and if there is a node, that and the answers to
/// demands.
pub(super) fn start(
    services: &mut Supervisor,
    overlay: Overlay,
    stop: &CancellationToken,
    status: &StatusSource,
) {
    let presence = overlay.presence();
    let lister = Lister {
        settings: overlay.settings().clone(),
        presence: presence.clone(),
        epochs: Arc::clone(&status.epochs),
        store: status.store.clone(),
    };
    if presence.can_list() {
        services.essential("listing", until(stop.clone(), keep_listed(lister)));
    }
    let (Overlay::Node(node), Presence::Node(shared)) = (overlay, presence) else {
        return;
    };
    services.essential("catalogue", node.keep_stored(stop.clone()));
    services.essential("overlay node", until(stop.clone(), node.run_beside_calls()));
    let most = status.most_calls;
    let (epochs, queues) = (Arc::clone(&status.epochs), Arc::clone(&status.queues));
    let answering = answer_demands(shared.clone(), epochs, queues, most);
    services.essential("answering demands", until(stop.clone(), answering));
    start_spreading(services, &shared, stop, status);
}

/// Starts what tells and follows the demand for published functions.
fn start_spreading(
    services: &mut Supervisor,
    shared: &Shared,
    stop: &CancellationToken,
    status: &StatusSource,
) {
    let spread = &status.spread;
    if spread.tells_demand {
        let (epochs, demand) = (Arc::clone(&status.epochs), Arc::clone(&status.demand));
        let telling = tell_demand(shared.clone(), epochs, demand, spread.preload_every);
        services.essential("telling demand", until(stop.clone(), telling));
    }
    if spread.preload_bytes > 0 {
        let preloading = keep_preloaded(Preloader {
            shared: shared.clone(),
            own: status.epochs.template().identity.id(),
            functions: Arc::clone(&status.functions),
            executor: status.executor.clone(),
            counters: Arc::clone(&status.preloads),
            every: spread.preload_every,
            max_function_bytes: status.epochs.template().max_function_bytes,
        });
        services.essential("preloading", until(stop.clone(), preloading));
    }
}
