//! Providers that lie or break the protocol are caught, by name and by kind.

use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError};
use dlambda_crypto::seal::SealingSecret;
use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{
    Advert, CLOCK_BLUR_SECONDS, CallEnvelope, Completion, Endpoint, Epoch, ErrorKind, FrameKind,
    FunctionId, FunctionProblem, FunctionSource, Greeting, HasKind as _, IdentityKey, OnionAddress,
    PublishedFunction, Receipt, ReceiptKey, Refusal, Reply, UnixSeconds, Usage, VERSION, Validity,
    decode, encode,
};
use tokio::io::AsyncWriteExt as _;

use crate::support::{LONG, NOW, alias, querier};

/// A provider made by hand, so that it can do anything.
struct Liar {
    identity: IdentityKey,
    secret: SealingSecret,
    receipts: ReceiptKey,
    advert: Advert,
}

impl Liar {
    fn new() -> Self {
        let identity = IdentityKey::from_seed(&[4; 32]);
        let secret = SealingSecret::generate(identity.id(), Epoch(1), &mut os_rng());
        let receipts = ReceiptKey::from_seed(&[5; 32]);
        let upper = PublishedFunction {
            id: FunctionId::of(b""),
            alias: "upper".to_owned(),
            size: 0,
        };
        let advert = Advert {
            functions: vec![upper],
            ..Advert::minimal(
                identity.id(),
                Epoch(1),
                UnixSeconds(NOW.0 - 10),
                receipts.id(),
                here(),
            )
        };
        Self {
            identity,
            secret,
            receipts,
            advert,
        }
    }

    fn advert_frame(&self) -> Vec<u8> {
        let signed = self.advert.sign(&self.identity).expect("signs");
        let greeting = Greeting {
            advert: signed,
            sealing: self
                .secret
                .sealing_key()
                .sign(&self.identity)
                .expect("signs"),
            effort: 0,
        };
        frame(FrameKind::Advert, encode(&greeting))
    }

    /// Reads a call and seals this reply to it.
    async fn reply(&self, stream: &mut BoxStream, reply: &Reply) -> Vec<u8> {
        let budget = Budget::new(1 << 20);
        let (call, _) = read_frame(&mut **stream, &[FrameKind::Call], LONG, &budget)
            .await
            .expect("a call");
        let envelope: CallEnvelope = decode(call.body()).expect("an envelope");
        let opened = self.secret.open(&envelope).expect("opens");
        let FunctionSource::Known(function) = opened.request.function else {
            panic!("a function that we have");
        };
        let mut reply = reply.clone();
        let receipt = Receipt::of(
            &reply,
            self.identity.id(),
            Epoch(1),
            envelope.header.plan,
            function,
            opened.request.digest(&function),
            &opened.request.seed,
        );
        reply.receipt = receipt.map(|receipt| receipt.sign(&self.receipts));
        let sealed = opened.replier.seal(&reply).expect("seals");
        frame(FrameKind::Reply, sealed)
    }
}

fn here() -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([3; 32]))
}

/// A frame's bytes, whatever its limits say.
fn frame(kind: FrameKind, body: Vec<u8>) -> Vec<u8> {
    let frame = dlambda_proto::Frame::new(kind, body).expect("within limits");
    [&frame.header()[..], frame.body()].concat()
}

fn done(stdout: &[u8]) -> Reply {
    Reply {
        completion: Completion::Exited {
            status: 0,
            stdout: stdout.to_vec(),
            stderr: vec![],
            http: None,
        },
        usage: Usage {
            deterministic: true,
            ..Usage::default()
        },
        engine: [0; 32],
        receipt: None,
    }
}

