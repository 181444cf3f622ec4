//! Submissions to nodes in memory, some of which refuse or withhold.

use dlambda_broker::{Catalogue, Equihash, GuestSeal, NodeState, Rules};
use dlambda_crypto::work;
use dlambda_privacy::network::Network;
use dlambda_privacy::transport::Service;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{
    AdvertDigest, Day, Endpoints, Epoch, FrameKind, IdentityKey, ListedPlan, OnionAddress,
    Resources, UnixSeconds, Validity, Work,
};

use super::*;

const NETWORK: NetworkId = NetworkId::from_bytes([7; 16]);
const LONG: Duration = Duration::from_secs(600);

fn noon() -> UnixSeconds {
    Day::of(UnixSeconds(1_800_000_000)).begins().plus(12 * 3600)
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn onion(key: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([key; 32]))
}

/// A listing that says that its provider has a node there.
fn listing(seed: u8, previous: Option<&Listing>, node: &[Endpoint]) -> Listing {
    let (provider, day) = (identity(seed).id(), Day::of(noon()));
    let challenge = Work::for_listing(NETWORK, &provider, day);
    let work = work::perform(&challenge, day, 1, [seed; 16], || false);
    Listing {
        network: NETWORK,
        provider,
        number: previous.map_or(0, |it| it.number + 1),
        previous: previous.map(Listing::digest),
        epoch: Epoch(previous.map_or(0, |it| it.epoch.0 + 1)),
        advert: AdvertDigest([3; 32]),
        validity: Validity {
            from: noon(),
            until: noon().plus(30 * 3600),
        },
        endpoints: vec![onion(seed)],
        node: node.to_vec(),
        resources: Resources {
            cores: 4,
            memory_mib: 8192,
            gpu_vram_mib: 0,
            tee: false,
        },
        region: None,
        plans: vec![ListedPlan {
            name: "small".parse().expect("a name"),
            price: 10,
        }],
        functions: vec![],
        work: work.expect("is not stopped"),
    }
}

fn sign(listing: &Listing, seed: u8) -> SignedListing {
    listing.sign(&identity(seed)).expect("its own")
}

/// Nodes in memory, and a provider without one.
struct World {
    network: MemoryNetwork,
    nodes: Vec<Arc<Mutex<NodeState>>>,
    bootstrap: Vec<Endpoints>,
    submitter: Submitter,
}

impl World {
    async fn new(nodes: u8, effort: u64) -> Self {
        let network = MemoryNetwork::new(Duration::from_millis(100));
        let head = "name = \"n\"\ntransport = \"tor\"\n[overlay]\n";
        let file = format!("{head}id = \"{NETWORK}\"\neffort = 1\n");
        let file = Network::parse(&file).expect("a network");
        let mut settings = file.overlay.expect("an overlay");
        let mut world = Self {
            submitter: Submitter::new(&settings, Arc::new(network.transport([99; 32])), &[]),
            network,
            nodes: Vec::new(),
            bootstrap: Vec::new(),
        };
        for key in 1..=nodes {
            let endpoint = world.node(key, effort).await;
            world.bootstrap.push(endpoint.into());
        }
        settings.bootstrap.clone_from(&world.bootstrap);
        let own = world.network.transport([99; 32]);
        world.submitter = Submitter::new(&settings, Arc::new(own.clone()), &[own.endpoint()]);
        world
    }

