//! The demo functions do what they say, as modules and as components.

use bytes::Bytes;
use dlambda_proto::Status;
use sha2::{Digest, Sha256};

use super::{component, executor, prepare};
use crate::{Abi, Invocation, Limits, Outcome};

macro_rules! program {
    ($name:literal) => {
        include_bytes!(concat!(
            "../../../../tests/examples/functions/",
            $name,
            ".wasm"
        ))
    };
}

/// Runs a program both ways and checks that the two agree on everything but fuel and memory.
async fn both(module: &'static [u8], args: &[&str], input: impl Into<Bytes>) -> Outcome {
    let executor = executor();
    let args = args.iter().map(|arg| arg.to_string()).collect();
    let invocation = Invocation {
        args,
        input: input.into(),
        ..Invocation::default()
    };
    let mut outcomes = Vec::new();
    for (wasm, abi) in [
        (module.into(), Abi::Preview1),
        (component(module), Abi::Preview2),
    ] {
        let function = prepare(&executor, wasm).await;
        assert_eq!(function.abi(), abi);
        let outcome = executor
            .run(&function, invocation.clone(), &Limits::default())
            .await
            .unwrap();
        assert!(
            outcome.usage.fuel > 0 && outcome.usage.peak_memory >= 65_536,
            "{outcome:?}"
        );
        outcomes.push(outcome);
    }
    let (first, second) = (outcomes.remove(0), outcomes.remove(0));
    assert_eq!(
        (first.status, &first.stdout),
        (second.status, &second.stdout)
    );
    first
}

#[tokio::test]
async fn upper_keeps_other_bytes() {
    let outcome = both(
        program!("upper"),
        &[],
        &b"Hello, \xff\x00\x80 w\xc3\xb6rld\n"[..],
    )
    .await;
    assert_eq!(outcome.status, Status::Exited(0));
    assert_eq!(outcome.stdout, &b"HELLO, \xff\x00\x80 W\xc3\xb6RLD\n"[..]);
}

#[tokio::test]
async fn rot13_is_chosen_by_an_argument() {
    let outcome = both(program!("upper"), &["rot13"], "Uryyb, jbeyq!").await;
    assert_eq!(outcome.stdout, "Hello, world!");
}

#[tokio::test]
async fn sha256_agrees_with_another_implementation() {
    for length in [
        0, 1, 55, 56, 63, 64, 65, 65_535, 65_536, 65_591, 65_592, 300_000,
    ] {
        let input: Vec<u8> = (0..length).map(|i: u32| (i * 7 % 251) as u8).collect();
        let digest: String = Sha256::digest(&input)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let outcome = both(program!("sha256"), &[], input).await;
        assert_eq!(outcome.stdout, format!("{digest}\n"), "{length} bytes");
    }
}

#[tokio::test]
async fn wordfreq_sorts_by_count_then_word() {
    let text = "The cat and the dog and THE bird; a dog.";
    let outcome = both(program!("wordfreq"), &["4"], text).await;
    assert_eq!(outcome.stdout, "3 the\n2 and\n2 dog\n1 a\n");
    let outcome = both(program!("wordfreq"), &[], "").await;
    assert_eq!(
        (outcome.status, &outcome.stdout[..]),
        (Status::Exited(0), &b""[..])
    );
}

#[tokio::test]
async fn arguments_follow_one_fixed_name() {
    let outcome = both(
        program!("args-echo"),
        &["one", "", "drei \u{1f600}"],
        "ignored",
    )
    .await;
    assert_eq!(outcome.stdout, "function\none\n\ndrei \u{1f600}\n");
}
