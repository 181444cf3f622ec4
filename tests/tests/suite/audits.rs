//! Audits: an honest provider is never found at fault, and a lying one always.

use std::sync::Arc;
use std::time::Duration;

use dlambda_client::wallet::Wallet;
use dlambda_client::{Call, CallError, CallOutcome, FunctionName, Querier};
use dlambda_crypto::negotiation::ContractOptions;
use dlambda_crypto::seal::SealingSecret;
use dlambda_executor::{Executor, ExecutorConfig, Isolation, fingerprint, replay};
use dlambda_privacy::clock::{Clock, FakeClock};
use dlambda_privacy::os_rng;
use dlambda_privacy::transport::memory::MemoryNetwork;
use dlambda_privacy::transport::{BoxStream, Service, Transport as _};
use dlambda_privacy::wire::{Budget, read_frame, write_frame};
use dlambda_proto::{
    Advert, BatchSize, CallEnvelope, Completion, Endpoint, Epoch, Evidence, Finding, Frame,
    FrameKind, FraudProof, FunctionId, FunctionSource, Greeting, IdentityKey, OnionAddress,
    Receipt, ReceiptKey, Reply, Request, StopKind, UnixSeconds, Usage, decode, encode,
};
use dlambda_provider::ProviderConfig;
use dlambda_reputation::Arbiter;

use crate::support::{LONG, NOW, World, functions, querier, skip_second_look};

const MOST: Duration = Duration::from_secs(600);

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// A function nobody has seen before: it mixes its input, its random numbers
/// and its clock for a random number of rounds, writes some of it, and ends in
/// one of many ways.
fn function(numbers: &mut Numbers) -> Vec<u8> {
    let operations = [
        "i32.add", "i32.xor", "i32.mul", "i32.sub", "i32.rotl", "i32.or",
    ];
    let mut mixing = String::new();
    for _ in 0..1 + numbers.below(6) {
        let operation = operations[usize::try_from(numbers.below(6)).expect("small")];
        let constant = i32::try_from(numbers.below(1 << 31)).expect("fits");
        mixing += &format!("(local.set $x ({operation} (local.get $x) (i32.const {constant})))\n");
    }
    let rounds = 1 + numbers.below(5_000);
    let write = numbers.below(6_000);
    let end = match numbers.below(12) {
        0 => "unreachable".to_owned(),
        1 => "(loop (br 0))".to_owned(),
        2 => "(drop (i32.div_u (i32.const 1) (i32.const 0)))".to_owned(),
        3 => format!("(call $exit (i32.const {}))", numbers.below(256)),
        4 => "(drop (memory.grow (i32.const 900))) (i32.store (i32.const 40000000) (i32.const 1))"
            .to_owned(),
        5 => "(drop (memory.grow (i32.const 20)))".to_owned(),
        6 => "(loop (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))) (br 0))"
            .to_owned(),
        7 => "(drop (call $write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 8)))".to_owned(),
        _ => String::new(),
    };
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 2)
        (func (export "_start") (local $x i32) (local $i i32)
            (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 4096))
            (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
            (drop (call $random (i32.const 16) (i32.const 16)))
            (drop (call $clock (i32.const 0) (i64.const 0) (i32.const 32)))
            (local.set $x (i32.xor (i32.load (i32.const 16)) (i32.load (i32.const 64))))
            (loop $again
                {mixing}
                (i32.store (i32.add (i32.const 64) (i32.and (local.get $i) (i32.const 8188))) (local.get $x))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br_if $again (i32.lt_u (local.get $i) (i32.const {rounds}))))
            (i32.store (i32.const 4) (i32.const {write}))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            {end}))"#
    );
    wat::parse_str(&text).expect("good WAT")
}

/// Plans small enough to be used up in no time.
fn small_plans() -> ProviderConfig {
    let mut config = ProviderConfig::without_tokens();
    for plan in &mut config.plans {
        plan.fuel = 2_000_000;
        plan.memory_bytes = 4 << 20;
        plan.output_bytes = 64 << 10;
        plan.wall_ms = 60_000;
    }
    config
}

