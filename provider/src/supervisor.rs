//! Runs named services side by side, and notices when one ends that should not.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::ProviderError;

/// Before a service is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

type Outcome = Result<(), ProviderError>;

/// A set of services. Dropping it ends them all.
pub(crate) struct Supervisor {
    tasks: JoinSet<Outcome>,
    services: HashMap<Id, Service>,
    stop: CancellationToken,
}

struct Service {
    name: &'static str,
    policy: Policy,
}

/// What the end of a service means before the stop.
enum Policy {
    /// The others cannot go on without it.
    Essential,
    /// It has an end of its own; only an error or a panic counts.
    Finite,
    /// It is started again.
    Restart(Box<dyn Fn() -> BoxFuture<'static, Outcome> + Send + Sync>),
}

impl Supervisor {
    /// Once `stop` is cancelled, every end of a service is orderly.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self {
            tasks: JoinSet::new(),
            services: HashMap::new(),
            stop,
        }
    }

    /// Starts a service that is needed until the stop.
    pub(crate) fn essential(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Outcome> + Send + 'static,
    ) {
        self.start(name, Policy::Essential, service.boxed());
    }

    /// Starts a service that may complete.
    pub(crate) fn finite(
        &mut self,
        name: &'static str,
        service: impl Future<Output = Outcome> + Send + 'static,
    ) {
        self.start(name, Policy::Finite, service.boxed());
    }

    /// Starts a service that is started again whenever it ends, for whatever reason.
    pub(crate) fn restarting<F>(
        &mut self,
        name: &'static str,
        service: impl Fn() -> F + Send + Sync + 'static,
    ) where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let first = service().boxed();
        let policy = Policy::Restart(Box::new(move || service().boxed()));
        self.start(name, policy, first);
    }

    /// Returns when a service has ended that the others cannot go on without: with its own error,
    /// or one that names it. Never returns after the stop.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn failure(&mut self) -> ProviderError {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if let Some(failure) = self.ended(ended) {
                return failure;
            }
        }
        std::future::pending().await
    }

    /// Ends all services, and returns when they have ended, or `within` has passed. Says whether
    /// they have.
    pub(crate) async fn shutdown(mut self, within: Duration) -> bool {
        self.stop.cancel();
        let ended = timeout(within, self.tasks.shutdown()).await;
        ended.is_ok()
    }

    fn start(&mut self, name: &'static str, policy: Policy, task: BoxFuture<'static, Outcome>) {
        let id = self.tasks.spawn(task).id();
        self.services.insert(id, Service { name, policy });
    }

    /// The failure that the end of a service is, if it is one.
    fn ended(&mut self, ended: Result<(Id, Outcome), JoinError>) -> Option<ProviderError> {
        let id = match &ended {
            Ok((id, _)) => *id,
            Err(error) => error.id(),
        };
        let Service { name, policy } = self.services.remove(&id)?;
        // What a panic says may hold anything: only the name is logged.
        let error = match ended {
            Ok((_, Ok(()))) => ProviderError::ServiceEnded(name),
            Ok((_, Err(error))) => error,
            Err(_) => ProviderError::ServicePanicked(name),
        };
        let panicked = matches!(error, ProviderError::ServicePanicked(_));
        if panicked {
            tracing::error!(service = name, "a service panicked");
        }
        if self.stop.is_cancelled() {
            return None;
        }
        match policy {
            Policy::Finite if matches!(error, ProviderError::ServiceEnded(_)) => None,
            Policy::Restart(restart) => {
                tracing::warn!(service = name, "a service ended, and is started again");
                let again = restart();
                let task = async move {
                    sleep(RESTART_AFTER).await;
                    again.await
                };
                self.start(name, Policy::Restart(restart), task.boxed());
                None
            }
            Policy::Essential | Policy::Finite => {
                if !panicked {
                    tracing::error!(service = name, "a service ended");
                }
                Some(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;
