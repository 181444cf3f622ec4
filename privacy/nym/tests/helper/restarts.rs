//! A provider that comes and goes.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use dlambda_nym_link::{SessionId, Traffic};

use super::harness::{
    Helper, Mixnet, PATIENCE, private_directory, provider, ready_caller, ready_provider,
};

#[tokio::test]
async fn a_message_that_waited_is_answered_after_a_restart() {
    let mixnet = Mixnet::start(3).await;
    let directory = private_directory();
    let (mut first, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    first.hang_up();
    assert!(first.end(Duration::from_secs(1)).await.success());

    caller.dial(1, address).await;
    caller.send(1, b"is anybody there?", 4).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut second, again) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    assert!(again == address, "the address is the same");
    let (session, _, message) = second.arrival().await;
    assert_eq!(message, b"is anybody there?");
    second.reply(session, b"now there is").await;
    assert_eq!(
        caller.message().await,
        (SessionId(1), b"now there is".to_vec())
    );
}

#[tokio::test]
async fn nothing_about_callers_is_written_down() {
    let mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut helper, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    caller.send(1, b"a question", 20).await;
    let (_, tag, _) = helper.arrival().await;
    helper.hang_up();
    helper.end(PATIENCE).await;
    for entry in directory.path().read_dir().expect("is there") {
        let entry = entry.expect("is there");
        let name = entry.file_name().into_string().expect("a plain name");
        assert!(
            !name.contains("reply") && !name.contains("credential"),
            "{name}"
        );
        let content = std::fs::read(entry.path()).expect("can be read");
        assert!(!content.windows(tag.len()).any(|window| window == tag));
    }
}

#[tokio::test]
async fn an_identity_is_used_once_and_only_if_nobody_else_can_read_it() {
    let mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let settings = provider(&mixnet, Traffic::Fast, &directory);
    let (_first, _) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut second = Helper::start(settings).await;
    assert!(second.failure().await.contains("another helper"));
    assert!(!second.end(PATIENCE).await.success());

    let open = private_directory();
    std::fs::set_permissions(open.path(), Permissions::from_mode(0o755)).expect("ours");
    let mut third = Helper::start(provider(&mixnet, Traffic::Fast, &open)).await;
    assert!(third.failure().await.contains("0700"));
}
