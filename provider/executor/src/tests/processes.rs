//! What Linux says of processes.

use std::fs;
use std::time::{Duration, Instant};

/// Resident bytes.
pub(super) fn resident(process: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok());
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Whether this process runs one test only, so that what it uses is that test's.
pub(super) fn alone() -> bool {
    std::env::var_os("NEXTEST").is_some()
}

/// How long it has run, and how long it would have liked to run while others did.
pub(super) fn scheduled(process: u32) -> (Duration, Duration) {
    let times = fs::read_to_string(format!("/proc/{process}/schedstat")).unwrap_or_default();
    let mut times = times.split(' ').map(|time| time.parse().unwrap_or(0));
    let mut next = || Duration::from_nanos(times.next().unwrap_or(0));
    (next(), next())
}

/// A line of its status, such as `Uid`.
pub(super) fn status(process: u32, line: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let mut lines = status.lines().filter_map(|line| line.split_once(':'));
    lines
        .find(|(name, _)| *name == line)
        .map(|(_, value)| value.trim().to_owned())
}

/// Whether it is there and has not ended.
pub(super) fn lives(process: u32) -> bool {
    status(process, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

pub(super) fn children(process: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|child| status(*child, "PPid") == Some(process.to_string()))
        .collect()
}

/// Waits until something is so.
pub(super) async fn eventually(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(super) fn signal(process: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(process.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
