//! A provider that tells its customers apart by the keys or the epoch that it
//! sold them tokens under: its customers send it none, or it does not know
//! whose they are. And it does know, when the customers do not look.

use std::ops::{Add, Mul};
use std::sync::Arc;
use std::time::Duration;

use dlambda_client::wallet::{Resuming, TokenQuery};
use dlambda_client::{Call, CallError, ContractError, ProposalOutcome, Querier, Wallet};
use dlambda_crypto::negotiation::{Issuers, grant};
use dlambda_crypto::seal::{SealedCall, SealingSecret};
use dlambda_executor::Isolation;
use dlambda_privacy::clock::{Clock as _, FakeClock};
use dlambda_privacy::exchange::{VerifiedGreeting, exchange, receive_greeting};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Listener, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame};
use dlambda_proto::{
    Advert, BatchSize, CallEnvelope, CallToken, ContractAnswer, ContractEnvelope, ContractRequest,
    Endpoint, Epoch, EquivocationProof, Evidence, Finding, Frame, FrameKind, FunctionId,
    FunctionSource, Greeting, IdentityKey, PastEpoch, Plan, PublishedFunction, ReceiptKey, Refusal,
    Request, SignedAdvert, UnixSeconds, Validity, decode, encode,
};
use dlambda_reputation::Arbiter;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};
use tempfile::TempDir;

use super::market::{Market, seed, send, wish};
use crate::support::{LONG, NOW, alias, querier, skip_second_look};

const DAY: u64 = 24 * 3600;
/// Of the provider's identity.
const SEED: [u8; 32] = [4; 32];

/// Keys, and the advert that they are in.
struct Face {
    advert: Advert,
    secret: SealingSecret,
    issuers: Issuers,
}

/// A provider made by hand, on a network with its customers.
struct Tagger {
    identity: IdentityKey,
    network: MemoryNetwork,
    clock: Arc<FakeClock>,
    listener: tokio::sync::Mutex<Box<dyn Listener>>,
    dir: TempDir,
}

