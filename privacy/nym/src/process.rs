//! What concerns the helper as a process.

use std::io;
use std::time::Duration;

use rustix::process::{Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Names what is logged, if not the usual. The SDK's own log names addresses.
const LOG: &str = "DLAMBDA_NYM_LOG";

/// What is logged usually.
const USUAL_LOG: &str = "off,dlambda_nym=info";

/// Seconds in which the network must be reached at the start.
const START_SECONDS: &str = "DLAMBDA_NYM_START_SECONDS";

/// What it is usually.
const USUAL_START_SECONDS: u64 = 60;

/// Logs to the standard error, and of panics only where they happened: their
/// messages may hold anything.
pub(crate) fn log_safely() {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new(USUAL_LOG));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location();
        let (file, line) = place.map_or(("?", 0), |place| (place.file(), place.line()));
        tracing::error!(file, line, "a panic");
    }));
}

/// How long reaching the network may take at the start.
pub(crate) fn start_deadline() -> Duration {
    let asked = std::env::var(START_SECONDS).ok();
    let seconds = asked.and_then(|asked| asked.parse().ok());
    Duration::from_secs(seconds.unwrap_or(USUAL_START_SECONDS))
}

/// Has the kernel send a signal when the parent dies.
///
/// It sends it when the *thread* dies that started us, too, which says
/// nothing. So it is a signal that [`end_with_parent`] catches and judges.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::USR1))?)
}

/// Ends the process when the parent has died.
pub(crate) async fn end_with_parent() {
    let parent = getppid();
    let Ok(mut deaths) = signal(SignalKind::user_defined1()) else {
        return;
    };
    while deaths.recv().await.is_some() {
        if getppid() != parent {
            std::process::exit(0);
        }
    }
}
