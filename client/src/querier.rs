//! The querier: what calls, contracts and second looks have in common.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dlambda_broker::Market;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::transport::Transport;
use dlambda_proto::{Advert, AdvertStore, Authentic, Endpoint};
use tokio_util::task::TaskTracker;

use crate::wallet::Wallet;
use crate::{Experience, ListingMismatch, listed};

/// Epochs with good tokens that may have ended early before a provider is
/// refused. A changed offer ends one; each splits the anonymity set of calls.
const MAX_EARLY_ENDS: usize = 1;

/// Calls functions. Keeps nothing that two calls share but the adverts that it
/// has seen, to notice a provider that shows different ones.
pub struct Querier {
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    adverts: Mutex<AdvertStore>,
    max_early_ends: usize,
    closing: TaskTracker,
    wallet: Option<Wallet>,
    market: Option<Market>,
    experience: Mutex<Experience>,
    reaches: fn(&Endpoint) -> bool,
}

impl Querier {
    /// A querier on this transport.
    #[must_use]
    pub fn new(transport: Arc<dyn Transport>, clock: Arc<dyn Clock>) -> Self {
        Self {
            transport,
            clock,
            adverts: Mutex::default(),
            max_early_ends: MAX_EARLY_ENDS,
            closing: TaskTracker::new(),
            wallet: None,
            market: None,
            experience: Mutex::default(),
            reaches: |_| true,
        }
    }

    /// With a wallet, from which calls are paid and into which contracts go.
    #[must_use]
    pub fn with_wallet(self, wallet: Wallet) -> Self {
        Self {
            wallet: Some(wallet),
            ..self
        }
    }

    /// With what was fetched of the market: a provider that is listed in it must show the advert
    /// that it has listed, or it gets neither a proposal nor a token.
    #[must_use]
    pub fn with_market(self, market: Market) -> Self {
        Self {
            market: Some(market),
            ..self
        }
    }

    /// With what earlier calls have shown: any provider is chosen by it. Without it, this querier
    /// begins with none.
    #[must_use]
    pub fn with_experience(self, experience: Experience) -> Self {
        Self {
            experience: Mutex::new(experience),
            ..self
        }
    }

    /// With calls to any provider going only to endpoints that `reaches` accepts: those that the
    /// transport dials.
    #[must_use]
    pub fn reaching(self, reaches: fn(&Endpoint) -> bool) -> Self {
        Self { reaches, ..self }
    }

    /// With another bound for the epochs that a provider may have ended early
    /// before this querier buys nothing and spends no token there; 1 unless set.
    /// The more it is, the smaller the anonymity set of a call may be.
    #[must_use]
    pub fn dangerously_allowing_early_ends(self, most: usize) -> Self {
        Self {
            max_early_ends: most,
            ..self
        }
    }

    /// The wallet.
    #[must_use]
    pub fn wallet(&self) -> Option<&Wallet> {
        self.wallet.as_ref()
    }

    /// What calls have shown, those of this querier too. Keep it locked for no longer than a look.
    pub fn experience(&self) -> MutexGuard<'_, Experience> {
        // Every change is whole in itself.
        self.experience
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn reaches(&self, endpoint: &Endpoint) -> bool {
        (self.reaches)(endpoint)
    }

    pub(crate) fn adverts(&self) -> MutexGuard<'_, AdvertStore> {
        // Every change is whole in itself.
        self.adverts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an advert is the listed one, if its provider is listed.
    pub(crate) fn check_listing(&self, shown: &Authentic<Advert>) -> Result<(), ListingMismatch> {
        match &self.market {
            None => Ok(()),
            Some(market) => listed::check(market, shown, self.clock.now()),
        }
    }

    /// Whether this endpoint may be dialled.
    pub(crate) fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), ListingMismatch> {
        match &self.market {
            None => Ok(()),
            Some(market) => listed::check_endpoint(market, endpoint),
        }
    }

    pub(crate) fn max_early_ends(&self) -> usize {
        self.max_early_ends
    }

    pub(crate) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    pub(crate) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Streams that are closing.
    pub(crate) fn closing(&self) -> &TaskTracker {
        &self.closing
    }
}

impl fmt::Debug for Querier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Querier")
    }
}
