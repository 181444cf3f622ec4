//! Whether a worker hangs, or was kept from running.
//!
//! The wall clock alone cannot tell: on a busy machine a healthy worker, whose priority is low, may
//! not get a processor for seconds. So a worker that owes an answer is charged for time that it
//! could have used: time on a processor, and time in which it asked for none (it sleeps, is stopped
//! or has ended). Time in which it was ready to run and did not is the machine's. In the end that
//! runs out as well.

use std::future::Future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// Time that a worker may use beyond what was agreed.
pub(super) const GRACE: Duration = Duration::from_secs(10);
/// Time beyond what was agreed, however busy the machine is.
pub(super) const LONGEST: Duration = Duration::from_secs(180);
/// Between two samples of a worker.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);

/// Fields in a stat file, from 1 (proc(5)).
const STATE: usize = 3;
const UTIME: usize = 14;

/// Threads that are looked at: a healthy worker has some ten, and one that is not healthy must not
/// make this process read thousands of files.
const MOST_THREADS: usize = 64;

/// The state of a worker at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Processor time of the process, since it started.
    pub(super) ran: Duration,
    /// Whether one of its threads would use a processor, or waits for a disk, at this moment.
    pub(super) runnable: bool,
}

/// How much of its grace a worker has used.
#[derive(Debug, Default)]
pub(super) struct HangDetector {
    charged: Duration,
    waited: Duration,
    last: Option<Sample>,
}

impl HangDetector {
    /// Takes a sample after so much time; `None` where the system does not tell. Says whether the
    /// worker counts as hung.
    pub(super) fn is_hung(&mut self, elapsed: Duration, sample: Option<Sample>) -> bool {
        let ran = match (self.last, sample) {
            (Some(last), Some(sample)) => Some(sample.ran.saturating_sub(last.ran)),
            _ => None,
        };
        self.charged += match (ran, sample) {
            (Some(ran), Some(Sample { runnable: true, .. })) => ran.min(elapsed),
            // If nobody looked for long, it was this process that did not run: the answer may have
            // come meanwhile.
            _ => elapsed.min(2 * SAMPLE_INTERVAL),
        };
        self.waited += elapsed;
        self.last = sample;
        self.charged >= GRACE || self.waited >= LONGEST
    }
}

/// Waits for a worker's answer; `None` if the worker hangs.
///
/// # Cancel safety
///
/// As cancel safe as `answer`.
pub(super) async fn unless_hung<T>(
    process: Option<u32>,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut detector = HangDetector::default();
    let mut looked = Instant::now();
    loop {
        tokio::select! {
            biased;
            answer = &mut answer => return Some(answer),
            () = sleep(SAMPLE_INTERVAL) => {
                let elapsed = looked.elapsed();
                looked = Instant::now();
                if detector.is_hung(elapsed, process.and_then(sample)) {
                    return None;
                }
            }
        }
    }
}

/// Looks at all threads of a process: while one loads code, the one that runs guests waits for it.
fn sample(process: u32) -> Option<Sample> {
    let own = std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).ok()?;
    let runnable = threads.flatten().take(MOST_THREADS).any(|thread| {
        // One that has ended meanwhile wants nothing.
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        stat.is_ok_and(|stat| runnable(&stat) == Some(true))
    });
    Some(Sample {
        ran: ran(&own)?,
        runnable,
    })
}

/// Processor time in the stat file of a process: of all its threads, those that have ended as well
/// (proc(5)).
fn ran(stat: &str) -> Option<Duration> {
    let mut times = fields(stat)?.skip(UTIME - STATE);
    let user: u64 = times.next()?.parse().ok()?;
    let system: u64 = times.next()?.parse().ok()?;
    let second = rustix::param::clock_ticks_per_second();
    Some(Duration::from_secs(user.checked_add(system)?) / u32::try_from(second).ok()?)
}

/// Whether the thread of a stat file would use a processor, or waits for a disk.
fn runnable(stat: &str) -> Option<bool> {
    Some(matches!(fields(stat)?.next()?, "R" | "D"))
}

/// The fields of a stat file from the state on. The name of the program, in brackets before it, may
/// hold anything.
fn fields(stat: &str) -> Option<std::str::SplitAsciiWhitespace<'_>> {
    Some(stat.rsplit_once(") ")?.1.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how long a worker with these samples is waited for.
    fn waited_for(sample: impl Fn(Duration) -> Option<Sample>) -> Duration {
        let (mut detector, mut now) = (HangDetector::default(), Duration::ZERO);
        loop {
            now += SAMPLE_INTERVAL;
            if detector.is_hung(SAMPLE_INTERVAL, sample(now)) {
                return now;
            }
        }
    }

    #[test]
    fn a_worker_that_sleeps_or_is_stopped_has_its_grace() {
        let idle = Sample {
            ran: Duration::ZERO,
            runnable: false,
        };
        assert_eq!(waited_for(|_| Some(idle)), GRACE);
    }

    #[test]
    fn a_worker_that_runs_and_does_not_answer_has_its_grace() {
        let busy = |now| {
            Some(Sample {
                ran: now,
                runnable: true,
            })
        };
        assert_eq!(waited_for(busy), GRACE);
    }

    #[test]
    fn a_worker_that_gets_a_tenth_of_a_processor_has_ten_times_as_long() {
        let starved = |now| {
            Some(Sample {
                ran: now / 10,
                runnable: true,
            })
        };
        let waited_for = waited_for(starved);
        assert!(
            waited_for > 9 * GRACE && waited_for <= 10 * GRACE,
            "{waited_for:?}"
        );
    }

    #[test]
    fn a_worker_that_never_runs_is_given_up_in_the_end() {
        let never = Sample {
            ran: Duration::ZERO,
            runnable: true,
        };
        assert_eq!(waited_for(|_| Some(never)), LONGEST);
    }

    #[test]
    fn the_clock_counts_where_the_system_does_not_tell() {
        assert_eq!(waited_for(|_| None), GRACE);
    }

    #[test]
    fn time_in_which_nobody_looked_is_not_charged() {
        let mut detector = HangDetector::default();
        assert!(!detector.is_hung(2 * GRACE, None));
    }

    #[test]
    fn a_process_is_seen_to_run() {
        let before = sample(std::process::id()).unwrap();
        let begun = std::time::Instant::now();
        loop {
            let now = sample(std::process::id()).unwrap();
            if now.ran > before.ran {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{before:?}");
        }
        assert_eq!(sample(u32::MAX), None);
    }

    #[test]
    fn one_thread_that_wants_a_processor_is_enough() {
        // This thread looks, so it runs; the first one of the process waits for it.
        assert!(sample(std::process::id()).unwrap().runnable);
    }
}
