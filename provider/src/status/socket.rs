//! The socket that a status is asked for and answered over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dlambda_proto::{ErrorKind, HasKind, Retry};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;

use super::Snapshot;
use super::source::StatusSource;

const SOCKET: &str = "status.sock";
const DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no status.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StatusError {
    /// Nobody answers.
    #[error("no provider is running on {}", .0.display())]
    NotRunning(PathBuf),
    /// Something answers, but not with a status.
    #[error("the provider does not answer")]
    NoAnswer(#[source] io::Error),
}

impl HasKind for StatusError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::NoProvider
    }

    fn retry(&self) -> Retry {
        match self {
            Self::NoAnswer(_) | Self::NotRunning(_) => Retry::Later,
        }
    }
}

/// Asks the provider that runs on this data directory.
///
/// # Errors
///
/// [`StatusError::NotRunning`] if there is none.
pub async fn query_status(data: &Path) -> Result<Snapshot, StatusError> {
    let mut socket = UnixStream::connect(data.join(SOCKET))
        .await
        .map_err(|_| StatusError::NotRunning(data.to_owned()))?;
    let mut text = Vec::new();
    let mut bounded = (&mut socket).take(512 << 10);
    timeout(DEADLINE, bounded.read_to_end(&mut text))
        .await
        .map_err(|_| StatusError::NoAnswer(io::ErrorKind::TimedOut.into()))?
        .map_err(StatusError::NoAnswer)?;
    serde_json::from_slice(&text).map_err(|error| StatusError::NoAnswer(error.into()))
}

/// Answers every connection with a snapshot. The directory is the owner's
/// alone, so nobody else can connect. Never returns.
pub(crate) async fn answer<T>(data: PathBuf, source: Arc<StatusSource>) -> T {
    let path = data.join(SOCKET);
    // Left by a provider that was killed; we hold the directory's lock.
    let _ = std::fs::remove_file(&path);
    let listener = match UnixListener::bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(
                kind = ?error.kind(),
                "no status socket: is the data directory's path too long?"
            );
            // The provider serves all the same.
            return std::future::pending().await;
        }
    };
    loop {
        if let Ok((mut socket, _)) = listener.accept().await {
            // It looks into the store, on disk.
            let source = Arc::clone(&source);
            let overlay = timeout(DEADLINE, source.overlay()).await.unwrap_or(None);
            let taken =
                tokio::task::spawn_blocking(move || serde_json::to_vec(&source.snapshot(overlay)));
            let text = taken.await.ok().and_then(Result::ok).unwrap_or_default();
            let _ = timeout(DEADLINE, socket.write_all(&text)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
