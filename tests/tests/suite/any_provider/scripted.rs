//! A provider that follows a script, and sells tokens that only it knows.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dlambda_client::Wallet;
use dlambda_client::wallet::Draft;
use dlambda_crypto::seal::SealingSecret;
use dlambda_executor::fingerprint;
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{
    Advert, BatchSize, CallEnvelope, CallKey, CallToken, Completion, Contract, ContractKey,
    Endpoint, Epoch, Frame, FrameKind, FunctionId, FunctionSource, Greeting, IdentityKey, Payment,
    PaymentMethod, PublishedFunction, RatingKey, RatingToken, Receipt, ReceiptKey, Reply, Request,
    SealingKey, SignedContract, Technology, TokenKeyId, TokenProblem, UnixSeconds, Usage, decode,
    encode,
};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::contracts::market::seed;
use crate::support::{LONG, NOW};

/// What it does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// Answers with the input in upper case.
    Answer,
    /// Answers with something else, and signs it.
    Lie,
    /// Says that it is busy.
    Busy,
    /// Reads the call and says nothing.
    Silent,
    /// Answers with a receipt for another answer.
    WrongReceipt,
    /// Says that the token is spent.
    Unpaid,
    /// Hangs up after the call, and then shows another plan first.
    OtherPlans,
    /// Shows a key that nothing can be sealed to.
    BadKey,
}

/// A provider in this process, without a function or an executor.
pub(super) struct Scripted {
    pub(super) endpoint: Endpoint,
    script: Arc<Script>,
    task: JoinHandle<()>,
}

struct Script {
    act: Act,
    /// For the time from a call to its answer.
    takes: Duration,
    identity: IdentityKey,
    secret: SealingSecret,
    receipts: ReceiptKey,
    advert: Advert,
    requests: Mutex<Vec<Request>>,
    /// How long streams were held on which it was silent.
    held: Mutex<Vec<Duration>>,
    streams: AtomicUsize,
}

impl Scripted {
    /// A provider with this key that publishes a function as `upper`.
    pub(super) async fn start(
        network: &MemoryNetwork,
        key: u8,
        function: FunctionId,
        act: Act,
    ) -> Self {
        Self::start_slow(network, key, function, act, Duration::ZERO).await
    }

    /// The same, and an answer takes this time.
    pub(super) async fn start_slow(
        network: &MemoryNetwork,
        key: u8,
        function: FunctionId,
        act: Act,
        takes: Duration,
    ) -> Self {
        let transport = network.transport([key; 32]);
        let endpoint = transport.endpoint();
        let mut listener = transport.listen(Service::Calls).await.expect("listens");
        let script = Arc::new(Script::new(key, endpoint, function, act, takes));
        let serving = Arc::clone(&script);
        let task = tokio::spawn(async move {
            while let Some(incoming) = listener.accept().await {
                let script = Arc::clone(&serving);
                tokio::spawn(async move { script.serve(incoming.connection.stream).await });
            }
        });
        Self {
            endpoint,
            script,
            task,
        }
    }

    /// Puts a contract with its tokens into a wallet.
    pub(super) fn sell(&self, wallet: &Wallet, calls: BatchSize) {
        self.script.sell(self.endpoint, 0, wallet, calls);
    }

    /// The same for its last plan.
    pub(super) fn sell_last_plan(&self, wallet: &Wallet, calls: BatchSize) {
        let last = self.script.advert.plans.len() - 1;
        self.script.sell(self.endpoint, last, wallet, calls);
    }

    /// The same under another identity, which is reached at the same address.
    pub(super) fn sell_as(&self, key: u8, wallet: &Wallet, calls: BatchSize) {
        let function = self.script.advert.functions[0].id;
        let other = Script::new(key, self.endpoint, function, Act::Lie, Duration::ZERO);
        other.sell(self.endpoint, 0, wallet, calls);
    }

    /// From now on nobody is there.
    pub(super) async fn stop(&self) {
        self.task.abort();
        while !self.task.is_finished() {
            tokio::task::yield_now().await;
        }
    }

    /// Every request that came.
    pub(super) fn requests(&self) -> Vec<Request> {
        self.script.requests.lock().expect("not poisoned").clone()
    }

    /// How long it was waited for, each time that it was silent.
    pub(super) fn held(&self) -> Vec<Duration> {
        self.script.held.lock().expect("not poisoned").clone()
    }

