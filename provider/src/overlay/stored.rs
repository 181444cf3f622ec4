//! The node's catalogue on disk: since when providers are listed is not to be had from others.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use dlambda_broker::{Catalogue, Equihash, Rules, StoreError};
use dlambda_proto::UnixSeconds;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::ProviderError;

/// Between two writes. What is lost in a crash comes again from other nodes.
const PAUSE: Duration = Duration::from_secs(300);

/// The catalogue that was written, or an empty one.
pub(super) async fn load(
    path: PathBuf,
    rules: Rules,
    now: UnixSeconds,
) -> Result<Catalogue, ProviderError> {
    let loading = spawn_blocking(move || {
        let loaded = Catalogue::load(&path, rules, Arc::new(Equihash), now);
        match loaded {
            Err(StoreError::Damaged { .. } | StoreError::OtherNetwork { .. }) => {
                tracing::warn!("the catalogue on disk cannot be used; beginning with an empty one");
                Ok(Catalogue::new(rules, Arc::new(Equihash)))
            }
            loaded => loaded.map_err(ProviderError::Catalogue),
        }
    });
    loading.await.map_err(|_| ProviderError::Interrupted)?
}

/// Writes it once in a while, and at the stop.
pub(super) async fn keep(
    path: PathBuf,
    shared: Shared,
    stop: CancellationToken,
) -> Result<(), ProviderError> {
    loop {
        let is_over = timeout(PAUSE, stop.cancelled()).await.is_ok();
        let (path, shared) = (path.clone(), shared.clone());
        let saving = spawn_blocking(move || {
            // A copy, so that the node does not wait for the disk.
            let copy = shared.state().catalogue.clone();
            copy.save(&path)
        });
        // The next time, or the overlay, brings it again.
        if !matches!(saving.await, Ok(Ok(()))) {
            tracing::warn!("the catalogue cannot be written to disk");
        }
        if is_over {
            return Ok(());
        }
    }
}
