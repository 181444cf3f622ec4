//! The task that drives the swarm.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dlambda_privacy::clock::Clock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::{Listener, Transport};
use dlambda_proto::{Endpoint, UnixSeconds};
use futures::StreamExt as _;
use libp2p_identity::{Keypair, PeerId};
use libp2p_swarm::{Swarm, SwarmEvent};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::answering::Answering;
use super::fetching::Fetching;
use super::peers::Peers;
use super::serving::Serving;
use super::syncing::{Finished, Syncing};
use super::{Command, NodeConfig, NodeStatus, Pace, chance};
use crate::behaviour::{Capacity, Overlay, OverlayEvent, Topics};
use crate::transport::{self, Deadlines, Traffic, to_multiaddr};
use crate::{GossipTopic, NodeError, Store};

/// Connections without a use are kept for so long. Which of them to have is decided by us, not by
/// this time.
const IDLE: Duration = Duration::from_secs(3600);

/// Streams that a peer may be negotiating on one connection.
const MAX_NEGOTIATING: usize = 16;

/// How often what is over is dropped.
const HOUSEKEEPING: Duration = Duration::from_secs(60);

/// Who has dialled so many other nodes need not hurry to know more.
const WELL_CONNECTED: usize = 32;

/// Addresses that are taken from the store at a time, if there are too few peers.
const LEARNT: usize = 16;

/// A node while it runs.
pub(super) struct Running<S> {
    pub(super) swarm: Swarm<Overlay>,
    pub(super) store: Arc<Mutex<S>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) topics: Topics,
    pub(super) own: Endpoint,
    pub(super) peers: Peers,
    pub(super) peers_wanted: usize,
    pub(super) capacity: Capacity,
    pub(super) pace: Pace,
    pub(super) status: NodeStatus,
    pub(super) answering: Answering,
    pub(super) syncing: Syncing,
    pub(super) serving: Serving,
    pub(super) fetching: Fetching,
    /// What takes long, on threads of its own; bounded by those who begin it.
    pub(super) jobs: JoinSet<Finished>,
    /// What could not be published for want of peers.
    pub(super) unpublished: Vec<(GossipTopic, Vec<u8>)>,
    traffic: Arc<Traffic>,
    timers: Timers,
}

/// When things are due.
struct Timers {
    dial: Instant,
    check: Instant,
    look: Instant,
    sync: Instant,
    publish: Instant,
    housekeeping: Instant,
}

impl<S: Store> Running<S> {
    /// A node that listens, and has not dialled yet.
    pub(super) fn new(
        config: &NodeConfig,
        identity: &Keypair,
        transport: Arc<dyn Transport>,
        listener: Box<dyn Listener>,
        store: Arc<Mutex<S>>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, NodeError> {
        let own = listener.endpoint();
        let address = to_multiaddr(&own).ok_or(NodeError::NoOnionService)?;
        let local = PeerId::from(identity.public());
        let pace = config.pace;
        let deadlines = Deadlines {
            outgoing: pace.dial_deadline,
            incoming: pace.arrival_deadline,
        };
        let traffic = Arc::<Traffic>::default();
        let built = transport::build(
            transport,
            listener,
            identity,
            config.key,
            deadlines,
            traffic.clone(),
        )?;
        let capacity = Capacity::of(config.max_connections);
        let overlay = Overlay::new(config.network, local, capacity, &pace)?;
        let mut swarm = Swarm::new(built, overlay, local, swarm_config());
        let listening = swarm.listen_on(address);
        listening.map_err(|_| NodeError::NoOnionService)?;
        let now = Instant::now();
        Ok(Self {
            swarm,
            store,
            clock,
            topics: Topics::new(config.network),
            own,
            peers: Peers::new(own, &config.bootstrap, pace.dial.saturating_mul(4)),
            peers_wanted: config.peers,
            capacity,
            pace,
            status: NodeStatus::default(),
            answering: Answering::new(pace.dial.saturating_mul(2)),
            syncing: Syncing::default(),
            serving: Serving::new(config.functions.clone(), now),
            fetching: Fetching::default(),
            jobs: JoinSet::new(),
            unpublished: Vec::new(),
            traffic,
            timers: Timers {
                dial: now,
                check: now + chance::wait(&mut os_rng(), pace.check),
                look: now + chance::wait(&mut os_rng(), pace.dial),
                sync: now,
                publish: now,
                housekeeping: now + HOUSEKEEPING,
            },
        })
    }

    /// Runs until it is told to end, or nothing can reach it any more.
    pub(super) async fn run(
        mut self,
        mut commands: mpsc::Receiver<Command>,
    ) -> Result<(), NodeError> {
        loop {
            let next = self.timers.next();
            tokio::select! {
                event = self.swarm.select_next_some() => self.swarm_event(event)?,
                Some(finished) = self.jobs.join_next() => {
                    // A job that was lost is as one that found nothing: its run times out.
                    if let Ok(finished) = finished {
                        self.finished(finished);
                    }
                }
                command = commands.recv() => match command {
                    None | Some(Command::Shutdown) => return Ok(()),
                    Some(command) => self.command(command),
                },
                () = tokio::time::sleep_until(next.into()) => self.tick(),
            }
        }
    }

    fn swarm_event(&mut self, event: SwarmEvent<OverlayEvent>) -> Result<(), NodeError> {
        match event {
            SwarmEvent::Behaviour(OverlayEvent::Gossip(event)) => self.gossip_event(event),
            SwarmEvent::Behaviour(OverlayEvent::Exchange(event)) => self.exchange_event(event),
            SwarmEvent::Behaviour(OverlayEvent::Functions(event)) => self.functions_event(event),
            SwarmEvent::Behaviour(OverlayEvent::Routing(heard)) => self.routing_event(&heard),
            SwarmEvent::ListenerClosed { .. } => return Err(NodeError::ListenerEnded),
            other => self.connection_event(other),
        }
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Publish(topic, item, answer) => {
                let published = self.publish_own(topic, item);
                // Who asked may have gone.
                let _ = answer.send(published);
            }
            Command::Learn(nodes) => {
                for node in nodes.into_iter().take(512) {
                    self.peers.learn_address(node, false);
                }
            }
            Command::Fetch(at, function, most, answer) => {
                self.fetch_function(at, function, most, answer);
            }
            Command::Status(answer) => {
                let _ = answer.send(self.current_status());
            }
            Command::Forward(topic, item) => self.publish(topic, item),
            Command::Shutdown => {}
        }
    }

