//! Nodes with the broker's catalogue, and their guests.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_broker::{Catalogue, GuestSeal, NodeState, Rules, WorkCheck};
use dlambda_crypto::guest::GuestKey;
use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{
    AdvertDigest, Answer, Ask, Class, Day, Demand, Endpoint, Epoch, FrameKind, IdentityKey,
    ListedPlan, Listing, OnionAddress, Resources, SignedListing, SubmitRefusal, UnixSeconds,
    Validity, Work, decode, encode,
};
use tokio::io::AsyncWriteExt as _;

use super::support::{NETWORK, quick_at, transport, until};
use crate::node::lock;
use crate::{Announcement, GossipTopic, Guests, Node, NodeError, Store as _};

const FAST: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(60);
const NOW: UnixSeconds = UnixSeconds(20_000 * 86_400 + 43_200);

/// Every work is good: what it costs is not what is tested here.
struct Free;

impl WorkCheck for Free {
    fn effort(&self, _: &[u8; 32], work: &Work) -> Option<u64> {
        (work.solution != [0; 68]).then_some(1 << 20)
    }
}

struct Host {
    node: Node,
    state: Arc<Mutex<NodeState>>,
    guests: Guests,
    number: u8,
}

impl Host {
    async fn start(network: &MemoryNetwork, number: u8, bootstrap: &[&Self]) -> Self {
        Self::keyed(network, number, bootstrap, None).await
    }

    async fn keyed(
        network: &MemoryNetwork,
        number: u8,
        bootstrap: &[&Self],
        key: Option<[u8; 32]>,
    ) -> Self {
        let catalogue = Catalogue::new(Rules::new(NETWORK, 1, 1), Arc::new(Free));
        let state = Arc::new(Mutex::new(NodeState::new(catalogue).with_interval(0)));
        let transport = Arc::new(transport(network, number));
        let clock = Arc::new(FakeClock::at(NOW));
        let mut config = quick_at(bootstrap.iter().map(|host| host.node.endpoint()));
        config.key = key;
        let listener = transport.listen(Service::Guests).await.expect("listens");
        let node = Node::start(config, transport, state.clone(), clock.clone()).await;
        let node = node.expect("starts");
        let guests = Guests::serve(listener, state.clone(), seal(key), node.handle(), clock);
        Self {
            node,
            state,
            guests,
            number,
        }
    }

    fn lists(&self, listing: &SignedListing) -> bool {
        let state = lock(&self.state);
        state.catalogue.signed(&listing.digest()) == Some(listing)
    }

    fn forks(&self) -> usize {
        lock(&self.state).catalogue.forks().len()
    }
}

fn seal(key: Option<[u8; 32]>) -> GuestSeal {
    match key {
        Some(key) => GuestSeal::Keyed(GuestKey::derive(&key, NETWORK)),
        None => GuestSeal::Public,
    }
}

/// A stream of a guest, which nobody has used before.
async fn visit(network: &MemoryNetwork, host: &Host) -> BoxStream {
    let guest = transport(network, 250);
    let endpoint = transport(network, host.number).endpoint_of(Service::Guests);
    let dialled = guest.dial(&endpoint, Service::Guests).await;
    dialled.expect("is there").stream
}

async fn ask(network: &MemoryNetwork, host: &Host, seal: &GuestSeal, ask: Ask) -> Option<Answer> {
    let mut stream = visit(network, host).await;
    let (frame, binding) = seal.wrap_ask(&ask, &mut os_rng()).expect("fits");
    write_frame(&mut stream, &frame, LONG).await.ok()?;
    let budget = Budget::new(1 << 20);
    let read = read_frame(&mut stream, &[FrameKind::Answer], LONG, &budget).await;
    let (frame, _lease) = read.ok()?;
    Some(seal.unwrap_answer(binding, &frame).expect("is well-formed"))
}

fn work() -> Work {
    Work {
        day: Day::of(NOW),
        nonce: [1; 16],
        solution: [2; 68],
    }
}

fn identity(seed: u8) -> IdentityKey {
    IdentityKey::from_seed(&[seed; 32])
}

fn listing(seed: u8) -> Listing {
    let from = Day::of(NOW).begins();
    Listing {
        network: NETWORK,
        provider: identity(seed).id(),
        number: 0,
        previous: None,
        epoch: Epoch(5),
        advert: AdvertDigest([3; 32]),
        validity: Validity {
            from,
            until: from.plus(3600 * 30),
        },
        endpoints: vec![Endpoint::Onion(OnionAddress::from_public_key([seed; 32]))],
        node: vec![],
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
        work: work(),
    }
}

fn sign(listing: &Listing, seed: u8) -> SignedListing {
    listing.sign(&identity(seed)).expect("its own")
}

