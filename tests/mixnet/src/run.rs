//! Tasks that end together, and the accept loop that feeds them.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long an accept loop pauses when the system refuses it a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Tasks with one end.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl Run {
    /// No tasks yet; they end when `parent` does, too.
    pub(crate) fn under(parent: &CancellationToken) -> Self {
        Self {
            cancel: parent.child_token(),
            tasks: TaskTracker::new(),
        }
    }

    /// Starts a task that ends, wherever it is, with this run.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let cancel = self.cancel.clone();
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(task).await;
        });
    }

    /// Accepts connections, each to a task of its own, `most` at a time; one
    /// more is closed at once.
    pub(crate) fn accept<F, T>(&self, listener: TcpListener, most: usize, handle: F)
    where
        F: Fn(TcpStream) -> T + Send + 'static,
        T: Future<Output = ()> + Send + 'static,
    {
        let run = self.clone();
        let places = Arc::new(Semaphore::new(most));
        self.spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Too many open files, most likely: they may close again.
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                };
                let Ok(place) = places.clone().try_acquire_owned() else {
                    continue;
                };
                let task = handle(stream);
                run.spawn(async move {
                    task.await;
                    drop(place);
                });
            }
        });
    }

    /// Ends all tasks and returns when their sockets are closed.
    pub(crate) async fn end(&self) {
        self.cancel.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