fn claim(ended: &CallOutcome, wasm: &[u8], input: &[u8]) -> Option<Evidence> {
    Some(Evidence::Fraud(Box::new(FraudProof {
        evidence: ended.evidence.clone()?,
        request: Request {
            function: FunctionSource::Attached(wasm.to_vec()),
            args: vec![],
            input: input.to_vec(),
            seed: ended.seed,
            http: None,
            token: None,
        },
    })))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_audits_never_condemn_an_honest_provider() {
    let world = World::with(small_plans()).await;
    let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, MOST);
    let mut numbers = Numbers(2026);
    let mut kinds = std::collections::HashMap::<String, u32>::new();
    let published: Vec<Vec<u8>> = ["upper", "sha256", "wordcount", "primes", "digits"]
        .iter()
        .map(|name| std::fs::read(functions().join(format!("{name}.wasm"))).expect("built"))
        .collect();
    let mut made: Vec<Vec<u8>> = Vec::new();
    for number in 0..1_000_usize {
        // Every fifth is a real program; in the end, none is new.
        let wasm = if number % 5 == 0 {
            published[number / 5 % published.len()].clone()
        } else if number > 300 {
            made[number * 7 % made.len()].clone()
        } else {
            made.push(function(&mut numbers));
            made[made.len() - 1].clone()
        };
        let length = numbers.below(2_000);
        let input: Vec<u8> = (0..length)
            .map(|_| u8::try_from(numbers.below(256)).expect("a byte"))
            .collect();
        let call = Call::new(world.endpoint(), FunctionName::Wasm(wasm.clone().into()));
        let call = call.input(input.clone());
        let ended = world.querier().call_outcome(&call, LONG, |_| {}).await;
        let ended = ended.expect("a reply");
        let evidence = claim(&ended, &wasm, &input).expect("a receipt");
        let judgement = arbiter.judge(&evidence).await.expect("it can run");
        assert_eq!(
            judgement.finding,
            Finding::Unproven,
            "audit {number}: {}",
            judgement.reason
        );
        let status = ended.receipt.expect("verified").status;
        *kinds.entry(format!("{status:?}")).or_default() += 1;
    }
    println!("endings: {kinds:?}");
    for expected in [
        "Exited(0)",
        "Stopped(Unreachable)",
        "Stopped(Fuel)",
        "Stopped(Output)",
    ] {
        assert!(
            kinds.contains_key(expected),
            "{expected} is not among {kinds:?}"
        );
    }
}

/// What a provider was patched to do.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lie {
    None,
    Output,
    Fuel,
    EarlyStop,
    Exit,
    Memory,
    AnotherFunction,
    SecondAdvert,
    OtherReceipt,
    NoReceipt,
}

/// A provider that runs functions with the real engine, and lies.
struct Patched {
    identity: IdentityKey,
    secret: SealingSecret,
    receipts: ReceiptKey,
    advert: Advert,
    executor: Executor,
    lie: Lie,
}

impl Patched {
    fn new(lie: Lie) -> Self {
        let identity = IdentityKey::from_seed(&[6; 32]);
        let secret = SealingSecret::generate(identity.id(), Epoch(1), &mut os_rng());
        let receipts = ReceiptKey::from_seed(&[7; 32]);
        let mut advert = Advert::minimal(
            identity.id(),
            Epoch(1),
            UnixSeconds(NOW.0 - 10),
            receipts.id(),
            here(),
        );
        advert.plans = small_plans().plans;
        let executor = Executor::new(ExecutorConfig {
            max_memory_bytes: replay::max_memory_bytes(&advert.plans),
            ..ExecutorConfig::dangerously_in_process()
        });
        Self {
            identity,
            secret,
            receipts,
            advert,
            executor: executor.expect("an engine"),
            lie,
        }
    }

