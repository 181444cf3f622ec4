//! Starts that fail, and ends.

use std::process::Stdio;
use std::time::{Duration, Instant};

use dlambda_nym_link::{Command, Role, SessionId, Settings, Traffic, VERSION};

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::harness::{Helper, Mixnet, PATIENCE, caller, private_directory, ready_caller};

fn nowhere(role: Role) -> Settings {
    Settings {
        version: VERSION,
        api_url: Some("http://127.0.0.1:1/".to_owned()),
        traffic: Traffic::Fast,
        role,
        mean_delay_ms: None,
    }
}

#[tokio::test]
async fn without_a_network_the_start_fails_in_time() {
    let directory = private_directory();
    let directory = directory.path().to_str().expect("a plain path").to_owned();
    for role in [
        Role::Caller {
            pool: 1,
            entry: None,
        },
        Role::Provider { directory },
    ] {
        let mut helper = Helper::spawn(Some(3));
        let began = Instant::now();
        helper.tell(Command::Start(nowhere(role))).await;
        let why = helper.failure().await;
        assert!(why.contains("3 s") && why.contains("nym-api"), "{why}");
        assert!(!why.contains("127.0.0.1"), "{why}");
        assert!(began.elapsed() < Duration::from_secs(10));
        assert!(!helper.end(Duration::from_secs(2)).await.success());
    }
}

#[tokio::test]
async fn a_start_that_makes_no_sense_is_refused() {
    let mixnet = Mixnet::start(1).await;
    let good = caller(&mixnet, Traffic::Fast, 1);
    let mut other_version = good.clone();
    other_version.version = VERSION + 1;
    let mut no_url = good;
    no_url.api_url = Some("not a URL".to_owned());
    for (settings, expected) in [(other_version, "version"), (no_url, "URL")] {
        let mut helper = Helper::start(settings).await;
        let why = helper.failure().await;
        assert!(why.contains(expected), "{why}");
        assert!(!helper.end(PATIENCE).await.success());
    }
    let mut helper = Helper::spawn(None);
    let session = SessionId(1);
    helper.tell(Command::Close { session }).await;
    assert!(helper.failure().await.contains("first command"));
}

#[tokio::test]
async fn junk_ends_the_helper_with_words_instead_of_a_panic() {
    let mixnet = Mixnet::start(1).await;
    for junk in [&[0xff; 8][..], &[0, 0, 0, 2, 0xff, 0xff], &[0, 0, 0, 0]] {
        let mut fresh = Helper::spawn(None);
        let mut started = ready_caller(&mixnet, Traffic::Fast, 0).await;
        for helper in [&mut fresh, &mut started] {
            helper.tell_bytes(junk).await;
            assert!(helper.failure().await.contains("link"));
            assert!(!helper.end(Duration::from_secs(2)).await.success());
        }
    }
}

#[tokio::test]
async fn the_end_of_the_input_is_the_end_of_the_helper() {
    let mixnet = Mixnet::start(1).await;
    let mut ready = ready_caller(&mixnet, Traffic::Standard, 3).await;
    let mut waiting = Helper::spawn(None);
    let mut connecting = Helper::start(nowhere(Role::Caller {
        pool: 1,
        entry: None,
    }))
    .await;
    for helper in [&mut ready, &mut waiting, &mut connecting] {
        helper.hang_up();
        assert!(helper.end(Duration::from_secs(1)).await.success());
    }
}

/// The shell stands for D-Lambda, and is killed while its helper waits for
/// commands that somebody else could still give.
#[tokio::test]
async fn the_death_of_the_parent_is_the_end_of_the_helper() {
    let helper = env!("CARGO_BIN_EXE_dlambda-nym");
    let script = format!("exec 3<&0; '{helper}' <&3 & echo $!; wait");
    let mut shell = tokio::process::Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("sh starts");
    let _input = shell.stdin.take();
    let mut lines = BufReader::new(shell.stdout.take().expect("is piped")).lines();
    let pid = lines.next_line().await.expect("in UTF-8").expect("a line");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(runs(&pid));
    shell.kill().await.expect("is ours");
    let began = Instant::now();
    while runs(&pid) {
        assert!(began.elapsed() < Duration::from_secs(5), "it still runs");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Whether a process runs, and is not only waited for.
fn runs(pid: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}
