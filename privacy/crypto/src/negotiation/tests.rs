//! Both sides played against each other, and each against a cheat.

use dlambda_proto::{
    Admission, Advert, BatchSize, ContractAnswer, ContractRefusal, Endpoint, Epoch, IdentityKey,
    OnionAddress, Proposal, ReceiptKey, ServiceTerms, SignedContract, UnixSeconds, encode,
};
use zeroize::Zeroizing;

use super::*;
use crate::{NegotiationError, TokenError, os_rng};

struct Shop {
    identity: IdentityKey,
    advert: Advert,
    issuers: Issuers,
    terms: Terms,
}

fn shop() -> Shop {
    let identity = IdentityKey::from_seed(&[1; 32]);
    let mut advert = Advert::minimal(
        identity.id(),
        Epoch(1),
        UnixSeconds(0),
        ReceiptKey::from_seed(&[2; 32]).id(),
        Endpoint::Onion(OnionAddress::from_public_key([1; 32])),
    );
    advert.plans.truncate(2);
    let names: Vec<_> = advert.plans.iter().map(|plan| plan.name.clone()).collect();
    let issuers = Issuers::generate(&[3; 32], &identity.id(), Epoch(1), &names, &mut os_rng());
    let issuers = issuers.expect("keys");
    for plan in &mut advert.plans {
        plan.needs_token = true;
        advert.call_keys.push(issuers.calls[&plan.name].key());
    }
    advert.rating_key = issuers.ratings.as_ref().expect("a key").key().to_vec();
    Shop {
        identity,
        advert,
        issuers,
        terms: Terms {
            max_calls: BatchSize::Calls32,
            invitations: vec![Zeroizing::new(b"friend".to_vec())],
        },
    }
}

fn wish() -> ContractOptions {
    ContractOptions {
        plan: None,
        calls: BatchSize::Calls8,
        service: None,
        deterministic: true,
        invitation: None,
    }
}

fn seed(byte: u8) -> Zeroizing<[u8; 32]> {
    Zeroizing::new([byte; 32])
}

fn propose(shop: &Shop, wish: &ContractOptions) -> (Proposal, Proposed) {
    let negotiation = Negotiation::begin(&shop.advert, wish, seed(4)).expect("possible");
    negotiation.propose().expect("good keys")
}

/// What the provider answers.
fn answer(shop: &Shop, proposal: &Proposal) -> ContractAnswer {
    match consider(proposal, &shop.advert, &shop.terms) {
        Err(answer) => answer,
        Ok(()) => grant(proposal, &shop.identity, &shop.issuers)
            .map_or_else(ContractAnswer::Refused, ContractAnswer::Granted),
    }
}

