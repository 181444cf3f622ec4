//! A node of the overlay without a provider.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::TransportError;
use dlambda_privacy::clock::Clock;
use dlambda_privacy::network::OverlayNetwork;
use dlambda_privacy::transport::Transport;
use dlambda_proto::Endpoint;
use tokio_util::sync::CancellationToken;

use super::{OverlayNode, Shared};
use crate::supervisor::Supervisor;
use crate::{DataDir, ProviderError, Stop, status};

/// For the services to end.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(5);

/// A node that serves other nodes and guests, and lists nothing of its own.
pub struct OverlayVolunteer {
    node: OverlayNode,
    shared: Shared,
    data: Arc<DataDir>,
    stop: CancellationToken,
}

impl OverlayVolunteer {
    /// Joins the overlay.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Transport`] if the transport carries no overlay; [`ProviderError`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start(
        settings: &OverlayNetwork,
        data: DataDir,
        transport: Arc<dyn Transport>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, ProviderError> {
        let node = OverlayNode::start(settings, &transport, &data, &clock, None).await?;
        let node = node.ok_or(TransportError::WrongService)?;
        Ok(Self {
            shared: node.shared(),
            node,
            data: Arc::new(data),
            stop: CancellationToken::new(),
        })
    }

    /// Where the node is reached: what a network file names as a bootstrap node.
    #[must_use]
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.shared.endpoints
    }

    /// A handle that stops the node.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        Stop::new(self.stop.clone())
    }

    /// Serves until stopped.
    ///
    /// # Errors
    ///
    /// [`ProviderError::Overlay`] if the node ends.
    pub async fn serve(self) -> Result<(), ProviderError> {
        let mut services = Supervisor::new(self.stop.clone());
        let data = self.data.path().to_owned();
        let shared = self.shared;
        services.restarting("status", move || {
            status::answer_for_node(data.clone(), shared.clone())
        });
        services.essential("catalogue", self.node.keep_stored(self.stop.clone()));
        let running = self.node.run();
        let stopped = self.stop.clone();
        services.essential("overlay node", async move {
            stopped.run_until_cancelled(running).await.unwrap_or(Ok(()))
        });
        let ended = tokio::select! {
            () = self.stop.cancelled() => Ok(()),
            error = services.failure() => Err(error),
        };
        self.stop.cancel();
        services.shutdown(SHUTDOWN_WITHIN).await;
        ended
    }
}

impl fmt::Debug for OverlayVolunteer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OverlayVolunteer([scrubbed])")
    }
}
