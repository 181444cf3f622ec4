//! Providers in this process, and the listing of one that a node shows to one guest.

use std::path::PathBuf;
use std::sync::Arc;

use dlambda_crypto::work;
use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::exchange::receive_greeting;
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::{
    Day, IdentityKey, ListedPlan, Listing, Resources, SignedListing, Validity, Work,
};
use dlambda_provider::ProviderConfig;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::overlay::NETWORK;

use super::script::HOUR;
use crate::support::{LONG, NOW, functions};

/// A provider on an overlay, or on none.
pub(super) async fn provider(
    overlay: Option<OverlayNetwork>,
    data: PathBuf,
    transport: Arc<dyn Transport>,
    clock: Arc<FakeClock>,
) -> LocalProvider {
    let mut config = ProviderConfig::without_tokens();
    config.overlay = overlay;
    config.execution.workers = 1;
    let functions = functions();
    let started = LocalProvider::start(config, &functions, &data, transport, clock);
    Box::pin(started).await.expect("the provider starts")
}

/// A valid listing of a provider that would be the largest.
pub(super) async fn canary_listing(
    network: &MemoryNetwork,
    canary: &LocalProvider,
    identity: &IdentityKey,
) -> SignedListing {
    let dialled = network.transport([99; 32]);
    let dialled = dialled.dial(&canary.endpoint, Service::Calls).await;
    let mut stream = dialled.expect("reachable").stream;
    let greeted = receive_greeting(&mut *stream, &canary.endpoint, NOW, LONG).await;
    let advert = greeted.expect("a greeting").advert;
    let day = Day::of(NOW);
    let challenge = Work::for_listing(NETWORK, &identity.id(), day);
    let listing = Listing {
        network: NETWORK,
        provider: identity.id(),
        number: 0,
        previous: None,
        epoch: advert.epoch,
        advert: advert.authentic().signed().digest(),
        validity: Validity {
            from: day.begins(),
            until: day.begins().plus(30 * HOUR),
        },
        endpoints: vec![canary.endpoint],
        node: vec![],
        resources: Resources {
            cores: 1024,
            memory_mib: 1 << 20,
            gpu_vram_mib: 0,
            tee: false,
        },
        region: None,
        plans: vec![ListedPlan {
            name: "small".parse().expect("a name"),
            price: 0,
        }],
        functions: vec![],
        work: work::perform(&challenge, day, 1, [0; 16], || false).expect("done"),
    };
    listing.sign(identity).expect("its own")
}
