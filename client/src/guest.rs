//! A guest of the overlay: fetches the catalogue, asks nodes for a topic or for offers.
//!
//! None of these requests is caused by a call, and none says what the guest has. They share
//! nothing: each is a stream on a circuit of its own.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::guest::Link;
use dlambda_broker::{
    Equihash, FindOffers, GuestSeal, LookUp, Market, NoneFits, Rules, SourceFault, Sources,
    StoreError, Sync, SyncError, offload,
};
use dlambda_crypto::guest::GuestKey;
use dlambda_crypto::work;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::network::OverlayNetwork;

use dlambda_privacy::os_rng;
use dlambda_privacy::transport::Transport;
use dlambda_proto::{
    Answer, Ask, Day, Demand, Endpoint, ErrorKind, FunctionPrefix, HasKind, ListingFork,
    Requirements, Retry, Topic, Work,
};
use rand_core::Rng as _;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// For one request, its circuit included: several nodes may be silent, and are replaced one after
/// the other.
const REQUEST: Duration = Duration::from_secs(20);
/// The same where a node is reached by Nym: a client connects first, and the largest answer is
/// some 200 packets for which reply blocks have to be sent.
const REQUEST_OVER_NYM: Duration = Duration::from_secs(90);
/// For providers to answer a demand, and for their offers to reach most nodes.
const OFFERS_TAKE: Duration = Duration::from_secs(12);
/// Nodes that a demand or a proof is submitted to: gossip does the rest.
const SUBMITTED_TO: usize = 2;

/// A guest, and where it keeps what it learns.
pub struct Guest {
    link: Link,
    settings: OverlayNetwork,
    /// The bootstrap nodes that this guest's transport reaches, each once.
    bootstrap: Vec<Endpoint>,
    reaches: fn(&Endpoint) -> bool,
    path: PathBuf,
    clock: Arc<dyn Clock>,
}

/// What a sync or a search among nodes brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fetched {
    /// Nodes that answered everything.
    pub answered: usize,
    /// Nodes that did not.
    pub failed: usize,
    /// Of these, such as lied or broke the protocol.
    pub misbehaved: usize,
    /// Proofs that were found and submitted: a provider has shown two listings.
    pub forks: usize,
}

/// Why nothing was found or fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FindError {
    /// The network file has no `[overlay]`.
    #[error("this network has no overlay to find providers on")]
    NoOverlay,
    /// Too few nodes answered.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// No provider meets the requirements.
    #[error(transparent)]
    NoneFits(#[from] NoneFits),
    /// The stored catalogue.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No node published the demand.
    #[error("no node takes the demand")]
    DemandRefused,
    /// A task was ended before its time.
    #[error("interrupted")]
    Interrupted,
}

impl Guest {
    /// A guest of this overlay. What it fetches is kept at `path`; `reaches` says which endpoints
    /// the transport dials.
    #[must_use]
    pub fn new(
        settings: OverlayNetwork,
        transport: Arc<dyn Transport>,
        reaches: fn(&Endpoint) -> bool,
        path: PathBuf,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let seal = match &settings.key {
            Some(key) => GuestSeal::Keyed(GuestKey::derive(key.as_bytes(), settings.id)),
            None => GuestSeal::Public,
        };
        let bootstrap = settings.bootstrap_at(reaches);
        let is_nym = |it: &Endpoint| matches!(it, Endpoint::Nym(_));
        let request = match bootstrap.iter().any(is_nym) {
            true => REQUEST_OVER_NYM,
            false => REQUEST,
        };
        Self {
            link: Link::new(transport, Arc::new(seal), request),
            bootstrap,
            settings,
            reaches,
            path,
            clock,
        }
    }

    /// What a guest of this overlay takes.
    #[must_use]
    pub fn rules(settings: &OverlayNetwork) -> Rules {
        Rules::new(settings.id, settings.effort, settings.demand_effort())
    }

    /// Fetches the catalogue from up to five nodes, and stores it. `time` bounds the requests.
    ///
    /// # Errors
    ///
    /// [`FindError::Sync`]: the market is as before. [`FindError::Store`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the market and its file are as before, or as after.
    pub async fn sync(&self, market: &mut Market, time: Duration) -> Result<Fetched, FindError> {
        let now = self.clock.now();
        let sources = self.sources(market);
        let rules = Self::rules(&self.settings);
        let mut sync = Sync::new(rules, Arc::new(Equihash), sources, now, &mut os_rng());
        self.link.run(&mut sync, time, &mut os_rng()).await;
        let synced = sync.finish()?;
        let mut fetched = Fetched::of(synced.answered, &synced.faults);
        let found = market.update(synced, now);
        self.save(market).await?;
        fetched.forks = self.submit_forks(found).await;
        Ok(fetched)
    }