/// Calls a provider that does `behave` with every stream.
async fn call<F>(max_time: Duration, calls: usize, behave: F) -> Result<(), CallError>
where
    F: AsyncFn(usize, BoxStream),
{
    let network = MemoryNetwork::new(Duration::ZERO);
    let mut listener = network
        .transport([3; 32])
        .listen(Service::Calls)
        .await
        .expect("listens");
    let querier = querier(&network, &Arc::new(FakeClock::at(NOW)));
    let provider = async {
        let mut count = 0;
        while let Some(incoming) = listener.accept().await {
            count += 1;
            behave(count, incoming.connection.stream).await;
        }
    };
    let caller = async {
        let mut last = Ok(());
        for _ in 0..calls {
            let call = Call::new(here(), alias("upper"));
            last = querier.call(&call, max_time, |_| {}).await.map(|_| ());
        }
        last
    };
    tokio::select! {
        result = caller => result,
        () = provider => unreachable!("the listener goes on"),
    }
}

async fn send(stream: &mut BoxStream, bytes: &[u8]) {
    stream.write_all(bytes).await.expect("sent");
    stream.flush().await.expect("sent");
}

/// Keeps the stream open until the caller is gone.
async fn hold(mut stream: BoxStream) {
    let mut sink = tokio::io::sink();
    let _ = tokio::io::copy(&mut stream, &mut sink).await;
}

#[tokio::test]
async fn an_honest_answer_passes() {
    let liar = Liar::new();
    let outcome = call(LONG, 2, async |_, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let reply = liar.reply(&mut stream, &done(b"ok")).await;
        send(&mut stream, &reply).await;
        hold(stream).await;
    });
    assert!(outcome.await.is_ok());
}

#[tokio::test]
async fn adverts_that_must_not_be_believed() {
    let mut expired = Liar::new();
    let day = 24 * 3600;
    let period = &mut expired.advert.period;
    (period.from.0, period.until.0) = (period.from.0 - day, NOW.0 - CLOCK_BLUR_SECONDS - 10);
    expired.advert.validity = Validity {
        from: period.from,
        until: UnixSeconds(NOW.0 - CLOCK_BLUR_SECONDS),
    };
    let mut elsewhere = Liar::new();
    elsewhere.advert.endpoints = vec![Endpoint::Onion(OnionAddress::from_public_key([9; 32]))];
    let mut unsigned = Liar::new().advert_frame();
    // The last byte is the effort, before it is the sealing key with its
    // signature (101 bytes), and before that the advert's signature.
    let mut unsigned_key = unsigned.clone();
    let last = unsigned.len() - 1;
    unsigned_key[last - 1] ^= 1;
    unsigned[last - 102] ^= 1;
    for (what, bytes) in [
        ("valid from", expired.advert_frame()),
        ("does not name the address", elsewhere.advert_frame()),
        ("is not signed by the provider it names", unsigned),
        ("the key to seal to is not signed", unsigned_key),
        ("cannot be read", frame(FrameKind::Advert, b"junk".to_vec())),
    ] {
        let outcome = call(LONG, 1, async |_, mut stream| {
            send(&mut stream, &bytes).await;
            hold(stream).await;
        });
        let error = outcome.await.expect_err("a lie");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
    }
}

#[tokio::test]
async fn frames_that_break_the_rules() {
    let good = Liar::new().advert_frame();
    let mut version = good.clone();
    version[0] = 9;
    for (what, bytes) in [
        ("version 9", version),
        ("unknown kind", vec![VERSION, 99, 0, 0, 0, 0]),
        ("wrong kind", frame(FrameKind::Ack, vec![])),
        ("at most", vec![VERSION, 1, 0x7f, 0xff, 0xff, 0xff]),
    ] {
        let outcome = call(LONG, 1, async |_, mut stream| {
            send(&mut stream, &bytes).await;
            hold(stream).await;
        });
        let error = outcome.await.expect_err("a broken frame");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
    }
}

