//! The transport over a helper that is no helper: a network in memory, which
//! can lose messages and die.

use std::collections::HashMap;
use std::sync::Mutex;

use dlambda_nym_link::{Event, read_frame, write_frame};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio_util::sync::CancellationToken;

use super::program::Launched;
use super::*;

/// The base point, which is a key.
fn address() -> [u8; 96] {
    address_with(9)
}

fn address_with(key: u8) -> [u8; 96] {
    let mut base = [0x66; 32];
    base[0] = 0x58;
    let address = [base, [key; 32], base].concat();
    address.try_into().expect("96 bytes")
}

/// A mixnet with one provider in it, and one helper for the provider's guests.
#[derive(Clone, Default)]
struct Mixnet(Arc<Mutex<Inside>>);

#[derive(Default)]
struct Inside {
    providers: HashMap<[u8; 96], mpsc::Sender<Event>>,
    /// Whom a tag is known to.
    recipients: HashMap<u64, [u8; 96]>,
    /// Whether the first message of a session comes after the second, and those that wait.
    is_reordered: bool,
    late: HashMap<u64, Vec<u8>>,
    /// Of the clients that are called.
    directories: Vec<String>,
    /// By the tag, which is also the provider's name for the session.
    callers: HashMap<u64, (SessionId, mpsc::Sender<Event>)>,
    known: Vec<u64>,
    tags: u64,
    messages: usize,
    /// One in so many is lost.
    loss: Option<usize>,
    blocks: Vec<u16>,
    kill: HashMap<&'static str, CancellationToken>,
}

#[derive(Clone)]
struct Helper {
    mixnet: Mixnet,
    name: &'static str,
}

impl Mixnet {
    async fn transport(&self, name: &'static str, role: NymRole) -> NymTransport {
        let helper = Helper {
            mixnet: self.clone(),
            name,
        };
        let network = Network::parse("name = \"t\"\ntransport = \"nym\"").expect("valid");
        NymTransport::start_with(helper, &network, role, DIAL)
            .await
            .expect("starts")
    }

    async fn caller(&self) -> NymTransport {
        self.transport(
            "caller",
            NymRole::Caller {
                pool: 1,
                entry: None,
            },
        )
        .await
    }

    async fn provider(&self) -> NymTransport {
        self.transport("provider", NymRole::Provider("/nowhere".into()))
            .await
    }

    fn kill(&self, name: &str) {
        self.inside().kill[name].cancel();
    }

    fn inside(&self) -> std::sync::MutexGuard<'_, Inside> {
        self.0.lock().expect("whole")
    }

    fn send(&self, tag: u64, message: Vec<u8>, blocks: u16) {
        let mut inside = self.inside();
        inside.blocks.push(blocks);
        if inside.is_lost() {
            return;
        }
        let session = SessionId(1 << 63 | tag);
        let is_new = !inside.known.contains(&tag);
        let provider = inside.recipients.get(&tag);
        let Some(provider) = provider.and_then(|it| inside.providers.get(it)).cloned() else {
            return;
        };
        if is_new {
            inside.known.push(tag);
            let tag = tag.to_be_bytes().to_vec().into();
            let _ = provider.try_send(Event::Arrived { session, tag });
        }
        if is_new && inside.is_reordered {
            inside.late.insert(tag, message);
            return;
        }
        for message in [Some(message), inside.late.remove(&tag)]
            .into_iter()
            .flatten()
        {
            let message = message.into();
            let _ = provider.try_send(Event::Message { session, message });
        }
    }

    fn reply(&self, session: SessionId, message: Vec<u8>) {
        let mut inside = self.inside();
        if inside.is_lost() {
            return;
        }
        if let Some((session, caller)) = inside.callers.get(&(session.0 & !(1 << 63))) {
            let (session, message) = (*session, message.into());
            let _ = caller.try_send(Event::Message { session, message });
        }
    }
}

impl Inside {
    fn is_lost(&mut self) -> bool {
        self.messages += 1;
        self.loss
            .is_some_and(|loss| self.messages.is_multiple_of(loss))
    }
}

#[async_trait]
impl Launch for Helper {
    async fn launch(&mut self) -> std::io::Result<Launched> {
        let (input, commands) = tokio::io::duplex(1 << 20);
        let (events, output) = tokio::io::duplex(1 << 20);
        let kill = CancellationToken::new();
        let mixnet = self.mixnet.clone();
        mixnet.inside().kill.insert(self.name, kill.clone());
        tokio::spawn(kill.run_until_cancelled_owned(help(mixnet, commands, events)));
        Ok(Launched {
            input: Box::new(input),
            output: Box::new(output),
            _child: None,
        })
    }
}

