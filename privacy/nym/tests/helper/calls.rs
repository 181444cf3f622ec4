//! Questions and answers.

use std::collections::HashSet;

use dlambda_nym_link::{Command, MAX_MESSAGE, SessionId, Traffic};

use super::harness::{Mixnet, private_directory, ready_caller, ready_provider};

fn bytes(seed: u8, len: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = |state: &mut u64| {
        *state = state.wrapping_mul(6_364_136_223_846_793_005);
        *state = state.wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..len).map(|_| step(&mut state)).collect()
}

#[tokio::test]
async fn a_question_is_answered_at_both_ends_of_the_traffic_settings() {
    for traffic in [Traffic::Fast, Traffic::Standard] {
        let mixnet = Mixnet::start(2).await;
        let directory = private_directory();
        let (mut provider, address) = ready_provider(&mixnet, traffic, &directory).await;
        let mut caller = ready_caller(&mixnet, traffic, 1).await;
        caller.dial(1, address).await;
        let question = bytes(1, 900);
        caller.send(1, &question, 4).await;
        let (session, tag, message) = provider.arrival().await;
        assert_eq!((tag.len(), message), (16, question));
        let answer = bytes(2, 1_500);
        provider.reply(session, &answer).await;
        assert_eq!(caller.message().await, (SessionId(1), answer));
        caller.send(1, b"again", 1).await;
        assert_eq!(provider.message().await, (session, b"again".to_vec()));
    }
}

#[tokio::test]
async fn a_short_answer_costs_no_extra_round_trip() {
    let mut mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    let before = mixnet.sent_by_clients().await;
    for session in 1..=10 {
        caller.dial(session, address).await;
        caller.send(session, b"a question", 3).await;
        let (arrived, ..) = provider.arrival().await;
        provider.reply(arrived, &bytes(3, 1_400)).await;
        assert_eq!(caller.message().await.0, SessionId(session));
    }
    // Two packets each, and the provider's cover traffic. Asking for reply
    // blocks and sending them would be four more each.
    let sent = mixnet.sent_by_clients().await - before;
    assert!((20..40).contains(&sent), "{sent} packets");
}

#[tokio::test]
async fn a_long_answer_fetches_its_own_reply_blocks() {
    let mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(9, address).await;
    caller.send(9, &bytes(4, MAX_MESSAGE), 10).await;
    let (session, _, message) = provider.arrival().await;
    assert_eq!(message, bytes(4, MAX_MESSAGE));
    let pieces: HashSet<_> = (0..16).map(|piece| bytes(piece, MAX_MESSAGE)).collect();
    for piece in &pieces {
        provider.reply(session, piece).await;
    }
    let mut received = HashSet::new();
    while received.len() < pieces.len() {
        received.insert(caller.message().await.1);
    }
    assert!(received == pieces);
}

#[tokio::test]
async fn two_sessions_have_nothing_in_common() {
    let mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 2).await;
    let mut seen = Vec::new();
    for session in [1, 2] {
        caller.dial(session, address).await;
        let seed = u8::try_from(session).expect("small");
        caller.send(session, &bytes(seed, 3_000), 5).await;
        let (arrived, tag, message) = provider.arrival().await;
        caller.send(session, &bytes(seed + 10, 300), 0).await;
        let (again, more) = provider.message().await;
        assert_eq!(arrived, again);
        seen.push([tag, message, more].concat());
    }
    let windows: HashSet<_> = seen[0].windows(16).collect();
    assert!(seen[1].windows(16).all(|window| !windows.contains(window)));
}

#[tokio::test]
async fn many_sessions_at_once_keep_apart() {
    let mixnet = Mixnet::start(3).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 4).await;
    for session in 1..=12 {
        caller.dial(session, address).await;
    }
    for session in 1..=12 {
        caller.send(session, &session.to_be_bytes(), 4).await;
    }
    for _ in 1..=12 {
        let (session, _, question) = provider.arrival().await;
        provider.reply(session, &question).await;
    }
    let mut answered = HashSet::new();
    for _ in 1..=12 {
        let (session, answer) = caller.message().await;
        assert_eq!(answer, session.0.to_be_bytes());
        answered.insert(session);
    }
    assert_eq!(answered.len(), 12);
}

#[tokio::test]
async fn what_is_sent_before_closing_arrives() {
    let mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    let session = SessionId(5);
    caller.dial(session.0, address).await;
    caller.send(session.0, b"a question", 20).await;
    let (arrived, ..) = provider.arrival().await;
    let answer = bytes(6, MAX_MESSAGE);
    provider.reply(arrived, &answer).await;
    provider.tell(Command::Close { session: arrived }).await;
    assert_eq!(caller.message().await, (session, answer));
    // Nothing of a closed session is passed on, nor is it a new one.
    caller.send(session.0, b"too late", 0).await;
    caller.tell(Command::Close { session }).await;
    caller.dial(session.0, address).await;
    let last = bytes(7, MAX_MESSAGE);
    caller.send(session.0, &last, 4).await;
    caller.tell(Command::Close { session }).await;
    let (other, _, message) = provider.arrival().await;
    assert_ne!(other, arrived);
    assert_eq!(message, last);
}
