//! An overlay with six nodes, four providers and two callers, of which some write everything down.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::guest::Link;
use dlambda_broker::{
    Equihash, GuestSeal, Known, Market, NodeState, Plan as _, Sources, Sync, Synced,
};
use dlambda_client::{Call, Guest, Querier};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_privacy::wire::write_frame;
use dlambda_proto::{
    Answer, Ask, Endpoint, Frame, FrameKind, ProviderId, Requirements, SignedListing, UnixSeconds,
};
use dlambda_provider::{DataDir, SessionRecord};
use dlambda_tests::anonymity_set::Dice;
use dlambda_tests::local::LocalProvider;
use dlambda_tests::overlay::{Peer, Spy, overlay};
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use super::providers::{canary_listing, provider};
use super::script::{Canary, Event, Habit};
use super::seen::{Seen, SeenVisit, request};
use crate::support::{LONG, NOW, alias};

/// Keys of the nodes that the network file names: the first writes everything down.
const BOOTSTRAP: [u8; 2] = [11, 12];
/// Keys of the providers, which are nodes as well: the first two write everything down.
const PROVIDERS: [u8; 4] = [1, 2, 3, 4];
const DISHONEST: usize = 2;
/// The provider that one node shows to one guest.
const CANARY: u8 = 5;

pub(super) struct World {
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    settings: OverlayNetwork,
    peers: Vec<Peer>,
    /// Of three nodes: the first bootstrap node's, and those of the first two providers.
    spies: Vec<Spy>,
    providers: Vec<LocalProvider>,
    canary: LocalProvider,
    canary_listing: SignedListing,
    pub(super) canary_id: ProviderId,
    pub(super) callers: Vec<Caller>,
    _dir: TempDir,
}

pub(super) struct Caller {
    guest: Guest,
    pub(super) market: Market,
    /// All that any source has shown, for callers built to leak.
    known: Vec<Known>,
}

impl World {
    pub(super) async fn new() -> Self {
        let network = MemoryNetwork::new(Duration::from_millis(1));
        let clock = Arc::new(FakeClock::at(NOW));
        let dir = tempfile::tempdir().expect("a directory");
        let bootstrap =
            BOOTSTRAP.map(|key| network.transport([key; 32]).endpoint_of(Service::Overlay));
        let settings = overlay(bootstrap.to_vec()).expect("an overlay");
        let spy = |key: u8| {
            let transport = Arc::new(network.transport([key; 32]));
            Spy::new(transport, Arc::clone(&clock) as Arc<dyn Clock>)
        };
        let spies = vec![spy(BOOTSTRAP[0]), spy(PROVIDERS[0]), spy(PROVIDERS[1])];
        let plain = |key: u8| Arc::new(network.transport([key; 32])) as Arc<dyn Transport>;
        let mut peers = Vec::new();
        for transport in [
            Arc::new(spies[0].clone()) as Arc<dyn Transport>,
            plain(BOOTSTRAP[1]),
        ] {
            let clock = Arc::clone(&clock) as Arc<dyn Clock>;
            let peer = Peer::start(&settings, transport, clock).await;
            peers.push(peer.expect("a node"));
        }
        let starting = PROVIDERS.iter().enumerate().map(|(number, key)| {
            let transport = match spies.get(1 + number) {
                Some(spy) => Arc::new(spy.clone()) as Arc<dyn Transport>,
                None => plain(*key),
            };
            let data = dir.path().join(format!("provider-{key}"));
            provider(Some(settings.clone()), data, transport, Arc::clone(&clock))
        });
        let providers = futures::future::join_all(starting).await;
        let data = dir.path().join("canary");
        let identity = DataDir::open(&data)
            .expect("made")
            .identity()
            .expect("made");
        let canary = provider(None, data, plain(CANARY), Arc::clone(&clock)).await;
        let canary_listing = canary_listing(&network, &canary, &identity).await;
        let callers = [21, 22].map(|key| Caller::new(&settings, plain(key), &clock, dir.path()));
        let world = Self {
            network,
            clock,
            settings,
            peers,
            spies,
            providers,
            canary,
            canary_listing,
            canary_id: identity.id(),
            callers: callers.into(),
            _dir: dir,
        };
        world.wait_for_listings().await;
        world
    }

