//! A guest's requests over an anonymous transport: each on a circuit of its own.

use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::WireError;
use dlambda_privacy::transport::{Service, Transport};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{Answer, Ask, Endpoint, Frame, FrameKind};
use rand_core::CryptoRng;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::frames::Binding;
use crate::{GuestError, GuestSeal, Plan};

/// Requests that are under way at a time.
const AT_ONCE: usize = 4;
/// Memory for the answers that are being received.
const MEMORY: usize = AT_ONCE * (512 << 10);
/// Longest wait before a request, so that a plan's requests do not leave together.
const SPREAD_MILLIS: u64 = 2_000;
/// How often a request is sent over Nym at most.
const TRIES_OVER_NYM: u32 = 3;

/// How a guest reaches nodes.
#[derive(Clone)]
pub struct Link {
    transport: Arc<dyn Transport>,
    seal: Arc<GuestSeal>,
    budget: Budget,
    deadline: Duration,
}

impl Link {
    /// Requests over this transport, each of which may take `deadline` altogether.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, seal: Arc<GuestSeal>, deadline: Duration) -> Self {
        Self {
            transport,
            seal,
            budget: Budget::new(MEMORY),
            deadline,
        }
    }

    /// Sends one ask to one node, on a fresh circuit, and returns its answer.
    ///
    /// # Errors
    ///
    /// [`GuestError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the stream is dropped. A submission may have arrived.
    pub async fn ask(
        &self,
        endpoint: &Endpoint,
        ask: &Ask,
        rng: &mut impl CryptoRng,
    ) -> Result<Answer, GuestError> {
        let (frame, binding) = self.seal.wrap_ask(ask, rng)?;
        self.exchange(endpoint, &frame, binding).await
    }

    /// Carries a plan out: its requests run side by side, four at most, each after a random wait of
    /// up to two seconds. Returns when there are no more, or after `time`; what the plan has not
    /// got by then it counts as missing.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: requests under way are given up, and the plan has what came before.
    pub async fn run(&self, plan: &mut impl Plan, time: Duration, rng: &mut impl CryptoRng) {
        let end = Instant::now() + time;
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < AT_ONCE
                && let Some(request) = plan.next()
            {
                match self.seal.wrap_ask(&request.ask, rng) {
                    Err(error) => plan.receive(request.id, Err(error)),
                    Ok((frame, binding)) => {
                        let wait = Duration::from_millis(rng.next_u64() % SPREAD_MILLIS);
                        let link = self.clone();
                        under_way.spawn(async move {
                            sleep(wait).await;
                            let answer = link.exchange(&request.endpoint, &frame, binding).await;
                            (request.id, answer)
                        });
                    }
                }
            }
            match timeout_at(end, under_way.join_next()).await {
                Ok(Some(Ok((id, answer)))) => plan.receive(id, answer),
                // A request that panicked is never answered.
                Ok(Some(Err(_))) => {}
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Over Nym a request whose stream did not come about or was lost is sent again within the
    /// deadline, by another client: where a call would try again, too. Tor repeats by itself.
    async fn exchange(
        &self,
        endpoint: &Endpoint,
        ask: &Frame,
        binding: Binding,
    ) -> Result<Answer, GuestError> {
        let is_nym = matches!(endpoint, Endpoint::Nym(_));
        let mut left = if is_nym { TRIES_OVER_NYM } else { 1 };
        let end = Instant::now() + self.deadline;
        loop {
            left -= 1;
            let exchanged = timeout_at(end, self.exchange_once(endpoint, ask, binding)).await;
            match exchanged.map_err(|_| GuestError::Deadline)? {
                Err(GuestError::Transport(_) | GuestError::Wire(WireError::Lost(_)))
                    if left > 0 => {}
                exchanged => return exchanged,
            }
        }
    }

    async fn exchange_once(
        &self,
        endpoint: &Endpoint,
        ask: &Frame,
        binding: Binding,
    ) -> Result<Answer, GuestError> {
        let exchange = async {
            let connection = self.transport.dial(endpoint, Service::Guests).await?;
            let mut stream = connection.stream;
            write_frame(&mut *stream, ask, self.deadline).await?;
            let expected = [FrameKind::Answer];
            let read = read_frame(&mut *stream, &expected, self.deadline, &self.budget);
            let (frame, _lease) = read.await?;
            self.seal.unwrap_answer(binding, &frame)
        };
        exchange.await
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Link")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use dlambda_privacy::transport::memory::{MemoryNetwork, MemoryTransport};
    use dlambda_proto::{NetworkId, OnionAddress};
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::catalogue::tests::{Claimed, NOON, Provider, at, catalogue, rules};
    use crate::{NodeState, Sources, Sync};

    const DEADLINE: Duration = Duration::from_secs(60);

    fn rng() -> ChaCha20Rng {
        ChaCha20Rng::from_seed([1; 32])
    }

    /// What a node does with a stream, after it has read an ask.
    #[derive(Clone, Copy)]
    enum Conduct {
        Answers,
        Hangs,
        HangsUp,
        SendsGarbage,
        Trickles,
    }

    fn seal() -> Arc<GuestSeal> {
        Arc::new(GuestSeal::Public)
    }

    fn keyed(byte: u8) -> Arc<GuestSeal> {
        let network = NetworkId::from_bytes([7; 16]);
        let key = dlambda_crypto::guest::GuestKey::derive(&[byte; 32], network);
        Arc::new(GuestSeal::Keyed(key))
    }

    /// A node that serves ten providers, and counts how many guests it has at once.
    async fn serve(
        transport: MemoryTransport,
        seal: Arc<GuestSeal>,
        conduct: Conduct,
        (now, most): (Arc<AtomicUsize>, Arc<AtomicUsize>),
    ) {
        let mut catalogue = catalogue(100);
        for number in 0..10 {
            let listing = Provider::new(number).publish(NOON);
            catalogue.insert(listing, at(NOON)).unwrap();
        }
        let node = Arc::new(std::sync::Mutex::new(NodeState::new(catalogue)));
        let mut listener = transport.listen(Service::Guests).await.unwrap();
        while let Some(incoming) = listener.accept().await {
            let (node, seal) = (Arc::clone(&node), Arc::clone(&seal));
            let (now, most) = (Arc::clone(&now), Arc::clone(&most));
            tokio::spawn(async move {
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let mut stream = incoming.connection.stream;
                let budget = Budget::new(1 << 20);
                let read = read_frame(&mut *stream, &[FrameKind::Ask], DEADLINE, &budget);
                let (frame, _lease) = read.await.unwrap();
                sleep(Duration::from_secs(5)).await;
                match conduct {
                    Conduct::Answers => {
                        let Ok((ask, binding)) = seal.unwrap_ask(&frame) else {
                            return;
                        };
                        let answer = node.lock().unwrap().answer(ask, at(NOON)).0;
                        let frame = seal.wrap_answer(binding, &answer, &mut rng());
                        let _ = write_frame(&mut *stream, &frame.unwrap(), DEADLINE).await;
                    }
                    // Until the guest hangs up.
                    Conduct::Hangs => _ = stream.read_u8().await,
                    Conduct::HangsUp => {}
                    Conduct::SendsGarbage => {
                        let _ = stream.write_all(&[0x41; 5_000]).await;
                    }
                    Conduct::Trickles => {
                        let frame = Frame::new(FrameKind::Answer, vec![0; 1 << 10]).unwrap();
                        let _ = stream.write_all(&frame.header()).await;
                        while stream.write_all(&[0]).await.is_ok() {
                            sleep(Duration::from_secs(1)).await;
                        }
                    }
                }
                now.fetch_sub(1, Ordering::SeqCst);
            });
        }
    }

    struct Net {
        network: MemoryNetwork,
        /// Requests under way at all nodes.
        now: Arc<AtomicUsize>,
        most: Arc<AtomicUsize>,
    }

    impl Net {
        fn new() -> Self {
            Self {
                network: MemoryNetwork::new(Duration::from_millis(300)),
                now: Arc::default(),
                most: Arc::default(),
            }
        }

        async fn node(&self, key: u8, seal: Arc<GuestSeal>, conduct: Conduct) -> Endpoint {
            let transport = self.network.transport([key; 32]);
            let endpoint = transport.endpoint_of(Service::Guests);
            let counters = (Arc::clone(&self.now), Arc::clone(&self.most));
            tokio::spawn(serve(transport, seal, conduct, counters));
            tokio::task::yield_now().await;
            endpoint
        }

        fn link(&self, seal: Arc<GuestSeal>) -> Link {
            Link::new(Arc::new(self.network.transport([99; 32])), seal, DEADLINE)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_ask_brings_one_answer() {
        for seal in [seal(), keyed(1)] {
            let net = Net::new();
            let node = net.node(1, Arc::clone(&seal), Conduct::Answers).await;
            let link = net.link(seal);
            let answer = link.ask(&node, &Ask::Manifest, &mut rng()).await.unwrap();
            let Answer::Manifest(manifest) = answer else {
                panic!("no manifest");
            };
            assert_eq!(manifest.listings, 10);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn every_bad_node_has_its_error_in_time() {
        let net = Net::new();
        type Check = fn(&GuestError) -> bool;
        let table: [(Conduct, Check); 4] = [
            (Conduct::Hangs, |it| {
                matches!(
                    it,
                    GuestError::Deadline | GuestError::Wire(WireError::Deadline)
                )
            }),
            (Conduct::HangsUp, |it| {
                matches!(it, GuestError::Wire(WireError::Lost(_)))
            }),
            (Conduct::SendsGarbage, |it| {
                matches!(it, GuestError::Wire(WireError::Frame(_)))
            }),
            (Conduct::Trickles, |it| {
                matches!(
                    it,
                    GuestError::Deadline | GuestError::Wire(WireError::Deadline)
                )
            }),
        ];
        for (key, (conduct, check)) in (1..).zip(table) {
            let node = net.node(key, seal(), conduct).await;
            let begun = Instant::now();
            let link = net.link(seal());
            let error = link.ask(&node, &Ask::Manifest, &mut rng()).await;
            let error = error.unwrap_err();
            assert!(check(&error), "{key}: {error:?}");
            assert!(begun.elapsed() <= DEADLINE, "{key}");
        }
        let missing = Endpoint::Onion(OnionAddress::from_public_key([77; 32]));
        let error = net
            .link(seal())
            .ask(&missing, &Ask::Manifest, &mut rng())
            .await;
        assert!(matches!(error, Err(GuestError::Transport(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_with_another_key_does_not_answer() {
        let net = Net::new();
        let node = net.node(1, keyed(1), Conduct::Answers).await;
        for other in [keyed(2), seal()] {
            let error = net.link(other).ask(&node, &Ask::Manifest, &mut rng()).await;
            assert!(matches!(error, Err(GuestError::Wire(WireError::Lost(_)))));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_runs_four_requests_at_a_time_and_ends() {
        let net = Net::new();
        let mut bootstrap = Vec::new();
        for key in 1..9 {
            let conduct = match key {
                3 => Conduct::Hangs,
                5 => Conduct::SendsGarbage,
                _ => Conduct::Answers,
            };
            bootstrap.push(net.node(key, seal(), conduct).await);
        }
        let sources = Sources::draw(&bootstrap, &[], &mut rng());
        let mut sync = Sync::new(rules(100), Arc::new(Claimed), sources, at(NOON), &mut rng());
        let time = Duration::from_secs(600);
        net.link(seal()).run(&mut sync, time, &mut rng()).await;
        assert!(sync.is_done());
        let synced = sync.finish().unwrap();
        assert_eq!(synced.known.iter().filter(|it| it.is_chosen).count(), 10);
        assert_eq!(net.most.load(Ordering::SeqCst), AT_ONCE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_ends_when_its_time_is_over() {
        let net = Net::new();
        let mut bootstrap = Vec::new();
        for key in 1..3 {
            bootstrap.push(net.node(key, seal(), Conduct::Hangs).await);
        }
        let sources = Sources::draw(&bootstrap, &[], &mut rng());
        let mut sync = Sync::new(rules(100), Arc::new(Claimed), sources, at(NOON), &mut rng());
        let begun = Instant::now();
        let time = Duration::from_secs(20);
        net.link(seal()).run(&mut sync, time, &mut rng()).await;
        assert_eq!(begun.elapsed(), time);
        assert!(sync.finish().is_err());
    }
}
