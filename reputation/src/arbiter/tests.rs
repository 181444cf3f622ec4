//! Honest providers are never condemned, and each lie is.

use std::time::Duration;

use dlambda_executor::replay;
use dlambda_executor::{Executor, ExecutorConfig, Isolation, fingerprint};
use dlambda_proto::{
    Advert, Completion, Endpoint, Epoch, EquivocationProof, Evidence, Finding, FraudProof,
    FunctionId, FunctionSource, IdentityKey, OnionAddress, Receipt, ReceiptEvidence, ReceiptKey,
    Reply, Request, StopKind, UnixSeconds, Usage,
};

use super::{Arbiter, Judgement};

const MOST: Duration = Duration::from_secs(600);

/// Copies its input to its output, and spins a little for each byte.
const ECHO: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 2)
    (func (export "_start")
        (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 1024))
        (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
        (i32.store (i32.const 4) (i32.load (i32.const 8)))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;
const SPIN: &str =
    r#"(module (memory (export "memory") 1) (func (export "_start") (loop (br 0))))"#;
const TRAP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") unreachable))"#;
const GROW: &str = r#"(module (memory (export "memory") 1)
    (func (export "_start") (drop (memory.grow (i32.const 2000))) (loop (br 0))))"#;
const DEEP: &str = r#"(module (memory (export "memory") 1)
    (func $down (call $down)) (func (export "_start") (call $down)))"#;

struct Court {
    identity: IdentityKey,
    receipts: ReceiptKey,
    advert: Advert,
    executor: Executor,
    arbiter: Arbiter,
}

impl Court {
    fn new() -> Self {
        let identity = IdentityKey::from_seed(&[1; 32]);
        let receipts = ReceiptKey::from_seed(&[2; 32]);
        let here = Endpoint::Onion(OnionAddress::from_public_key([1; 32]));
        let mut advert =
            Advert::minimal(identity.id(), Epoch(1), UnixSeconds(1), receipts.id(), here);
        for plan in &mut advert.plans {
            plan.fuel = 3_000_000;
            plan.wall_ms = 60_000;
        }
        let executor = Executor::new(ExecutorConfig {
            max_memory_bytes: replay::max_memory_bytes(&advert.plans),
            ..ExecutorConfig::dangerously_in_process()
        });
        Self {
            identity,
            receipts,
            advert,
            executor: executor.expect("an executor"),
            arbiter: Arbiter::new(Isolation::DangerouslyInProcess, MOST),
        }
    }

    fn request(wat: &str, input: &[u8]) -> Request {
        Request {
            function: FunctionSource::Attached(wat::parse_str(wat).expect("good WAT")),
            args: vec![],
            input: input.to_vec(),
            seed: [7; 32],
            http: None,
            token: None,
        }
    }

    /// What an honest provider answers.
    async fn run(&self, request: &Request) -> Reply {
        let plan = &self.advert.plans[0];
        let ran = replay::replay(&self.executor, request, plan).await;
        let ran = ran.expect("it runs");
        Reply {
            completion: ran.completion,
            usage: Usage {
                fuel: ran.fuel,
                peak_memory_bytes: ran.peak_memory_bytes,
                deterministic: plan.deterministic,
                ..Usage::default()
            },
            engine: fingerprint(),
            receipt: None,
        }
    }

    fn receipt(&self, request: &Request, reply: &Reply) -> Receipt {
        let FunctionSource::Attached(wasm) = &request.function else {
            panic!("attached");
        };
        let function = FunctionId::of(wasm);
        let plan = self.advert.plans[0].name.clone();
        let (provider, epoch) = (self.identity.id(), Epoch(1));
        let digest = request.digest(&function);
        Receipt::of(
            reply,
            provider,
            epoch,
            plan,
            function,
            digest,
            &request.seed,
        )
        .expect("it ran")
    }

    fn proof(&self, request: &Request, receipt: &Receipt) -> FraudProof {
        FraudProof {
            evidence: ReceiptEvidence {
                advert: self.advert.sign(&self.identity).expect("signs"),
                receipt: receipt.sign(&self.receipts),
            },
            request: request.clone(),
        }
    }

    async fn judge(&mut self, proof: FraudProof) -> Judgement {
        let evidence = Evidence::Fraud(Box::new(proof));
        self.arbiter.judge(&evidence).await.expect("it can run")
    }

    /// Judges what the provider says after `lie` has changed its reply.
    async fn after(&mut self, wat: &str, lie: impl FnOnce(&mut Reply)) -> Judgement {
        let request = Self::request(wat, b"hello");
        let mut reply = self.run(&request).await;
        lie(&mut reply);
        let receipt = self.receipt(&request, &reply);
        let proof = self.proof(&request, &receipt);
        self.judge(proof).await
    }
}

fn stopped(kind: StopKind) -> Completion {
    Completion::Stopped {
        kind,
        limit: None,
        stderr: vec![],
    }
}

#[tokio::test]
async fn the_honest_are_never_condemned() {
    let mut court = Court::new();
    for wat in [ECHO, SPIN, TRAP, GROW] {
        let judgement = court.after(wat, |_| {}).await;
        assert_eq!(
            judgement.finding,
            Finding::Unproven,
            "{wat}: {}",
            judgement.reason
        );
    }
    let deep = court.after(DEEP, |_| {}).await;
    assert_eq!(deep.finding, Finding::NotDecidable, "{}", deep.reason);
}

