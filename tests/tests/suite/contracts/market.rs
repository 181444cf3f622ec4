//! A provider that sells calls, its customers, and what goes wrong between them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_client::{Call, ProposalOutcome, Querier, Wallet};
use dlambda_crypto::negotiation::{Agreement, ContractOptions, Negotiation, Proposed, Step};
use dlambda_crypto::seal::{SealedCall, SealedContractRequest};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::exchange::{
    VerifiedGreeting, acknowledge, exchange, exchange_contract, receive_greeting,
};
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_privacy::{ExchangeError, WireError, os_rng};
use dlambda_proto::{
    Advert, BatchSize, CallToken, Completion, ContractAnswer, ContractRequest, Endpoint, Epoch,
    FRAME_HEADER_LEN, Frame, FrameKind, FunctionId, FunctionSource, Proposal, Refusal, Request,
    SignedContract, TokenProblem, decode,
};
use dlambda_provider::{ProviderConfig, RunningStatus, SessionRecord, Snapshot, query_status};
use dlambda_tests::local::LocalProvider;
use rand_core::Rng as _;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use crate::support::{LONG, NOW, alias, functions, querier, skip_second_look};

/// A provider with one function, `upper`, which can be stopped and started
/// again, and the network around it.
pub(crate) struct Market {
    pub(crate) network: MemoryNetwork,
    pub(crate) clock: Arc<FakeClock>,
    pub(crate) config: ProviderConfig,
    upper: FunctionId,
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
        let upper = std::fs::read(upper).expect("an example");
        std::fs::write(published.join("upper.wasm"), &upper).expect("written");
        let mut market = Self {
            network: MemoryNetwork::new(Duration::from_millis(1)),
            clock: Arc::new(FakeClock::at(NOW)),
            config,
            upper: FunctionId::of(&upper),
            provider: None,
            dir,
        };
        market.start().await;
        market
    }

    pub(crate) async fn start(&mut self) {
        let (functions, data) = (self.dir.path().join("functions"), self.data());
        let provider = LocalProvider::start(
            self.config.clone(),
            &functions,
            &data,
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

    /// At the same address there is now somebody else.
    pub(crate) async fn become_another(&mut self) {
        self.stop().await;
        std::fs::remove_dir_all(self.data()).expect("removed");
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

    /// Gives somebody a copy of a wallet, which never should be.
    pub(crate) fn copy_wallet(&self, from: &str, to: &str) {
        let wallets = self.dir.path().join("wallets");
        drop(self.wallet(to));
        for entry in std::fs::read_dir(wallets.join(from)).expect("a wallet") {
            let entry = entry.expect("an entry");
            if entry.file_type().expect("a type").is_file() {
                let copy = wallets.join(to).join(entry.file_name());
                std::fs::copy(entry.path(), copy).expect("copied");
            }
        }
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
            ProposalOutcome::Signed(contract) => *contract,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn propose_to_buy(
        &self,
        querier: &Querier,
        wish: &ContractOptions,
    ) -> ProposalOutcome {
        let endpoint = self.endpoint();
        let offered = querier.contract(&endpoint, wish, LONG, |_| true, |_| {});
        let offered = offered.await.expect("an offer");
        skip_second_look(querier.wallet().expect("a wallet"));
        offered
    }

    pub(crate) async fn status(&self) -> Snapshot {
        match query_status(&self.data()).await.expect("a status") {
            RunningStatus::Provider(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
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
    pub(crate) async fn greet(&self) -> (BoxStream, VerifiedGreeting) {
        let transport = self.network.transport([2; 32]);
        let mut stream = transport
            .dial(&self.endpoint(), Service::Calls)
            .await
            .expect("reachable")
            .stream;
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

    /// Lets the current epoch end.
    pub(crate) async fn next_epoch(&self) {
        let epoch = self.status().await.epoch;
        self.clock.advance(self.config.epoch.as_secs() + 1);
        self.epoch_after(epoch).await;
    }

    /// Makes a contract without a wallet, confirms it, and returns its tokens.
    pub(crate) async fn tokens(&self, calls: BatchSize) -> Vec<CallToken> {
        let (mut stream, welcome) = self.greet().await;
        let (proposal, proposed) = draw_up(&welcome.advert, calls, seed());
        let request = ContractRequest::Propose(Box::new(proposal));
        let answer = ask(&mut stream, &welcome, &request).await;
        let step = proposed.receive(answer.expect("an answer"));
        let Ok(Step::Agreed(agreement)) = step else {
            panic!("{step:?}");
        };
        let request = agreement.confirmation();
        let answer = ask(&mut stream, &welcome, &request).await;
        assert!(answer.expect("an answer") == ContractAnswer::Confirmed);
        acknowledge(stream).await;
        let Agreement { calls, .. } = *agreement;
        calls
    }

    /// A request for `upper` by hand.
    pub(crate) fn request(&self, token: CallToken, input: &[u8]) -> Request {
        Request {
            function: FunctionSource::Known(self.upper),
            args: vec![],
            input: input.to_vec(),
            seed: seed(),
            http: None,
            token: Some(token),
        }
    }

    /// Sends a request for the default plan, under a fresh key and on a stream
    /// of its own, on which the reply was read and not acknowledged.
    pub(crate) async fn ask_for(&self, request: &Request) -> (BoxStream, Completion) {
        let (mut stream, welcome) = self.greet().await;
        let sealed = seal(&welcome, request);
        let exchanged = exchange(&mut *stream, sealed, LONG).await;
        (stream, exchanged.expect("a reply").reply.completion)
    }

    /// The same, hanging up afterwards.
    pub(crate) async fn try_for(&self, request: &Request) -> Outcome {
        Outcome::of(&self.ask_for(request).await.1)
    }

    /// Sends a frame on a stream of its own.
    pub(crate) async fn deliver(&self, frame: &Frame) -> (BoxStream, Frame) {
        let (mut stream, _) = self.greet().await;
        send(&mut stream, frame).await;
        let answer = receive(&mut stream).await.expect("an answer");
        (stream, answer)
    }

    /// Asserts that the provider still sells and serves.
    pub(crate) async fn assert_alive(&self) {
        let token = self.tokens(BatchSize::Calls8).await.pop();
        let request = self.request(token.expect("a token"), b"alive");
        let (stream, completion) = self.ask_for(&request).await;
        assert_eq!(Outcome::of(&completion), Outcome::Ran(b"ALIVE".to_vec()));
        acknowledge(stream).await;
    }
}

/// What a reply comes down to; unlike a completion it can be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ran(Vec<u8>),
    Unpaid(TokenProblem),
    Other(String),
}

pub(crate) const SPENT: Outcome = Outcome::Unpaid(TokenProblem::Spent);

impl Outcome {
    pub(crate) fn of(completion: &Completion) -> Self {
        match completion {
            Completion::Exited {
                status: 0, stdout, ..
            } => Self::Ran(stdout.clone()),
            Completion::Unpaid(problem) => Self::Unpaid(*problem),
            other => Self::Other(format!("{other:?}")),
        }
    }
}

pub(crate) fn wish(calls: BatchSize) -> ContractOptions {
    ContractOptions {
        plan: None,
        calls,
        service: None,
        deterministic: false,
        invitation: None,
    }
}

/// 32 fresh bytes.
pub(crate) fn seed() -> [u8; 32] {
    let mut seed = [0; 32];
    os_rng().fill_bytes(&mut seed);
    seed
}

pub(crate) fn draw_up(advert: &Advert, calls: BatchSize, seed: [u8; 32]) -> (Proposal, Proposed) {
    let negotiation = Negotiation::begin(advert, &wish(calls), seed.into());
    negotiation.expect("begins").propose().expect("proposes")
}

pub(crate) fn seal(welcome: &VerifiedGreeting, request: &Request) -> SealedCall {
    let plan = &welcome.advert.plans[0].name;
    SealedCall::seal(&welcome.sealing, plan, request, &mut os_rng()).expect("seals")
}

/// One request of issuance, without any work.
pub(crate) async fn ask(
    stream: &mut BoxStream,
    welcome: &VerifiedGreeting,
    request: &ContractRequest,
) -> Result<ContractAnswer, ExchangeError> {
    let sealed =
        SealedContractRequest::seal(&welcome.sealing, request, &mut os_rng()).expect("seals");
    exchange_contract(&mut **stream, sealed, LONG).await
}

/// A provider that refuses early stops reading: its answer says more than that.
pub(crate) async fn send(stream: &mut BoxStream, frame: &Frame) {
    match write_frame(&mut **stream, frame, LONG).await {
        Ok(()) | Err(WireError::Lost(_)) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Any answer; nothing if the provider closes the stream.
pub(crate) async fn receive(stream: &mut BoxStream) -> Option<Frame> {
    let budget = Budget::new(66 << 20);
    let expected = [
        FrameKind::ContractAnswer,
        FrameKind::Refusal,
        FrameKind::Reply,
    ];
    match read_frame(&mut **stream, &expected, LONG, &budget).await {
        Ok((frame, _)) => Some(frame),
        Err(WireError::Lost(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

pub(crate) fn refusal(frame: &Frame) -> Option<Refusal> {
    let is_refusal = frame.kind() == FrameKind::Refusal;
    is_refusal.then(|| decode(frame.body()).expect("readable"))
}

/// Stands between customers and the provider, and cuts streams as it is told.
pub(crate) struct Relay {
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    cuts: Arc<Mutex<VecDeque<Cut>>>,
    task: JoinHandle<()>,
}

/// Ends a stream after so many whole exchanges on it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cut {
    /// The next request does not arrive.
    Request { after: usize },
    /// The next request arrives, and the stream ends while it is served.
    Stream { after: usize },
    /// The next request is answered, and the answer does not arrive.
    Answer { after: usize },
}

impl Relay {
    /// The first streams are cut like this, one each; the others are left alone.
    pub(crate) async fn start(market: &Market, cuts: impl IntoIterator<Item = Cut>) -> Self {
        let network = MemoryNetwork::new(Duration::ZERO);
        let far = market.network.transport([2; 32]);
        let endpoint = market.endpoint();
        let mut listener = network
            .transport([1; 32])
            .listen(Service::Calls)
            .await
            .expect("listens");
        let cuts = Arc::new(Mutex::new(cuts.into_iter().collect::<VecDeque<Cut>>()));
        let queue = Arc::clone(&cuts);
        let task = tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let cut = queue.lock().expect("not poisoned").pop_front();
                let far = far
                    .dial(&endpoint, Service::Calls)
                    .await
                    .expect("reachable")
                    .stream;
                tokio::spawn(pass(incoming.connection.stream, far, cut));
            }
        });
        Self {
            network,
            clock: Arc::clone(&market.clock),
            cuts,
            task,
        }
    }

    pub(crate) fn customer(&self, wallet: Wallet) -> Querier {
        querier(&self.network, &self.clock).with_wallet(wallet)
    }

    /// Cuts the next stream that has not come yet.
    pub(crate) fn cut(&self, cut: Cut) {
        self.cuts.lock().expect("not poisoned").push_back(cut);
    }

    /// Cuts that no stream has come for yet.
    pub(crate) fn cuts_left(&self) -> usize {
        self.cuts.lock().expect("not poisoned").len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut near: BoxStream, mut far: BoxStream, cut: Option<Cut>) {
    let _ = match cut {
        Some(cut) => pass_until(cut, &mut near, &mut far).await,
        None => tokio::io::copy_bidirectional(&mut near, &mut far)
            .await
            .map(|_| ()),
    };
}

async fn pass_until(cut: Cut, near: &mut BoxStream, far: &mut BoxStream) -> std::io::Result<()> {
    let (Cut::Request { after } | Cut::Stream { after } | Cut::Answer { after }) = cut;
    pass_frame(far, near).await?;
    for _ in 0..after {
        pass_frame(near, far).await?;
        pass_frame(far, near).await?;
    }
    let request = read_whole(near).await?;
    if matches!(cut, Cut::Request { .. }) {
        return Ok(());
    }
    far.write_all(&request).await?;
    if matches!(cut, Cut::Answer { .. }) {
        read_whole(far).await?;
    }
    Ok(())
}

async fn pass_frame(from: &mut BoxStream, to: &mut BoxStream) -> std::io::Result<()> {
    let frame = read_whole(from).await?;
    to.write_all(&frame).await
}

async fn read_whole(stream: &mut BoxStream) -> std::io::Result<Vec<u8>> {
    let mut frame = vec![0; FRAME_HEADER_LEN];
    stream.read_exact(&mut frame).await?;
    let length = u32::from_be_bytes([frame[2], frame[3], frame[4], frame[5]]);
    frame.resize(FRAME_HEADER_LEN + length as usize, 0);
    stream.read_exact(&mut frame[FRAME_HEADER_LEN..]).await?;
    Ok(frame)
}
