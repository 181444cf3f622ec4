//! What a provider signs of a call: it is there whenever the function ran, it
//! is true, and it tells nobody else what the call was about.

use dlambda_client::{Call, CallOutcome, FunctionName};
use dlambda_proto::{
    BatchSize, Completion, FunctionId, FunctionSource, OutputCommitment, Reply, Request, Status,
    StopKind, decode, encode,
};
use dlambda_provider::ProviderConfig;

use super::market::Market;
use crate::hostile_functions::LOOP;
use crate::support::{LONG, alias, wat};

const TRAP: &str = "(module (func (export \"_start\") unreachable))";

const EXIT_3: &str = "(module
    (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
    (memory (export \"memory\") 1)
    (func (export \"_start\") (call $exit (i32.const 3))))";

#[tokio::test(flavor = "multi_thread")]
async fn every_function_that_ran_has_a_receipt_that_is_true() {
    let mut config = ProviderConfig::default();
    config.plans[0].fuel = 50_000_000;
    let market = Market::with(config).await;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls8).await;
    let stopped = Status::Stopped;
    for (function, ending) in [
        (alias("upper"), Status::Exited(0)),
        (wat(EXIT_3), Status::Exited(3)),
        (wat(TRAP), stopped(StopKind::Unreachable)),
        (wat(LOOP), stopped(StopKind::Fuel)),
    ] {
        let call = Call::new(market.endpoint(), function)
            .input(INPUT)
            .args(["an argument"]);
        let ended = querier
            .call_outcome(&call, LONG, |_| {})
            .await
            .expect("a reply");
        check(&ended, ending);
    }
    let nothing = FunctionName::Id(FunctionId::of(b"nothing"));
    let call = Call::new(market.endpoint(), nothing);
    let ended = querier
        .call_outcome(&call, LONG, |_| {})
        .await
        .expect("a reply");
    assert_eq!(ended.reply.completion, Completion::FunctionMissing);
    assert!(ended.receipt.is_none() && ended.evidence.is_none());
    querier.flush_acks().await;
    // The contract; upper; three functions that were sent; one that is missing.
    let records = market.records(1 + 1 + 2 * 3 + 1).await;
    let replies = records.iter().filter_map(|record| record.reply.as_ref());
    let replies = replies.filter_map(|reply| decode::<Reply>(reply).ok());
    let with_receipts = replies.filter(|reply| {
        assert_eq!(reply.receipt.is_some(), reply.completion.status().is_some());
        reply.receipt.is_some()
    });
    assert_eq!(with_receipts.count(), 4);
}

const INPUT: &[u8] = b"what nobody else may learn: the quick brown fox is at home";

fn check(ended: &CallOutcome, ending: Status) {
    let evidence = ended.evidence.as_ref().expect("evidence");
    let (advert, receipt) = evidence.verify().expect("it verifies");
    assert!(advert == *ended.advert.authentic() && Some(&receipt) == ended.receipt.as_ref());
    assert_eq!(receipt.status, ending);
    assert!(receipt.function == ended.function && receipt.deterministic);
    assert_eq!(receipt.fuel, ended.reply.usage.fuel);
    assert!(receipt.fuel > 0 || ending == Status::Stopped(StopKind::Unreachable));
    let mut request = Request {
        function: FunctionSource::Known(ended.function),
        args: vec!["an argument".to_owned()],
        input: INPUT.to_vec(),
        seed: ended.seed,
        http: None,
        token: None,
    };
    assert!(
        request.digest(&ended.function) == receipt.request,
        "it opens"
    );
    request.input.push(0);
    assert!(request.digest(&ended.function) != receipt.request);
    let completion = &ended.reply.completion;
    assert!(
        OutputCommitment::to(completion, &ended.seed) == receipt.output,
        "it opens"
    );
    assert!(OutputCommitment::to(completion, &[0; 32]) != receipt.output);
    let other = Completion::Exited {
        status: 0,
        stdout: vec![],
        stderr: vec![],
        http: None,
    };
    assert!(OutputCommitment::to(&other, &ended.seed) != receipt.output);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_shows_neither_input_nor_output() {
    let market = Market::open().await;
    let querier = market.customer("anne");
    market.buy(&querier, BatchSize::Calls8).await;
    let call = market.call(INPUT);
    let ended = querier
        .call_outcome(&call, LONG, |_| {})
        .await
        .expect("a reply");
    querier.flush_acks().await;
    let output = INPUT.to_ascii_uppercase();
    let evidence = ended.evidence.as_ref().expect("evidence");
    let receipt = encode(&evidence.receipt);
    let published = encode(evidence);
    for secret in [INPUT, &output, &ended.seed, b"an argument"] {
        assert!(!shares(&receipt, secret) && !shares(&published, secret));
    }
    // The search would have found them.
    let record = market.records(2).await.pop().expect("the call's");
    let (request, reply) = (record.request.expect("one"), record.reply.expect("one"));
    assert!(shares(&request, INPUT) && shares(&request, &ended.seed));
    assert!(shares(&reply, &output) && shares(&reply, &receipt));
}

/// Whether eight bytes in a row occur in both.
fn shares(one: &[u8], other: &[u8]) -> bool {
    one.windows(8)
        .any(|here| other.windows(8).any(|there| here == there))
}
