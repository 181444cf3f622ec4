//! A provider that tells its customers apart by the keys or the epoch that it
//! sold them tokens under: its customers send it none, or it does not know
//! whose they are. And it does know, when the customers do not look.

mod tagger;

use std::ops::{Add, Mul};

use dlambda_client::{Call, CallError, ContractError, ProposalOutcome};
use dlambda_executor::Isolation;
use dlambda_privacy::clock::Clock as _;
use dlambda_privacy::exchange::VerifiedGreeting;
use dlambda_proto::{
    BatchSize, CallToken, EquivocationProof, Evidence, Finding, IdentityKey, SignedAdvert, decode,
    encode,
};
use dlambda_reputation::Arbiter;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};

use self::tagger::{Face, Tagger};
use super::market::{Market, seed, wish};
use crate::support::{LONG, NOW, alias, skip_second_look};

const DAY: u64 = 24 * 3600;
/// Of the provider's identity.
const SEED: [u8; 32] = [4; 32];

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
