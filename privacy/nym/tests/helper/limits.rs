//! What is too much.

use std::time::Duration;

use dlambda_nym_link::{Command, Event, MAX_MESSAGE, NymRecipient, Reason, SessionId, Traffic};

use super::harness::{Mixnet, private_directory, ready_caller, ready_provider};

#[tokio::test]
async fn there_is_an_end_to_sessions() {
    let mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (_provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 0).await;
    let recipient = address;
    for session in 1..=64 {
        caller.dial(session, address).await;
    }
    let session = SessionId(65);
    caller.tell(Command::Dial { session, recipient }).await;
    assert_eq!(caller.closed().await, (session, Reason::Busy));
    let first = SessionId(1);
    caller.tell(Command::Close { session: first }).await;
    caller.dial(66, address).await;
}

#[tokio::test]
async fn nobody_is_reached_at_what_is_no_address() {
    let mixnet = Mixnet::start(1).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    let session = SessionId(1);
    let recipient = NymRecipient([2; 96]);
    caller.tell(Command::Dial { session, recipient }).await;
    assert_eq!(caller.closed().await, (session, Reason::NoClient));
    // What concerns sessions that are not there is ignored.
    caller.send(7, b"nobody", 1).await;
    caller.tell(Command::Close { session }).await;
    caller.reply(session, b"nobody").await;
    assert_eq!(caller.event_within(Duration::from_secs(1)).await, None);
}

#[tokio::test]
async fn a_session_that_sends_faster_than_the_network_ends() {
    let mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (_provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Standard, 1).await;
    caller.dial(1, address).await;
    for _ in 0..200 {
        caller.send(1, &[7; MAX_MESSAGE], 0).await;
    }
    assert_eq!(caller.closed().await, (SessionId(1), Reason::Busy));
    caller.dial(1, address).await;
}

#[tokio::test]
async fn a_provider_whose_answers_nobody_pays_for_gives_up_on_them() {
    let mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    caller.send(1, b"a question without reply blocks", 0).await;
    let (session, ..) = provider.arrival().await;
    for _ in 0..200 {
        provider.reply(session, &[7; MAX_MESSAGE]).await;
    }
    assert_eq!(provider.closed().await, (session, Reason::Busy));
    // Others are served.
    caller.dial(2, address).await;
    caller.send(2, b"a question", 4).await;
    let (second, ..) = provider.arrival().await;
    provider.reply(second, b"an answer").await;
    let Some(Event::Message { session, .. }) = caller.event().await else {
        panic!("no answer");
    };
    assert_eq!(session, SessionId(2));
}

#[tokio::test]
async fn a_provider_cannot_fetch_reply_blocks_for_ever() {
    let mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    caller.send(1, b"a question", 10).await;
    let (session, ..) = provider.arrival().await;
    // Some 40 packets a message: 8,000 reply blocks, of which 5,000 are allowed.
    let mut sent = 0;
    let reason = loop {
        if sent < 200 {
            provider.reply(session, &[7; MAX_MESSAGE]).await;
            sent += 1;
        }
        match caller.event().await {
            Some(Event::Message { .. }) => {}
            Some(Event::Closed { reason, .. }) => break reason,
            other => panic!("not closed, but {other:?}"),
        }
    };
    assert_eq!(reason, Reason::TooMuch);
}

#[tokio::test]
async fn a_provider_that_does_not_listen_loses_its_sessions() {
    let mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    // More than the pipe and the helper hold, at a pace that the network does.
    for _ in 0..8 {
        for _ in 0..100 {
            caller.send(1, &[7; 1_500], 0).await;
        }
        tokio::time::sleep(Duration::from_millis(1_000)).await;
    }
    let (session, reason) = provider.closed().await;
    assert_eq!((session, reason), (SessionId(1), Reason::Busy));
    caller.dial(2, address).await;
    caller.send(2, b"do you listen now?", 0).await;
    let (_, _, message) = provider.arrival().await;
    assert_eq!(message, b"do you listen now?");
}
