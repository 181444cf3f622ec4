//! A provider that lists one advert here and another there: all nodes have the proof, and nobody
//! who asked them gives the provider anything.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dlambda_broker::guest::Link;
use dlambda_broker::{GuestSeal, Market};
use dlambda_client::{Call, CallError, ContractError, Guest, ListingMismatch, Querier, Wallet};
use dlambda_crypto::negotiation::ContractOptions;
use dlambda_crypto::work;
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::exchange::receive_greeting;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_proto::{
    Advert, AdvertDigest, Answer, Ask, Authentic, BatchSize, Day, Endpoint, Epoch, IdentityKey,
    ListedPlan, Listing, OnionAddress, ProviderId, Resources, SignedListing, Validity, Work,
};
use dlambda_provider::{DataDir, ProviderConfig, SessionRecord};
use dlambda_tests::local::LocalProvider;
use dlambda_tests::overlay::{NETWORK, Peer, overlay};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::support::{LONG, NOW, alias, functions, skip_second_look};

/// A network in memory, and files of everybody.
struct World {
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    dir: TempDir,
}

/// Two providers that run on one identity.
struct TwoFaced {
    identity: IdentityKey,
    providers: [LocalProvider; 2],
    listings: [SignedListing; 2],
}

/// Nodes that are told one listing, and nodes that are told the other.
struct Halves(Vec<Peer>);

impl World {
    fn new() -> Self {
        Self {
            network: MemoryNetwork::new(Duration::from_millis(5)),
            clock: Arc::new(FakeClock::at(NOW)),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.clock) as Arc<dyn Clock>
    }

    fn transport(&self, key: u8) -> Arc<dyn Transport> {
        Arc::new(self.network.transport([key; 32]))
    }

    async fn peer(&self, key: u8, bootstrap: Vec<Endpoint>) -> Peer {
        let settings = overlay(bootstrap).expect("an overlay");
        let started = Peer::start(&settings, self.transport(key), self.clock());
        started.await.expect("a node")
    }

    /// Twice three nodes, of which no three know of the others.
    async fn halves(&self) -> Halves {
        let mut peers = Vec::new();
        for first in [11, 14] {
            let peer = self.peer(first, vec![]).await;
            let known = peer.endpoint();
            peers.push(peer);
            peers.push(self.peer(first + 1, vec![known]).await);
            peers.push(self.peer(first + 2, vec![known]).await);
        }
        Halves(peers)
    }

    async fn submit(&self, node: &Peer, listing: &SignedListing) {
        let link = Link::new(self.transport(99), Arc::new(GuestSeal::Public), LONG);
        let ask = Ask::SubmitListing(listing.clone());
        let answer = link.ask(&node.endpoint(), &ask, &mut os_rng()).await;
        // Nodes that have heard of the other listing refuse it.
        assert!(matches!(answer, Ok(Answer::Accepted | Answer::Refused(_))));
    }

    /// What a guest is told by these nodes.
    async fn synced(&self, nodes: &[Peer], file: &str) -> Market {
        let bootstrap = nodes.iter().map(Peer::endpoint).collect();
        let settings = overlay(bootstrap).expect("an overlay");
        let mut market = Market::new(Guest::rules(&settings));
        let path = self.dir.path().join(file);
        let guest = Guest::new(settings, self.transport(99), |_| true, path, self.clock());
        let fetched = guest.sync(&mut market, LONG).await.expect("syncs");
        assert_eq!(fetched.misbehaved, 0);
        market
    }

    /// Two providers of one identity, each with its own keys and address: as if the operator had
    /// copied it to another machine.
    async fn two_faced(&self) -> TwoFaced {
        let (one, other) = (self.dir.path().join("one"), self.dir.path().join("other"));
        let identity = DataDir::open(&one).expect("made").identity().expect("made");
        drop(DataDir::open(&other).expect("made"));
        let copied = std::fs::copy(one.join("identity.key"), other.join("identity.key"));
        copied.expect("copied");
        let (first, second) = (self.provider(41, &one), self.provider(42, &other));
        let providers = [Box::pin(first).await, Box::pin(second).await];
        let (first, second) = (&providers[0], &providers[1]);
        let adverts = [self.advert(first).await, self.advert(second).await];
        assert_eq!(adverts[0].provider, adverts[1].provider);
        let listings = adverts.map(|advert| {
            let digest = advert.signed().digest();
            listing(&identity, advert.epoch, digest, advert.endpoints.clone())
        });
        TwoFaced {
            identity,
            providers,
            listings,
        }
    }