    /// How many different tokens came.
    pub(super) fn tokens(&self) -> usize {
        let requests = self.requests().into_iter();
        let nonces = requests.filter_map(|it| Some(it.token?.nonce));
        nonces.collect::<HashSet<_>>().len()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Script {
    fn new(key: u8, endpoint: Endpoint, function: FunctionId, act: Act, takes: Duration) -> Self {
        let identity = IdentityKey::from_seed(&[key; 32]);
        let secret = SealingSecret::generate(identity.id(), Epoch(1), &mut os_rng());
        let receipts = ReceiptKey::from_seed(&[key ^ 0x80; 32]);
        let began = UnixSeconds(NOW.0 - 4 * 3600);
        let mut advert = Advert::minimal(identity.id(), Epoch(1), began, receipts.id(), endpoint);
        for plan in &mut advert.plans {
            plan.needs_token = true;
        }
        let keys = advert.plans.iter().map(|plan| CallKey {
            plan: plan.name.clone(),
            key: [key; 32],
        });
        advert.call_keys = keys.collect();
        advert.rating_key = vec![key; 300];
        advert.functions = vec![PublishedFunction {
            id: function,
            alias: "upper".to_owned(),
            size: 1,
        }];
        Self {
            act,
            takes,
            identity,
            secret,
            receipts,
            advert,
            requests: Mutex::default(),
            held: Mutex::default(),
            streams: AtomicUsize::new(0),
        }
    }

    /// What it shows on a stream.
    fn shown(&self) -> (Advert, SealingKey) {
        let (mut advert, mut sealing) = (self.advert.clone(), self.secret.sealing_key());
        let is_first = self.streams.fetch_add(1, Ordering::SeqCst) == 0;
        match self.act {
            Act::BadKey => sealing.key = [0; 32],
            Act::OtherPlans if !is_first => {
                advert.plans.reverse();
                advert.call_keys.reverse();
                advert.epoch = Epoch(2);
                sealing.epoch = Epoch(2);
            }
            _ => {}
        }
        (advert, sealing)
    }

    fn sell(&self, endpoint: Endpoint, plan: usize, wallet: &Wallet, calls: BatchSize) {
        let advert = self.advert.sign(&self.identity).expect("signs");
        let key = ContractKey::from_seed(&seed());
        let contract = Contract {
            provider: self.identity.id(),
            client: key.id(),
            epoch: Epoch(1),
            plan: self.advert.plans[plan].clone(),
            calls,
            payment: Payment {
                total: 0,
                method: PaymentMethod::Gratis,
            },
            service: self.advert.service,
            technology: Technology {
                deterministic: true,
                tee: None,
            },
            validity: self.advert.tokens,
            call_key: TokenKeyId([1; 32]),
            rating_key: TokenKeyId([2; 32]),
        };
        let id = contract.id();
        let draft = Draft {
            endpoint,
            advert: advert.clone(),
            contract: contract.clone(),
            seed: seed(),
            invitation: None,
        };
        wallet.begin(&draft).expect("begins");
        let provider_signature = contract.sign(&self.identity);
        let signed = SignedContract {
            client_signature: contract.countersign(&provider_signature, &key),
            contract,
            provider_signature,
        };
        let token = |_| CallToken {
            epoch: Epoch(1),
            nonce: seed(),
            authenticator: [0xaa; 64],
        };
        let tokens = (0..calls.calls()).map(token).collect();
        let rating = |_| {
            let seed = seed();
            let token = RatingToken {
                epoch: Epoch(1),
                key: RatingKey::from_seed(&seed).id(),
                authenticator: vec![0xbb; 256],
            };
            (token, seed)
        };
        let ratings = (0..calls.ratings()).map(rating).collect();
        wallet
            .complete(&id, signed, tokens, ratings)
            .expect("completes");
        wallet.confirmed(&id).expect("confirms");
        let shown = advert.authenticate().expect("authentic");
        wallet.checked(&id, &shown).expect("checks");
    }

    async fn serve(&self, mut stream: BoxStream) {
        let (advert, sealing) = self.shown();
        let greeting = Greeting {
            advert: advert.sign(&self.identity).expect("signs"),
            sealing: sealing.sign(&self.identity).expect("signs"),
            effort: 0,
        };
        let greeting = Frame::new(FrameKind::Advert, encode(&greeting)).expect("fits");
        let _ = write_frame(&mut *stream, &greeting, LONG).await;
        let greeted = Instant::now();
        let budget = Budget::new(8 << 20);
        let call = read_frame(&mut *stream, &[FrameKind::Call], LONG, &budget).await;
        let Ok((call, _)) = call else { return };
        let envelope: CallEnvelope = decode(call.body()).expect("an envelope");
        let opened = self.secret.open(&envelope).expect("opens");
        let requests = || self.requests.lock().expect("not poisoned");
        requests().push(opened.request.clone());
        if self.act == Act::OtherPlans {
            return;
        }
        if self.act == Act::Silent {
            let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            let mut held = self.held.lock().expect("not poisoned");
            held.push(greeted.elapsed());
            return;
        }
        tokio::time::sleep(self.takes).await;
        let reply = self.reply(&opened.request, &envelope);
        let sealed = opened.replier.seal(&reply).expect("seals");
        let frame = Frame::new(FrameKind::Reply, sealed).expect("fits");
        let _ = write_frame(&mut *stream, &frame, LONG).await;
        let _ = read_frame(&mut *stream, &[FrameKind::Ack], LONG, &budget).await;
    }

    fn reply(&self, request: &Request, envelope: &CallEnvelope) -> Reply {
        let stdout = match self.act {
            Act::Lie => b"a lie".to_vec(),
            _ => request.input.to_ascii_uppercase(),
        };
        let completion = match self.act {
            Act::Busy => Completion::Busy { retry_seconds: 60 },
            Act::Unpaid => Completion::Unpaid(TokenProblem::Spent),
            _ => Completion::Exited {
                status: 0,
                stdout,
                stderr: vec![],
                http: None,
            },
        };
        let mut reply = Reply {
            completion,
            usage: Usage {
                deterministic: true,
                fuel: 1_000,
                peak_memory_bytes: 1 << 20,
                ..Usage::default()
            },
            engine: fingerprint(),
            receipt: None,
        };
        let FunctionSource::Known(function) = request.function else {
            panic!("functions are known");
        };
        let receipt = Receipt::of(
            &reply,
            self.identity.id(),
            Epoch(1),
            envelope.header.plan.clone(),
            function,
            request.digest(&function),
            &request.seed,
        );
        let receipt = receipt.map(|mut receipt| {
            receipt.fuel += u64::from(self.act == Act::WrongReceipt);
            receipt.sign(&self.receipts)
        });
        reply.receipt = receipt;
        reply
    }
}
