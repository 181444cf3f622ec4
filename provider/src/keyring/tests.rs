use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Cpu, Endpoint, FunctionId, FunctionSource, OnionAddress, Request, Verified, decode,
};

use super::*;

const START: UnixSeconds = UnixSeconds(100_000);

fn here() -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([1; 32]))
}

fn offer() -> Offer {
    Offer {
        identity: IdentityKey::from_seed(&[1; 32]),
        endpoints: vec![here()].try_into().expect("one"),
        specs: Specs {
            cpu: Cpu {
                cores: 1,
                architecture: String::new(),
            },
            memory: 1,
            gpu: vec![],
            tee: None,
        },
        plans: Plan::standard_menu(),
        functions: vec![],
        max_function_bytes: 0,
        epoch: Duration::from_secs(1000),
        overlap: Duration::from_secs(100),
        admission: Admission::Open,
        service: ServiceTerms {
            start_within_ms: 1000,
        },
    }
}

fn keys(epoch: u64, now: UnixSeconds) -> EpochKeys {
    EpochKeys::make(&offer(), Epoch(epoch), now, &mut os_rng()).expect("a good offer")
}

fn keyring() -> Keyring {
    Keyring::new(Arc::new(offer()), keys(1, START))
}

fn advert(keyring: &Keyring, now: UnixSeconds) -> Verified<Advert> {
    let frame = keyring.greeting(0).expect("fits");
    let greeting: Greeting = decode(frame.body()).expect("decodes");
    greeting.advert.verify(now, &here()).expect("verifies")
}

fn call(keyring: &Keyring, now: UnixSeconds) -> CallEnvelope {
    let advert = advert(keyring, now);
    let request = Request {
        function: FunctionSource::Known(FunctionId::of(b"")),
        args: vec![],
        input: vec![],
        seed: [0; 32],
        http: None,
        token: None,
    };
    let plan = &advert.plans[0].name;
    let sealed = SealedCall::seal(&advert, plan, &request, &mut os_rng()).expect("seals");
    decode(sealed.frame().body()).expect("decodes")
}

fn accept(keyring: &mut Keyring, envelope: &CallEnvelope, now: UnixSeconds) -> Result<(), Refusal> {
    let opening = keyring.opening(envelope.header.epoch, now)?;
    opening
        .secret
        .open(envelope)
        .map_err(|_| Refusal::CannotOpen)?;
    keyring.remember(envelope.header.epoch, &envelope.encapsulated_key)
}

#[test]
fn a_call_is_accepted_once() {
    let mut keyring = keyring();
    let call = call(&keyring, START);
    assert_eq!(accept(&mut keyring, &call, START), Ok(()));
    assert_eq!(accept(&mut keyring, &call, START), Err(Refusal::Replayed));
}

#[test]
fn epochs_overlap_and_then_end() {
    let mut keyring = keyring();
    let (one, late) = (call(&keyring, START), call(&keyring, START));
    assert!(!keyring.rotation_due(START.plus(999)));
    let later = START.plus(1000);
    assert!(keyring.rotation_due(later));
    keyring.rotate(keys(2, later), later);
    assert_eq!(advert(&keyring, later).epoch, Epoch(2));
    assert_eq!(accept(&mut keyring, &one, later), Ok(()), "the overlap");
    let replayed = accept(&mut keyring, &one, later);
    assert_eq!(replayed, Err(Refusal::Replayed), "remembered across it");
    let after = accept(&mut keyring, &late, START.plus(1100));
    assert_eq!(after, Err(Refusal::UnknownEpoch));
    assert!(keyring.previous.is_none(), "the old secret is gone");
}

#[test]
fn adverts_of_one_epoch_are_one_whatever_the_effort() {
    let keyring = keyring();
    let advert = |effort| {
        let frame = keyring.greeting(effort).expect("fits");
        decode::<Greeting>(frame.body()).expect("decodes").advert
    };
    assert!(advert(0) == advert(7));
}

#[test]
fn tokens_outlive_the_key_that_calls_are_sealed_to_and_a_restart() {
    let (mut keyring, first) = {
        let first = keys(1, START);
        let record = first.record();
        (Keyring::new(Arc::new(offer()), first), record)
    };
    let key = |issuers: &Issuers| issuers.calls[&Plan::standard_menu()[0].name].key();
    let known = |keyring: &mut Keyring, now| {
        let issuers = keyring.token_issuers(Epoch(1), START.plus(now));
        issuers.map(|issuers| key(&issuers))
    };
    let before = known(&mut keyring, 0).expect("known");
    let later = START.plus(1000);
    keyring.rotate(keys(2, later), later);
    assert!(keyring.opening(Epoch(1), START.plus(1500)).is_err());
    assert_eq!(known(&mut keyring, 1999).as_ref(), Some(&before));
    let mut restarted = Keyring::new(Arc::new(offer()), keys(3, later));
    restarted.restore(Epoch(1), &first).expect("restores");
    assert_eq!(known(&mut restarted, 1999), Some(before));
    assert_eq!(known(&mut restarted, 2000), None, "and then it is over");
}
