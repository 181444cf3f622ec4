//! `dlambda-testnet`: networks side by side, and nothing left of either.

use std::time::{Duration, Instant};

use dlambda_tests::program::Program;
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(180);

async fn up(dir: &tempfile::TempDir, name: &str) -> (Program, Value) {
    let (net, log) = (dir.path().join(name), dir.path().join("log"));
    let args = ["up", "--dir", net.to_str().expect("text")];
    let started = Program::start("dlambda-testnet", &args, &log, DEADLINE).await;
    started.expect("a network")
}

fn alive(ready: &Value) -> usize {
    let pids = ready["pids"].as_array().expect("process ids");
    let is_tor = |pid: &&Value| {
        // A process id alone could belong to somebody else by now.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm"));
        name.is_ok_and(|name| name.trim() == "tor")
    };
    pids.iter().filter(is_tor).count()
}

async fn assert_all_end(ready: &Value, patience: Duration) {
    let started = Instant::now();
    while alive(ready) > 0 {
        assert!(started.elapsed() < patience, "{} left", alive(ready));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn two_live_side_by_side_and_leave_nothing_behind() {
    let dir = tempfile::tempdir().expect("a directory");
    let ((one, first), (two, second)) = tokio::join!(up(&dir, "one"), up(&dir, "two"));
    for ready in [&first, &second] {
        assert_eq!(ready["ready"], true);
        assert_eq!(alive(ready), 8, "3 authorities and 5 relays");
    }
    assert_ne!(first["network"], second["network"]);
    one.stop(DEADLINE).await.expect("stops on SIGTERM");
    assert_eq!(alive(&first), 0, "gone at once");
    assert_eq!(alive(&second), 8, "not its own");
    two.kill().await.expect("was running");
    assert_all_end(&second, DEADLINE).await;
}
