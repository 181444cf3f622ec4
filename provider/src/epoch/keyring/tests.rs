use dlambda_crypto::seal::SealedCall;
use dlambda_privacy::os_rng;
use dlambda_proto::{
    Admission, Advert, Endpoint, FunctionId, FunctionSource, Greeting, IdentityKey, OnionAddress,
    Request, SealingKey, Verified, decode,
};

use super::*;
use crate::epoch::advert::{CLOCK_TOLERANCE, history};
use crate::epoch::replay::MAX_REMEMBERED;

const START: UnixSeconds = UnixSeconds(100_000);
const LENGTH: u64 = Advert::MIN_EPOCH_SECONDS;

fn here() -> Endpoint {
    Endpoint::Onion(OnionAddress::from_public_key([1; 32]))
}

fn template() -> AdvertTemplate {
    AdvertTemplate::for_tests()
}

fn keys(epoch: u64, now: UnixSeconds) -> EpochKeys {
    let made = EpochKeys::make(&template(), Epoch(epoch), vec![], now, &mut os_rng());
    made.expect("a good template")
}

fn keyring() -> Keyring {
    Keyring::new(Arc::new(template()), keys(1, START))
}

fn greeting(keyring: &Keyring) -> Greeting {
    let frame = keyring.greeting(0).expect("fits");
    decode(frame.body()).expect("decodes")
}

fn advert(keyring: &Keyring, now: UnixSeconds) -> Verified<Advert> {
    let advert = greeting(keyring).advert;
    advert.verify(now, &here()).expect("verifies")
}

fn sealing(keyring: &Keyring, now: UnixSeconds) -> SealingKey {
    let key = greeting(keyring).sealing;
    key.verify(&advert(keyring, now)).expect("signed")
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
    let to = sealing(keyring, now);
    let sealed = SealedCall::seal(&to, plan, &request, &mut os_rng()).expect("seals");
    decode(sealed.frame().body()).expect("decodes")
}

fn accept(keyring: &mut Keyring, envelope: &CallEnvelope, now: UnixSeconds) -> Result<(), Refusal> {
    let keys_ref = keyring.keys_ref(envelope.header.epoch, now)?;
    keys_ref
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
    assert!(!keyring.rotation_due(START.plus(LENGTH - 1)));
    let later = START.plus(LENGTH);
    assert!(keyring.rotation_due(later));
    keyring.rotate(keys(2, later), later);
    assert_eq!(advert(&keyring, later).epoch, Epoch(2));
    assert_eq!(accept(&mut keyring, &one, later), Ok(()), "the overlap");
    let replayed = accept(&mut keyring, &one, later);
    assert_eq!(replayed, Err(Refusal::Replayed), "remembered across it");
    let after = accept(&mut keyring, &late, START.plus(LENGTH + 100));
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
        (Keyring::new(Arc::new(template()), first), record)
    };
    let key = |issuers: &Issuers| issuers.calls[&Plan::standard_menu()[0].name].key();
    let known = |keyring: &mut Keyring, now| {
        let issuers = keyring.token_issuers(Epoch(1), START.plus(now));
        issuers.map(|issuers| key(&issuers))
    };
    let before = known(&mut keyring, 0).expect("known");
    let later = START.plus(LENGTH);
    keyring.rotate(keys(2, later), later);
    assert!(
        keyring
            .keys_ref(Epoch(1), START.plus(LENGTH + 500))
            .is_err()
    );
    assert_eq!(known(&mut keyring, 2 * LENGTH - 1).as_ref(), Some(&before));
    let mut restarted = Keyring::new(Arc::new(template()), keys(3, later));
    restarted.restore(Epoch(1), &first).expect("restores");
    assert_eq!(known(&mut restarted, 2 * LENGTH - 1), Some(before));
    let over = known(&mut restarted, 2 * LENGTH);
    assert_eq!(over, None, "and then it is over");
}

fn resume(template: &AdvertTemplate, record: &EpochRecord, now: UnixSeconds) -> Option<EpochKeys> {
    let resumed = EpochKeys::resume(template, Epoch(1), record, now, &mut os_rng());
    resumed.expect("good keys")
}

