//! A provider that sells calls, its customers, and what goes wrong between them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_client::{Call, Offered, Querier, Wallet};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::exchange::{Welcome, acknowledge, exchange_contract, receive_greeting};
use dlambda_privacy::negotiation::{Agreement, Negotiation, Step, Wish};
use dlambda_privacy::seal::{SealedCall, SealedContractRequest};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Transport as _};
use dlambda_privacy::wire::{ReceiveBudget, read_frame, write_frame};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{
    Advert, BatchSize, CallToken, Completion, ContractAnswer, ContractRequest, Endpoint, Epoch,
    FRAME_HEADER_LEN, Frame, FrameKind, FunctionSource, PlanName, Proposal, Refusal, Reply,
    Request, SignedContract, TokenProblem, decode,
};
use dlambda_provider::{ProviderConfig, SessionRecord, Snapshot, query_status};
use dlambda_tests::local::LocalProvider;
use rand_core::Rng as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::support::{LONG, NOW, alias, functions, querier};

/// A provider with one function, `upper`, which can be stopped and started
/// again, and the network around it.
pub(crate) struct Market {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Arc<FakeClock>,
    config: ProviderConfig,
    provider: Option<LocalProvider>,
    dir: TempDir,
}

impl Market {
    pub(crate) async fn open() -> Self {
        Self::with(ProviderConfig::default()).await
    }

    pub(crate) async fn with(config: ProviderConfig) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let published = dir.path().join("functions");
        std::fs::create_dir(&published).expect("created");
        let upper = functions().join("upper.wasm");
        std::fs::copy(upper, published.join("upper.wasm")).expect("copied");
        let mut market = Self {
            network: MemoryNetwork::new(Duration::from_millis(1)),
            clock: Arc::new(FakeClock::at(NOW)),
            config,
            provider: None,
            dir,
        };
        market.start().await;
        market
    }

    pub(crate) async fn start(&mut self) {
        let provider = LocalProvider::start(
            self.config.clone(),
            &self.dir.path().join("functions"),
            &self.data(),
            Arc::new(self.network.transport([1; 32])),
            Arc::clone(&self.clock) as Arc<dyn Clock>,
        );
        self.provider = Some(provider.await.expect("the provider starts"));
    }

    /// Streams that callers left open would be waited for.
    pub(crate) async fn stop(&mut self) {
        let provider = self.provider.take().expect("it is running");
        provider.stop().await.expect("a quiet end");
    }

    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    pub(crate) fn provider(&self) -> &LocalProvider {
        self.provider.as_ref().expect("it is running")
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        self.network.transport([1; 32]).endpoint()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The wallet of the customer of this name.
    pub(crate) fn wallet(&self, customer: &str) -> Wallet {
        Wallet::open(&self.dir.path().join("wallets").join(customer)).expect("a wallet")
    }

    pub(crate) fn customer(&self, name: &str) -> Querier {
        querier(&self.network, &self.clock).with_wallet(self.wallet(name))
    }

    /// Fresh tokens for the default plan.
    pub(crate) fn tokens_left(&self, wallet: &Wallet) -> usize {
        let left = wallet.tokens_left(&self.endpoint(), None, self.clock.now());
        left.expect("readable")
    }

    pub(crate) fn call(&self, input: impl Into<Vec<u8>>) -> Call {
        Call::new(self.endpoint(), alias("upper")).input(input)
    }

    /// Buys calls of the default plan.
    pub(crate) async fn buy(&self, querier: &Querier, calls: BatchSize) -> SignedContract {
        match self.propose_to_buy(querier, &wish(calls)).await {
            Offered::Signed(contract) => *contract,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn propose_to_buy(&self, querier: &Querier, wish: &Wish) -> Offered {
        let endpoint = self.endpoint();
        let offered = querier.contract(&endpoint, wish, LONG, |_| true, |_| {});
        offered.await.expect("an offer")
    }

    pub(crate) async fn status(&self) -> Snapshot {
        query_status(&self.data()).await.expect("a status")
    }

    /// Contracts granted and confirmed, over all epochs and plans.
    pub(crate) async fn contracts(&self) -> (u64, u64) {
        let totals = self.status().await.contracts;
        let granted = totals.iter().map(|it| it.granted).sum();
        (granted, totals.iter().map(|it| it.confirmed).sum())
    }

    /// How often `upper` has run.
    pub(crate) async fn runs(&self) -> u64 {
        let functions = self.status().await.functions;
        functions.iter().map(|function| function.calls).sum()
    }

    /// Records of all sessions, once there are so many.
    pub(crate) async fn records(&self, count: usize) -> Vec<SessionRecord> {
        let records = self.provider().recorder.wait_for(count).await;
        assert_eq!(records.len(), count, "sessions");
        records
    }

    /// A stream on which the greeting was read.
    pub(crate) async fn greet(&self) -> (BoxStream, Welcome) {
        let transport = self.network.transport([2; 32]);
        let mut stream = transport.dial(&self.endpoint()).await.expect("reachable");
        let (endpoint, now) = (self.endpoint(), self.clock.now());
        let welcome = receive_greeting(&mut *stream, &endpoint, now, LONG);
        let welcome = welcome.await.expect("a greeting");
        (stream, welcome)
    }

    /// Waits until the provider has begun another epoch than this one.
    pub(crate) async fn epoch_after(&self, epoch: Epoch) -> Epoch {
        loop {
            let now = self.status().await.epoch;
            if now != epoch {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Makes a contract without a wallet, confirms it, and returns its tokens.
    pub(crate) async fn tokens(&self, calls: BatchSize) -> Vec<CallToken> {
        let (mut stream, welcome) = self.greet().await;
        let (proposal, proposed) = draw_up(&welcome.advert, calls, seed());
        let request = ContractRequest::Propose(Box::new(proposal));
        let answer = ask(&mut stream, &welcome.advert, &request).await;
        let step = proposed.receive(answer.expect("an answer"));
        let Ok(Step::Agreed(agreement)) = step else {
            panic!("{step:?}");
        };
        let request = agreement.confirmation();
        let answer = ask(&mut stream, &welcome.advert, &request).await;
        assert!(answer.expect("an answer") == ContractAnswer::Confirmed);
        acknowledge(stream).await;
        let Agreement { calls, .. } = *agreement;
        calls
    }

    /// A call of `upper` sealed by hand.
    pub(crate) fn seal(&self, advert: &Advert, request: &Request) -> SealedCall {
        self.seal_for(advert, request, &advert.plans[0].name)
    }

    pub(crate) fn seal_for(
        &self,
        advert: &Advert,
        request: &Request,
        plan: &PlanName,
    ) -> SealedCall {
        // Sealing takes an advert only from whom it has verified it.
        let signed = advert.sign(&self.identity()).expect("signs");
        let verified = signed.verify(self.clock.now(), &self.endpoint());
        let verified = verified.expect("verifies");
        SealedCall::seal(&verified, plan, request, &mut os_rng()).expect("seals")
    }
}