    async fn provider(&self, key: u8, data: &Path) -> LocalProvider {
        let config = ProviderConfig::default();
        let (functions, transport) = (functions(), self.transport(key));
        let started = LocalProvider::start(config, &functions, data, transport, self.clock());
        Box::pin(started).await.expect("starts")
    }

    async fn advert(&self, provider: &LocalProvider) -> Authentic<Advert> {
        let transport = self.transport(99);
        let dialled = transport.dial(&provider.endpoint, Service::Calls).await;
        let mut stream = dialled.expect("reachable").stream;
        let greeted = receive_greeting(&mut *stream, &provider.endpoint, NOW, LONG).await;
        greeted.expect("a greeting").advert.authentic().clone()
    }

    fn wallet(&self, name: &str) -> Wallet {
        Wallet::open(&self.dir.path().join(name)).expect("a wallet")
    }

    fn querier(&self, wallet: &Wallet) -> Querier {
        Querier::new(self.transport(98), self.clock()).with_wallet(wallet.clone())
    }

    /// Calls with a token of this wallet, and with what is known of the market.
    async fn call(
        &self,
        provider: &LocalProvider,
        wallet: &Wallet,
        market: Option<&Market>,
    ) -> Result<(), CallError> {
        let querier = self.querier(wallet);
        let querier = match market {
            Some(market) => querier.with_market(market.clone()),
            None => querier,
        };
        let call = Call::new(provider.endpoint, alias("upper")).input(b"a".to_vec());
        querier.call(&call, LONG, |_| {}).await.map(|_| ())
    }

    /// Makes a contract, with what is known of the market.
    async fn contract(
        &self,
        provider: &LocalProvider,
        wallet: &Wallet,
        market: Option<&Market>,
    ) -> Result<(), ContractError> {
        let querier = self.querier(wallet);
        let querier = match market {
            Some(market) => querier.with_market(market.clone()),
            None => querier,
        };
        let wish = ContractOptions {
            plan: None,
            calls: BatchSize::Calls8,
            service: None,
            deterministic: true,
            invitation: None,
        };
        let made = querier.contract(&provider.endpoint, &wish, LONG, |_| true, |_| {});
        Box::pin(made).await?;
        skip_second_look(wallet);
        Ok(())
    }

    /// Neither a token nor a proposal reaches this provider from somebody who knows this.
    async fn assert_nothing_leaves(
        &self,
        provider: &LocalProvider,
        wallet: &Wallet,
        market: &Market,
        expected: ListingMismatch,
    ) {
        let before = settled(provider).await;
        let called = self.call(provider, wallet, Some(market)).await;
        assert!(
            matches!(&called, Err(CallError::Listing(it)) if *it == expected),
            "{called:?}"
        );
        let fresh = self.wallet(&format!("fresh-{}", before.len()));
        let agreed = self.contract(provider, &fresh, Some(market)).await;
        assert!(
            matches!(&agreed, Err(ContractError::Listing(it)) if *it == expected),
            "{agreed:?}"
        );
        let records = settled(provider).await;
        let after = &records[before.len()..];
        match expected {
            // A visit that ends after the greeting would say that its caller holds the proof.
            ListingMismatch::Forked => assert!(after.is_empty(), "nobody came by"),
            _ => assert!(after.len() >= 2, "both came by"),
        }
        for record in after {
            assert!(record.received.is_empty(), "something was sent");
            assert!(record.request.is_none());
        }
    }
}

/// The records, once no more are coming.
async fn settled(provider: &LocalProvider) -> Vec<SessionRecord> {
    let mut records = provider.recorder.records();
    loop {
        sleep(Duration::from_millis(500)).await;
        let now = provider.recorder.records();
        if now.len() == records.len() {
            return now;
        }
        records = now;
    }
}

