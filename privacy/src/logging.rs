//! Logs that cannot leak.
//!
//! Only targets on a list are let through, at any level. The WebAssembly
//! engine, for one, would print a function's names and what it writes; nobody
//! gets to ask for that. Times are left out: a log with fine times next to a
//! network trace links calls.

use std::io;

use tracing_subscriber::filter::{EnvFilter, FilterFn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

/// Programs log at this level unless told otherwise.
const DEFAULT: &str = "error,dlambda=warn";

/// Targets that may be logged, by prefix: our own, and Tor's, which scrubs
/// what it prints with `safelog`.
const ALLOWED: [&str; 3] = ["dlambda", "arti", "tor_"];

/// Starts logging to standard error, filtered by `DLAMBDA_LOG` (the syntax of
/// `tracing`'s `EnvFilter`; default `error,dlambda=warn`).
///
/// Does nothing if logging was started before.
pub fn init() {
    let filter = std::env::var("DLAMBDA_LOG").unwrap_or_default();
    let filter = if filter.is_empty() { DEFAULT } else { &filter };
    let allowed = FilterFn::new(|metadata| may_be_logged(metadata.target()));
    let layer = fmt::layer()
        .with_writer(io::stderr)
        .without_time()
        .with_ansi(false)
        .with_filter(EnvFilter::new(filter))
        .with_filter(allowed);
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

fn may_be_logged(target: &str) -> bool {
    ALLOWED.iter().any(|prefix| target.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_never_logs() {
        for target in ["wasmtime_wasi::p2", "cranelift_codegen", "wiggle", "hyper"] {
            assert!(!may_be_logged(target), "{target}");
        }
        assert!(may_be_logged("dlambda_provider::session"));
    }
}
