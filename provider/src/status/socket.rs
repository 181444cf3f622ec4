//! The socket that a status is asked for and answered over.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dlambda_proto::{ErrorKind, HasKind, Retry};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::RunningStatus;
use super::source::StatusSource;
use crate::overlay::Shared;

const SOCKET: &str = "status.sock";
const DEADLINE: Duration = Duration::from_secs(5);

/// Why there is no status.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StatusError {
    /// No process answers.
    #[error("no provider is running on {}", .0.display())]
    NotRunning(PathBuf),
    /// Something may be there, but gives no status, or may not be asked.
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

/// Asks the provider or node that runs on this data directory.
///
/// # Errors
///
/// [`StatusError::NotRunning`] if there is none, [`StatusError::NoAnswer`] if it may not be asked,
/// or its answer cannot be read.
pub async fn query_status(data: &Path) -> Result<RunningStatus, StatusError> {
    let mut socket = connect(data).await?;
    let mut text = Vec::new();
    let mut bounded = (&mut socket).take(512 << 10);
    timeout(DEADLINE, bounded.read_to_end(&mut text))
        .await
        .map_err(|_| StatusError::NoAnswer(io::ErrorKind::TimedOut.into()))?
        .map_err(StatusError::NoAnswer)?;
    serde_json::from_slice(&text).map_err(|error| StatusError::NoAnswer(error.into()))
}

async fn connect(data: &Path) -> Result<UnixStream, StatusError> {
    let connected = UnixStream::connect(data.join(SOCKET)).await;
    connected.map_err(|error| match error.kind() {
        // The file of a provider that was killed is still there.
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            StatusError::NotRunning(data.to_owned())
        }
        _ => StatusError::NoAnswer(error),
    })
}

/// Answers every connection with a snapshot. Never returns.
pub(crate) async fn answer<T>(data: PathBuf, source: Arc<StatusSource>) -> T {
    serve(data, || async {
        // It looks into the store, on disk.
        let overlay = timeout(DEADLINE, source.overlay()).await.unwrap_or(None);
        let source = Arc::clone(&source);
        let taken = spawn_blocking(move || serde_json::to_vec(&source.snapshot(overlay)));
        taken.await.ok().and_then(Result::ok).unwrap_or_default()
    })
    .await
}

/// Answers every connection with the status of a node. Never returns.
pub(crate) async fn answer_for_node<T>(data: PathBuf, node: Shared) -> T {
    serve(data, || async {
        let overlay = node.status().await;
        serde_json::to_vec(&RunningStatus::Node { overlay }).unwrap_or_default()
    })
    .await
}

/// The directory is the owner's alone, so other users cannot connect.
async fn serve<T, F: Future<Output = Vec<u8>>>(data: PathBuf, status: impl Fn() -> F) -> T {
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
            let text = status().await;
            let _ = timeout(DEADLINE, socket.write_all(&text)).await;
        } else {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_missing_provider_is_said_not_to_run() {
        let dir = tempfile::tempdir().expect("a directory");
        let asked = query_status(dir.path()).await;
        assert!(matches!(asked, Err(StatusError::NotRunning(_))));
        drop(UnixListener::bind(dir.path().join(SOCKET)).expect("binds"));
        let asked = query_status(dir.path()).await;
        assert!(
            matches!(asked, Err(StatusError::NotRunning(_))),
            "it was killed"
        );
        let file = dir.path().join("file");
        std::fs::write(&file, "").expect("written");
        let Err(StatusError::NoAnswer(cause)) = query_status(&file).await else {
            panic!("the cause is lost");
        };
        assert_eq!(cause.kind(), io::ErrorKind::NotADirectory);
    }
}