    /// Until every node has all four providers: guests ask those that cannot be looked into.
    async fn wait_for_listings(&self) {
        let waiting = timeout(LONG, async {
            loop {
                let mut known = self.peers.iter().all(|it| it.listings() == PROVIDERS.len());
                for key in PROVIDERS {
                    known &= self.listed_by(key).await == Some(PROVIDERS.len());
                }
                if known {
                    return;
                }
                sleep(Duration::from_millis(200)).await;
                // Snapshots are made every ten seconds at most.
                self.clock.advance(11);
            }
        });
        waiting.await.expect("all nodes hear of all providers");
    }

    async fn listed_by(&self, key: u8) -> Option<usize> {
        let endpoint = self.transport(key).endpoint_of(Service::Guests);
        let link = self.link(99);
        match link.ask(&endpoint, &Ask::Manifest, &mut os_rng()).await {
            Ok(Answer::Manifest(manifest)) => usize::try_from(manifest.listings).ok(),
            _ => None,
        }
    }

    fn transport(&self, key: u8) -> dlambda_privacy::transport::memory::MemoryTransport {
        self.network.transport([key; 32])
    }

    fn link(&self, key: u8) -> Link {
        let transport = Arc::new(self.transport(key));
        Link::new(transport, Arc::new(GuestSeal::Public), LONG)
    }

    pub(super) fn now(&self) -> UnixSeconds {
        self.clock.now()
    }

    /// Lets everything happen, in its order. The clock shows when it happens.
    pub(super) async fn run(
        &mut self,
        schedule: &[(u64, Event)],
        habit: Habit,
        canary: Canary,
        dice: &mut Dice,
    ) -> Seen {
        let start = self.now().0;
        let visits_before: Vec<usize> = self.spies.iter().map(|it| it.visits().len()).collect();
        let (mut syncs, mut owners) = (HashMap::new(), HashMap::new());
        let mut canary_inputs = HashSet::new();
        for (at, event) in schedule {
            let (Event::Sync(caller) | Event::Call(caller)) = *event;
            self.clock.advance(start + at - self.now().0);
            let is_call = matches!(event, Event::Call(_));
            if !is_call || habit == Habit::SyncsBeforeCalls {
                syncs.insert(self.now().0, caller);
                Box::pin(self.sync(caller, habit, canary)).await;
            }
            if is_call {
                self.clock.advance(1);
                let provider = self.choose(caller, habit, dice);
                let mut input = vec![0; 100 + dice.below(1000)];
                os_rng().fill_bytes(&mut input);
                owners.insert(input.clone(), (self.now().0, caller));
                if provider == self.canary.endpoint {
                    canary_inputs.insert(input.clone());
                }
                Box::pin(self.call(caller, provider, input)).await;
            }
        }
        let records = self.records(&owners).await;
        let mut visits = Vec::new();
        for (node, (spy, before)) in self.spies.iter().zip(visits_before).enumerate() {
            for visit in spy.visits().into_iter().skip(before) {
                let caller = *syncs.get(&visit.at.0).expect("only guests ask");
                visits.push(SeenVisit {
                    visit,
                    node,
                    is_second: caller == 1,
                });
            }
        }
        Seen {
            visits,
            records,
            gossip: self.peers[0].gossip(),
            all_syncs: syncs.len(),
            all_calls: owners.len(),
            at_canary: canary_inputs.len(),
            canary_inputs,
            owners,
        }
    }

    async fn sync(&mut self, caller: usize, habit: Habit, canary: Canary) {
        let mut other: Option<NodeState> = None;
        if canary == Canary::ShownTo(caller) {
            let state = self.peers[0].state_with(self.canary_listing.clone(), self.now());
            other = Some(state.expect("it is a good listing"));
        }
        if let Some(other) = &mut other {
            self.peers[0].swap(other);
        }
        if habit == Habit::Honest {
            let Caller { guest, market, .. } = &mut self.callers[caller];
            let fetched = guest.sync(market, LONG).await.expect("nodes answer");
            // The first time it knows the bootstrap nodes only.
            assert!(matches!(fetched.answered, 2 | 5), "{fetched:?}");
            assert_eq!((fetched.failed, fetched.misbehaved), (0, 0), "{fetched:?}");
        } else {
            let synced = self.sync_at_once(caller).await;
            let now = self.now();
            let it = &mut self.callers[caller];
            it.known.clone_from(&synced.known);
            it.market.update(synced, now);
        }
        if habit == Habit::SaysWhatItHas {
            self.say_what_it_has(caller).await;
        }
        if let Some(other) = &mut other {
            self.peers[0].swap(other);
        }
        self.visits_end().await;
    }

