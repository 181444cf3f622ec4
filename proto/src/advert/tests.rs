use super::verify::DOMAIN;
use super::*;
use crate::{IdentityKey, OnionAddress, ReceiptKey, decode, encode};

const NOW: UnixSeconds = UnixSeconds(1_000);
/// The first second after the validity.
const OVER: u64 = 50_000;

fn onion(byte: u8) -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([byte; 32]))
}

fn advert(key: &IdentityKey) -> Advert {
    Advert {
        provider: key.id(),
        epoch: Epoch(3),
        validity: Validity {
            from: UnixSeconds(900),
            until: UnixSeconds(OVER),
        },
        period: Validity {
            from: UnixSeconds(950),
            until: UnixSeconds(950 + Advert::MIN_EPOCH_SECONDS),
        },
        endpoints: vec![onion(1)],
        specs: Specs {
            cpu: Cpu {
                cores: 2,
                architecture: "x86_64".into(),
            },
            memory: 1024,
            gpu: vec![],
            tee: None,
            gpu_vram_mib: 0,
            region: None,
        },
        plans: Plan::standard_menu(),
        functions: vec![PublishedFunction {
            id: FunctionId::of(b"f"),
            alias: "f".into(),
            size: 1,
        }],
        max_function_bytes: 1 << 20,
        receipt_key: ReceiptKey::from_seed(&[2; 32]).id(),
        call_keys: Plan::standard_menu()
            .into_iter()
            .map(|plan| CallKey {
                plan: plan.name,
                key: [6; 32],
            })
            .collect(),
        rating_key: vec![7; 300],
        tokens: Validity {
            from: UnixSeconds(900),
            until: UnixSeconds(3_000),
        },
        admission: Admission::Open,
        service: ServiceTerms {
            start_within_ms: 1000,
        },
        history: vec![],
    }
}

fn key() -> IdentityKey {
    IdentityKey::from_seed(&[1; 32])
}

#[test]
fn a_good_advert_is_believed_after_the_wire() {
    let signed = advert(&key()).sign(&key()).expect("signs");
    let again: SignedAdvert = decode(&encode(&signed)).expect("decodes");
    let verified = again.verify(NOW, &onion(1)).expect("verifies");
    assert_eq!(*verified, advert(&key()));
}

#[test]
fn expired_early_or_elsewhere_is_refused() {
    let signed = advert(&key()).sign(&key()).expect("signs");
    for now in [0, 899, OVER, u64::MAX] {
        assert!(
            matches!(
                signed.clone().verify(UnixSeconds(now), &onion(1)),
                Err(AdvertError::NotValidNow { .. })
            ),
            "{now}"
        );
    }
    assert_eq!(
        signed.verify(NOW, &onion(2)),
        Err(AdvertError::OtherEndpoint)
    );
}

#[test]
fn every_flipped_bit_is_noticed() {
    let bytes = encode(&advert(&key()).sign(&key()).expect("signs"));
    for i in 0..bytes.len() * 8 {
        let mut bad = bytes.clone();
        bad[i / 8] ^= 1 << (i % 8);
        let believed =
            decode::<SignedAdvert>(&bad).is_ok_and(|signed| signed.verify(NOW, &onion(1)).is_ok());
        assert!(!believed, "bit {i}");
    }
}

#[test]
fn another_identity_cannot_sign_or_be_named() {
    let other = IdentityKey::from_seed(&[2; 32]);
    assert_eq!(advert(&key()).sign(&other), Err(AdvertError::Signature));
    let forged = SignedAdvert {
        advert: encode(&advert(&key())),
        signature: other.sign(DOMAIN, &encode(&advert(&key()))),
    };
    assert_eq!(forged.verify(NOW, &onion(1)), Err(AdvertError::Signature));
}

#[test]
fn bounds_hold_for_signer_and_reader() {
    let mut wide = advert(&key());
    wide.validity.until = UnixSeconds(900 + Advert::MAX_VALIDITY_SECONDS + 1);
    let mut twice = advert(&key());
    twice.plans.push(twice.plans[0].clone());
    let mut nowhere = advert(&key());
    nowhere.endpoints.clear();
    let mut keyless = advert(&key());
    keyless.call_keys.pop();
    let mut short = advert(&key());
    short.period.until.0 -= 1;
    let mut late = advert(&key());
    late.period.until.0 = OVER + 1;
    let mut margin = advert(&key());
    margin.validity.until = margin.period.until.plus(Advert::MAX_MARGIN_SECONDS + 1);
    let past = |epoch| PastEpoch {
        epoch: Epoch(epoch),
        period: advert(&key()).period,
        advert: AdvertDigest([1; 32]),
    };
    let with = |history: Vec<PastEpoch>| Advert {
        epoch: Epoch(100),
        history,
        ..advert(&key())
    };
    let full = with((0..16).map(past).collect());
    assert!(full.sign(&key()).is_ok());
    let disordered = with(vec![past(2), past(1)]);
    let doubled = with(vec![past(2), past(2)]);
    let own = with(vec![past(100)]);
    let long = with((0..17).map(past).collect());
    let pasts = [disordered, doubled, own, long];
    let others = [wide, twice, nowhere, keyless, short, late, margin];
    for bad in others.into_iter().chain(pasts) {
        assert!(matches!(bad.sign(&key()), Err(AdvertError::Bound(_))));
        let bytes = encode(&bad);
        let signed = SignedAdvert {
            signature: key().sign(DOMAIN, &bytes),
            advert: bytes,
        };
        assert!(matches!(
            signed.clone().verify(NOW, &onion(1)),
            Err(AdvertError::Bound(_))
        ));
    }
}