#[tokio::test]
async fn replies_that_are_not_the_reply_to_this_call() {
    let liar = Liar::new();
    let recorded = tokio::sync::Mutex::new(Vec::new());
    // The first call is answered; the second gets the first one's reply again.
    let replayed = call(LONG, 2, async |count, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let reply = liar.reply(&mut stream, &done(b"ok")).await;
        let mut recorded = recorded.lock().await;
        if count == 1 {
            *recorded = reply;
        }
        send(&mut stream, &recorded).await;
        hold(stream).await;
    });
    let flipped = call(LONG, 1, async |_, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let mut reply = liar.reply(&mut stream, &done(b"ok")).await;
        reply[200] ^= 1;
        send(&mut stream, &reply).await;
        hold(stream).await;
    });
    for outcome in [replayed.await, flipped.await] {
        let error = outcome.expect_err("not our reply");
        assert!(
            matches!(error, CallError::Exchange(ExchangeError::Open(_))),
            "{error}"
        );
        assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
    }
}

#[tokio::test]
async fn two_adverts_for_one_epoch_are_equivocation() {
    // One identity and epoch.
    let (one, mut two) = (Liar::new(), Liar::new());
    two.advert.max_function_bytes += 1;
    let outcome = call(LONG, 2, async |count, mut stream| {
        let liar = if count == 1 { &one } else { &two };
        send(&mut stream, &liar.advert_frame()).await;
        // The second call comes all the same: hanging up would tell the liar
        // that this caller has been here before.
        let reply = liar.reply(&mut stream, &done(b"ok")).await;
        send(&mut stream, &reply).await;
        hold(stream).await;
    });
    let error = outcome.await.expect_err("equivocation");
    assert!(matches!(error, CallError::Equivocation(_)));
    assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
}

#[tokio::test]
async fn a_provider_that_vanishes_is_tried_on_another_circuit() {
    let liar = Liar::new();
    let outcome = call(LONG, 1, async |count, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let reply = liar.reply(&mut stream, &done(b"ok")).await;
        if count == 1 {
            send(&mut stream, &reply[..50]).await;
        } else {
            send(&mut stream, &reply).await;
            hold(stream).await;
        }
    });
    assert!(outcome.await.is_ok());
}

#[tokio::test]
async fn a_provider_that_always_vanishes_is_no_provider() {
    let outcome = call(LONG, 1, async |_, stream| drop(stream));
    let error = outcome.await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::NoProvider);
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline() {
    let liar = Liar::new();
    let minute = Duration::from_secs(60);
    let outcome = call(minute, 1, async |_, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        hold(stream).await;
    });
    let error = outcome.await.expect_err("silence");
    assert!(matches!(error, CallError::Deadline(60)), "{error}");
    assert_eq!(error.kind(), ErrorKind::Deadline);
}

/// Time from the greeting until the caller hangs up, for one that waits for so long.
async fn time_until_hang_up(max_time: Duration) -> Duration {
    let liar = Liar::new();
    let (told, mut hears) = tokio::sync::mpsc::channel(8);
    let outcome = call(max_time, 1, async |_, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let greeted = tokio::time::Instant::now();
        hold(stream).await;
        let _ = told.try_send(greeted.elapsed());
    });
    let ended = outcome.await;
    assert!(matches!(ended, Err(CallError::Deadline(_))), "{ended:?}");
    // The caller's end may be known before the provider looks.
    hears.try_recv().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn how_long_a_caller_waits_does_not_show_on_the_wire() {
    let (step, ms) = (dlambda_client::WIRE_STEP, Duration::from_millis);
    for (max_time, steps) in [(300, 1), (5_000, 1), (7_000, 1), (29_000, 1), (31_000, 2)] {
        let started = tokio::time::Instant::now();
        let shown = time_until_hang_up(ms(max_time)).await;
        let late = started.elapsed().saturating_sub(ms(max_time));
        assert!(late <= step + ms(50), "late by {late:?}");
        if shown > Duration::ZERO {
            assert!(
                shown.abs_diff(step * steps) < ms(50),
                "{max_time}: {shown:?}"
            );
        }
        assert!(
            started.elapsed().abs_diff(step * steps) < ms(50),
            "{max_time}"
        );
    }
}

