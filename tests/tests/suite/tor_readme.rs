//! The README's examples, run as they stand there.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use dlambda_tests::program::binary;
use tokio::process::Command;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(300);

/// All blocks of the README that are marked with one of these languages, as one script.
fn script(languages: &[&str]) -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(readme).expect("the README");
    let mut script = String::from("set -eu\n");
    let mut last = String::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let (language, body) = block.split_once('\n').expect("a block");
        if !languages.contains(&language) {
            continue;
        }
        // The first block cleans up at its end; what belongs to it comes before that.
        let (body, end) = body.split_once("\nkill ").unwrap_or((body, ""));
        script.push_str(body);
        script.push('\n');
        if !end.is_empty() {
            last = format!("kill {end}\n");
        }
    }
    script + &last
}

/// Runs a script in an empty directory, with our programs on the path.
async fn bash(script: &str) -> Output {
    let dir = tempfile::tempdir().expect("a directory");
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::os::unix::fs::symlink(tests, dir.path().join("tests")).expect("linked");
    let programs = binary("dlambda").expect("built");
    let programs = programs.parent().expect("a directory").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    // Job control gives every background program a group of its own, and the
    // trap ends what a failing script leaves behind.
    let script = format!("trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .current_dir(dir.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("DLAMBDA_HOME", dir.path().join("home"))
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(DEADLINE, output)
        .await
        .expect("ends")
        .expect("bash");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    output
}

/// The last of them needs the Python package index; set `DLAMBDA_TEST_DOWNLOADS=1` (CI does).
#[tokio::test]
async fn the_examples_do_what_they_say() {
    let downloads = std::env::var_os("DLAMBDA_TEST_DOWNLOADS").is_some();
    let languages = if downloads {
        &["sh", "sh-with-downloads"][..]
    } else {
        println!("a program that nobody here wrote: DLAMBDA_TEST_DOWNLOADS is not set");
        &["sh"]
    };
    let output = bash(&script(languages)).await;
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "HELLO, WHOEVER YOU ARE",
        "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "\"fuel\":",
        "one\ntwo words\n",
        "ok       provider",
        "nothing is wrong",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    assert_eq!(said.contains("1,2,3"), downloads, "{said}");
}

#[tokio::test]
async fn the_examples_of_a_market_do_what_they_say() {
    let output = bash(&script(&["sh-market"])).await;
    let said = String::from_utf8_lossy(&output.stdout);
    for expected in [
        "4 providers, as most of",
        "FOUND YOU",
        "3 contracts made",
        "LINE 1\nLINE 2\n",
        "LINE 20\n",
        "THREE TIMES",
        "ample",
        " ms  ",
        "listing:    listed",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
}

#[tokio::test]
async fn the_examples_over_nym_do_what_they_say() {
    let output = bash(&script(&["sh-nym"])).await;
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("HELLO THROUGH THE MIXES"), "{said}");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("mix 3"), "the counters at the end:\n{told}");
}
