//! Proposals of other terms than the advert's.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn other_terms_than_the_adverts_are_refused() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let medium = &welcome.advert.plans[1];
    let medium_key = proposal_for(&welcome.advert, 1).contract.call_key;
    let edits: &[Edit<'_, Contract>] = &[
        ("provider", ContractRefusal::StaleKeys, &|it| {
            it.provider = IdentityKey::from_seed(&[9; 32]).id();
        }),
        ("epoch", ContractRefusal::StaleKeys, &|it| {
            it.epoch = it.epoch.next();
        }),
        ("call key", ContractRefusal::StaleKeys, &|it| {
            it.call_key = TokenKeyId([1; 32]);
        }),
        (
            "call key of a better plan",
            ContractRefusal::StaleKeys,
            &|it| {
                it.call_key = medium_key;
            },
        ),
        ("rating key", ContractRefusal::StaleKeys, &|it| {
            it.rating_key = TokenKeyId([1; 32]);
        }),
        ("better plan", ContractRefusal::StaleKeys, &|it| {
            it.plan = medium.clone();
        }),
        ("plan", ContractRefusal::OtherTerms, &|it| {
            it.plan.name = "huge".parse().expect("a name");
        }),
        ("fuel", ContractRefusal::OtherTerms, &|it| it.plan.fuel += 1),
        ("memory", ContractRefusal::OtherTerms, &|it| {
            it.plan.memory_bytes *= 2;
        }),
        ("price", ContractRefusal::OtherTerms, &|it| {
            it.plan.price = 1
        }),
        ("no token", ContractRefusal::OtherTerms, &|it| {
            it.plan.needs_token = false;
        }),
        ("validity", ContractRefusal::OtherTerms, &|it| {
            it.validity.until = it.validity.until.plus(1);
        }),
        ("tee", ContractRefusal::NoSuchTechnology, &|it| {
            it.technology.tee = Some("sgx".to_owned());
        }),
        ("total", ContractRefusal::Payment, &|it| {
            it.payment.total = 1
        }),
        ("method", ContractRefusal::Payment, &|it| {
            it.payment.method = PaymentMethod::Invitation;
        }),
    ];
    for (what, expected, edit) in edits {
        let mut bad = proposal(&welcome, BatchSize::Calls8);
        edit(&mut bad.contract);
        let answer = propose(&market, bad).await;
        assert_eq!(reason(&answer), Some(*expected), "{what}");
    }
    assert_eq!(market.contracts().await, (0, 0));
    assert_eq!(market.status().await.contracts_refused, edits.len() as u64);
    market.assert_alive().await;
}

fn proposal_for(advert: &Advert, plan: usize) -> Proposal {
    let wish = ContractOptions {
        plan: Some(advert.plans[plan].name.clone()),
        ..wish(BatchSize::Calls8)
    };
    let begun = Negotiation::begin(advert, &wish, seed().into());
    begun.expect("begins").propose().expect("proposes").0
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_something_is_not_given_away() {
    let mut config = ProviderConfig::default();
    config.contracts.admission = Admission::Invite;
    config.contracts.invitations = vec![b"a secret".to_vec().into()];
    config.plans[0].price = 5;
    let market = Market::with(config).await;
    let welcome = market.greet().await.1;
    let wish = ContractOptions {
        invitation: Some(b"a secret".to_vec().into()),
        ..wish(BatchSize::Calls8)
    };
    for (total, method, is_good) in [
        (0, PaymentMethod::Gratis, false),
        (40, PaymentMethod::Gratis, false),
        (0, PaymentMethod::Invitation, false),
        (39, PaymentMethod::Invitation, false),
        (u64::MAX, PaymentMethod::Invitation, false),
        (40, PaymentMethod::Invitation, true),
    ] {
        let begun = Negotiation::begin(&welcome.advert, &wish, seed().into());
        let mut proposal = begun.expect("begins").propose().expect("proposes").0;
        proposal.contract.payment.total = total;
        proposal.contract.payment.method = method;
        let id = proposal.contract.id();
        let proof = invitation(b"a secret", &id);
        proposal.invitation = Some(proof);
        let answer = propose(&market, proposal).await;
        if is_good {
            assert!(matches!(answer, ContractAnswer::Granted(_)));
        } else {
            let expected = Some(ContractRefusal::Payment);
            assert_eq!(reason(&answer), expected, "{total} {method:?}");
        }
    }
    assert_eq!(market.contracts().await, (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_another_size_than_the_contracts_are_refused() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let size = |calls| proposal(&welcome, calls);
    let large = size(BatchSize::Calls128);
    let edits: &[Edit<'_, Proposal>] = &[
        ("more calls", ContractRefusal::Malformed, &|it| {
            it.call_request.clone_from(&large.call_request)
        }),
        ("more ratings", ContractRefusal::Malformed, &|it| {
            it.rating_request.clone_from(&large.rating_request);
        }),
        ("fewer calls", ContractRefusal::Malformed, &|it| {
            it.call_request = size(BatchSize::Calls8).call_request;
        }),
        ("fewer ratings", ContractRefusal::Malformed, &|it| {
            it.rating_request = size(BatchSize::Calls8).rating_request;
        }),
        ("a larger contract", ContractRefusal::Malformed, &|it| {
            it.contract.calls = BatchSize::Calls128;
        }),
        ("a smaller contract", ContractRefusal::Malformed, &|it| {
            it.contract.calls = BatchSize::Calls8;
        }),
        ("no calls", ContractRefusal::Malformed, &|it| {
            it.call_request.clear()
        }),
        ("no ratings", ContractRefusal::Malformed, &|it| {
            it.rating_request.clear()
        }),
        ("half a call", ContractRefusal::Malformed, &|it| {
            it.call_request.pop();
        }),
        ("half a rating", ContractRefusal::Malformed, &|it| {
            it.rating_request.pop();
        }),
        (
            "something after the calls",
            ContractRefusal::Malformed,
            &|it| it.call_request.push(0),
        ),
        (
            "something after the ratings",
            ContractRefusal::Malformed,
            &|it| it.rating_request.push(0),
        ),
        ("noise as calls", ContractRefusal::Malformed, &|it| {
            it.call_request = random(it.call_request.len());
        }),
        ("noise as ratings", ContractRefusal::Malformed, &|it| {
            it.rating_request = random(it.rating_request.len());
        }),
        ("much noise", ContractRefusal::Malformed, &|it| {
            it.call_request = random(10_000)
        }),
        ("one another's", ContractRefusal::Malformed, &|it| {
            std::mem::swap(&mut it.call_request, &mut it.rating_request);
        }),
    ];
    for (what, expected, edit) in edits {
        let mut bad = size(BatchSize::Calls32);
        edit(&mut bad);
        let answer = propose(&market, bad).await;
        assert_eq!(reason(&answer), Some(*expected), "{what}");
    }
    assert_eq!(market.contracts().await, (0, 0));
    market.assert_alive().await;
}
