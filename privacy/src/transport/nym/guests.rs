//! The helper to which a provider's guests come: another process and another address than those of
//! calls, so that guests take nothing from calls and the two addresses cannot be told to be of one
//! provider.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dlambda_nym_link::{Role, Settings};
use tokio::sync::mpsc;

use super::link::{Arrival, HelperProcess};
use super::only_calls;
use super::program::Launch;
use crate::TransportError;

/// In the directory of the Nym client that is called. The helper makes it.
const DIRECTORY: &str = "guests";

type Started = (HelperProcess, mpsc::Receiver<Arrival>);

/// Starts the helper, at most once.
pub(super) struct Starter {
    start: Box<dyn Fn() -> Started + Send + Sync>,
    deadline: Duration,
    is_started: AtomicBool,
}

impl Starter {
    /// None if the settings are those of a caller, who has no guests. The helper may take
    /// `deadline` to be ready.
    pub(super) fn new(
        launch: &(impl Launch + Clone),
        settings: &Settings,
        deadline: Duration,
    ) -> Option<Self> {
        let Role::Provider { directory } = &settings.role else {
            return None;
        };
        // It was a string before.
        let directory = Path::new(directory).join(DIRECTORY).into_os_string();
        let directory = directory.into_string().ok()?;
        let settings = Settings {
            role: Role::Provider { directory },
            ..settings.clone()
        };
        let launch = launch.clone();
        Some(Self {
            start: Box::new(move || HelperProcess::start(launch.clone(), settings.clone())),
            deadline,
            is_started: AtomicBool::new(false),
        })
    }

    /// The helper, which is not ready yet, what arrives at it, and how long it may take.
    pub(super) fn start(
        &self,
    ) -> Result<(HelperProcess, mpsc::Receiver<Arrival>, Duration), TransportError> {
        if self.is_started.swap(true, Ordering::Relaxed) {
            return Err(only_calls());
        }
        let (helper, arrivals) = (self.start)();
        Ok((helper, arrivals, self.deadline))
    }
}
