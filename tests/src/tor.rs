//! Tor transports on a private network, each as a participant of its own.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use dlambda_privacy::network::Network;
use dlambda_privacy::transport::{TorDirectories, TorTransport};

/// Generous: a loaded machine may take several times as long as a quiet one.
const BOOTSTRAP: Duration = Duration::from_secs(120);

/// Starts a participant whose files are under `dir`.
///
/// # Errors
///
/// If the network file cannot be read or Tor does not start.
pub async fn participant(network: &Path, dir: &Path) -> anyhow::Result<Arc<TorTransport>> {
    let network = Network::read(network)?;
    let directories = TorDirectories::new(dir.join("state"), dir.join("cache"));
    let tor = TorTransport::bootstrap(&network, &directories, BOOTSTRAP, |_| {});
    Ok(Arc::new(Box::pin(tor).await?))
}