    /// Asks up to five nodes for the topic of the requirements: they learn that somebody looks for
    /// such providers. What they list is stored.
    ///
    /// # Errors
    ///
    /// Those of [`Guest::sync`].
    ///
    /// # Cancel safety
    ///
    /// As for [`Guest::sync`].
    pub async fn look_up(
        &self,
        market: &mut Market,
        wanted: &Requirements,
        time: Duration,
    ) -> Result<Fetched, FindError> {
        let now = self.clock.now();
        let topic = match &wanted.function {
            Some(function) => Topic::Function(FunctionPrefix::of(function).first_byte()),
            None => Topic::Class(Market::class_of(wanted)),
        };
        let (rules, sources) = (Self::rules(&self.settings), self.sources(market));
        let mut look_up = LookUp::new(rules, Arc::new(Equihash), topic, sources, now);
        self.link.run(&mut look_up, time, &mut os_rng()).await;
        let looked_up = look_up.finish()?;
        let mut fetched = Fetched::of(looked_up.answered, &looked_up.faults);
        let found = market.absorb(looked_up, now);
        self.save(market).await?;
        fetched.forks = self.submit_forks(found).await;
        Ok(fetched)
    }

    /// Publishes a demand for the class of the requirements, and takes the offers that most of five
    /// nodes have some seconds later. Everybody learns that somebody demands the class.
    ///
    /// # Errors
    ///
    /// [`FindError::DemandRefused`] if no node takes the demand.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; the demand may have been published.
    pub async fn demand(
        &self,
        market: &mut Market,
        wanted: &Requirements,
        time: Duration,
    ) -> Result<(), FindError> {
        let class = Market::class_of(wanted);
        let network = self.settings.id;
        let day = Day::of(self.clock.now());
        let challenge = Work::for_demand(network, class, day);
        let work = perform(challenge, day, self.settings.demand_effort()).await?;
        let demand = Demand {
            network,
            class,
            work,
        };
        if self.submit(Ask::SubmitDemand(demand), market).await == 0 {
            return Err(FindError::DemandRefused);
        }
        sleep(OFFERS_TAKE).await;
        let now = self.clock.now();
        let (rules, sources) = (Self::rules(&self.settings), self.sources(market));
        let mut offers = FindOffers::new(rules, class, sources, now);
        self.link.run(&mut offers, time, &mut os_rng()).await;
        market.put_offers(offers.finish());
        Ok(())
    }

    fn sources(&self, market: &Market) -> Sources {
        let all: Vec<_> = self.settings.bootstrap_endpoints().collect();
        let others = market.nodes(self.clock.now(), self.reaches, &all);
        Sources::draw(&self.bootstrap, &others, &mut os_rng())
    }

    async fn submit_forks(&self, found: Vec<ListingFork>) -> usize {
        let mut submitted = 0;
        for fork in found {
            let taken = self.submit_to(&self.bootstrap, Ask::SubmitFork(fork)).await;
            submitted += usize::from(taken > 0);
        }
        submitted
    }

    /// To how many nodes it was submitted with success.
    async fn submit(&self, ask: Ask, market: &Market) -> usize {
        let sources = self.sources(market);
        let nodes: Vec<_> = sources.first().iter().map(|it| it.endpoint).collect();
        self.submit_to(&nodes, ask).await
    }

    async fn submit_to(&self, nodes: &[Endpoint], ask: Ask) -> usize {
        let mut taken = 0;
        for node in nodes {
            let answer = self.link.ask(node, &ask, &mut os_rng()).await;
            taken += usize::from(matches!(answer, Ok(Answer::Accepted)));
            if taken == SUBMITTED_TO {
                break;
            }
        }
        taken
    }

    async fn save(&self, market: &mut Market) -> Result<(), FindError> {
        market.prune(self.clock.now());
        // The file is some megabytes at most.
        let (copy, path) = (market.clone(), self.path.clone());
        let saving = spawn_blocking(move || copy.save(&path));
        Ok(saving.await.map_err(|_| FindError::Interrupted)??)
    }
}

/// Does work off the runtime's threads.
async fn perform(challenge: [u8; 32], day: Day, effort: u64) -> Result<Work, FindError> {
    let mut start = [0; 16];
    os_rng().fill_bytes(&mut start);
    let working =
        offload(move |stop| work::perform(&challenge, day, effort, start, || stop.is_asked_for()));
    let done = working.await.map_err(|_| FindError::Interrupted)?;
    done.ok_or(FindError::Interrupted)
}

impl Fetched {
    fn of(answered: usize, faults: &[(Endpoint, SourceFault)]) -> Self {
        let lied = faults.iter().filter(|(_, fault)| fault.is_misbehaviour());
        Self {
            answered,
            failed: faults.len(),
            misbehaved: lied.count(),
            forks: 0,
        }
    }
}

impl HasKind for FindError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoOverlay => ErrorKind::Usage,
            Self::Sync(error) => error.kind(),
            Self::NoneFits(error) => error.kind(),
            Self::Store(error) => error.kind(),
            Self::DemandRefused => ErrorKind::NetworkDown,
            Self::Interrupted => ErrorKind::Bug,
        }
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NoOverlay => Retry::Never,
            Self::Sync(error) => error.retry(),
            Self::NoneFits(error) => error.retry(),
            Self::Store(error) => error.retry(),
            Self::DemandRefused | Self::Interrupted => Retry::Later,
        }
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guest")
    }
}
