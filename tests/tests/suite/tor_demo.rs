//! `make demo`, as a newcomer sees it.

use std::time::Duration;

use dlambda_tests::program::run;

#[tokio::test]
async fn the_demo_shows_three_calls_that_share_nothing() {
    let output = run("dlambda-demo", &[], b"", Duration::from_secs(300))
        .await
        .expect("ends");
    let said = String::from_utf8_lossy(&output.stdout);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{progress}");
    for expected in [
        "MEET ME AT THE OLD MILL AT NINE",
        "no log knows me",
        "contract: 8 calls, signed by both",
        "call 3: args-echo",
        "everybody's calls contain: none.",
        "is gone again",
    ] {
        assert!(said.contains(expected), "{expected} is missing in:\n{said}");
    }
    assert!(
        progress.contains("starting a private Tor network"),
        "progress while it waits"
    );
}
