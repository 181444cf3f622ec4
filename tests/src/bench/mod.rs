//! Measuring: calls over Tor and Nym, contracts and their tokens, the executor,
//! calls while strangers hold streams and memory, finding providers and choosing among them.
//!
//! Each bench has its baselines in the same run.

pub mod calls;
mod chart;
pub mod contracts;
mod cpu;
pub mod executor;
pub mod floods;
pub mod overlay;
mod report;
pub mod selection;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use report::Report;

/// The example functions.
fn functions() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/functions")
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn millis_since(start: Instant) -> f64 {
    millis(start.elapsed())
}

#[allow(clippy::print_stderr, reason = "progress of a program for people")]
fn progress(line: &str) {
    eprintln!("{line}");
}