    /// Starts a node that wants so much work.
    async fn node(&mut self, key: u8, effort: u64) -> Endpoint {
        let catalogue = Catalogue::new(Rules::new(NETWORK, effort, 1), Arc::new(Equihash));
        let node = Arc::new(Mutex::new(NodeState::new(catalogue).with_interval(0)));
        let transport = self.network.transport([key; 32]);
        let mut listener = transport.listen(Service::Guests).await.expect("listens");
        self.nodes.push(Arc::clone(&node));
        tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let mut stream = incoming.connection.stream;
                let budget = Budget::new(0);
                let asked = read_frame(&mut *stream, &[FrameKind::Ask], LONG, &budget).await;
                let (frame, _lease) = asked.expect("an ask");
                let seal = GuestSeal::Public;
                let (ask, binding) = seal.unwrap_ask(&frame).expect("an ask");
                let answer = node.lock().expect("whole").answer(ask, noon()).0;
                let frame = seal.wrap_answer(binding, &answer, &mut os_rng());
                let _ = write_frame(&mut *stream, &frame.expect("fits"), LONG).await;
            }
        });
        transport.endpoint_of(Service::Guests)
    }

    fn insert(&self, node: usize, listing: SignedListing) {
        let mut node = self.nodes[node].lock().expect("whole");
        node.catalogue.insert(listing, noon()).expect("is taken");
    }

    fn listed(&self, provider: &ProviderId) -> usize {
        let lists = |it: &&Arc<Mutex<NodeState>>| {
            let node = it.lock().expect("whole");
            node.catalogue.get(provider).is_some()
        };
        self.nodes.iter().filter(lists).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_is_submitted_to_two_nodes() {
    for (nodes, expected) in [(1, 1), (4, 2)] {
        let world = World::new(nodes, 1).await;
        let signed = sign(&listing(50, None, &[]), 50);
        let submitted = world.submitter.submit(&signed).await;
        assert_eq!(submitted, Submitted::Taken(expected));
        assert_eq!(world.listed(&identity(50).id()), expected);
        assert_eq!(world.submitter.taken(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn what_no_node_takes_has_a_reason_if_one_answers() {
    let signed = sign(&listing(50, None, &[]), 50);
    let world = World::new(2, u64::MAX).await;
    let submitted = world.submitter.submit(&signed).await;
    assert_eq!(submitted, Submitted::Refused(SubmitRefusal::TooLittleWork));
    let world = World::new(0, 1).await;
    assert!(!world.submitter.has_nodes());
    assert_eq!(*world.submitter.listing.borrow(), ListingState::Unreachable);
    assert_eq!(world.submitter.submit(&signed).await, Submitted::Unanswered);
}

#[tokio::test(start_paused = true)]
async fn a_later_listing_of_the_same_identity_is_heard_of_though_a_node_withholds_it() {
    let world = World::new(3, 1).await;
    let first = listing(50, None, &[]);
    let second = listing(50, Some(&first), &[]);
    world.insert(0, sign(&first, 50));
    world.insert(2, sign(&first, 50));
    world.insert(2, sign(&second, 50));
    let own = identity(50).id();
    world.submitter.hear_of(&own).await;
    assert!(world.submitter.own().is_some_and(|it| *it == second));
    let submitted = world.submitter.submit(&sign(&first, 50)).await;
    assert_ne!(submitted, Submitted::Unanswered);
}

#[test]
fn only_what_this_identity_signed_and_nodes_that_are_reached_are_remembered() {
    let head = "name = \"n\"\ntransport = \"tor\"\n[overlay]\n";
    let file = Network::parse(&format!("{head}id = \"{NETWORK}\"\n")).expect("a network");
    let settings = file.overlay.expect("an overlay");
    let network = MemoryNetwork::default();
    let submitter = Submitter::new(
        &settings,
        Arc::new(network.transport([99; 32])),
        &[onion(1)],
    );
    let own = identity(50).id();
    // Another's signature.
    let mut forged = listing(50, None, &[]);
    forged.provider = identity(51).id();
    let mut bytes = dlambda_proto::encode(&sign(&forged, 51));
    let at = bytes
        .windows(32)
        .position(|it| it == identity(51).id().as_bytes());
    let at = at.expect("names its provider");
    bytes[at..at + 32].copy_from_slice(own.as_bytes());
    submitter.hear(
        &own,
        SignedListing::from_bytes(&bytes).expect("is well formed"),
    );
    assert!(submitter.own().is_none());
    let loopback = Endpoint::DangerouslyDirect(([127, 0, 0, 1], 1).into());
    for node in [vec![loopback], vec![loopback, onion(2)], vec![onion(2)]] {
        submitter.hear(&own, sign(&listing(51, None, &node), 51));
    }
    assert!(submitter.nodes(TRIED) == [onion(2)]);
    for key in 3..30 {
        submitter.hear(&own, sign(&listing(51, None, &[onion(key)]), 51));
    }
    assert_eq!(submitter.heard().others.len(), OTHERS);
}
