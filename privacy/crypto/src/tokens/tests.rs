//! Known answers, and what a caller and an issuer may do to each other.

use data_encoding::HEXLOWER;
use dlambda_proto::{BatchSize, CallKey, CallToken, Epoch, IdentityKey, PlanName, ProviderId};
use privacypass::auth::authenticate::TokenChallenge;
use privacypass::common::private::deserialize_public_key;
use privacypass::{Group as _, Serialize as _};
use voprf::Ristretto255;

use super::*;
use crate::{TokenError, os_rng};

const BATCH: BatchSize = BatchSize::Calls8;
const SEED: [u8; 32] = [7; 32];

fn hex(text: &str) -> Vec<u8> {
    HEXLOWER.decode(text.as_bytes()).expect("good hex")
}

/// Made by another implementation (in Go) of the batched-tokens draft; from
/// the test vectors of the `privacypass` crate.
mod vector {
    pub(super) const SECRET: &str =
        "91f04a2caea9a854cd351b68d58132a6afa65d4dbee00fd55715d553d744820e";
    pub(super) const CHALLENGE: &str = "0005000e6973737565722e6578616d706c65208278149d3094c9138347d7a2bcbf1188a262a10b1a5696c41549eabed84c129d000e6f726967696e2e6578616d706c65";
    pub(super) const NONCES: [&str; 3] = [
        "62dd654dffc63bbe3721648eb5bd26f10e7e1851b7dc4e4047cc8cc042d468dc",
        "49625ad9fae71ef46bfc59f09cd74d96bd6fe82c24a4f69efb78662addd2a320",
        "b76d2192812dbdad0579b00ab61a9cec66e1ecdaaac07c36dd5b70bfae3a0bb3",
    ];
    pub(super) const BLINDS: [&str; 3] = [
        "6efdd3f587b7a0a50e49ababf7cbc908b345f1425e0b8d43b3452eb592b26f05",
        "a10eed1297b917e6d807866410307f611386858a1bfb528a70c96d14ead9a10b",
        "5291910b64461416cac41e11ceaae17db031c5f1fd36c070f2a74b6f66a44704",
    ];
    pub(super) const REQUEST: &str = "00052d406044d05bfbb5643c595765bd6e0cfdc87714d73a43a0b7e1fe4ef5a9388e86d97ea45908db7f5dad5573a439ac85262f2c7aed0dfea10f666cc2a7bd79027cef351e6aa090f165739bd3a07d0f456157e8d93db0c7e05603bd995936cc98c6321b";
    pub(super) const RESPONSE: &str = "4060a2740f4d68e9450a975233ceaeaa1d0feadb97ec393463ac783c37af8a9b2829e2cd06c01504b39737bd06ac041910e270c18cf6800243fc1187035c9cd88d45c8d7d3153dd911f6e5724cb0def59739a1674e2ae4ca1caf1e5f11e686457140e4850db347edb252aa4b1004f237318f6079413b0693605cf591b7291d8cff0b659bb5ee237374bc76b5836e5d9535e0c4bb39c73dcaf0597340c768a6eab002";
    pub(super) const TOKENS: [&str; 3] = [
        "000562dd654dffc63bbe3721648eb5bd26f10e7e1851b7dc4e4047cc8cc042d468dcead0d1e696ccbef94da0dd33e0e265d97a8015532f429d968fa41fb0af0cb385ba9dc18997fcf0439475b67cb5a534250d2d25f9c402f5b4f17d9c2d37049f2d072877130cee8e7e5d701807193c2768ee9a15726ea564a2bd9f951f2acb90780f177fc8f5a3a8e1248a2854430223634b0aac66f9fb2f609ac5a4ee223b2024",
        "000549625ad9fae71ef46bfc59f09cd74d96bd6fe82c24a4f69efb78662addd2a320ead0d1e696ccbef94da0dd33e0e265d97a8015532f429d968fa41fb0af0cb385ba9dc18997fcf0439475b67cb5a534250d2d25f9c402f5b4f17d9c2d37049f2da61b154984bda262b0581883dd386c1c2ea772190cc81d807f239a404218f724dadc0cb5527c05ba7cae6d5580c713d5b303853812dd2c0f1ae2ca9d8de43e67",
        "0005b76d2192812dbdad0579b00ab61a9cec66e1ecdaaac07c36dd5b70bfae3a0bb3ead0d1e696ccbef94da0dd33e0e265d97a8015532f429d968fa41fb0af0cb385ba9dc18997fcf0439475b67cb5a534250d2d25f9c402f5b4f17d9c2d37049f2d61df6682b5bf4f9cc8023e6ea6925767f838b0102c06422d1604218eb9fcc8f6de083de3f007fa046ded66366e9c7735181fc6c342e03c736f3d7ba2c11925a1",
    ];
}