async fn help(mixnet: Mixnet, mut commands: DuplexStream, mut output: DuplexStream) {
    let (events, mut waiting) = mpsc::channel(1000);
    let write = async {
        while let Some(event) = waiting.recv().await {
            write_frame(&mut output, &event).await.expect("is read");
        }
    };
    let read = async {
        let mut dialled: HashMap<SessionId, u64> = HashMap::new();
        while let Ok(Some(command)) = read_frame(&mut commands).await {
            match command {
                Command::Start(settings) => {
                    let address = match &settings.role {
                        Role::Caller { .. } => None,
                        Role::Provider { directory } if directory.ends_with("/guests") => {
                            Some(address_with(10))
                        }
                        Role::Provider { .. } => Some(address()),
                    };
                    let version = VERSION;
                    let _ = events.try_send(Event::Ready {
                        version,
                        address: address.map(NymRecipient),
                    });
                    if let (Some(address), Role::Provider { directory }) = (address, settings.role)
                    {
                        let mut inside = mixnet.inside();
                        inside.providers.insert(address, events.clone());
                        inside.directories.push(directory);
                        inside.known.clear();
                    }
                }
                Command::Dial { session, recipient } => {
                    let mut inside = mixnet.inside();
                    inside.tags += 1;
                    let tag = inside.tags;
                    inside.callers.insert(tag, (session, events.clone()));
                    inside.recipients.insert(tag, recipient.0);
                    dialled.insert(session, tag);
                    let _ = events.try_send(Event::Dialed { session });
                }
                Command::Send {
                    session,
                    message,
                    surbs,
                } => mixnet.send(dialled[&session], message.into(), surbs),
                Command::Reply { session, message } => mixnet.reply(session, message.into()),
                Command::Close { session } => {
                    if let Some(tag) = dialled.remove(&session) {
                        mixnet.inside().callers.remove(&tag);
                    }
                }
            }
        }
    };
    tokio::join!(write, read);
}

/// Answers every stream with what it was sent, backwards.
async fn serve(provider: NymTransport) -> Vec<Vec<u8>> {
    let mut listener = provider.listen(Service::Calls).await.expect("listens");
    let mut known = Vec::new();
    while let Some(incoming) = listener.accept().await {
        known.push(incoming.circuit.opening);
        if known.len() == 3 {
            break;
        }
        tokio::spawn(mirror(incoming.connection.stream));
    }
    known
}

async fn mirror(mut stream: Box<dyn crate::transport::Stream>) -> std::io::Result<()> {
    stream.write_all(b"hello").await?;
    stream.flush().await?;
    let len = stream.read_u32().await? as usize;
    let mut data = vec![0; len];
    stream.read_exact(&mut data).await?;
    data.reverse();
    stream.write_all(&data).await?;
    stream.flush().await?;
    stream.read_u8().await.map(|_| ())
}