    async fn serve(&self, count: usize, mut stream: BoxStream) {
        let mut advert = self.advert.clone();
        if self.lie == Lie::SecondAdvert && count > 1 {
            advert.max_function_bytes -= 1;
        }
        let greeting = Greeting {
            advert: advert.sign(&self.identity).expect("signs"),
            sealing: self
                .secret
                .sealing_key()
                .sign(&self.identity)
                .expect("signs"),
            effort: 0,
        };
        let greeting = Frame::new(FrameKind::Advert, encode(&greeting)).expect("fits");
        let _ = write_frame(&mut *stream, &greeting, LONG).await;
        let budget = Budget::new(8 << 20);
        let Ok((call, _)) = read_frame(&mut *stream, &[FrameKind::Call], LONG, &budget).await
        else {
            return;
        };
        let envelope: CallEnvelope = decode(call.body()).expect("an envelope");
        let opened = self.secret.open(&envelope).expect("opens");
        let reply = self.reply(&opened.request, &envelope).await;
        let sealed = opened.replier.seal(&reply).expect("seals");
        let frame = Frame::new(FrameKind::Reply, sealed).expect("fits");
        let _ = write_frame(&mut *stream, &frame, LONG).await;
        let _ = read_frame(&mut *stream, &[FrameKind::Ack], LONG, &budget).await;
    }

    async fn reply(&self, request: &Request, envelope: &CallEnvelope) -> Reply {
        let FunctionSource::Attached(wasm) = &request.function else {
            return reply(Completion::FunctionMissing, 0, 0);
        };
        let plan = &self.advert.plans[0];
        let mut run = request.clone();
        if self.lie == Lie::AnotherFunction {
            let quick =
                wat::parse_str(r#"(module (memory (export "memory") 1) (func (export "_start")))"#);
            run.function = FunctionSource::Attached(quick.expect("good WAT"));
        }
        let ran = replay::replay(&self.executor, &run, plan)
            .await
            .expect("runs");
        let mut reply = reply(ran.completion, ran.fuel, ran.peak_memory_bytes);
        self.distort(&mut reply);
        let function = FunctionId::of(wasm);
        let digest = request.digest(&function);
        let receipt = Receipt::of(
            &reply,
            self.identity.id(),
            Epoch(1),
            envelope.header.plan.clone(),
            function,
            digest,
            &request.seed,
        );
        let mut receipt = receipt.expect("it ran");
        if self.lie == Lie::OtherReceipt {
            receipt.fuel += 1;
        }
        if self.lie != Lie::NoReceipt {
            reply.receipt = Some(receipt.sign(&self.receipts));
        }
        reply
    }

    fn distort(&self, reply: &mut Reply) {
        match (self.lie, &mut reply.completion) {
            (Lie::Output, Completion::Exited { stdout, .. }) => match stdout.first_mut() {
                Some(first) => *first ^= 1,
                None => stdout.push(b'!'),
            },
            (Lie::Exit, Completion::Exited { status, .. }) => *status ^= 1,
            (Lie::Fuel, _) => reply.usage.fuel += 1_000,
            (Lie::Memory, _) => reply.usage.peak_memory_bytes += 1 << 16,
            (Lie::EarlyStop, completion) => {
                *completion = Completion::Stopped {
                    kind: StopKind::Fuel,
                    limit: None,
                    stderr: vec![],
                };
            }
            _ => {}
        }
    }
}

fn reply(completion: Completion, fuel: u64, peak_memory_bytes: u64) -> Reply {
    Reply {
        completion,
        usage: Usage {
            fuel,
            peak_memory_bytes,
            deterministic: true,
            ..Usage::default()
        },
        engine: fingerprint(),
        receipt: None,
    }
}

fn here() -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([3; 32]))
}