#[test]
fn our_call_tokens_are_those_of_another_implementation() {
    let challenge = TokenChallenge::deserialize(&hex(vector::CHALLENGE)).expect("a challenge");
    let issuer = CallIssuer::of_vector(&hex(vector::SECRET), &challenge);
    let public = deserialize_public_key::<Ristretto255>(&issuer.key().key).expect("a key");
    let nonces = vector::NONCES.map(|nonce| hex(nonce).try_into().expect("32 bytes"));
    let blinds = vector::BLINDS
        .map(|blind| Ristretto255::deserialize_scalar(&hex(blind)).expect("a scalar"));
    let blinded =
        BlindedCalls::blind_with(public, &challenge, nonces.into(), blinds.into(), Epoch(0))
            .expect("blinds");
    assert_eq!(blinded.request(), hex(vector::REQUEST));
    let tokens = blinded
        .finish(&hex(vector::RESPONSE))
        .expect("a good proof");
    for (token, expected) in tokens.iter().zip(vector::TOKENS) {
        assert_eq!(
            token.tls_serialize_detached().expect("bytes"),
            hex(expected)
        );
    }
    for token in blinded
        .unblind(&hex(vector::RESPONSE))
        .expect("a good proof")
    {
        assert!(issuer.recognises(&token));
    }
}

fn provider() -> ProviderId {
    IdentityKey::from_seed(&[1; 32]).id()
}

fn plan() -> PlanName {
    "small".parse().expect("a name")
}

fn issuer(seed: u8) -> CallIssuer {
    CallIssuer::derive(&[seed; 32], &provider(), Epoch(1), &plan()).expect("a key")
}

fn blind(key: &CallKey, seed: [u8; 32]) -> BlindedCalls {
    BlindedCalls::blind(key, &provider(), Epoch(1), BATCH, &seed).expect("blinds")
}

fn buy(issuer: &CallIssuer, seed: [u8; 32]) -> Vec<CallToken> {
    let blinded = blind(&issuer.key(), seed);
    let response = issuer.issue(blinded.request(), BATCH).expect("issues");
    blinded.unblind(&response).expect("a good proof")
}

#[test]
fn bought_tokens_are_recognised_and_changed_ones_are_not() {
    let issuer = issuer(1);
    for token in buy(&issuer, SEED) {
        assert!(issuer.recognises(&token));
        let mut bad = [token; 3];
        bad[0].nonce[0] ^= 1;
        bad[1].authenticator[63] ^= 1;
        bad[2].epoch = Epoch(2);
        assert!(!bad.iter().any(|token| issuer.recognises(token)));
    }
}

#[test]
fn a_token_is_good_for_one_provider_epoch_and_plan() {
    let token = buy(&issuer(1), SEED)[0];
    let other = IdentityKey::from_seed(&[9; 32]).id();
    for (provider, epoch, plan) in [
        (other, Epoch(1), "small"),
        (provider(), Epoch(2), "small"),
        (provider(), Epoch(1), "large"),
    ] {
        let plan = plan.parse().expect("a name");
        let issuer = CallIssuer::derive(&[1; 32], &provider, epoch, &plan).expect("a key");
        let token = CallToken { epoch, ..token };
        assert!(!issuer.recognises(&token));
    }
}

#[test]
fn a_request_lost_in_a_crash_is_made_again_and_gives_the_same_tokens() {
    let issuer = issuer(1);
    let (one, two) = (blind(&issuer.key(), SEED), blind(&issuer.key(), SEED));
    assert_eq!(one.request(), two.request());
    assert_eq!(buy(&issuer, SEED), buy(&issuer, SEED));
    let other = blind(&issuer.key(), [8; 32]);
    let shared = other.request()[4..].chunks(32).filter(|element| {
        let mut ours = one.request()[4..].chunks(32);
        element.len() == 32 && ours.any(|our| our == *element)
    });
    assert_eq!(shared.count(), 0, "another seed shares nothing");
}

