//! The provider's view over Nym: two calls of one caller have nothing in
//! common. And the test can tell: a Nym client that is used twice is seen.

use std::collections::HashSet;
use std::process::Stdio;

use dlambda_client::Call;
use dlambda_nym_link::{
    Command, Event, NymRecipient, Role, SessionId, Settings, Traffic as LinkTraffic, VERSION,
    read_frame, write_frame,
};
use dlambda_proto::Endpoint;
use dlambda_provider::{ProviderConfig, SessionRecord};
use dlambda_tests::mixnet::Traffic;
use dlambda_tests::program::binary;
use dlambda_tests::view::Link;
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

use crate::nym::{NymWorld, random};
use crate::support::{LONG, alias};
use crate::unlinkable::provider_view;

const CALLS: usize = 12;

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_one_caller_share_nothing_not_even_a_sender_tag() {
    let config = ProviderConfig::without_tokens();
    let world = Box::pin(NymWorld::open(config, Traffic::FAST)).await;
    let querier = world.caller("one").await;
    for i in 0..CALLS {
        let function = ["upper", "sha256"][i % 2];
        let mut input = vec![0; 100 + 37 * i];
        input.fill_with(|| random::<1>()[0]);
        let call = Call::new(world.endpoint, alias(function)).input(input);
        let answer = querier.call(&call, LONG, |_| {}).await.expect("an answer");
        assert_eq!(answer.attempts, 1, "an attempt has a client of its own");
    }
    querier.flush_acks().await;
    let records = world.provider().recorder.wait_for(CALLS).await;
    for record in &records {
        // A tag and a session's name is all that is known of a caller.
        assert_eq!(record.circuit.opening.len(), 16 + 16);
        assert!(!record.received.is_empty());
    }
    assert_eq!(provider_view(&records, CALLS), HashSet::new());
    world.close().await;
}

/// The SDK used naively: one client for two calls.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_used_twice_is_seen() {
    let config = ProviderConfig::without_tokens();
    let mut world = Box::pin(NymWorld::open(config, Traffic::FAST)).await;
    let api_url = world.mixnet.ready["api_url"].as_str().expect("a URL");
    let mut client = NaiveClient::start(api_url, &world.endpoint).await;
    let mut records: Vec<SessionRecord> = Vec::new();
    for call in 0..2 {
        client.look_at_the_advert().await;
        records.extend(world.provider().recorder.wait_for(1).await);
        if call == 0 {
            // A provider remembers for a minute which tags it is done with.
            world.stop_provider().await;
            world.start_provider().await;
        }
    }
    let found = provider_view(&records, 2);
    let tag = |link: &Link| {
        let opening = "circuit opening";
        matches!(link, Link::SharedString { first, second, .. } if *first == opening && *second == opening)
    };
    assert!(found.iter().any(tag), "{found:?}");
    world.close().await;
}

/// What must not be: a caller that keeps its Nym client, and so its sender tag.
struct NaiveClient {
    _helper: Child,
    commands: ChildStdin,
    events: ChildStdout,
    session: SessionId,
}

impl NaiveClient {
    async fn start(api_url: &str, provider: &Endpoint) -> Self {
        let Endpoint::Nym(address) = provider else {
            panic!("a provider on the mixnet");
        };
        let mut helper = tokio::process::Command::new(binary("dlambda-nym").expect("built"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut client = Self {
            commands: helper.stdin.take().expect("piped"),
            events: helper.stdout.take().expect("piped"),
            session: SessionId(1),
            _helper: helper,
        };
        client
            .tell(&Command::Start(Settings {
                version: VERSION,
                api_url: Some(api_url.to_owned()),
                traffic: LinkTraffic::Fast,
                role: Role::Caller {
                    pool: 0,
                    entry: None,
                },
                mean_delay_ms: None,
            }))
            .await;
        assert!(matches!(client.event().await, Event::Ready { .. }));
        let dial = Command::Dial {
            session: client.session,
            recipient: NymRecipient(*address.as_bytes()),
        };
        client.tell(&dial).await;
        assert!(matches!(client.event().await, Event::Dialed { .. }));
        client
    }

    /// Opens a stream, gets the advert, and ends the stream; the client stays.
    async fn look_at_the_advert(&mut self) {
        let name = random::<16>();
        let (opens, ends) = (segment(name, 0, 1, false), segment(name, 1, 1, true));
        self.send(opens, 8).await;
        loop {
            let Event::Message { message, .. } = self.event().await else {
                panic!("the client has ended");
            };
            // What is late from a stream before has another name.
            if message[2..18] == name {
                break;
            }
        }
        self.send(ends, 2).await;
    }

    async fn send(&mut self, message: Vec<u8>, surbs: u16) {
        let command = Command::Send {
            session: self.session,
            message: message.into(),
            surbs,
        };
        self.tell(&command).await;
    }

    async fn tell(&mut self, command: &Command) {
        let told = write_frame(&mut self.commands, command);
        timeout(LONG, told).await.expect("in time").expect("told");
    }

    async fn event(&mut self) -> Event {
        let event = timeout(LONG, read_frame(&mut self.events));
        let event = event.await.expect("in time").expect("a frame");
        event.expect("the helper runs")
    }
}

/// An empty data segment (docs/PROTOCOL.md, "Over Nym").
fn segment(session: [u8; 16], number: u32, acknowledged: u32, last: bool) -> Vec<u8> {
    let mut bytes = vec![1, 0];
    bytes.extend(session);
    bytes.extend(number.to_be_bytes());
    bytes.extend(acknowledged.to_be_bytes());
    bytes.push(u8::from(last));
    bytes
}
