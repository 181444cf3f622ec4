//! `make demo`, as a newcomer sees it.

use std::time::Duration;

use dlambda_tests::program::run;

#[tokio::test]
async fn the_demo_shows_three_calls_that_share_nothing() {
    shows_three_calls("tor", "starting a private Tor network").await;
}

#[tokio::test]
async fn the_demo_over_nym_shows_them_too() {
    shows_three_calls("nym", "starting a private mixnet").await;
}

async fn shows_three_calls(transport: &str, step: &str) {
    let args = ["--transport", transport];
    let output = run("dlambda-demo", &args, b"", Duration::from_secs(300))
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
    assert!(progress.contains(step), "progress while it waits");
}
