//! Strangers who send little, or slowly, do not keep out callers who pay.

use dlambda_privacy::exchange::acknowledge;
use dlambda_privacy::transport::BoxStream;
use dlambda_proto::{BatchSize, CallToken, Frame, FrameKind};
use dlambda_provider::ProviderConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinSet;

use crate::contracts::market::{Market, Outcome, seal};

/// Bytes of the input of a call that is not small.
const LARGE: usize = 300 << 10;

/// Makes a contract and calls with its tokens, with small inputs and with large ones.
async fn assert_served(market: &Market) {
    for token in market.tokens(BatchSize::Calls8).await {
        assert_runs(market, token, 5).await;
    }
    for token in market.tokens(BatchSize::Calls8).await.into_iter().take(2) {
        assert_runs(market, token, LARGE).await;
    }
}

async fn assert_runs(market: &Market, token: CallToken, len: usize) {
    let request = market.request(token, &vec![b'a'; len]);
    let (stream, completion) = market.ask_for(&request).await;
    assert!(Outcome::of(&completion) == Outcome::Ran(vec![b'A'; len]));
    acknowledge(stream).await;
}

/// Streams that have read their greeting, and say nothing.
async fn idle(market: &Market, count: usize) -> Vec<BoxStream> {
    let mut idle = Vec::new();
    for _ in 0..count {
        idle.push(market.greet().await.0);
    }
    idle
}

/// Streams that each send a part of the largest frame, until the provider takes no more, and then
/// nothing.
async fn half_sent(market: &Market, count: usize) -> JoinSet<()> {
    let mut sending = JoinSet::new();
    for _ in 0..count {
        let (mut stream, _) = market.greet().await;
        sending.spawn(async move {
            let frame = Frame::new(FrameKind::Call, vec![0; 64 << 20]).expect("within limits");
            let _ = stream.write_all(&frame.header()).await;
            let _ = stream.write_all(&frame.body()[..4 << 20]).await;
            std::future::pending().await
        });
    }
    sending
}

/// Streams of paid calls whose large answers are not taken.
async fn slow_readers(market: &Market, count: usize) -> Vec<BoxStream> {
    let mut readers = Vec::new();
    while readers.len() < count {
        for token in market.tokens(BatchSize::Calls8).await {
            let request = market.request(token, &vec![b'a'; LARGE]);
            let (mut stream, welcome) = market.greet().await;
            let call = seal(&welcome, &request);
            let _ = stream.write_all(&call.frame().header()).await;
            let _ = stream.write_all(call.frame().body()).await;
            readers.push(stream);
        }
    }
    readers
}

fn small_provider() -> ProviderConfig {
    let mut config = ProviderConfig::default();
    config.max_sessions = 32;
    config.receive_bytes = 8 << 20;
    config.send_bytes = 8 << 20;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_streams_keep_nobody_out() {
    let market = Market::with(small_provider()).await;
    let _idle = idle(&market, 200).await;
    assert_served(&market).await;
    assert!(market.status().await.evicted >= 168);
}

#[tokio::test(flavor = "multi_thread")]
async fn half_sent_frames_keep_nobody_out() {
    let market = Market::with(small_provider()).await;
    let _sending = half_sent(&market, 24).await;
    assert_served(&market).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_not_taken_keep_nobody_out() {
    let market = Market::with(small_provider()).await;
    let _readers = slow_readers(&market, 24).await;
    assert_served(&market).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_at_once_keep_nobody_out() {
    let market = Market::with(small_provider()).await;
    let _readers = slow_readers(&market, 16).await;
    let _sending = half_sent(&market, 16).await;
    let _idle = idle(&market, 100).await;
    assert_served(&market).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_token_takes_one_stream_permit() {
    let market = Market::with(small_provider()).await;
    let token = market.tokens(BatchSize::Calls8).await.pop();
    let request = market.request(token.expect("a token"), b"again and again");
    let mut copies = Vec::new();
    for _ in 0..100 {
        let (mut stream, welcome) = market.greet().await;
        let call = seal(&welcome, &request);
        let _ = stream.write_all(&call.frame().header()).await;
        let _ = stream.write_all(call.frame().body()).await;
        copies.push(stream);
    }
    assert_served(&market).await;
}