#[test]
fn a_batch_evaluated_with_another_key_is_noticed() {
    let (advertised, other) = (issuer(1), issuer(2));
    let blinded = blind(&advertised.key(), SEED);
    // As an issuer would do who marks a caller by a key of its own.
    let mut request = blinded.request().to_vec();
    request[2] = other.key_id().0[31];
    let response = other.issue(&request, BATCH).expect("issues");
    assert_eq!(blinded.unblind(&response).err(), Some(TokenError::Proof));
}

#[test]
fn one_bad_element_spoils_the_batch() {
    let issuer = issuer(1);
    let response = issuer
        .issue(blind(&issuer.key(), SEED).request(), BATCH)
        .expect("issues");
    let other = issuer
        .issue(blind(&issuer.key(), [8; 32]).request(), BATCH)
        .expect("issues");
    let mut mixed = response.clone();
    mixed[34..66].copy_from_slice(&other[34..66]);
    let short = &response[..response.len() - 1];
    let long = [&response[..], &[0]].concat();
    for bad in [&mixed[..], short, &long, &[]] {
        let blinded = blind(&issuer.key(), SEED);
        assert_eq!(blinded.unblind(bad).err(), Some(TokenError::Proof));
    }
}

#[test]
fn an_issuer_takes_requests_of_the_agreed_size_only() {
    let issuer = issuer(1);
    let blinded = blind(&issuer.key(), SEED);
    let good = blinded.request();
    let mut no_element = good.to_vec();
    no_element[10..36].fill(0xff);
    for bad in [
        &good[..good.len() - 1],
        &[good, &[0]].concat(),
        &no_element,
        &[],
    ] {
        assert_eq!(issuer.issue(bad, BATCH).err(), Some(TokenError::Request));
    }
    let larger = issuer.issue(good, BatchSize::Calls32);
    assert_eq!(larger.err(), Some(TokenError::Request));
}

#[test]
fn keys_that_are_none_are_refused() {
    for key in [[0; 32], [0xff; 32]] {
        let key = CallKey { plan: plan(), key };
        let blinded = BlindedCalls::blind(&key, &provider(), Epoch(1), BATCH, &SEED);
        assert_eq!(blinded.err(), Some(TokenError::BadKey));
    }
    for key in [&b""[..], b"key", &[0x30; 400]] {
        let blinded = BlindedRatings::blind(key, &provider(), Epoch(1), BATCH, &SEED);
        assert_eq!(blinded.err(), Some(TokenError::BadKey));
    }
}

#[test]
fn rating_tokens_can_be_checked_by_everybody() {
    let issuer = RatingIssuer::generate(&mut os_rng()).expect("a key");
    let batch = BatchSize::Calls32;
    let blind = || {
        BlindedRatings::blind(issuer.key(), &provider(), Epoch(1), batch, &SEED).expect("blinds")
    };
    assert_eq!(
        blind().request(),
        blind().request(),
        "the same seed gives the same"
    );
    let response = issuer.issue(blind().request(), batch).expect("issues");
    let tokens = blind().unblind(&response).expect("good signatures");
    assert_eq!(tokens.len(), 4);
    let other = IdentityKey::from_seed(&[9; 32]).id();
    for (token, secret) in &tokens {
        assert!(verify_rating(issuer.key(), &provider(), token));
        assert!(!verify_rating(issuer.key(), &other, token));
        let key = dlambda_proto::RatingKey::from_seed(secret);
        assert!(key.id() == token.key, "bound to a key that we hold");
        let mut bad = token.clone();
        bad.authenticator[9] ^= 1;
        assert!(!verify_rating(issuer.key(), &provider(), &bad));
        let later = dlambda_proto::RatingToken {
            epoch: Epoch(2),
            ..token.clone()
        };
        assert!(!verify_rating(issuer.key(), &provider(), &later));
    }
    let mut spoilt = response;
    spoilt[300] ^= 1;
    assert_eq!(blind().unblind(&spoilt).err(), Some(TokenError::Proof));
    let short = issuer.issue(&blind().request()[1..], batch);
    assert_eq!(short.err(), Some(TokenError::Request));
}