fn agreed(step: Result<Step, NegotiationError>) -> Agreement {
    match step {
        Ok(Step::Agreed(agreement)) => *agreement,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_contract_is_signed_by_both_and_gives_good_tokens() {
    let shop = shop();
    let (proposal, proposed) = propose(&shop, &wish());
    let agreement = agreed(proposed.receive(answer(&shop, &proposal)));
    let SignedContract {
        contract,
        provider_signature,
        client_signature,
    } = agreement.contract.clone();
    assert!(agreement.contract.verify());
    assert!(is_confirmed(contract, provider_signature, client_signature));
    assert_eq!((agreement.calls.len(), agreement.ratings.len()), (8, 1));
    let issuer = &shop.issuers.calls[&shop.advert.plans[0].name];
    assert!(agreement.calls.iter().all(|token| issuer.recognises(token)));
}

#[test]
fn what_was_lost_is_proposed_again_and_gives_the_same() {
    let shop = shop();
    let negotiation = Negotiation::begin(&shop.advert, &wish(), seed(4)).expect("possible");
    let contract = negotiation.contract().clone();
    let (one, first) = negotiation.propose().expect("good keys");
    let signed = shop.advert.sign(&shop.identity).expect("signs");
    let advert = signed.authenticate().expect("authentic");
    let again = Negotiation::resume(advert.clone(), contract.clone(), seed(4), None);
    let (two, second) = again.expect("belongs").propose().expect("good keys");
    assert_eq!(one.digest(), two.digest());
    let granted = answer(&shop, &one);
    let first = agreed(first.receive(granted.clone()));
    let second = agreed(second.receive(granted));
    assert_eq!(first.calls, second.calls);
    let other = Negotiation::resume(advert, contract, seed(5), None);
    assert!(other.is_err(), "another seed is another contract");
}

#[test]
fn a_token_is_in_no_message_of_its_contract() {
    let shop = shop();
    let (proposal, proposed) = propose(&shop, &wish());
    let granted = answer(&shop, &proposal);
    let seen = [encode(&proposal), encode(&granted)].concat();
    let agreement = agreed(proposed.receive(granted));
    for token in &agreement.calls {
        for part in [&token.nonce[..], &token.authenticator] {
            for piece in part.windows(8) {
                assert!(!seen.windows(8).any(|window| window == piece));
            }
        }
    }
}

#[test]
fn a_provider_that_asks_for_less_is_heard_and_one_that_gives_less_is_not() {
    let shop = shop();
    let many = ContractOptions {
        calls: BatchSize::Calls128,
        ..wish()
    };
    let soon = ContractOptions {
        service: Some(ServiceTerms { start_within_ms: 1 }),
        ..wish()
    };
    for (wish, reason, calls) in [
        (many, ContractRefusal::TooManyCalls, BatchSize::Calls32),
        (soon, ContractRefusal::ServiceTooGood, BatchSize::Calls8),
    ] {
        let (proposal, proposed) = propose(&shop, &wish);
        let step = proposed.receive(answer(&shop, &proposal));
        let Ok(Step::Countered(counter)) = step else {
            panic!("{step:?}");
        };
        assert_eq!((counter.reason, counter.calls), (reason, calls));
        // What it says it would do, it does.
        let accepted = ContractOptions {
            calls: counter.calls,
            service: Some(counter.service),
            ..wish
        };
        let (proposal, proposed) = propose(&shop, &accepted);
        agreed(proposed.receive(answer(&shop, &proposal)));
    }
}

#[test]
fn invitations_are_for_those_who_have_one() {
    let mut shop = shop();
    shop.advert.admission = Admission::Invite;
    shop.advert.plans[0].price = 7;
    assert!(Negotiation::begin(&shop.advert, &wish(), seed(4)).is_err());
    let with = |secret: &[u8]| ContractOptions {
        invitation: Some(Zeroizing::new(secret.to_vec())),
        ..wish()
    };
    let (proposal, proposed) = propose(&shop, &with(b"friend"));
    let agreement = agreed(proposed.receive(answer(&shop, &proposal)));
    assert_eq!(agreement.contract.contract.payment.total, 56);
    let (mut stolen, _) = propose(&shop, &with(b"foe"));
    let (_, refused) = propose(&shop, &with(b"foe"));
    let refusal = refused.receive(answer(&shop, &stolen)).err();
    let not_invited = NegotiationError::Refused(ContractRefusal::NotInvited);
    assert_eq!(refusal, Some(not_invited));
    // Somebody else's proof is for somebody else's contract.
    stolen.invitation = proposal.invitation;
    stolen.contract.calls = BatchSize::Calls32;
    assert!(answer(&shop, &stolen) == ContractAnswer::Refused(ContractRefusal::Payment));
    stolen.contract.payment.total = 7 * 32;
    assert!(answer(&shop, &stolen) == ContractAnswer::Refused(ContractRefusal::NotInvited));
}

#[test]
fn terms_that_are_not_the_advertised_ones_are_refused() {
    type Change = fn(&mut Proposal);
    let shop = shop();
    let changes: [(Change, ContractRefusal); 10] = [
        (|p| p.contract.epoch = Epoch(2), ContractRefusal::StaleKeys),
        (
            |p| p.contract.call_key.0[0] ^= 1,
            ContractRefusal::StaleKeys,
        ),
        (
            |p| p.contract.rating_key.0[0] ^= 1,
            ContractRefusal::StaleKeys,
        ),
        (|p| p.contract.plan.fuel += 1, ContractRefusal::OtherTerms),
        (|p| p.contract.plan.price = 1, ContractRefusal::OtherTerms),
        (
            |p| p.contract.validity.until.0 += 1,
            ContractRefusal::OtherTerms,
        ),
        (|p| p.contract.payment.total = 1, ContractRefusal::Payment),
        (
            |p| p.contract.technology.tee = Some("sgx".into()),
            ContractRefusal::NoSuchTechnology,
        ),
        (|p| p.call_request.truncate(99), ContractRefusal::Malformed),
        (|p| p.rating_request.clear(), ContractRefusal::Malformed),
    ];
    for (number, (change, reason)) in changes.into_iter().enumerate() {
        let (mut proposal, _) = propose(&shop, &wish());
        change(&mut proposal);
        let refused = answer(&shop, &proposal) == ContractAnswer::Refused(reason);
        assert!(refused, "change {number}");
    }
}

#[test]
fn a_provider_that_cheats_gets_no_confirmation() {
    let shop = shop();
    let (proposal, _) = propose(&shop, &wish());
    let ContractAnswer::Granted(good) = answer(&shop, &proposal) else {
        panic!("granted");
    };
    let stranger = IdentityKey::from_seed(&[8; 32]);
    let mut unsigned = good.clone();
    unsigned.signature = proposal.contract.sign(&stranger);
    let mut other_tokens = good.clone();
    other_tokens.call_response[20] ^= 1;
    let mut other_ratings = good;
    other_ratings.rating_response[20] ^= 1;
    let bad_tokens = NegotiationError::Tokens(TokenError::Proof);
    for (grant, error) in [
        (unsigned, NegotiationError::Signature),
        (other_tokens, bad_tokens),
        (other_ratings, bad_tokens),
    ] {
        let (_, proposed) = propose(&shop, &wish());
        let step = proposed.receive(ContractAnswer::Granted(grant));
        assert_eq!(step.err(), Some(error));
    }
    let (_, proposed) = propose(&shop, &wish());
    let step = proposed.receive(ContractAnswer::Confirmed);
    assert_eq!(step.err(), Some(NegotiationError::Unexpected));
}

#[test]
fn nobody_else_can_confirm() {
    let shop = shop();
    let (proposal, proposed) = propose(&shop, &wish());
    let agreement = agreed(proposed.receive(answer(&shop, &proposal)));
    let SignedContract {
        contract,
        provider_signature,
        mut client_signature,
    } = agreement.contract;
    client_signature[0] ^= 1;
    assert!(!is_confirmed(
        contract,
        provider_signature,
        client_signature
    ));
}
