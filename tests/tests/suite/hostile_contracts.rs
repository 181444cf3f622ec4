//! Callers that break the rules of issuance are told so, or let go, and
//! cost no more than they must; the provider goes on selling and serving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use dlambda_crypto::negotiation::{ContractOptions, Negotiation, Step, confirmation, invitation};
use dlambda_crypto::pow;
use dlambda_crypto::seal::SealedContractRequest;
use dlambda_privacy::exchange::{VerifiedGreeting, acknowledge, exchange_contract};
use dlambda_privacy::{ExchangeError, os_rng};
use dlambda_proto::{
    Admission, Advert, BatchSize, CallEnvelope, CallHeader, Contract, ContractAnswer,
    ContractEnvelope, ContractId, ContractKey, ContractRefusal, ContractRequest, Epoch, Frame,
    FrameKind, FunctionSource, IdentityKey, MAX_CONTRACT_BODY, PaymentMethod, ProofOfWork,
    Proposal, ProviderId, Refusal, Request, SignedContract, TokenKeyId, decode, encode,
};
use dlambda_provider::ProviderConfig;
use futures::future::join_all;
use rand_core::Rng as _;
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncWriteExt as _;

use crate::contracts::market::{Market, ask, draw_up, receive, refusal, seal, seed, send, wish};
use crate::contracts::with_work;
use crate::hostile_functions::LOOP;
use crate::support::LONG;

/// What is changed, the reason it is refused for, and how.
type Edit<'a, T> = (&'a str, ContractRefusal, &'a dyn Fn(&mut T));

mod flood;
mod streams;
mod terms;

fn random(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    os_rng().fill_bytes(&mut bytes);
    bytes
}

fn in_frame(body: Vec<u8>) -> Frame {
    Frame::new(FrameKind::Contract, body).expect("within limits")
}

fn sealed(welcome: &VerifiedGreeting, request: &ContractRequest) -> SealedContractRequest {
    SealedContractRequest::seal(&welcome.sealing, request, &mut os_rng()).expect("seals")
}

fn proposal(welcome: &VerifiedGreeting, calls: BatchSize) -> Proposal {
    draw_up(&welcome.advert, calls, seed()).0
}

fn sealed_proposal(welcome: &VerifiedGreeting) -> SealedContractRequest {
    let proposal = proposal(welcome, BatchSize::Calls8);
    sealed(welcome, &ContractRequest::Propose(Box::new(proposal)))
}

/// Proposes on a stream of its own.
async fn propose(market: &Market, proposal: Proposal) -> ContractAnswer {
    ask_alone(market, &ContractRequest::Propose(Box::new(proposal))).await
}

async fn ask_alone(market: &Market, request: &ContractRequest) -> ContractAnswer {
    let (mut stream, welcome) = market.greet().await;
    let answer = ask(&mut stream, &welcome, request).await;
    acknowledge(stream).await;
    answer.expect("an answer")
}

/// What a frame is refused with; it must be.
async fn refused(market: &Market, frame: &Frame) -> Refusal {
    let (_, answer) = market.deliver(frame).await;
    refusal(&answer).expect("a refusal")
}

