//! What processes use, as the kernel says.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::time::{ClockId, clock_gettime};

/// Processor time of this thread so far.
pub(super) fn of_this_thread() -> Duration {
    read(ClockId::ThreadCPUTime)
}

/// Processor time of this process so far.
pub(super) fn of_this_process() -> Duration {
    read(ClockId::ProcessCPUTime)
}

fn read(clock: ClockId) -> Duration {
    // Never before the start.
    Duration::try_from(clock_gettime(clock)).unwrap_or_default()
}

/// Processor time of another process's threads so far; of those that live, and
/// to some milliseconds.
pub(super) fn of_process(pid: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end while we look.
        sum += running(&task?.path().join("schedstat")).unwrap_or_default();
    }
    Ok(sum)
}

/// Resident memory of a process, in bytes.
pub(super) fn memory_of(pid: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next());
    Ok(kib.context("no figure")?.parse::<u64>()? << 10)
}

fn running(schedstat: &Path) -> Result<Duration> {
    let text = std::fs::read_to_string(schedstat)?;
    let nanos = text.split_whitespace().next().context("no figure")?;
    Ok(Duration::from_nanos(nanos.parse()?))
}