async fn ask(caller: &NymTransport, len: usize) -> std::io::Result<()> {
    let endpoint = Endpoint::Nym(NymAddress::from_bytes(address()).expect("keys"));
    let mut stream = caller
        .dial(&endpoint, Service::Calls)
        .await
        .expect("dials")
        .stream;
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await?;
    let question: Vec<u8> = (0..=250).cycle().take(len).collect();
    stream.write_u32(u32::try_from(len).expect("short")).await?;
    stream.write_all(&question).await?;
    stream.flush().await?;
    let mut answer = vec![0; len];
    stream.read_exact(&mut answer).await?;
    assert!(answer.iter().rev().eq(&question));
    stream.write_u8(0).await?;
    stream.flush().await?;
    assert_eq!(stream.read(&mut hello).await?, 0, "the end");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn streams_carry_small_and_large() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    let serving = tokio::spawn(serve(provider));
    ask(&caller, 3).await.expect("is answered");
    ask(&caller, 1 << 20).await.expect("is answered");
    let mut blocks = std::mem::take(&mut mixnet.inside().blocks);
    blocks.retain(|blocks| *blocks > 0);
    // Each opens, asks, and acknowledges, whatever its size.
    assert_eq!(blocks, [8, 4, 4, 8, 16, 4]);
    // Sessions are forgotten on both sides.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(mixnet.inside().callers.is_empty());
    assert_eq!(caller.link.open_sessions(), 0);
    let endpoint = Endpoint::Nym(NymAddress::from_bytes(address()).expect("keys"));
    let _ = caller.dial(&endpoint, Service::Calls).await;
    let known = serving.await.expect("ends");
    for (at, one) in known.iter().enumerate() {
        assert_eq!(one.len(), 8 + 16, "a tag and a name");
        assert!(known[..at].iter().all(|other| one[8..] != other[8..]));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_stops_waiting_for_a_client_leaves_none_behind() {
    let mixnet = Mixnet::default();
    let (_provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    let endpoint = Endpoint::Nym(NymAddress::from_bytes(address()).expect("keys"));
    let dialled = timeout(Duration::ZERO, caller.dial(&endpoint, Service::Calls)).await;
    assert!(dialled.is_err(), "it takes longer than nothing");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(mixnet.inside().tags > 0, "it was underway");
    assert!(mixnet.inside().callers.is_empty());
    assert_eq!(caller.link.open_sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_comes_again() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    mixnet.inside().loss = Some(3);
    tokio::spawn(serve(provider));
    ask(&caller, 600_000).await.expect("is answered");
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_helper_dies_can_call_again() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    tokio::spawn(serve(provider));
    let killer = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        mixnet.inside().loss = Some(1);
        mixnet.kill("caller");
        mixnet.inside().loss = None;
    };
    mixnet.inside().loss = Some(1);
    let (asked, ()) = tokio::join!(ask(&caller, 10), killer);
    let error = asked.expect_err("its client is gone");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionAborted);
    ask(&caller, 10).await.expect("is answered");
}

#[tokio::test(start_paused = true)]
async fn a_session_that_a_provider_forgot_is_reset() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    tokio::spawn(serve(provider));
    let endpoint = Endpoint::Nym(NymAddress::from_bytes(address()).expect("keys"));
    let mut stream = caller
        .dial(&endpoint, Service::Calls)
        .await
        .expect("dials")
        .stream;
    let mut hello = [0; 5];
    stream.read_exact(&mut hello).await.expect("is greeted");
    mixnet.kill("provider");
    tokio::time::sleep(Duration::from_secs(5)).await;
    stream.write_all(&[0; 9]).await.expect("is taken");
    stream.flush().await.expect("is taken");
    let error = stream.read(&mut hello).await.expect_err("nobody is there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    // The provider is there again, at the same place.
    ask(&caller, 10).await.expect("is answered");
}

#[tokio::test(start_paused = true)]
async fn more_than_a_session_carries_is_refused_before_it_is_sent() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    tokio::spawn(serve(provider));
    let error = ask(&caller, 5 << 20).await.expect_err("is too much");
    assert_eq!(error.kind(), std::io::ErrorKind::FileTooLarge);
}

#[tokio::test(start_paused = true)]
async fn a_provider_reaches_itself() {
    let mixnet = Mixnet::default();
    let provider = Arc::new(mixnet.provider().await);
    let serving = Arc::clone(&provider);
    tokio::spawn(async move {
        let mut listener = serving.listen(Service::Calls).await.expect("listens");
        while let Some(incoming) = listener.accept().await {
            tokio::spawn(mirror(incoming.connection.stream));
        }
    });
    ask(&provider, 10).await.expect("is answered");
}

#[tokio::test(start_paused = true)]
async fn guests_have_a_helper_and_an_address_of_their_own() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    assert_eq!(mixnet.inside().directories, ["/nowhere"]);
    let mut calls = provider.listen(Service::Calls).await.expect("listens");
    let mut guests = provider.listen(Service::Guests).await.expect("listens");
    assert_eq!(mixnet.inside().directories, ["/nowhere", "/nowhere/guests"]);
    assert_ne!(calls.endpoint(), guests.endpoint());
    for (listener, service) in [(&mut guests, Service::Guests), (&mut calls, Service::Calls)] {
        let dialled = caller.dial(&listener.endpoint(), service).await;
        let mut stream = dialled.expect("dials").stream;
        stream.write_u8(7).await.expect("is open");
        stream.flush().await.expect("is open");
        let mut arrived = listener.accept().await.expect("arrives").connection.stream;
        assert_eq!(arrived.read_u8().await.expect("is sent"), 7);
    }
}

#[tokio::test(start_paused = true)]
async fn guests_come_to_providers_once_and_the_overlay_does_not_come_at_all() {
    let mixnet = Mixnet::default();
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    let _guests = provider.listen(Service::Guests).await.expect("listens");
    for (transport, service) in [
        (&provider, Service::Guests),
        (&caller, Service::Guests),
        (&caller, Service::Calls),
    ] {
        let error = transport.listen(service).await.err();
        assert!(
            matches!(error, Some(TransportError::Local(_))),
            "{service:?}"
        );
    }
    let error = provider.listen(Service::Overlay).await.err();
    assert!(matches!(error, Some(TransportError::WrongService)));
    let endpoint = Endpoint::Nym(NymAddress::from_bytes(address()).expect("keys"));
    let error = caller.dial(&endpoint, Service::Overlay).await.err();
    assert!(matches!(error, Some(TransportError::WrongService)));
    // Another transport is asked.
    let onion = dlambda_proto::OnionAddress::from_public_key([1; 32]);
    let error = caller
        .dial(&Endpoint::Onion(onion), Service::Overlay)
        .await
        .err();
    assert!(matches!(error, Some(TransportError::WrongEndpoint)));
}

#[tokio::test(start_paused = true)]
async fn what_a_guest_asks_may_arrive_before_what_opens_its_stream() {
    let mixnet = Mixnet::default();
    mixnet.inside().is_reordered = true;
    let (provider, caller) = (mixnet.provider().await, mixnet.caller().await);
    let mut guests = provider.listen(Service::Guests).await.expect("listens");
    let dialled = caller.dial(&guests.endpoint(), Service::Guests).await;
    let mut stream = dialled.expect("dials").stream;
    stream.write_all(b"ask").await.expect("is open");
    stream.flush().await.expect("is open");
    let mut arrived = guests.accept().await.expect("arrives").connection.stream;
    let mut asked = [0; 3];
    arrived.read_exact(&mut asked).await.expect("is sent");
    assert_eq!(&asked, b"ask");
}
