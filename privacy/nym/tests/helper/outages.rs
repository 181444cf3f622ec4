//! Gateways that hang up, and gateways that are gone for a while.

use std::time::Duration;

use dlambda_nym_link::{Event, Reason, SessionId, Traffic};
use tokio::time::sleep;

use super::harness::{Mixnet, private_directory, ready_caller, ready_provider};

#[tokio::test]
async fn everybody_survives_gateways_that_hang_up() {
    let mut mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    caller.send(1, b"before", 6).await;
    let (session, ..) = provider.arrival().await;

    mixnet.tell_gateways("kick").await;
    // The provider's cover traffic finds out, at 2 s in the mean.
    sleep(Duration::from_secs(8)).await;
    caller.send(1, b"after", 4).await;
    assert_eq!(provider.message().await, (session, b"after".to_vec()));
    provider.reply(session, b"an answer").await;
    assert_eq!(
        caller.message().await,
        (SessionId(1), b"an answer".to_vec())
    );
}

#[tokio::test]
async fn a_provider_comes_back_after_its_gateway_was_away() {
    let mut mixnet = Mixnet::start(2).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Fast, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Fast, 1).await;
    caller.dial(1, address).await;
    caller.send(1, b"before", 6).await;
    let (old, ..) = provider.arrival().await;
    assert_eq!(old, SessionId(1));

    mixnet.tell_gateways("stop").await;
    sleep(Duration::from_secs(20)).await;
    mixnet.tell_gateways("restart").await;

    // Whatever became of the first session, a new one works in the end.
    for session in 2..20 {
        caller
            .tell(dlambda_nym_link::Command::Dial {
                session: SessionId(session),
                recipient: address,
            })
            .await;
        if !dialed(&mut caller, session).await {
            continue;
        }
        caller.send(session, b"anybody there?", 6).await;
        if let Some(Event::Arrived { session, .. }) =
            provider.event_within(Duration::from_secs(20)).await
        {
            assert_eq!(provider.message().await.0, session);
            provider.reply(session, b"an answer").await;
            assert_eq!(caller.message().await.1, b"an answer");
            return;
        }
    }
    panic!("the provider did not come back");
}

/// Whether a session got its client. The first session may end meanwhile.
async fn dialed(caller: &mut super::harness::Helper, session: u64) -> bool {
    loop {
        match caller.event().await {
            Some(Event::Dialed { session: id }) if id.0 == session => return true,
            Some(Event::Closed {
                session: id,
                reason,
            }) if id.0 == session => {
                assert_eq!(reason, Reason::NoClient);
                return false;
            }
            Some(Event::Closed { reason, .. }) => assert_eq!(reason, Reason::Lost),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_provider_is_rebuilt_after_a_long_outage() {
    let mut mixnet = Mixnet::start(1).await;
    let directory = private_directory();
    let (mut provider, address) = ready_provider(&mixnet, Traffic::Standard, &directory).await;
    let mut caller = ready_caller(&mixnet, Traffic::Standard, 0).await;
    caller.dial(1, address).await;

    // The SDK tries to reconnect for 45 s. Then it gives up, and so do the
    // caller's sessions.
    mixnet.tell_gateways("stop").await;
    let lost = caller.event_within(Duration::from_secs(120)).await;
    let session = SessionId(1);
    let reason = Reason::Lost;
    assert_eq!(lost, Some(Event::Closed { session, reason }));
    mixnet.tell_gateways("restart").await;

    caller.dial(2, address).await;
    caller.send(2, b"anybody there?", 6).await;
    let (session, ..) = provider.arrival().await;
    provider.reply(session, b"an answer").await;
    assert_eq!(
        caller.message().await,
        (SessionId(2), b"an answer".to_vec())
    );
}
