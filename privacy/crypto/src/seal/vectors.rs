//! Known answers (RFC 9180 appendix A.2.1) and the properties of a sealed call.

use data_encoding::HEXLOWER;
use dlambda_proto::{
    BatchSize, CallEnvelope, Completion, ContractAnswer, ContractId, ContractRefusal,
    ContractRequest, Epoch, FunctionId, FunctionSource, IdentityKey, Plan, Reply, Request,
    SealingKey, ServiceTerms, Usage, decode, encode,
};
use hpke::{Deserializable as _, OpModeR, OpModeS, Serializable as _};
use rand_core::{CryptoRng, TryCryptoRng, TryRng};

use super::{Aead, Kdf, Kem, SealedCall, SealedContractRequest, SealingSecret};
use crate::{SealError, os_rng};

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("good hex")
}

/// Gives out prepared bytes: the vector's `ikmE` instead of randomness.
struct Prepared(Vec<u8>);

impl TryRng for Prepared {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        unimplemented!("keys are made from bytes")
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        unimplemented!("keys are made from bytes")
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        let rest = self.0.split_off(out.len());
        out.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Prepared {}

#[test]
fn our_suite_gives_the_answers_of_rfc_9180() {
    let info = hex("4f6465206f6e2061204772656369616e2055726e");
    let plaintext = hex("4265617574792069732074727574682c20747275746820626561757479");
    let aad = hex("436f756e742d30");
    let enc = hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a");
    let ciphertext = hex(
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28",
    );
    let public = hex("4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a");
    let secret = hex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb");
    let mut ikm = Prepared(hex(
        "909a9b35d3dc4713a5e72a4da274b55d3d3821a37e5d099e74a647db583a904b",
    ));

    let public = <Kem as hpke::Kem>::PublicKey::from_bytes(&public).expect("a key");
    let (encapsulated, mut sender) =
        hpke::setup_sender_with_rng::<Aead, Kdf, Kem>(&OpModeS::Base, &public, &info, &mut ikm)
            .expect("sets up");
    assert_eq!(encapsulated.to_bytes().as_slice(), enc);
    assert_eq!(sender.seal(&plaintext, &aad).expect("seals"), ciphertext);

    let secret = <Kem as hpke::Kem>::PrivateKey::from_bytes(&secret).expect("a key");
    let mut receiver =
        hpke::setup_receiver::<Aead, Kdf, Kem>(&OpModeR::Base, &secret, &encapsulated, &info)
            .expect("sets up");
    assert_eq!(receiver.open(&ciphertext, &aad).expect("opens"), plaintext);

    for (context, expected) in [
        (
            &b""[..],
            "4bbd6243b8bb54cec311fac9df81841b6fd61f56538a775e7c80a9f40160606e",
        ),
        (
            b"\0",
            "8c1df14732580e5501b00f82b10a1647b40713191b7c1240ac80e2b68808ba69",
        ),
        (
            b"TestContext",
            "5acb09211139c43b3090489a9da433e8a30ee7188ba8b0a9a1ccf0c229283e53",
        ),
    ] {
        let mut exported = [0; 32];
        receiver.export(context, &mut exported).expect("exports");
        assert_eq!(exported.as_slice(), hex(expected));
    }
}

fn key_pair(rng: &mut impl CryptoRng) -> (SealingSecret, SealingKey) {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let secret = SealingSecret::generate(identity.id(), Epoch(1), rng);
    let public = secret.sealing_key();
    (secret, public)
}

fn request() -> Request {
    Request {
        function: FunctionSource::Known(FunctionId::of(b"f")),
        args: vec!["-n".to_owned()],
        input: b"input".to_vec(),
        seed: [3; 32],
        http: None,
        token: None,
    }
}

fn seal(to: &SealingKey) -> SealedCall {
    let plan = Plan::standard_menu().remove(0).name;
    SealedCall::seal(to, &plan, &request(), &mut os_rng()).expect("seals")
}

fn envelope(call: &SealedCall) -> CallEnvelope {
    decode(call.frame().body()).expect("decodes")
}

fn reply() -> Reply {
    Reply {
        completion: Completion::FunctionMissing,
        usage: Usage::default(),
        engine: [0; 32],
        receipt: None,
    }
}

#[test]
fn a_call_and_its_reply_pass() {
    let (secret, public) = key_pair(&mut os_rng());
    let call = seal(&public);
    let opened = secret.open(&envelope(&call)).expect("opens");
    assert_eq!(opened.request, request());
    let body = opened.replier.seal(&reply()).expect("seals");
    assert_eq!(call.open(&body), Ok(reply()));
}

#[test]
fn a_reply_opens_only_the_call_it_answers() {
    let (secret, public) = key_pair(&mut os_rng());
    let (one, two) = (seal(&public), seal(&public));
    let opened = secret.open(&envelope(&one)).expect("opens");
    let body = opened.replier.seal(&reply()).expect("seals");
    assert_eq!(two.open(&body), Err(SealError::Open));
}

#[test]
fn nothing_changed_or_sealed_to_another_opens() {
    let (secret, public) = key_pair(&mut os_rng());
    let good = envelope(&seal(&public));
    let mut other_header = good.clone();
    other_header.header.plan = "large".parse().expect("a plan name");
    let mut flipped = good.clone();
    flipped.ciphertext[100] ^= 1;
    let mut other_key = good.clone();
    other_key.encapsulated_key[0] ^= 1;
    let mut short = good.clone();
    short.ciphertext.truncate(10);
    for bad in [other_header, flipped, other_key, short] {
        assert_eq!(secret.open(&bad).err(), Some(SealError::Open));
    }
    let (stranger, _) = key_pair(&mut os_rng());
    assert_eq!(stranger.open(&good).err(), Some(SealError::Open));
}

#[test]
fn two_calls_share_only_the_header_and_their_size() {
    let (_, public) = key_pair(&mut os_rng());
    let (one, two) = (envelope(&seal(&public)), envelope(&seal(&public)));
    assert_eq!(encode(&one.header), encode(&two.header));
    assert_eq!(one.ciphertext.len(), two.ciphertext.len());
    assert_ne!(one.encapsulated_key, two.encapsulated_key);
    assert_ne!(one.ciphertext, two.ciphertext);
}

#[test]
fn the_same_call_gets_the_same_bytes_and_another_reply_gets_others() {
    let (secret, public) = key_pair(&mut os_rng());
    let call = envelope(&seal(&public));
    let sealed = |reply: &Reply| {
        let opened = secret.open(&call).expect("opens");
        opened.replier.seal(reply).expect("seals")
    };
    assert_eq!(sealed(&reply()), sealed(&reply()));
    let mut other = reply();
    other.usage.queue_us = 1;
    assert_ne!(sealed(&reply())[..32], sealed(&other)[..32], "the nonce");
}

#[test]
fn messages_of_the_cold_phase_pass_and_have_one_size() {
    let (secret, public) = key_pair(&mut os_rng());
    let confirm = ContractRequest::Confirm {
        contract: ContractId([1; 32]),
        signature: [2; 64],
    };
    let answers = [
        ContractAnswer::Confirmed,
        ContractAnswer::Counter {
            reason: ContractRefusal::TooManyCalls,
            calls: BatchSize::Calls8,
            service: ServiceTerms { start_within_ms: 1 },
        },
    ];
    let sizes = answers.map(|answer| {
        let sealed = SealedContractRequest::seal(&public, &confirm, &mut os_rng()).expect("seals");
        let opened = secret.open_contract(sealed.envelope()).expect("opens");
        assert!(opened.request == confirm);
        let frame = opened.answerer.seal(&answer).expect("seals");
        assert!(sealed.open(frame.body()) == Ok(answer));
        frame.body().len()
    });
    assert_eq!(sizes[0], sizes[1]);
}

#[test]
fn a_call_is_no_contract_and_a_contract_no_call() {
    let (secret, public) = key_pair(&mut os_rng());
    let call = envelope(&seal(&public));
    let passed_off = dlambda_proto::ContractEnvelope {
        epoch: call.header.epoch,
        encapsulated_key: call.encapsulated_key,
        ciphertext: call.ciphertext,
        work: None,
    };
    let opened = secret.open_contract(&passed_off);
    assert_eq!(opened.err(), Some(SealError::Open));
}