#[tokio::test]
async fn every_lie_is_found() {
    let mut court = Court::new();
    let output = |reply: &mut Reply| {
        let Completion::Exited { stdout, .. } = &mut reply.completion else {
            panic!("it exits");
        };
        stdout[0] ^= 1;
    };
    let status = |reply: &mut Reply| {
        let Completion::Exited { status, .. } = &mut reply.completion else {
            panic!("it exits");
        };
        *status = 1;
    };
    type Lie<'a> = (&'a str, &'a str, &'a dyn Fn(&mut Reply));
    let lies: [Lie<'_>; 11] = [
        ("its output is not", ECHO, &output),
        ("exit status 1", ECHO, &status),
        ("fuel", ECHO, &|reply| reply.usage.fuel += 1),
        ("fuel", ECHO, &|reply| reply.usage.fuel -= 1),
        ("fuel, and its plan allows", ECHO, &|reply| {
            reply.usage.fuel = u64::MAX
        }),
        ("memory", ECHO, &|reply| {
            reply.usage.peak_memory_bytes += 65536
        }),
        ("stopped (fuel)", ECHO, &|reply| {
            reply.completion = stopped(StopKind::Fuel)
        }),
        ("stopped (unreachable)", SPIN, &|reply| {
            reply.completion = stopped(StopKind::Unreachable)
        }),
        // A kind that this version's engine does not give is no excuse.
        ("stopped (other)", ECHO, &|reply| {
            reply.completion = stopped(StopKind::Other(999))
        }),
        // The right kind, without the limit that goes with it.
        ("its output is not", SPIN, &|reply| {
            reply.completion = stopped(StopKind::Fuel)
        }),
        ("stopped (output)", TRAP, &|reply| {
            reply.completion = stopped(StopKind::Output)
        }),
    ];
    for (what, wat, lie) in lies {
        let judgement = court.after(wat, lie).await;
        assert_eq!(
            judgement.finding,
            Finding::ProviderAtFault,
            "{what}: {}",
            judgement.reason
        );
        assert!(
            judgement.reason.contains(what),
            "{what}: {}",
            judgement.reason
        );
    }
}

#[tokio::test]
async fn what_depends_on_the_machine_cannot_be_decided() {
    let mut court = Court::new();
    for kind in [StopKind::Deadline, StopKind::StackOverflow] {
        let judgement = court
            .after(ECHO, |reply| reply.completion = stopped(kind))
            .await;
        assert_eq!(
            judgement.finding,
            Finding::NotDecidable,
            "{}",
            judgement.reason
        );
    }
    let engine = court.after(ECHO, |reply| reply.engine = [9; 32]).await;
    assert_eq!(engine.finding, Finding::NotDecidable);
    // Here it is our clock that ends it: the machine may be a slow one.
    court.advert.plans[0].fuel = u64::MAX;
    court.arbiter = Arbiter::new(Isolation::DangerouslyInProcess, Duration::from_millis(50));
    let request = Court::request(SPIN, b"");
    let reply = Reply {
        completion: stopped(StopKind::Fuel),
        usage: Usage {
            deterministic: true,
            ..Usage::default()
        },
        engine: fingerprint(),
        receipt: None,
    };
    let receipt = court.receipt(&request, &reply);
    let proof = court.proof(&request, &receipt);
    let slow = court.judge(proof).await;
    assert_eq!(slow.finding, Finding::NotDecidable, "{}", slow.reason);
    court.advert.plans[0].deterministic = false;
    let real = court.after(TRAP, |reply| reply.usage.fuel += 1).await;
    assert_eq!(real.finding, Finding::NotDecidable, "{}", real.reason);
}

#[tokio::test]
async fn claims_that_were_tampered_with_are_unfounded() {
    let mut court = Court::new();
    let request = Court::request(ECHO, b"hello");
    let mut lie = court.run(&request).await;
    lie.usage.fuel += 1;
    let receipt = court.receipt(&request, &lie);
    let good = court.proof(&request, &receipt);
    let mut other_input = good.clone();
    other_input.request.input = b"other".to_vec();
    let mut other_seed = good.clone();
    other_seed.request.seed = [8; 32];
    let mut other_function = good.clone();
    other_function.request.function = Court::request(TRAP, b"").function;
    let mut other_signer = good.clone();
    other_signer.evidence.receipt = receipt.sign(&ReceiptKey::from_seed(&[3; 32]));
    for (what, bad) in [
        ("input", other_input),
        ("seed", other_seed),
        ("function", other_function),
        ("signer", other_signer),
    ] {
        let judgement = court.judge(bad).await;
        assert_eq!(
            judgement.finding,
            Finding::Unproven,
            "{what}: {}",
            judgement.reason
        );
    }
    assert_eq!(court.judge(good).await.finding, Finding::ProviderAtFault);
}

#[tokio::test]
async fn two_adverts_for_one_epoch_are_a_fault_and_one_is_none() {
    let mut court = Court::new();
    let one = court.advert.sign(&court.identity).expect("signs");
    court.advert.max_function_bytes += 1;
    let other = court.advert.sign(&court.identity).expect("signs");
    court.advert.epoch = Epoch(2);
    let later = court.advert.sign(&court.identity).expect("signs");
    for (other, finding) in [
        (other, Finding::ProviderAtFault),
        (one.clone(), Finding::Unproven),
        (later, Finding::Unproven),
    ] {
        let one = one.clone();
        let evidence = Evidence::Equivocation(EquivocationProof { one, other });
        let judgement = court.arbiter.judge(&evidence).await.expect("needs no run");
        assert_eq!(judgement.finding, finding);
    }
}