    /// A sync without its random waits, which nobody looks at in callers built to leak.
    async fn sync_at_once(&self, caller: usize) -> Synced {
        let now = self.now();
        let others = self.callers[caller].market.nodes(now, |_| true, &[]);
        let bootstrap = self.settings.bootstrap_at(|_| true);
        let sources = Sources::draw(&bootstrap, &others, &mut os_rng());
        let rules = Guest::rules(&self.settings);
        let mut sync = Sync::new(rules, Arc::new(Equihash), sources, now, &mut os_rng());
        let link = self.link(21 + u8::from(caller == 1));
        while let Some(request) = sync.next() {
            let answer = link
                .ask(&request.endpoint, &request.ask, &mut os_rng())
                .await;
            sync.receive(request.id, answer);
        }
        sync.finish().expect("nodes answer")
    }

    /// A frame like every other, with a digest where there are zeros.
    async fn say_what_it_has(&self, caller: usize) {
        let known = self.callers[caller].known.iter();
        let mut digests: Vec<_> = known.map(|it| it.signed.digest().0).collect();
        digests.sort_unstable();
        let digest = Sha256::digest(digests.concat());
        let (frame, _) = GuestSeal::Public
            .wrap_ask(&Ask::Manifest, &mut os_rng())
            .expect("fits");
        let mut body = frame.into_body();
        body[1000..1032].copy_from_slice(&digest);
        let frame = Frame::new(FrameKind::Ask, body).expect("as long as before");
        let node = self.settings.bootstrap[0].first();
        let dialled = self.transport(99).dial(&node, Service::Guests).await;
        let mut stream = dialled.expect("is there").stream;
        write_frame(&mut *stream, &frame, LONG).await.expect("sent");
        sleep(Duration::from_millis(50)).await;
    }

    /// Whatever was asked has arrived before the clock moves.
    async fn visits_end(&self) {
        sleep(Duration::from_millis(20)).await;
    }

    fn choose(&self, caller: usize, habit: Habit, dice: &mut Dice) -> Endpoint {
        let Caller { market, known, .. } = &self.callers[caller];
        if habit == Habit::ChoosesFromAll {
            let largest = known.iter().max_by_key(|it| it.listing.resources.cores);
            let largest = largest.expect("it has synced");
            if largest.listing.provider == self.canary_id {
                return largest.listing.endpoints[0];
            }
        }
        let listed = market.find(&Requirements::default(), self.now());
        let listed = listed.expect("some are listed");
        assert_eq!(listed.len(), PROVIDERS.len());
        listed[dice.below(listed.len())].listing().endpoints[0]
    }

    async fn call(&self, caller: usize, provider: Endpoint, input: Vec<u8>) {
        let transport = Arc::new(self.transport(21 + u8::from(caller == 1)));
        let querier = Querier::new(transport, Arc::clone(&self.clock) as Arc<dyn Clock>);
        let querier = querier.with_market(self.callers[caller].market.clone());
        let call = Call::new(provider, alias("sha256")).input(input);
        querier.call(&call, LONG, |_| {}).await.expect("an answer");
    }

    /// What the dishonest providers, and the canary, have of these calls.
    async fn records(&self, owners: &HashMap<Vec<u8>, (u64, usize)>) -> Vec<SessionRecord> {
        let honest = self.providers.iter().skip(DISHONEST);
        let ours = |provider: &LocalProvider| {
            let mut records = provider.recorder.records();
            records.retain(|it| request(it).is_some_and(|it| owners.contains_key(&it.input)));
            records
        };
        for _ in 0..200 {
            let all = self.providers.iter().chain([&self.canary]);
            if all.map(|it| ours(it).len()).sum::<usize>() == owners.len() {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let seen: usize = honest.map(|it| ours(it).len()).sum();
        let dishonest = self.providers.iter().take(DISHONEST).chain([&self.canary]);
        let records: Vec<_> = dishonest.flat_map(ours).collect();
        assert_eq!(records.len() + seen, owners.len(), "each call once");
        records
    }
}

impl Caller {
    fn new(
        settings: &OverlayNetwork,
        transport: Arc<dyn Transport>,
        clock: &Arc<FakeClock>,
        dir: &Path,
    ) -> Self {
        let mut name = [0; 8];
        os_rng().fill_bytes(&mut name);
        let path = dir.join(format!("market-{}", hex(&name)));
        let clock = Arc::clone(clock) as Arc<dyn Clock>;
        Self {
            guest: Guest::new(settings.clone(), transport, |_| true, path, clock),
            market: Market::new(Guest::rules(settings)),
            known: Vec::new(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}
