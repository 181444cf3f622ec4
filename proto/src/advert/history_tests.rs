use std::ops::{Add, Mul};

use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha512};

use super::*;
use crate::{
    Endpoint, EquivocationProof, EvidenceError, IdentityKey, OnionAddress, ReceiptKey,
    SignedAdvert, UnixSeconds, decode, encode, keys,
};

const SEED: [u8; 32] = [1; 32];
const START: u64 = 1_000_000;
const DAY: u64 = 24 * 3600;

/// An epoch's advert, `days` after the first.
fn advert(epoch: u64, days: u64) -> Advert {
    let identity = IdentityKey::from_seed(&SEED);
    Advert::minimal(
        identity.id(),
        Epoch(epoch),
        UnixSeconds(START + days * DAY),
        ReceiptKey::from_seed(&[2; 32]).id(),
        Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
    )
}

fn seen(advert: &Advert) -> Authentic<Advert> {
    let signed = advert.sign(&IdentityKey::from_seed(&SEED));
    signed.expect("signs").authenticate().expect("authentic")
}

/// The next epoch after these, the last of which it follows after a day.
fn after(earlier: &[&Authentic<Advert>]) -> Advert {
    let last = earlier.last().expect("one");
    let mut next = advert(last.epoch.0 + 1, 0);
    let later = |at: UnixSeconds| UnixSeconds(at.0 + DAY);
    for (its, of_last) in [
        (&mut next.period, last.period),
        (&mut next.validity, last.validity),
        (&mut next.tokens, last.tokens),
    ] {
        (its.from, its.until) = (later(of_last.from), later(of_last.until));
    }
    next.history = earlier.iter().map(|it| it.as_past()).collect();
    next
}

/// A number modulo the order of the group, from little-endian bytes.
fn scalar<S: From<u128> + Add<Output = S> + Mul<Output = S> + Copy>(
    _like: S,
    bytes: &[u8; 64],
) -> S {
    let base = S::from(u128::MAX) + S::from(1);
    let parts = bytes.chunks_exact(16).rev().map(|part| {
        let part: [u8; 16] = part.try_into().expect("16 bytes");
        S::from(u128::from_le_bytes(part))
    });
    parts.fold(S::from(0), |sum, part| sum * base + part)
}

/// Signs as RFC 8032 does, but for the nonce, which is another.
fn sign_again(signed: &SignedAdvert, nonce: u8) -> SignedAdvert {
    let (key, nonce) = (
        SigningKey::from_bytes(&SEED),
        SigningKey::from_bytes(&[nonce; 32]),
    );
    let mut bytes = encode(signed);
    let end = bytes.len() - 64;
    // Before the signature: the head of an array of two, and the heads of two byte strings.
    let advert = signed.clone().authenticate().expect("authentic");
    let message = keys::separated(b"dlambda/advert/v1", &encode(&*advert));
    let r = nonce.verifying_key().to_bytes();
    let mut hash = Sha512::new();
    hash.update(r);
    hash.update(key.verifying_key().to_bytes());
    hash.update(message);
    let secret = key.to_scalar();
    let challenge = scalar(secret, &hash.finalize().into());
    let s = nonce.to_scalar() + challenge * secret;
    bytes[end..end + 32].copy_from_slice(&r);
    bytes[end + 32..].copy_from_slice(&s.to_bytes());
    decode(&bytes).expect("decodes")
}

fn proof(
    one: &Authentic<Advert>,
    other: &Authentic<Advert>,
) -> Result<(Authentic<Advert>, Authentic<Advert>), EvidenceError> {
    let proof = EquivocationProof {
        one: one.signed().clone(),
        other: other.signed().clone(),
    };
    proof.verify()
}

#[test]
fn the_same_advert_under_another_signature_is_the_same_advert() {
    let one = seen(&advert(3, 0));
    let signed_again = sign_again(one.signed(), 9);
    assert_ne!(encode(&signed_again), encode(one.signed()));
    let again = signed_again.authenticate().expect("the signature is valid");
    assert!(one.signed() == again.signed() && one.signed().digest() == again.signed().digest());
    assert!(!one.contradicts(&again) && again.vouches_for(&one));
    assert_eq!(proof(&one, &again), Err(EvidenceError::NoEquivocation));
    // Nor does it become another one in what follows.
    let next = seen(&after(&[&again]));
    assert!(next.vouches_for(&one) && !next.contradicts(&one));
}

#[test]
fn two_adverts_of_one_epoch_contradict_each_other_for_all() {
    let one = seen(&advert(3, 0));
    let mut other = advert(3, 0);
    other.max_function_bytes += 1;
    let other = seen(&other);
    assert!(one.contradicts(&other) && !one.vouches_for(&other));
    assert!(proof(&one, &other).is_ok());
    let elsewhere = seen(&advert(4, 0));
    assert!(!one.contradicts(&elsewhere));
    assert!(proof(&one, &elsewhere).is_err());
}

#[test]
fn a_later_advert_is_held_to_the_earlier_ones() {
    let mut marked = advert(3, 0);
    marked.max_function_bytes += 1;
    let (usual, marked) = (seen(&advert(3, 0)), seen(&marked));
    let next = seen(&after(&[&usual]));
    assert!(next.vouches_for(&usual) && !next.contradicts(&usual));
    assert!(
        !usual.vouches_for(&next),
        "what came later is not known to it"
    );
    assert!(!next.vouches_for(&marked));
    assert!(proof(&next, &marked).is_ok() && proof(&marked, &next).is_ok());
    // Another word about the end of an epoch is another word.
    let mut lengthened = after(&[&usual]);
    lengthened.history[0].period.until.0 -= 1;
    assert!(proof(&seen(&lengthened), &usual).is_ok());
    // Two lists that differ are a contradiction without the advert itself.
    let after_next = seen(&after(&[&marked, &next]));
    assert!(proof(&after_next, &next).is_ok());
    // One that is left out is not proven, and not vouched for.
    let mut silent = after(&[&usual]);
    silent.history.clear();
    let silent = seen(&silent);
    assert!(!silent.vouches_for(&usual) && !silent.contradicts(&usual));
}

#[test]
fn epochs_that_end_early_are_counted() {
    let first = seen(&advert(1, 0));
    let mut second = after(&[&first]);
    assert_eq!(second.early_ends(), 0);
    (second.period.from.0, second.period.until.0) =
        (second.period.from.0 - 1, second.period.until.0 - 1);
    assert_eq!(second.early_ends(), 1);
    let second = seen(&second);
    let mut third = after(&[&first, &second]);
    assert_eq!(third.early_ends(), 1, "a later epoch remembers it");
    third.period.from = UnixSeconds(START);
    assert_eq!(third.early_ends(), 2);
    third.history.clear();
    assert_eq!(third.early_ends(), 0);
}