    fn current_status(&mut self) -> NodeStatus {
        NodeStatus {
            peers: self.peers.all_connected().count(),
            outgoing: self.peers.outgoing().count(),
            known: self.peers.known_now(),
            routes: self.swarm.behaviour_mut().routing.known(),
            items: self.store().count(),
            bytes_received: self.traffic.received(),
            bytes_sent: self.traffic.sent(),
            ..self.status.clone()
        }
    }

    fn tick(&mut self) {
        let now = Instant::now();
        let rng = &mut os_rng();
        if self.timers.dial <= now {
            // The fewer there are, the sooner.
            let mean = self.pace.dial.mul_f64(self.share_of_peers().max(0.2));
            self.timers.dial = now + chance::wait(rng, mean);
            self.seek_peers(now);
            self.shed_peers(now);
        }
        if self.timers.check <= now {
            let mean = match self.peers.reached_now() < WELL_CONNECTED {
                true => self.pace.check,
                false => self.pace.check.saturating_mul(30),
            };
            self.timers.check = now + chance::wait(rng, mean);
            self.check_an_address(now);
        }
        if self.timers.look <= now {
            let share = self.share_of_peers();
            let mean = match share < 1.0 {
                true => self.pace.dial.mul_f64((4.0 * share).max(1.0)),
                false => self.pace.look,
            };
            self.timers.look = now + chance::wait(rng, mean);
            self.swarm.behaviour_mut().routing.look_around();
        }
        if self.timers.sync <= now {
            let mean = self.sync(now);
            self.timers.sync = now + chance::wait(rng, mean);
        }
        if self.timers.publish <= now {
            self.timers.publish = now + Duration::from_secs(1);
            self.publish_again();
        }
        if self.timers.housekeeping <= now {
            self.timers.housekeeping = now + HOUSEKEEPING;
            self.keep_house();
        }
    }

    /// How many of the peers there are that we want.
    fn share_of_peers(&self) -> f64 {
        let have = self.peers.all_connected().count().min(self.peers_wanted);
        let wanted = self.peers_wanted.max(1);
        u32::try_from(have).map_or(1.0, f64::from) / u32::try_from(wanted).map_or(1.0, f64::from)
    }

    fn keep_house(&mut self) {
        let today = self.today();
        self.store().prune(today);
        if self.peers.all_connected().count() < self.peers_wanted {
            let nodes = self.store().nodes();
            for _ in 0..LEARNT {
                if let Some(node) = chance::pick(&mut os_rng(), &nodes) {
                    self.peers.learn_address(*node, false);
                }
            }
        }
    }

    /// The next run of reconciliation begins at this moment.
    pub(super) fn sync_at(&mut self, moment: Instant) {
        self.timers.sync = moment;
    }

    /// The store. Its lock is held for as long as an item takes.
    pub(super) fn store(&self) -> MutexGuard<'_, S> {
        lock(&self.store)
    }

    /// The time of day.
    pub(super) fn today(&self) -> UnixSeconds {
        self.clock.now()
    }
}

/// A panic under the lock is the store's own fault; what it holds was good before.
pub(crate) fn lock<S>(store: &Mutex<S>) -> MutexGuard<'_, S> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

fn swarm_config() -> libp2p_swarm::Config {
    libp2p_swarm::Config::with_tokio_executor()
        .with_idle_connection_timeout(IDLE)
        .with_max_negotiating_inbound_streams(MAX_NEGOTIATING)
        // Each address is a circuit.
        .with_dial_concurrency_factor(std::num::NonZeroU8::MIN)
}

impl Timers {
    fn next(&self) -> Instant {
        let Self {
            dial,
            check,
            look,
            sync,
            publish,
            housekeeping,
        } = *self;
        let soonest = dial.min(check).min(look).min(sync);
        soonest.min(publish).min(housekeeping)
    }
}
