//! Callers that break the protocol are told so, or let go; the provider goes on.

use std::time::Duration;

use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::exchange::VerifiedGreeting;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::BoxStream;
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{
    CallEnvelope, Epoch, Frame, FrameKind, FunctionId, FunctionSource, Refusal, Request, VERSION,
    decode, encode,
};
use dlambda_provider::ProviderConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{LONG, World};

fn sealed(welcome: &VerifiedGreeting) -> SealedCall {
    let request = Request {
        function: FunctionSource::Known(FunctionId::of(b"whatever")),
        args: vec![],
        input: vec![],
        seed: [0; 32],
        http: None,
        token: None,
    };
    let plan = &welcome.advert.plans[0].name;
    SealedCall::seal(&welcome.sealing, plan, &request, &mut os_rng()).expect("seals")
}

async fn refusal(stream: &mut BoxStream) -> Refusal {
    let budget = Budget::new(1 << 20);
    let (frame, _) = read_frame(&mut **stream, &[FrameKind::Refusal], LONG, &budget)
        .await
        .expect("a refusal");
    decode(frame.body()).expect("readable")
}

/// Sends raw bytes where a call is expected.
async fn answer_to(world: &World, bytes: &[u8]) -> Refusal {
    let (mut stream, _) = world.open().await;
    stream.write_all(bytes).await.expect("sent");
    stream.flush().await.expect("sent");
    refusal(&mut stream).await
}

fn frame_bytes(frame: &Frame) -> Vec<u8> {
    [&frame.header()[..], frame.body()].concat()
}

fn with_body(body: Vec<u8>) -> Vec<u8> {
    frame_bytes(&Frame::new(FrameKind::Call, body).expect("within limits"))
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_frames_are_refused_by_name() {
    let world = World::new().await;
    for (bytes, expected) in [
        (
            vec![VERSION - 1, 2, 0, 0, 0, 1, 0],
            Refusal::UnsupportedVersion,
        ),
        (
            vec![VERSION + 1, 2, 0, 0, 0, 1, 0],
            Refusal::UnsupportedVersion,
        ),
        (vec![VERSION, 2, 0xff, 0xff, 0xff, 0xff], Refusal::TooLong),
        (vec![VERSION, 77, 0, 0, 0, 0], Refusal::Malformed),
        (vec![VERSION, 1, 0, 0, 0, 0], Refusal::Malformed),
        (with_body(b"not an envelope".to_vec()), Refusal::Malformed),
        (
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            Refusal::UnsupportedVersion,
        ),
    ] {
        assert_eq!(answer_to(&world, &bytes).await, expected, "{bytes:?}");
    }
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_changed_part_of_a_call_is_noticed() {
    let world = World::new().await;
    let (_, welcome) = world.open().await;
    let envelope = || decode::<CallEnvelope>(sealed(&welcome).frame().body()).expect("our own");
    let change = |edit: &dyn Fn(&mut CallEnvelope)| {
        let mut envelope = envelope();
        edit(&mut envelope);
        with_body(encode(&envelope))
    };
    for (bytes, expected) in [
        (change(&|e| e.ciphertext[50] ^= 1), Refusal::CannotOpen),
        (change(&|e| e.encapsulated_key[5] ^= 1), Refusal::CannotOpen),
        (change(&|e| e.ciphertext.truncate(7)), Refusal::CannotOpen),
        (
            change(&|e| e.header.epoch = Epoch(99)),
            Refusal::UnknownEpoch,
        ),
        (
            change(&|e| e.header.plan = "gold".parse().expect("a name")),
            Refusal::UnknownPlan,
        ),
        (
            change(&|e| e.header.plan = "large".parse().expect("a name")),
            Refusal::CannotOpen,
        ),
        // The identity element: every key agreement with it gives zero.
        (
            change(&|e| e.encapsulated_key = [0; 32]),
            Refusal::CannotOpen,
        ),
    ] {
        assert_eq!(answer_to(&world, &bytes).await, expected);
    }
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replayed_call_is_refused() {
    let world = World::new().await;
    let (mut stream, welcome) = world.open().await;
    let call = sealed(&welcome);
    write_frame(&mut *stream, call.frame(), LONG)
        .await
        .expect("sent");
    let budget = Budget::new(1 << 20);
    let first = read_frame(&mut *stream, &[FrameKind::Reply], LONG, &budget).await;
    assert!(first.is_ok(), "the first is answered");
    let bytes = frame_bytes(call.frame());
    assert_eq!(answer_to(&world, &bytes).await, Refusal::Replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_truncated_call_and_a_silent_caller_are_let_go() {
    let mut config = ProviderConfig::without_tokens();
    config.deadlines.call = Duration::from_millis(500);
    let world = World::with(config).await;
    let (mut cut, welcome) = world.open().await;
    let bytes = frame_bytes(sealed(&welcome).frame());
    cut.write_all(&bytes[..100]).await.expect("sent");
    drop(cut);
    let (mut silent, _) = world.open().await;
    assert_eq!(refusal(&mut silent).await, Refusal::TooSlow);
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_one_call_only() {
    let world = World::new().await;
    let (mut stream, welcome) = world.open().await;
    let budget = Budget::new(1 << 20);
    write_frame(&mut *stream, sealed(&welcome).frame(), LONG)
        .await
        .expect("sent");
    let first = read_frame(&mut *stream, &[FrameKind::Reply], LONG, &budget).await;
    assert!(first.is_ok());
    let _ = write_frame(&mut *stream, sealed(&welcome).frame(), LONG).await;
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.is_empty(), "the second call is not answered");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_callers_than_places_get_those_of_idle_streams() {
    let mut config = ProviderConfig::without_tokens();
    config.max_sessions = 3;
    let world = World::with(config).await;
    let mut idle = Vec::new();
    for _ in 0..3 {
        idle.push(world.open().await);
    }
    world.assert_alive().await;
    let (mut oldest, _) = idle.remove(0);
    let mut received = Vec::new();
    oldest.read_to_end(&mut received).await.expect("closed");
    assert!(received.is_empty(), "it was not told anything");
}