fn listing(
    identity: &IdentityKey,
    epoch: Epoch,
    advert: AdvertDigest,
    endpoints: Vec<Endpoint>,
) -> SignedListing {
    let day = Day::of(NOW);
    let challenge = Work::for_listing(NETWORK, &identity.id(), day);
    let listing = Listing {
        network: NETWORK,
        provider: identity.id(),
        number: 0,
        previous: None,
        epoch,
        advert,
        validity: Validity {
            from: day.begins(),
            until: day.begins().plus(30 * 3600),
        },
        endpoints,
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
            price: 0,
        }],
        functions: vec![],
        work: work::perform(&challenge, day, 1, [0; 16], || false).expect("done"),
    };
    listing.sign(identity).expect("its own")
}

impl Halves {
    fn half(&self, which: usize) -> &[Peer] {
        &self.0[3 * which..3 * which + 3]
    }

    /// All have the proof, and none lists the provider.
    async fn until_proven(&self, provider: &ProviderId) -> Duration {
        let has_proof = |it: &Peer| it.has_fork(provider);
        let took = until("all have the proof", &self.0, has_proof).await;
        assert!(self.0.iter().all(|it| !it.lists(provider)));
        took
    }
}

async fn until(what: &str, peers: &[Peer], is_so: impl Fn(&Peer) -> bool) -> Duration {
    let begun = Instant::now();
    let waiting = timeout(LONG, async {
        while !peers.iter().all(&is_so) {
            sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waiting.await.is_ok(), "it never comes about that {what}");
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_with_two_listings_is_proven_and_gets_nothing() {
    let world = World::new();
    let nodes = world.halves().await;
    let liar = Box::pin(world.two_faced()).await;
    let id = liar.identity.id();

    // Tokens of both faces, from before anybody knows.
    let wallets = [world.wallet("first"), world.wallet("second")];
    for (provider, wallet) in liar.providers.iter().zip(&wallets) {
        Box::pin(world.contract(provider, wallet, None))
            .await
            .expect("a contract");
        Box::pin(world.call(provider, wallet, None))
            .await
            .expect("is answered");
    }
    // The record would show a token.
    let records = settled(&liar.providers[1]).await;
    assert!(records.iter().any(|it| it.request.is_some()));

    // Each half is told one listing.
    for (half, listing) in liar.listings.iter().enumerate() {
        world.submit(&nodes.half(half)[0], listing).await;
        until("a half lists it", nodes.half(half), |it| it.lists(&id)).await;
    }
    let market = world.synced(nodes.half(0), "before").await;
    assert!(market.get(&id, NOW).is_some());
    Box::pin(world.call(&liar.providers[0], &wallets[0], Some(&market)))
        .await
        .expect("it is the listed one");
    let other = ListingMismatch::Other;
    Box::pin(world.assert_nothing_leaves(&liar.providers[1], &wallets[1], &market, other)).await;

    // One node of each half hears of the other.
    let met = nodes.half(1)[0].endpoint();
    let learning = nodes.half(0)[0].handle();
    learning.learn(vec![met]).await.expect("runs");
    let took = nodes.until_proven(&id).await;
    println!("all six have the proof {took:?} after the halves met");

    let market = world.synced(&nodes.0, "after").await;
    assert!(market.fork(&id).is_some() && market.get(&id, NOW).is_none());
    for (provider, wallet) in liar.providers.iter().zip(&wallets) {
        let forked = ListingMismatch::Forked;
        Box::pin(world.assert_nothing_leaves(provider, wallet, &market, forked)).await;
    }

    // Now that they are one overlay, three nodes are told one listing and three the other.
    for number in 0..3 {
        let took = shown_to_halves(&world, &nodes, 50 + number).await;
        println!("all six have the proof {took:?} after they were told");
    }
}

/// A provider that only lies: its listings go to three nodes each, at the same time.
async fn shown_to_halves(world: &World, nodes: &Halves, seed: u8) -> Duration {
    let identity = IdentityKey::from_seed(&[seed; 32]);
    let here = vec![Endpoint::Onion(OnionAddress::from_public_key([seed; 32]))];
    let [one, other] = [1, 2].map(|advert| {
        let digest = AdvertDigest([advert; 32]);
        listing(&identity, Epoch(1), digest, here.clone())
    });
    let begun = Instant::now();
    let told = nodes.0.iter().enumerate().map(|(number, node)| {
        let listing = if number < 3 { &one } else { &other };
        world.submit(node, listing)
    });
    futures::future::join_all(told).await;
    nodes.until_proven(&identity.id()).await;
    begun.elapsed()
}