/// An edge of the validity that the provider sets next to the caller's clock must not tell the
/// clock by whether the caller goes on: it goes on half of the time, whichever side the edge is on.
#[tokio::test]
async fn the_callers_clock_cannot_be_read_from_the_edges_of_an_advert() {
    const DAY: i64 = 24 * 3600;
    for (from, until) in [(-DAY, 2), (-DAY, -2), (-2, DAY), (2, DAY)] {
        let mut liar = Liar::new();
        let at = |offset: i64| UnixSeconds(NOW.0.saturating_add_signed(offset));
        liar.advert.validity = Validity {
            from: at(from),
            until: at(until),
        };
        liar.advert.period = liar.advert.validity;
        let mut went_on = 0;
        for _ in 0..60 {
            let outcome = call(LONG, 1, async |_, mut stream| {
                send(&mut stream, &liar.advert_frame()).await;
                let reply = liar.reply(&mut stream, &done(b"ok")).await;
                send(&mut stream, &reply).await;
                hold(stream).await;
            });
            match tokio::time::timeout(Duration::from_secs(10), outcome).await {
                Ok(Ok(())) => went_on += 1,
                Ok(Err(error)) => assert!(error.to_string().contains("valid from"), "{error}"),
                Err(_) => panic!("neither answered nor refused"),
            }
        }
        assert!(
            (10..50).contains(&went_on),
            "{went_on} of 60 for {from}, {until}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_provider_does_not_choose_when_its_caller_comes_again() {
    let liar = Liar::new();
    let arrivals = std::sync::Mutex::new(Vec::new());
    let outcome = call(LONG, 1, async |_, mut stream| {
        let now = tokio::time::Instant::now();
        arrivals.lock().expect("not poisoned").push(now);
        send(&mut stream, &liar.advert_frame()).await;
        send(
            &mut stream,
            &frame(FrameKind::Refusal, encode(&Refusal::Busy)),
        )
        .await;
        hold(stream).await;
    });
    let error = outcome.await.expect_err("busy");
    assert_eq!(error.kind(), ErrorKind::Refused);
    let arrivals = arrivals.into_inner().expect("not poisoned");
    let pauses: Vec<_> = arrivals.windows(2).map(|it| it[1] - it[0]).collect();
    let seconds = Duration::from_secs;
    assert_eq!(pauses.len(), 2);
    assert!(
        pauses
            .iter()
            .all(|it| (seconds(2)..seconds(11)).contains(it)),
        "{pauses:?}"
    );
    assert_ne!(pauses[0], pauses[1]);
}

#[tokio::test]
async fn a_refusal_is_shown_and_not_repeated() {
    let liar = Liar::new();
    let streams = std::sync::atomic::AtomicUsize::new(0);
    let outcome = call(LONG, 1, async |_, mut stream| {
        streams.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        send(&mut stream, &liar.advert_frame()).await;
        let refusal = frame(FrameKind::Refusal, encode(&Refusal::Replayed));
        send(&mut stream, &refusal).await;
        hold(stream).await;
    });
    let error = outcome.await.expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(streams.load(std::sync::atomic::Ordering::SeqCst), 1);
}

#[tokio::test]
async fn words_of_a_provider_cannot_drive_our_terminal() {
    let liar = Liar::new();
    let reply = Reply {
        completion: Completion::FunctionUnusable(FunctionProblem::UnsupportedImport {
            import: format!("\u{1b}[2J{}", "x".repeat(10_000)),
        }),
        usage: Usage::default(),
        engine: [0; 32],
        receipt: None,
    };
    let outcome = call(LONG, 1, async |_, mut stream| {
        send(&mut stream, &liar.advert_frame()).await;
        let reply = liar.reply(&mut stream, &reply).await;
        send(&mut stream, &reply).await;
        hold(stream).await;
    });
    let text = outcome.await.expect_err("unusable").to_string();
    assert!(!text.contains('\u{1b}') && text.len() < 1000);
}
