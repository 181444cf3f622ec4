//! A malicious provider made by hand, and its customers.

use std::sync::Arc;
use std::time::Duration;

use dlambda_client::wallet::{Resuming, TokenQuery};
use dlambda_client::{Call, CallError, ContractError, ProposalOutcome, Querier, Wallet};
use dlambda_crypto::negotiation::{Issuers, grant};
use dlambda_crypto::seal::{SealedCall, SealingSecret};
use dlambda_privacy::clock::{Clock as _, FakeClock};
use dlambda_privacy::exchange::{exchange, receive_greeting};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Listener, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame};
use dlambda_proto::{
    Advert, BatchSize, CallEnvelope, CallToken, ContractAnswer, ContractEnvelope, ContractRequest,
    Endpoint, Epoch, Frame, FrameKind, FunctionId, FunctionSource, Greeting, IdentityKey,
    PastEpoch, Plan, PublishedFunction, ReceiptKey, Refusal, Request, SignedAdvert, UnixSeconds,
    Validity, decode, encode,
};
use tempfile::TempDir;

use super::{DAY, SEED};
use crate::contracts::market::{seed, send, wish};
use crate::support::{LONG, NOW, alias, querier, skip_second_look};

/// Keys, and the advert that they are in.
pub(super) struct Face {
    pub(super) advert: Advert,
    pub(super) secret: SealingSecret,
    pub(super) issuers: Issuers,
}

/// A provider made by hand, on a network with its customers.
pub(super) struct Tagger {
    pub(super) identity: IdentityKey,
    pub(super) network: MemoryNetwork,
    pub(super) clock: Arc<FakeClock>,
    pub(super) listener: tokio::sync::Mutex<Box<dyn Listener>>,
    pub(super) dir: TempDir,
}