/// Makes audits of a provider that lies; what each came to.
async fn audits(lie: Lie, count: usize) -> Vec<Result<Finding, CallError>> {
    let network = MemoryNetwork::new(Duration::ZERO);
    let mut listener = network
        .transport([3; 32])
        .listen(Service::Calls)
        .await
        .expect("listens");
    let querier = querier(&network, &Arc::new(FakeClock::at(NOW)));
    let patched = Patched::new(lie);
    let serving = async {
        let mut streams = 0;
        while let Some(incoming) = listener.accept().await {
            streams += 1;
            patched.serve(streams, incoming.connection.stream).await;
        }
    };
    let auditing = async {
        let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, MOST);
        let mut numbers = Numbers(7);
        let mut found = Vec::new();
        while found.len() < count {
            let wasm = function(&mut numbers);
            let call = Call::new(here(), FunctionName::Wasm(wasm.clone().into())).input("input");
            let ended = match querier.call_outcome(&call, LONG, |_| {}).await {
                Ok(ended) => ended,
                Err(error) => {
                    found.push(Err(error));
                    continue;
                }
            };
            // A function that does not exit has no output to lie about.
            let exits = matches!(ended.reply.completion, Completion::Exited { .. });
            if !exits && matches!(lie, Lie::Output | Lie::Exit) {
                continue;
            }
            let evidence = claim(&ended, &wasm, b"input").expect("a receipt");
            let judgement = arbiter.judge(&evidence).await.expect("it can run");
            found.push(Ok(judgement.finding));
        }
        found
    };
    tokio::select! {
        found = auditing => found,
        () = serving => unreachable!("it serves for ever"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_patched_to_lie_is_caught_every_time() {
    for lie in [
        Lie::Output,
        Lie::Fuel,
        Lie::Exit,
        Lie::Memory,
        Lie::AnotherFunction,
    ] {
        for found in audits(lie, 20).await {
            let finding = found.expect("a reply");
            assert_eq!(finding, Finding::ProviderAtFault, "{lie:?}");
        }
    }
    // An early stop is a lie unless the function would have used up its fuel.
    for found in audits(Lie::EarlyStop, 20).await {
        assert_eq!(found.expect("a reply"), Finding::ProviderAtFault);
    }
    // The same provider, honest.
    for found in audits(Lie::None, 20).await {
        assert_eq!(found.expect("a reply"), Finding::Unproven);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_that_contradicts_its_reply_is_noticed_at_once() {
    for lie in [Lie::OtherReceipt, Lie::NoReceipt] {
        for found in audits(lie, 3).await {
            assert!(
                matches!(found, Err(CallError::Receipt(_))),
                "{lie:?}: {found:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_advert_in_one_epoch_is_a_proof_by_itself() {
    let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, MOST);
    let found = audits(Lie::SecondAdvert, 3).await;
    let mut proofs = 0;
    for found in found {
        if let Err(CallError::Equivocation(proof)) = found {
            let evidence = Evidence::Equivocation(*proof);
            let judgement = arbiter.judge(&evidence).await.expect("needs no run");
            assert_eq!(judgement.finding, Finding::ProviderAtFault);
            proofs += 1;
        }
    }
    assert!(proofs > 0);
}

/// An audit is paid like any other call, and looks like one.
#[tokio::test(flavor = "multi_thread")]
async fn audits_are_paid_with_tokens_like_any_call() {
    let world = World::with(ProviderConfig::default()).await;
    let dir = tempfile::tempdir().expect("a directory");
    let transport = Arc::new(world.network.transport([2; 32]));
    let clock = Arc::clone(&world.clock) as Arc<dyn Clock>;
    let wallet = Wallet::open(&dir.path().join("wallet")).expect("opens");
    let querier = Querier::new(transport, clock).with_wallet(wallet);
    let wish = ContractOptions {
        plan: None,
        calls: BatchSize::Calls8,
        service: None,
        deterministic: true,
        invitation: None,
    };
    let endpoint = world.endpoint();
    let offered = querier.contract(&endpoint, &wish, LONG, |_| true, |_| {});
    offered.await.expect("a contract");
    skip_second_look(querier.wallet().expect("there"));
    let wasm = std::fs::read(functions().join("upper.wasm")).expect("built");
    let call = Call::new(world.endpoint(), FunctionName::Wasm(wasm.clone().into())).input("hello");
    let ended = querier
        .call_outcome(&call, LONG, |_| {})
        .await
        .expect("a reply");
    let evidence = claim(&ended, &wasm, b"hello").expect("a receipt");
    let mut arbiter = Arbiter::new(Isolation::DangerouslyInProcess, MOST);
    let judgement = arbiter.judge(&evidence).await.expect("it can run");
    assert_eq!(judgement.finding, Finding::Unproven, "{}", judgement.reason);
    let left = querier
        .wallet()
        .expect("there")
        .contracts(NOW)
        .expect("listed");
    assert_eq!(left.contracts[0].spent, 1);
}