#[test]
fn an_epoch_goes_on_after_a_restart_under_the_same_advert_and_a_fresh_sealing_key() {
    let first = keys(1, START);
    let record = first.record();
    let mut before = Keyring::new(Arc::new(template()), first);
    let old_call = call(&before, START);
    let later = START.plus(LENGTH - 1);
    let resumed = resume(&template(), &record, later).expect("it goes on");
    assert!(resumed.record() == record, "and after the next restart");
    let mut after = Keyring::new(Arc::new(template()), resumed);
    assert_eq!(after.epoch(), Epoch(1));
    assert!(greeting(&before).advert == greeting(&after).advert);
    assert_ne!(sealing(&before, START), sealing(&after, START));
    assert_eq!(accept(&mut before, &old_call, START), Ok(()));
    let reopened = accept(&mut after, &old_call, START);
    assert_eq!(reopened, Err(Refusal::CannotOpen), "its key is gone");
    let new_call = call(&after, later);
    assert_eq!(accept(&mut after, &new_call, later), Ok(()));
    let issuers = [&before, &after].map(|it| it.current().issuers);
    let ratings = issuers.map(|it| it.ratings.as_ref().expect("issues").key().to_vec());
    assert_eq!(ratings[0], ratings[1]);
    let receipts = [&before, &after].map(|it| it.current().receipts.id());
    assert_eq!(receipts[0], receipts[1]);
    assert!(!after.rotation_due(later) && after.rotation_due(START.plus(LENGTH)));
}

#[test]
fn an_epoch_that_is_over_or_whose_template_has_changed_does_not_go_on() {
    let record = keys(1, START).record();
    assert!(resume(&template(), &record, START.plus(LENGTH)).is_none());
    assert!(
        resume(
            &template(),
            &record,
            UnixSeconds(START.0 - CLOCK_TOLERANCE - 1)
        )
        .is_none()
    );
    let mut changed = template();
    changed.max_function_bytes += 1;
    assert!(resume(&changed, &record, START).is_none());
    let mut another = template();
    another.identity = IdentityKey::from_seed(&[2; 32]);
    assert!(resume(&another, &record, START).is_none());
}

#[test]
fn an_advert_lists_the_epochs_whose_tokens_are_good() {
    let earlier: Vec<_> = (1..=3)
        .map(|epoch| {
            let made = START.plus((epoch - 1) * LENGTH);
            (Epoch(epoch), keys(epoch, made).record())
        })
        .collect();
    let now = START.plus(3 * LENGTH);
    let listed = history(&earlier, now);
    let epochs: Vec<_> = listed.iter().map(|past| past.epoch).collect();
    assert_eq!(
        epochs,
        [Epoch(3)],
        "tokens are good for the epoch after theirs"
    );
    let next = EpochKeys::make(&template(), Epoch(4), listed, now, &mut os_rng());
    let next = next.expect("made").signed.authenticate();
    let next = next.expect("authentic");
    assert_eq!(next.early_ends(), 0);
    let [first, third] = [0, 2].map(|i: usize| earlier[i].1.advert.clone().authenticate());
    assert!(next.vouches_for(&third.expect("authentic")));
    assert!(!next.vouches_for(&first.expect("authentic")));
    let early = history(&earlier, START.plus(LENGTH));
    assert_eq!(early.len(), 3);
}

#[test]
fn a_busy_epoch_gets_another_sealing_key_and_does_not_end() {
    let mut keyring = keyring();
    let call = call(&keyring, START);
    let before = greeting(&keyring);
    keyring.renew_sealing(&mut os_rng()).expect("nothing to do");
    assert!(before == greeting(&keyring));
    assert_eq!(accept(&mut keyring, &call, START), Ok(()));
    for number in 0..MAX_REMEMBERED as u64 {
        let mut mark = [0; 16];
        mark[..8].copy_from_slice(&number.to_be_bytes());
        keyring.current.replay.marks.insert(mark);
    }
    assert!(!keyring.rotation_due(START));
    keyring.renew_sealing(&mut os_rng()).expect("a key");
    let after = greeting(&keyring);
    assert!(before.advert == after.advert && before.sealing != after.sealing);
    let replayed = accept(&mut keyring, &call, START);
    assert_eq!(
        replayed,
        Err(Refusal::CannotOpen),
        "forgotten, and of no use"
    );
}

#[test]
fn an_advert_says_what_its_template_says() {
    let mut template = template();
    template.specs.memory = 3;
    template.plans.truncate(1);
    template.max_function_bytes = 5;
    template.admission = Admission::Pow;
    template.service.start_within_ms = 7;
    let made = EpochKeys::make(&template, Epoch(9), vec![], START, &mut os_rng());
    let keys = made.expect("a good template");
    let advert = &keys.advert;
    assert_eq!(advert.provider, template.identity.id());
    assert_eq!((advert.epoch, advert.period.from), (Epoch(9), START));
    assert_eq!(advert.endpoints, [here()]);
    assert!(advert.specs == template.specs && advert.plans == template.plans);
    assert!(advert.functions == template.functions && advert.history.is_empty());
    assert_eq!(advert.max_function_bytes, 5);
    assert_eq!(advert.receipt_key, keys.receipts.id());
    assert_eq!(advert.call_keys.len(), 1);
    assert!(!advert.rating_key.is_empty());
    assert_eq!(advert.admission, Admission::Pow);
    assert_eq!(advert.service, template.service);
}