/// The reason that an answer refuses with.
fn reason(answer: &ContractAnswer) -> Option<ContractRefusal> {
    match answer {
        ContractAnswer::Refused(reason) => Some(*reason),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_is_refused_by_name() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let good = sealed_proposal(&welcome);
    let envelope = good.envelope();
    let with = |edit: &dyn Fn(&mut ContractEnvelope)| {
        let mut envelope = envelope.clone();
        edit(&mut envelope);
        in_frame(encode(&envelope))
    };
    let token = market.tokens(BatchSize::Calls8).await[0];
    let call = seal(&welcome, &market.request(token, b"a call"));
    let call_envelope: CallEnvelope = decode(call.frame().body()).expect("ours");
    let call_as_contract = with(&|it| {
        it.encapsulated_key = call_envelope.encapsulated_key;
        it.ciphertext.clone_from(&call_envelope.ciphertext);
    });
    let contract_as_call = CallEnvelope {
        header: CallHeader {
            epoch: welcome.advert.epoch,
            plan: welcome.advert.plans[0].name.clone(),
        },
        encapsulated_key: envelope.encapsulated_key,
        ciphertext: envelope.ciphertext.clone(),
    };
    let contract_as_call = Frame::new(FrameKind::Call, encode(&contract_as_call));
    for (what, frame, expected) in [
        ("nothing", in_frame(vec![]), Refusal::Malformed),
        ("noise", in_frame(random(1000)), Refusal::Malformed),
        (
            "as much noise as fits",
            in_frame(random(MAX_CONTRACT_BODY as usize)),
            Refusal::Malformed,
        ),
        (
            "a call's envelope",
            in_frame(encode(&call_envelope)),
            Refusal::Malformed,
        ),
        (
            "half an envelope",
            in_frame(encode(envelope)[..8000].to_vec()),
            Refusal::Malformed,
        ),
        (
            "another epoch",
            with(&|it| it.epoch = Epoch(it.epoch.0 + 1)),
            Refusal::UnknownEpoch,
        ),
        (
            "a sealed nothing",
            with(&|it| it.ciphertext.clear()),
            Refusal::CannotOpen,
        ),
        (
            "sealed noise",
            with(&|it| it.ciphertext = random(it.ciphertext.len())),
            Refusal::CannotOpen,
        ),
        (
            "no key",
            with(&|it| it.encapsulated_key = [0; 32]),
            Refusal::CannotOpen,
        ),
        ("a sealed call", call_as_contract, Refusal::CannotOpen),
        (
            "a proposal as a call",
            contract_as_call.expect("fits"),
            Refusal::CannotOpen,
        ),
    ] {
        assert_eq!(refused(&market, &frame).await, expected, "{what}");
    }
    assert_eq!(market.contracts().await.0, 1, "that of the token");
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_are_too_long_or_too_short() {
    let market = Market::open().await;
    let good = sealed_proposal(&market.greet().await.1);
    let frame = good.frame().expect("a frame");
    let (mut stream, _) = market.greet().await;
    let announced = (MAX_CONTRACT_BODY + 1).to_be_bytes();
    let header = [&frame.header()[..2], &announced].concat();
    stream.write_all(&header).await.expect("sent");
    let answer = receive(&mut stream).await.expect("an answer");
    assert_eq!(refusal(&answer), Some(Refusal::TooLong));
    let whole = [&frame.header()[..], frame.body()].concat();
    for length in [0, 1, 6, 7, 5000, whole.len() - 1] {
        let (mut stream, _) = market.greet().await;
        stream.write_all(&whole[..length]).await.expect("sent");
        stream.shutdown().await.expect("closed");
        assert!(receive(&mut stream).await.is_none(), "{length} bytes");
    }
    // The provider's own kinds of frame are not for callers.
    for kind in [FrameKind::ContractAnswer, FrameKind::Ack, FrameKind::Reply] {
        let frame = Frame::new(kind, vec![]).expect("fits");
        assert_eq!(refused(&market, &frame).await, Refusal::Malformed);
    }
    assert_eq!(market.contracts().await, (0, 0));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_a_sealed_message_is_noticed() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let good = sealed_proposal(&welcome);
    let body = encode(good.envelope());
    // All of the head, the key and the end; a part of the rest.
    let bits = body.len() * 8;
    let positions = (0..60 * 8).step_by(5).chain((480..bits - 200).step_by(997));
    let positions: Vec<_> = positions.chain(bits - 200..bits - 8).collect();
    for position in positions {
        let mut bad = body.clone();
        bad[position / 8] ^= 1 << (position % 8);
        let refusal = refused(&market, &in_frame(bad)).await;
        let expected = [
            Refusal::Malformed,
            Refusal::CannotOpen,
            Refusal::UnknownEpoch,
        ];
        assert!(expected.contains(&refusal), "bit {position}: {refusal:?}");
    }
    assert_eq!(market.contracts().await, (0, 0));
    let (mut stream, _) = market.greet().await;
    let granted = exchange_contract(&mut *stream, good, LONG).await;
    assert!(matches!(granted, Ok(ContractAnswer::Granted(_))));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_flipped_bit_of_the_terms_is_noticed() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let good = proposal(&welcome, BatchSize::Calls8);
    let bytes = encode(&good.contract);
    let mut readable = 0;
    for bit in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let Ok(contract) = decode::<Contract>(&bad) else {
            continue;
        };
        // Anybody may choose that; whose it is shows in the confirmation.
        let same_but_client = Contract {
            client: good.contract.client,
            ..contract.clone()
        };
        // Less than was promised is granted.
        let is_modest = contract.service.start_within_ms > welcome.advert.service.start_within_ms;
        let asks_less = !contract.technology.deterministic;
        if same_but_client == good.contract || is_modest || asks_less {
            continue;
        }
        readable += 1;
        if readable % 8 != 0 {
            continue;
        }
        let bad = Proposal {
            contract,
            ..good.clone()
        };
        let answer = propose(&market, bad).await;
        assert!(!matches!(answer, ContractAnswer::Granted(_)), "bit {bit}");
    }
    assert!(readable > 500, "only {readable} could be read");
    assert_eq!(market.contracts().await, (0, 0));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_of_flipped_bits_are_good_for_nothing() {
    let market = Market::open().await;
    for part in [0, 1] {
        let mut granted = 0;
        for bit in [3, 77, 401, 1500, 2000] {
            let (mut stream, welcome) = market.greet().await;
            let (mut bad, proposed) = draw_up(&welcome.advert, BatchSize::Calls8, seed());
            let request = if part == 0 {
                &mut bad.call_request
            } else {
                &mut bad.rating_request
            };
            let bit = bit % (request.len() * 8);
            request[bit / 8] ^= 1 << (bit % 8);
            let request = ContractRequest::Propose(Box::new(bad));
            let answer = ask(&mut stream, &welcome, &request).await;
            match answer.expect("an answer") {
                // What was blinded in another way does not become a token.
                answer @ ContractAnswer::Granted(_) => {
                    granted += 1;
                    assert!(proposed.receive(answer).is_err(), "bit {bit}");
                }
                answer => assert_eq!(reason(&answer), Some(ContractRefusal::Malformed)),
            }
        }
        assert!(granted < 5, "the head of a request is checked");
    }
    market.assert_alive().await;
}
