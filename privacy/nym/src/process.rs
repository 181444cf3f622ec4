//! What concerns the helper as a process.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getppid, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Says what is logged, if not the usual: the variable of all our programs.
const LOG: &str = "DLAMBDA_LOG";

/// What is logged usually.
const USUAL_LOG: &str = "error,dlambda=warn";

/// Targets that may be logged. The SDK's log names addresses, tags and
/// gateways, so nobody gets to ask for it.
const ALLOWED: &str = "dlambda";

/// Seconds in which the network must be reached at the start.
const START_SECONDS: &str = "DLAMBDA_NYM_START_SECONDS";

/// What it is usually.
const USUAL_START_SECONDS: u64 = 60;

/// Logs to the standard error, without times, which link calls; and of panics
/// only where they happened: their messages may hold anything.
pub(crate) fn log_safely() {
    let filter = std::env::var(LOG).unwrap_or_default();
    let filter = if filter.is_empty() {
        USUAL_LOG
    } else {
        &filter
    };
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .without_time()
        .with_ansi(false)
        .with_filter(EnvFilter::new(filter))
        .with_filter(FilterFn::new(|metadata| may_be_logged(metadata.target())));
    let _started_before = tracing_subscriber::registry().with(layer).try_init();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location();
        let (file, line) = place.map_or(("?", 0), |place| (place.file(), place.line()));
        tracing::error!(file, line, "a panic");
        PANICKED.store(true, Ordering::Relaxed);
    }));
}

static PANICKED: AtomicBool = AtomicBool::new(false);

/// Whether anything in this process has panicked so far.
pub(crate) fn has_panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

/// Bytes of memory that this process has in use, where the system says so.
pub(crate) fn memory() -> Option<u64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let resident: u64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    Some(resident * rustix::param::page_size() as u64)
}

/// What is meant for the program that started us, and reaches us, too, since we
/// are of one terminal or one service: it decides when we end, by closing our
/// input, after the calls that are running.
pub(crate) fn leave_signals_to_parent() {
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        // Once there is a listener, the signal does nothing by itself.
        let _listener = signal(kind);
    }
}

fn may_be_logged(target: &str) -> bool {
    target.starts_with(ALLOWED)
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

/// Keeps this process's memory, with its keys and addresses, out of core dumps and from other
/// processes of the same user.
pub(crate) fn keep_memory_private() -> io::Result<()> {
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    setrlimit(Resource::Core, none)?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_never_logs() {
        for target in ["nym_sdk::mixnet", "nym_client_core", "tungstenite", "hyper"] {
            assert!(!may_be_logged(target), "{target}");
        }
        assert!(may_be_logged("dlambda_nym::provider"));
    }
}
