//! A provider that shows a customer other keys than before, to know it again:
//! no token ever reaches it.

use std::sync::Arc;
use std::time::Duration;

use dlambda_client::{Call, CallError, ContractError, Querier, Wallet};
use dlambda_crypto::negotiation::{Issuers, grant};
use dlambda_crypto::seal::SealingSecret;
use dlambda_privacy::clock::FakeClock;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Listener, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame};
use dlambda_proto::{
    Advert, BatchSize, ContractAnswer, ContractEnvelope, ContractRequest, Endpoint, Epoch,
    ErrorKind, Frame, FrameKind, FunctionId, Greeting, HasKind as _, IdentityKey, Plan,
    PublishedFunction, ReceiptKey, UnixSeconds, decode, encode,
};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;

use super::market::{send, wish};
use crate::support::{LONG, NOW, alias, querier, skip_second_look};

/// A provider made by hand, and one customer.
struct TwoFaced {
    identity: IdentityKey,
    secret: SealingSecret,
    issuers: Issuers,
    advert: Advert,
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    dir: TempDir,
}

impl TwoFaced {
    fn new() -> Self {
        let identity = IdentityKey::from_seed(&[4; 32]);
        let secret = SealingSecret::generate(identity.id(), EPOCH, &mut os_rng());
        let plans = Plan::standard_menu();
        let names: Vec<_> = plans.iter().map(|plan| plan.name.clone()).collect();
        let issuers = Issuers::generate(&[6; 32], &identity.id(), EPOCH, &names, &mut os_rng());
        let issuers = issuers.expect("keys");
        let network = MemoryNetwork::new(Duration::ZERO);
        let call_keys = names.iter().map(|name| issuers.calls[name].key());
        let ratings = issuers.ratings.as_ref().expect("a key");
        let advert = Advert {
            call_keys: call_keys.collect(),
            rating_key: ratings.key().to_vec(),
            functions: vec![function("upper")],
            plans,
            ..Advert::minimal(
                identity.id(),
                EPOCH,
                UnixSeconds(NOW.0 - 10),
                ReceiptKey::from_seed(&[5; 32]).id(),
                network.transport([3; 32]).endpoint(),
            )
        };
        Self {
            identity,
            secret,
            issuers,
            advert,
            network,
            clock: Arc::new(FakeClock::at(NOW)),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn endpoint(&self) -> Endpoint {
        self.advert.endpoints[0]
    }

    fn wallet(&self) -> Wallet {
        Wallet::open(&self.dir.path().join("wallet")).expect("a wallet")
    }

    fn customer(&self) -> Querier {
        querier(&self.network, &self.clock).with_wallet(self.wallet())
    }

    async fn listen(&self) -> Box<dyn Listener> {
        let listening = self.network.transport([3; 32]).listen(Service::Calls).await;
        listening.expect("listens")
    }

    async fn greet(&self, stream: &mut BoxStream, advert: &Advert) {
        let greeting = Greeting {
            advert: advert.sign(&self.identity).expect("signs"),
            sealing: self
                .secret
                .sealing_key()
                .sign(&self.identity)
                .expect("signs"),
            effort: 0,
        };
        let frame = Frame::new(FrameKind::Advert, encode(&greeting)).expect("fits");
        send(stream, &frame).await;
    }

    /// Shows its usual advert and makes a contract.
    async fn sell(&self, stream: &mut BoxStream) {
        self.greet(stream, &self.advert).await;
        let budget = Budget::new(1 << 20);
        while let Ok((frame, _)) =
            read_frame(&mut **stream, &[FrameKind::Contract], LONG, &budget).await
        {
            let envelope: ContractEnvelope = decode(frame.body()).expect("an envelope");
            let opened = self.secret.open_contract(&envelope).expect("opens");
            let answer = match opened.request {
                ContractRequest::Propose(proposal) => {
                    let granted = grant(&proposal, &self.identity, &self.issuers);
                    ContractAnswer::Granted(granted.expect("a good proposal"))
                }
                _ => ContractAnswer::Confirmed,
            };
            send(stream, &opened.answerer.seal(&answer).expect("seals")).await;
        }
    }

    /// Shows this advert on one stream, and returns all that comes.
    async fn lure(&self, listener: &mut Box<dyn Listener>, advert: &Advert) -> Vec<u8> {
        let mut stream = listener.accept().await.expect("a caller").connection.stream;
        self.greet(&mut stream, advert).await;
        let mut received = Vec::new();
        // Something, or the end; who waits for a reply would wait for ever.
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap_or(0);
        received.extend(&part[..count]);
        received
    }

    /// Sells eight calls to this customer.
    async fn sell_to(&self, listener: &mut Box<dyn Listener>, querier: &Querier) {
        let (endpoint, wish) = (self.endpoint(), wish(BatchSize::Calls8));
        let buying = querier.contract(&endpoint, &wish, LONG, |_| true, |_| {});
        let selling = async {
            let mut incoming = listener.accept().await.expect("a caller");
            self.sell(&mut incoming.connection.stream).await;
        };
        let (bought, ()) = tokio::join!(buying, selling);
        bought.expect("a contract");
        skip_second_look(&self.wallet());
        assert_eq!(self.tokens_left(), 8);
    }

    fn tokens_left(&self) -> usize {
        let left = self.wallet().tokens_left(&self.endpoint(), None, NOW);
        left.expect("readable")
    }

    /// Other adverts for the same epoch, each with something to know a caller by.
    fn others(&self) -> Vec<Advert> {
        let usual = &self.advert;
        let mut of_another_length = usual.clone();
        of_another_length.period.until.0 -= 1;
        let mut tokens_of_another = usual.clone();
        tokens_of_another.call_keys[0].key = tokens_of_another.call_keys[1].key;
        let mut receipts_of_another = usual.clone();
        receipts_of_another.receipt_key = ReceiptKey::from_seed(&[9; 32]).id();
        let mut with_a_function_of_its_own = usual.clone();
        with_a_function_of_its_own.functions.push(function("mark"));
        vec![
            of_another_length,
            tokens_of_another,
            receipts_of_another,
            with_a_function_of_its_own,
        ]
    }
}

const EPOCH: Epoch = Epoch(1);

fn function(alias: &str) -> PublishedFunction {
    PublishedFunction {
        id: FunctionId::of(alias.as_bytes()),
        alias: alias.to_owned(),
        size: 0,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_never_leaves_for_another_advert() {
    let provider = TwoFaced::new();
    let mut listener = provider.listen().await;
    let buyer = provider.customer();
    provider.sell_to(&mut listener, &buyer).await;
    let call = Call::new(provider.endpoint(), alias("upper"));
    for other in provider.others() {
        // Who remembers the advert, and who finds it in the wallet.
        for caller in [&buyer, &provider.customer()] {
            let calling = caller.call(&call, LONG, |_| {});
            let (called, received) = tokio::join!(calling, provider.lure(&mut listener, &other));
            assert_eq!(received, b"", "no byte has left");
            let error = called.expect_err("equivocation");
            assert_eq!(error.kind(), ErrorKind::ProviderMisbehaved);
            let CallError::Equivocation(proof) = error else {
                panic!("{error}");
            };
            let (one, two) = proof.verify().expect("it convinces anybody");
            let shown = [&provider.advert, &other];
            assert!(shown.contains(&&*one) && shown.contains(&&*two) && one != two);
            assert_eq!(provider.tokens_left(), 8, "and none was lost");
        }
    }
    // To the advert that it was bought under, a token does leave.
    let calling = buyer.call(&call, Duration::from_secs(10), |_| {});
    let honest = async { provider.lure(&mut listener, &provider.advert).await };
    tokio::select! {
        called = calling => panic!("{called:?}"),
        received = honest => assert!(!received.is_empty()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_proposed_under_another_advert() {
    let provider = TwoFaced::new();
    let mut listener = provider.listen().await;
    let buyer = provider.customer();
    provider.sell_to(&mut listener, &buyer).await;
    let (endpoint, wish) = (provider.endpoint(), wish(BatchSize::Calls8));
    for other in provider.others() {
        for caller in [&buyer, &provider.customer()] {
            let buying = caller.contract(&endpoint, &wish, LONG, |_| true, |_| {});
            let (bought, received) = tokio::join!(buying, provider.lure(&mut listener, &other));
            assert_eq!(received, b"", "no byte has left");
            let error = bought.expect_err("equivocation");
            let ContractError::Equivocation(proof) = error else {
                panic!("{error}");
            };
            assert!(proof.verify().is_ok());
        }
    }
    let drafts = provider.wallet().drafts().expect("readable");
    assert!(drafts.is_empty());
}
