//! What takes long, or the machine for itself: `make test-long`.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::processes::{eventually, lives};
use super::{command, deadline, executor, prepare};
use crate::Invocation;
use dlambda_proto::{Status, StopKind};

/// Programs that keep the first processor busy until they are dropped.
struct Burners(Vec<Child>);

impl Burners {
    fn start(count: usize) -> Self {
        let burn = || {
            Command::new("taskset")
                .args(["-c", "0", "sh", "-c", "while :; do :; done"])
                .spawn()
                .expect("util-linux is installed")
        };
        Self((0..count).map(|_| burn()).collect())
    }
}

impl Drop for Burners {
    fn drop(&mut self) {
        for burner in &mut self.0 {
            burner.kill().unwrap();
            burner.wait().unwrap();
        }
    }
}

/// On the first processor only, and only when nobody else wants it.
fn starve(process: u32) {
    let process = process.to_string();
    for arguments in [
        &["taskset", "-a", "-c", "-p", "0", &process][..],
        &["chrt", "-a", "-i", "-p", "0", &process],
    ] {
        let (program, arguments) = arguments.split_first().unwrap();
        let done = Command::new(program).args(arguments).output().unwrap();
        assert!(done.status.success(), "{done:?}");
    }
}

/// By the clock alone it would be killed after ten seconds, and its calls with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes the machine for itself"]
async fn a_worker_that_gets_next_to_no_processor_keeps_its_calls() {
    let executor = executor();
    executor.ready().await.unwrap();
    eventually("two workers", || executor.processes().len() == 2).await;
    let spinner = prepare(&executor, command("(loop (br 0))")).await;
    let workers = executor.processes();
    workers.iter().copied().for_each(starve);
    let burners = Burners::start(8);
    let begun = Instant::now();
    let calls = (0..4).map(|_| {
        let (executor, spinner) = (executor.clone(), spinner.clone());
        tokio::spawn(async move {
            let limits = deadline(600);
            executor.run(&spinner, Invocation::default(), &limits).await
        })
    });
    let calls: Vec<_> = calls.collect();
    tokio::time::sleep(Duration::from_secs(40)).await;
    println!(
        "{} of 4 calls were answered while it starved",
        calls.iter().filter(|call| call.is_finished()).count()
    );
    drop(burners);
    for call in calls {
        let outcome = call.await.unwrap().unwrap();
        assert_eq!(outcome.status, Status::Stopped(StopKind::Deadline));
    }
    assert!(begun.elapsed() > Duration::from_secs(40));
    assert!(workers.iter().all(|worker| lives(*worker)));
    assert_eq!(executor.counts().workers_lost, 0);
}