async fn three(network: &MemoryNetwork) -> Vec<Host> {
    let first = Host::start(network, 1, &[]).await;
    let second = Host::start(network, 2, &[&first]).await;
    let third = Host::start(network, 3, &[&first]).await;
    vec![first, second, third]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_guest_submits_all_nodes_serve() {
    let network = MemoryNetwork::new(FAST);
    let hosts = three(&network).await;
    let signed = sign(&listing(1), 1);
    let submit = Ask::SubmitListing(signed.clone());
    let answer = ask(&network, &hosts[2], &GuestSeal::Public, submit).await;
    assert!(answer == Some(Answer::Accepted));
    until("all list it", async || {
        hosts.iter().all(|host| host.lists(&signed))
    })
    .await;
    let answer = ask(&network, &hosts[0], &GuestSeal::Public, Ask::Manifest).await;
    let Some(Answer::Manifest(manifest)) = answer else {
        panic!("no manifest");
    };
    assert_eq!(manifest.listings, 1);
    let demand = Demand {
        network: NETWORK,
        class: Class::from_number(0).expect("a class"),
        work: work(),
    };
    let submit = Ask::SubmitDemand(demand);
    let answer = ask(&network, &hosts[0], &GuestSeal::Public, submit).await;
    assert!(answer == Some(Answer::Accepted));
    until("another node hears of it", async || {
        let demanded = lock(&hosts[1].state).catalogue.take_demanded();
        demanded.into_iter().eq(Class::from_number(0))
    })
    .await;
    assert!(hosts[0].guests.status().answered >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_is_proven_to_all_nodes_and_to_those_that_come_late() {
    let network = MemoryNetwork::new(FAST);
    let hosts = three(&network).await;
    let one = listing(1);
    let mut other = one.clone();
    other.plans[0].price = 11;
    let seal = GuestSeal::Public;
    let (one, other) = (sign(&one, 1), sign(&other, 1));
    tokio::join!(
        ask(&network, &hosts[1], &seal, Ask::SubmitListing(one.clone())),
        ask(
            &network,
            &hosts[2],
            &seal,
            Ask::SubmitListing(other.clone())
        ),
    );
    until("all have the proof", async || {
        hosts.iter().all(|host| host.forks() == 1)
    })
    .await;
    let late = Host::start(&network, 4, &[&hosts[1]]).await;
    until("the late one has it, too", async || late.forks() == 1).await;
    let hosts = hosts.iter().chain([&late]);
    assert!(
        hosts
            .clone()
            .all(|host| !host.lists(&one) && !host.lists(&other))
    );
    let refused = ask(&network, &late, &seal, Ask::SubmitListing(one)).await;
    assert!(matches!(
        refused,
        Some(Answer::Refused(
            SubmitRefusal::Fork | SubmitRefusal::Superseded
        ))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn listings_and_proofs_are_told_apart_and_garbage_is_rejected() {
    let network = MemoryNetwork::new(FAST);
    let host = Host::start(&network, 1, &[]).await;
    let signed = sign(&listing(1), 1);
    let mut unworked = listing(2);
    unworked.work.solution = [0; 68];
    let mut old = listing(3);
    let earlier = NOW.0 - 3 * 86_400;
    old.validity = Validity {
        from: Day::of(UnixSeconds(earlier)).begins(),
        until: UnixSeconds(earlier + 1000),
    };
    old.work.day = Day::of(UnixSeconds(earlier));
    let announce = |listing| Announcement::Listing(listing).to_bytes();
    let publish = async |topic, item| host.node.handle().publish(topic, item).await;
    publish(GossipTopic::Listings, announce(signed.clone()))
        .await
        .expect("is good");
    for (what, topic, item) in [
        ("known", GossipTopic::Listings, announce(signed.clone())),
        ("malformed", GossipTopic::Listings, encode(&signed)),
        ("malformed", GossipTopic::Demands, announce(signed.clone())),
        ("malformed", GossipTopic::Offers, vec![]),
        (
            "unworked",
            GossipTopic::Listings,
            announce(sign(&unworked, 2)),
        ),
        ("expired", GossipTopic::Listings, announce(sign(&old, 3))),
    ] {
        let refused = publish(topic, item).await;
        assert!(
            matches!(refused, Err(NodeError::Refused(reason)) if reason == what),
            "{what}: {refused:?}"
        );
    }
    let held = lock(&host.state).held();
    assert_eq!(held.len(), 1);
    let item = lock(&host.state).item(&held[0].digest);
    assert_eq!(item, Some(announce(signed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_that_hang_or_babble_keep_no_other_out() {
    let network = MemoryNetwork::new(FAST);
    let host = Host::start(&network, 1, &[]).await;
    let mut hanging = Vec::new();
    for number in 0_u8..200 {
        let mut stream = visit(&network, &host).await;
        if number.is_multiple_of(2) {
            // It may have made room for others already.
            let _ = stream.write_all(&[number; 100]).await;
        }
        hanging.push(stream);
    }
    let answer = ask(&network, &host, &GuestSeal::Public, Ask::Manifest).await;
    assert!(matches!(answer, Some(Answer::Manifest(_))));
    until("they are counted", async || {
        let status = host.guests.status();
        status.answered == 1 && status.displaced > 0 && status.failed > 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_without_the_key_of_the_network_gets_no_answer() {
    let network = MemoryNetwork::new(FAST);
    let key = Some([5; 32]);
    let host = Host::keyed(&network, 1, &[], key).await;
    let answer = ask(&network, &host, &seal(key), Ask::Manifest).await;
    assert!(matches!(answer, Some(Answer::Manifest(_))));
    for other in [GuestSeal::Public, seal(Some([6; 32]))] {
        assert!(ask(&network, &host, &other, Ask::Manifest).await.is_none());
    }
    assert_eq!(host.guests.status().answered, 1);
}