impl Tagger {
    async fn new() -> Self {
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

    fn endpoint(&self) -> Endpoint {
        self.network.transport([3; 32]).endpoint()
    }

    /// Fresh keys for an epoch that begins now.
    fn face(&self, epoch: u64, history: Vec<PastEpoch>) -> Face {
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

    fn past(&self, face: &Face) -> PastEpoch {
        let signed = face.advert.sign(&self.identity).expect("signs");
        signed.authenticate().expect("authentic").as_past()
    }

    fn customer(&self, name: &str) -> Querier {
        let wallet = Wallet::open(&self.dir.path().join(name)).expect("a wallet");
        querier(&self.network, &self.clock).with_wallet(wallet)
    }

    /// Shows this face to one visitor: sells, or takes what comes and answers
    /// that it cannot be opened. The token that came, if one did.
    async fn serve(&self, face: &Face) -> Option<CallToken> {
        let signed = face.advert.sign(&self.identity).expect("signs");
        self.serve_signed(face, signed).await
    }

    async fn serve_signed(&self, face: &Face, signed: SignedAdvert) -> Option<CallToken> {
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

    async fn sell(&self, stream: &mut BoxStream, face: &Face, frame: &Frame) {
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

    async fn open(&self, stream: &mut BoxStream, face: &Face, frame: &Frame) -> Option<CallToken> {
        let envelope: CallEnvelope = decode(frame.body()).expect("an envelope");
        let opened = face.secret.open(&envelope).expect("opens");
        let refusal = Frame::new(FrameKind::Refusal, encode(&Refusal::CannotOpen));
        send(stream, &refusal.expect("fits")).await;
        opened.request.token
    }

    /// Sells eight calls under this face. The second look sees what the
    /// provider wants it to see.
    async fn sell_under(&self, face: &Face, customer: &Querier) -> Result<(), ContractError> {
        let (endpoint, wish) = (self.endpoint(), wish(BatchSize::Calls8));
        let buying = customer.contract(&endpoint, &wish, LONG, |_| true, |_| {});
        let (bought, _) = tokio::join!(buying, self.serve(face));
        assert!(matches!(bought?, ProposalOutcome::Signed(_)));
        skip_second_look(customer.wallet().expect("a wallet"));
        Ok(())
    }

    /// A call under this face: what the customer says, and what the provider got.
    async fn call(&self, face: &Face, customer: &Querier) -> (CallError, Option<CallToken>) {
        let call = Call::new(self.endpoint(), alias("upper"));
        let calling = customer.call(&call, LONG, |_| {});
        let (called, token) = tokio::join!(calling, self.serve(face));
        (called.expect_err("nobody is answered"), token)
    }

    /// A call by a customer who sends a token to whatever advert there is.
    async fn careless_call(&self, face: &Face, customer: &Querier) -> Option<CallToken> {
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

/// Which of these faces a token was sold under: the provider's attribution.
fn sold_under(faces: &[&Face], token: &CallToken) -> Vec<usize> {
    let recognised = faces.iter().enumerate().filter(|(_, face)| {
        let issuer = face.issuers.calls.values().next().expect("one plan");
        face.advert.epoch == token.epoch && issuer.recognises(token)
    });
    recognised.map(|(index, _)| index).collect()
}

/// Two customers who bought in one epoch, each under keys of its own, and
/// another epoch's advert for each thing that the provider can say of that.
#[tokio::test(flavor = "multi_thread")]
async fn keys_of_ones_own_do_not_tell_customers_apart_after_the_epoch_has_turned() {
    let provider = Tagger::new().await;
    let faces = [provider.face(1, vec![]), provider.face(1, vec![])];
    let customers = ["xenia", "yves"].map(|name| provider.customer(name));
    for (face, customer) in faces.iter().zip(&customers) {
        provider.sell_under(face, customer).await.expect("bought");
    }
    let listed = [0, 1].map(|index: usize| provider.past(&faces[index]));
    let both = [&faces[0], &faces[1]];
    provider.clock.advance(DAY);
    for (history, served) in [
        (vec![listed[0]], Some(0)),
        (vec![listed[1]], Some(1)),
        (vec![], None),
    ] {
        let next = provider.face(2, history);
        // Fresh processes: they know what is in their wallets.
        let customers = ["xenia", "yves"].map(|name| provider.customer(name));
        for (index, customer) in customers.iter().enumerate() {
            skip_second_look(customer.wallet().expect("a wallet"));
            let (error, token) = provider.call(&next, customer).await;
            assert_eq!(token.is_some(), served == Some(index), "{error}");
            match served {
                Some(served) if served == index => {}
                Some(_) => {
                    let CallError::Equivocation(proof) = error else {
                        panic!("{error}");
                    };
                    assert!(proof.verify().is_ok(), "it convinces anybody");
                }
                None => assert!(matches!(error, CallError::Unlisted), "{error}"),
            }
        }
    }
    // The control: tokens that are sent all the same say whose they are.
    let next = provider.face(3, vec![]);
    for (index, customer) in customers.iter().enumerate() {
        skip_second_look(customer.wallet().expect("a wallet"));
        let token = provider.careless_call(&next, customer).await;
        assert_eq!(sold_under(&both, &token.expect("sent")), [index]);
    }
}

/// The provider lists what it did: an epoch for each visitor, a week of them in seconds.
#[tokio::test(flavor = "multi_thread")]
async fn an_epoch_for_each_visitor_finds_no_visitors() {
    let provider = Tagger::new().await;
    let mut history = Vec::new();
    let mut faces: Vec<Face> = Vec::new();
    for number in 0..4 {
        if let Some(last) = faces.last() {
            history.push(provider.past(last));
        }
        faces.push(provider.face(number + 1, history.clone()));
        provider.clock.advance(7);
    }
    let careful: Vec<_> = (0..4)
        .map(|it| provider.customer(&format!("careful {it}")))
        .collect();
    let careless: Vec<_> = (0..4)
        .map(|it| provider.customer(&format!("careless {it}")))
        .map(|it| it.dangerously_allowing_early_ends(usize::MAX))
        .collect();
    for (number, face) in faces.iter().enumerate() {
        let bought = provider.sell_under(face, &careful[number]).await;
        // The first two saw no more than what a change of the offer brings about.
        let is_refused = matches!(bought, Err(ContractError::EarlyEnds(ended)) if ended == number);
        assert_eq!(is_refused, number > 1, "{bought:?}");
        let bought = provider.sell_under(face, &careless[number]).await;
        bought.expect("whoever allows it buys");
    }
    let (latest, all) = (&faces[3], faces.iter().collect::<Vec<_>>());
    for customer in &careful[..2] {
        let (error, token) = provider.call(latest, customer).await;
        assert!(matches!(error, CallError::EarlyEnds(3)), "{error}");
        assert!(token.is_none());
        let listing = customer
            .wallet()
            .expect("a wallet")
            .contracts(NOW)
            .expect("lists");
        assert_eq!(listing.contracts[0].early_ends, 3, "it is kept");
    }
    // The control: those who allow it are all known.
    for (number, customer) in careless.iter().enumerate() {
        let (_, token) = provider.call(latest, customer).await;
        assert_eq!(sold_under(&all, &token.expect("sent")), [number]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_look_that_sees_other_keys_keeps_the_tokens_back() {
    let provider = Tagger::new().await;
    let (usual, marked) = (provider.face(1, vec![]), provider.face(1, vec![]));
    let (endpoint, wish) = (provider.endpoint(), wish(BatchSize::Calls8));
    let customer = provider.customer("xenia");
    let buying = customer.contract(&endpoint, &wish, LONG, |_| true, |_| {});
    let (bought, _) = tokio::join!(buying, provider.serve(&marked));
    assert!(
        matches!(bought, Ok(ProposalOutcome::Signed(_))),
        "{bought:?}"
    );
    // Not even to the keys that they were bought under.
    let (error, token) = provider.call(&marked, &customer).await;
    assert!(matches!(error, CallError::Unchecked(_)), "{error}");
    assert!(token.is_none());
    let (looked, _) = tokio::join!(customer.look_again(LONG), provider.serve(&usual));
    let Err(ContractError::Equivocation(proof)) = looked else {
        panic!("{looked:?}");
    };
    assert!(proof.verify().is_ok());
    assert_eq!(
        customer
            .wallet()
            .expect("a wallet")
            .unchecked(provider.clock.now())
            .expect("lists")
            .len(),
        1
    );
    // An epoch later it leaves the marked one out, or owns up to it.
    provider.clock.advance(DAY);
    let silent = provider.face(2, vec![]);
    let later = provider.customer("xenia");
    let (looked, _) = tokio::join!(later.look_again(LONG), provider.serve(&silent));
    assert_eq!(looked.expect("an answer").unlisted, 1);
    let honest = provider.face(3, vec![provider.past(&marked)]);
    let later = provider.customer("xenia");
    let (looked, _) = tokio::join!(later.look_again(LONG), provider.serve(&honest));
    assert_eq!(looked.expect("an answer").checked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_spent_after_a_second_look_which_sends_nothing() {
    let market = Market::open().await;
    let anne = market.customer("anne");
    let (endpoint, wish) = (market.endpoint(), wish(BatchSize::Calls8));
    let offered = anne.contract(&endpoint, &wish, LONG, |_| true, |_| {});
    offered.await.expect("an offer");
    let called = anne.call(&market.call("early"), LONG, |_| {}).await;
    assert!(matches!(called, Err(CallError::Unchecked(_))), "{called:?}");
    let looked = anne.look_again(LONG).await.expect("an answer");
    assert_eq!((looked.checked, looked.left, looked.unlisted), (1, 0, 0));
    let called = anne.call(&market.call("paid"), LONG, |_| {}).await;
    assert_eq!(called.expect("an answer").stdout, b"PAID");
    anne.flush_acks().await;
    let records = market.records(4).await;
    assert!(records.iter().filter(|it| it.received.is_empty()).count() == 2);
}

/// The hook for adverts that come by another way than a stream.
#[tokio::test(flavor = "multi_thread")]
async fn an_advert_seen_elsewhere_is_compared_with_those_in_the_wallet() {
    let provider = Tagger::new().await;
    let (usual, marked) = (provider.face(1, vec![]), provider.face(1, vec![]));
    let customer = provider.customer("xenia");
    provider
        .sell_under(&marked, &customer)
        .await
        .expect("bought");
    let next = provider.face(2, vec![provider.past(&usual)]);
    for (elsewhere, contradicts) in [(&usual, true), (&marked, false), (&next, true)] {
        let elsewhere = elsewhere.advert.sign(&provider.identity).expect("signs");
        // A fresh process, which has nothing but the wallet.
        let compared = provider.customer("xenia").compare(elsewhere).await;
        let proof = compared.expect("readable");
        assert_eq!(proof.is_some(), contradicts);
        assert!(proof.is_none_or(|proof| proof.verify().is_ok()));
    }
}

/// A number modulo the order of Ed25519's group, from little-endian bytes.
fn scalar<S>(_like: S, bytes: &[u8; 64]) -> S
where
    S: From<u128> + Add<Output = S> + Mul<Output = S> + Copy,
{
    let base = S::from(u128::MAX) + S::from(1);
    let parts = bytes.chunks_exact(16).rev().map(|part| {
        let part: [u8; 16] = part.try_into().expect("16 bytes");
        S::from(u128::from_le_bytes(part))
    });
    parts.fold(S::from(0), |sum, part| sum * base + part)
}

/// Signs the same advert as RFC 8032 does, but for the nonce, which is another.
fn sign_again(face: &Face) -> SignedAdvert {
    let usual = face
        .advert
        .sign(&IdentityKey::from_seed(&SEED))
        .expect("signs");
    let (key, nonce) = (
        SigningKey::from_bytes(&SEED),
        SigningKey::from_bytes(&[9; 32]),
    );
    let message = [b"dlambda/advert/v1\0", &encode(&face.advert)[..]].concat();
    let r = nonce.verifying_key().to_bytes();
    let hash = Sha512::digest([&r[..], key.verifying_key().as_bytes(), &message].concat());
    let secret = key.to_scalar();
    let s = nonce.to_scalar() + scalar(secret, &hash.into()) * secret;
    let mut bytes = encode(&usual);
    let end = bytes.len() - 64;
    bytes[end..].copy_from_slice(&[r, s.to_bytes()].concat());
    assert_ne!(bytes, encode(&usual));
    decode(&bytes).expect("decodes")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_advert_under_another_signature_ends_no_call_and_convicts_nobody() {
    let provider = Tagger::new().await;
    let face = provider.face(1, vec![]);
    let customer = provider.customer("xenia");
    provider.sell_under(&face, &customer).await.expect("bought");
    let again = sign_again(&face);
    // Who remembers the other signature, and who finds it in the wallet.
    for customer in [&customer, &provider.customer("xenia")] {
        let call = Call::new(provider.endpoint(), alias("upper")).input(seed());
        let calling = customer.call(&call, LONG, |_| {});
        let (called, token) = tokio::join!(calling, provider.serve_signed(&face, again.clone()));
        assert!(matches!(called, Err(CallError::Exchange(_))), "{called:?}");
        assert!(token.is_some(), "it was sent");
        let (endpoint, wish) = (provider.endpoint(), wish(BatchSize::Calls8));
        let buying = customer.contract(&endpoint, &wish, LONG, |_| true, |_| {});
        let (bought, _) = tokio::join!(buying, provider.serve_signed(&face, again.clone()));
        assert!(
            matches!(bought, Ok(ProposalOutcome::Signed(_))),
            "{bought:?}"
        );
        let (looked, _) = tokio::join!(
            customer.look_again(LONG),
            provider.serve_signed(&face, again.clone())
        );
        assert_eq!(looked.expect("an answer").checked, 1);
    }
    let usual = face.advert.sign(&provider.identity).expect("signs");
    let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, LONG);
    let mut other = provider.face(1, vec![]);
    other.advert.max_function_bytes += 1;
    let other = other.advert.sign(&provider.identity).expect("signs");
    for (other, finding) in [
        (again, Finding::Unproven),
        (other, Finding::ProviderAtFault),
    ] {
        let one = usual.clone();
        let evidence = Evidence::Equivocation(EquivocationProof { one, other });
        let judgement = arbiter.judge(&evidence).await.expect("needs no run");
        assert_eq!(judgement.finding, finding, "{}", judgement.reason);
    }
}

/// Whatever ends the provider: what it shows afterwards vouches for what it showed before.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_shows_the_same_advert_after_a_restart_and_lists_it_after_a_change() {
    let mut market = Market::open().await;
    let anne = market.customer("anne");
    market.buy(&anne, BatchSize::Calls8).await;
    let shown = |welcome: &VerifiedGreeting| welcome.advert.authentic().clone();
    let first = market.greet().await.1;
    market.restart().await;
    let second = market.greet().await.1;
    assert!(first.advert == second.advert && first.sealing != second.sealing);
    market.config.max_function_bytes -= 1;
    market.restart().await;
    let changed = shown(&market.greet().await.1);
    assert!(changed.epoch > first.advert.epoch);
    assert!(changed.vouches_for(&shown(&first)));
    assert_eq!(changed.early_ends(), 1);
    market.next_epoch().await;
    let next = shown(&market.greet().await.1);
    assert!(next.vouches_for(&changed) && next.vouches_for(&shown(&first)));
    // Tokens of the first epoch are good all along.
    let called = market
        .customer("anne")
        .call(&market.call("paid"), LONG, |_| {})
        .await;
    assert_eq!(called.expect("an answer").stdout, b"PAID");
}