impl Tagger {
    pub(super) async fn new() -> Self {
        let network = MemoryNetwork::new(Duration::ZERO);
        let listener = network.transport([3; 32]).listen(Service::Calls).await;
        Self {
            identity: IdentityKey::from_seed(&SEED),
            clock: Arc::new(FakeClock::at(NOW)),
            listener: tokio::sync::Mutex::new(listener.expect("listens")),
            network,
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        self.network.transport([3; 32]).endpoint()
    }

    /// Fresh keys for an epoch that begins now.
    pub(super) fn face(&self, epoch: u64, history: Vec<PastEpoch>) -> Face {
        let (id, epoch) = (self.identity.id(), Epoch(epoch));
        let mut plans = Plan::standard_menu();
        plans.truncate(1);
        let names = [plans[0].name.clone()];
        let issuers = Issuers::generate(&seed(), &id, epoch, &names, &mut os_rng());
        let issuers = issuers.expect("keys");
        let now = self.clock.now();
        let upper = PublishedFunction {
            id: FunctionId::of(b"upper"),
            alias: "upper".to_owned(),
            size: 0,
        };
        let receipts = ReceiptKey::from_seed(&seed()).id();
        let advert = Advert {
            call_keys: vec![issuers.calls[&names[0]].key()],
            rating_key: issuers.ratings.as_ref().expect("a key").key().to_vec(),
            tokens: Validity {
                from: UnixSeconds(now.0 - 3600),
                until: now.plus(2 * DAY),
            },
            functions: vec![upper],
            plans,
            history,
            ..Advert::minimal(id, epoch, now, receipts, self.endpoint())
        };
        let secret = SealingSecret::generate(id, epoch, &mut os_rng());
        Face {
            advert,
            secret,
            issuers,
        }
    }

    pub(super) fn past(&self, face: &Face) -> PastEpoch {
        let signed = face.advert.sign(&self.identity).expect("signs");
        signed.authenticate().expect("authentic").as_past()
    }

    pub(super) fn customer(&self, name: &str) -> Querier {
        let wallet = Wallet::open(&self.dir.path().join(name)).expect("a wallet");
        querier(&self.network, &self.clock).with_wallet(wallet)
    }

    /// Shows this face to one visitor: sells, or takes what comes and answers
    /// that it cannot be opened. The token that came, if one did.
    pub(super) async fn serve(&self, face: &Face) -> Option<CallToken> {
        let signed = face.advert.sign(&self.identity).expect("signs");
        self.serve_signed(face, signed).await
    }

    pub(super) async fn serve_signed(
        &self,
        face: &Face,
        signed: SignedAdvert,
    ) -> Option<CallToken> {
        let incoming = self.listener.lock().await.accept().await;
        let mut stream = incoming.expect("a visitor").connection.stream;
        let sealing = face.secret.sealing_key().sign(&self.identity);
        let greeting = Greeting {
            advert: signed,
            sealing: sealing.expect("signs"),
            effort: 0,
        };
        let greeting = Frame::new(FrameKind::Advert, encode(&greeting)).expect("fits");
        send(&mut stream, &greeting).await;
        let budget = Budget::new(1 << 20);
        let expected = [FrameKind::Call, FrameKind::Contract, FrameKind::Ack];
        loop {
            let (frame, _) = read_frame(&mut *stream, &expected, LONG, &budget)
                .await
                .ok()?;
            match frame.kind() {
                FrameKind::Contract => self.sell(&mut stream, face, &frame).await,
                FrameKind::Call => return self.open(&mut stream, face, &frame).await,
                _ => return None,
            }
        }
    }

    pub(super) async fn sell(&self, stream: &mut BoxStream, face: &Face, frame: &Frame) {
        let envelope: ContractEnvelope = decode(frame.body()).expect("an envelope");
        let opened = face.secret.open_contract(&envelope).expect("opens");
        let answer = match opened.request {
            ContractRequest::Propose(proposal) => {
                let granted = grant(&proposal, &self.identity, &face.issuers);
                ContractAnswer::Granted(granted.expect("a good proposal"))
            }
            _ => ContractAnswer::Confirmed,
        };
        send(stream, &opened.answerer.seal(&answer).expect("seals")).await;
    }

    pub(super) async fn open(
        &self,
        stream: &mut BoxStream,
        face: &Face,
        frame: &Frame,
    ) -> Option<CallToken> {
        let envelope: CallEnvelope = decode(frame.body()).expect("an envelope");
        let opened = face.secret.open(&envelope).expect("opens");
        let refusal = Frame::new(FrameKind::Refusal, encode(&Refusal::CannotOpen));
        send(stream, &refusal.expect("fits")).await;
        opened.request.token
    }

    /// Sells eight calls under this face. The second look sees what the
    /// provider wants it to see.
    pub(super) async fn sell_under(
        &self,
        face: &Face,
        customer: &Querier,
    ) -> Result<(), ContractError> {
        let (endpoint, wish) = (self.endpoint(), wish(BatchSize::Calls8));
        let buying = customer.contract(&endpoint, &wish, LONG, |_| true, |_| {});
        let (bought, _) = tokio::join!(buying, self.serve(face));
        assert!(matches!(bought?, ProposalOutcome::Signed(_)));
        skip_second_look(customer.wallet().expect("a wallet"));
        Ok(())
    }

    /// A call under this face: what the customer says, and what the provider got.
    pub(super) async fn call(
        &self,
        face: &Face,
        customer: &Querier,
    ) -> (CallError, Option<CallToken>) {
        let call = Call::new(self.endpoint(), alias("upper"));
        let calling = customer.call(&call, LONG, |_| {});
        let (called, token) = tokio::join!(calling, self.serve(face));
        (called.expect_err("nobody is answered"), token)
    }

    /// A call by a customer who sends a token to whatever advert there is.
    pub(super) async fn careless_call(&self, face: &Face, customer: &Querier) -> Option<CallToken> {
        let endpoint = self.endpoint();
        let calling = async {
            let transport = self.network.transport([2; 32]);
            let mut stream = transport
                .dial(&endpoint, Service::Calls)
                .await
                .expect("reachable")
                .stream;
            let now = self.clock.now();
            let greeted = receive_greeting(&mut *stream, &endpoint, now, LONG).await;
            let welcome = greeted.expect("a greeting");
            let taking = TokenQuery {
                endpoint,
                plan: None,
                provider: None,
                call: seed(),
                now,
                valid_at: now,
                resuming: Resuming::Soon,
            };
            let wallet = customer.wallet().expect("a wallet");
            let held = wallet.reserve(&taking).expect("readable").expect("a token");
            let request = Request {
                function: FunctionSource::Known(FunctionId::of(b"upper")),
                args: vec![],
                input: vec![],
                seed: *held.seed(),
                http: None,
                token: Some(held.token()),
            };
            let plan = &welcome.advert.plans[0].name;
            let sealed = SealedCall::seal(&welcome.sealing, plan, &request, &mut os_rng());
            let _ = exchange(&mut *stream, sealed.expect("seals"), LONG).await;
        };
        tokio::join!(calling, self.serve(face)).1
    }
}
