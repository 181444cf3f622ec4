//! What paid calls take while strangers hold streams and memory.
//!
//! Baseline: the same calls before the strangers come.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use dlambda_client::{Call, FunctionName, Querier, Wallet};
use dlambda_crypto::negotiation::ContractOptions;
use dlambda_privacy::TransportError;
use dlambda_privacy::clock::SystemClock;
use dlambda_privacy::transport::memory::{MemoryNetwork, MemoryTransport};
use dlambda_privacy::transport::{BoxStream, Connection, Listener, Service, Transport};
use dlambda_proto::{BatchSize, Endpoint, Frame, FrameKind};
use dlambda_provider::ProviderConfig;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::report::{Ratio, Report};
use super::{functions, millis, progress};
use crate::local::LocalProvider;

const DEADLINE: Duration = Duration::from_secs(120);

/// Streams that say nothing.
const IDLE: usize = 2000;
/// Frames of 64 MiB of which a part was sent.
const HALF_SENT: usize = 64;
/// Bytes of each that are sent: together more than the provider's whole budget.
const PART: usize = 12 << 20;
/// Paid calls whose answers are not taken.
const SLOW: usize = 200;
/// Bytes of such an answer.
const ANSWER: usize = 900 << 10;
/// Paid calls that are measured.
const CALLS: usize = 100;

const QUIET: &str = "a paid call, 1 KiB each way, quiet: p95";
const FLOODED: &str = "a paid call, 1 KiB each way, under the flood: p95";
const RATIOS: [Ratio; 1] = [(
    "p95 of a paid call under the flood over a quiet one",
    FLOODED,
    QUIET,
)];

/// Measures calls without and with all strangers at once.
///
/// # Errors
///
/// If the provider cannot be started, or a call fails before the flood.
pub async fn run() -> Result<Report> {
    let mut report = Report::new("dlambda.bench-floods/1", &RATIOS);
    let dir = tempfile::tempdir()?;
    let network = MemoryNetwork::new(Duration::ZERO);
    let (functions, data) = (functions(), dir.path().join("provider"));
    let started = LocalProvider::start(
        ProviderConfig::default(),
        &functions,
        &data,
        Arc::new(network.transport([1; 32])),
        Arc::new(SystemClock::default()),
    );
    let provider = Box::pin(started).await?;
    let crowd = Crowd {
        network,
        provider: provider.endpoint,
    };
    let honest = Wallet::open(&dir.path().join("honest"))?;
    let slow = Wallet::open(&dir.path().join("slow"))?;
    for wallet in [&honest, &honest, &slow, &slow] {
        crowd.buy(wallet).await?;
    }
    progress("quiet calls");
    let failed = crowd.measure(&honest, QUIET, &mut report).await?;
    ensure!(failed == 0, "{failed} calls failed before the flood");
    progress("the flood comes");
    let _slow = crowd.slow_readers(&slow);
    let _half_sent = crowd.half_sent().await?;
    let _idle = crowd.idle().await?;
    progress("calls under the flood");
    let failed = crowd.measure(&honest, FLOODED, &mut report).await?;
    report.add(
        &format!("paid calls of {CALLS} that failed under the flood"),
        "calls",
        f64::from(u32::try_from(failed)?),
    );
    Ok(report)
}

struct Crowd {
    network: MemoryNetwork,
    provider: Endpoint,
}

impl Crowd {
    fn transport(&self) -> MemoryTransport {
        self.network.transport([2; 32])
    }

    fn querier(transport: impl Transport + 'static, wallet: &Wallet) -> Querier {
        let querier = Querier::new(Arc::new(transport), Arc::new(SystemClock::default()));
        querier.with_wallet(wallet.clone())
    }

    async fn buy(&self, wallet: &Wallet) -> Result<()> {
        let wish = ContractOptions {
            plan: None,
            calls: BatchSize::Calls128,
            service: None,
            deterministic: true,
            invitation: None,
        };
        let querier = Self::querier(self.transport(), wallet);
        let bought = querier.contract(&self.provider, &wish, DEADLINE, |_| true, |_| {});
        Box::pin(bought).await?;
        querier.look_again(DEADLINE).await?;
        Ok(())
    }

    fn call(&self, bytes: usize) -> Call {
        let upper = FunctionName::Alias("upper".to_owned());
        Call::new(self.provider, upper).input(vec![b'a'; bytes])
    }

    /// Calls one after the other; returns how many failed.
    async fn measure(&self, wallet: &Wallet, name: &str, report: &mut Report) -> Result<usize> {
        let querier = Self::querier(self.transport(), wallet);
        let (mut times, mut failed) = (Vec::new(), 0);
        for _ in 0..CALLS {
            let started = Instant::now();
            let ended = querier
                .call_outcome(&self.call(1024), DEADLINE, |_| {})
                .await;
            if ended.is_ok_and(|ended| ended.into_output().is_ok()) {
                times.push(millis(started.elapsed()));
            } else {
                failed += 1;
            }
            querier.flush_acks().await;
        }
        times.sort_by(f64::total_cmp);
        let p95 = times.get(times.len() * 95 / 100).context("some calls")?;
        report.add(name, "ms", *p95);
        Ok(failed)
    }

    async fn idle(&self) -> Result<Vec<BoxStream>> {
        let mut idle = Vec::new();
        for _ in 0..IDLE {
            let dialled = self
                .transport()
                .dial(&self.provider, Service::Calls)
                .await?;
            idle.push(dialled.stream);
        }
        Ok(idle)
    }

    async fn half_sent(&self) -> Result<JoinSet<()>> {
        let mut sending = JoinSet::new();
        for _ in 0..HALF_SENT {
            let dialled = self
                .transport()
                .dial(&self.provider, Service::Calls)
                .await?;
            let mut stream = dialled.stream;
            // The greeting is large enough to be in the way.
            let mut greeting = [0; 6];
            stream.read_exact(&mut greeting).await?;
            sending.spawn(async move {
                let Ok(frame) = Frame::new(FrameKind::Call, vec![0; 64 << 20]) else {
                    return;
                };
                let _ = stream.write_all(&frame.header()).await;
                for part in frame.body()[..PART].chunks(64 << 10) {
                    let _ = stream.write_all(part).await;
                }
                drop(frame);
                std::future::pending().await
            });
        }
        // They send what they can at the same time.
        sleep(Duration::from_secs(3)).await;
        Ok(sending)
    }

    fn slow_readers(&self, wallet: &Wallet) -> JoinSet<()> {
        let mut readers = JoinSet::new();
        for _ in 0..SLOW {
            let querier = Self::querier(Stalling(self.transport()), wallet);
            let call = self.call(ANSWER);
            readers.spawn(async move {
                let _ = querier.call_outcome(&call, DEADLINE, |_| {}).await;
                std::future::pending().await
            });
        }
        readers
    }
}

/// Its streams take the greeting, and little more.
struct Stalling(MemoryTransport);

struct Stalled {
    inner: BoxStream,
    left: usize,
}

#[async_trait]
impl Transport for Stalling {
    async fn dial(
        &self,
        endpoint: &Endpoint,
        service: Service,
    ) -> Result<Connection, TransportError> {
        let dialled = self.0.dial(endpoint, service).await?;
        Ok(Connection::new(Stalled {
            inner: dialled.stream,
            left: 16 << 10,
        }))
    }

    async fn listen(&self, service: Service) -> Result<Box<dyn Listener>, TransportError> {
        self.0.listen(service).await
    }
}

impl AsyncRead for Stalled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        self.left = self.left.saturating_sub(buf.filled().len() - before);
        polled
    }
}

impl AsyncWrite for Stalled {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
