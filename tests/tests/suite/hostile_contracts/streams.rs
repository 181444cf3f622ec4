//! Requests that come twice, at once, or on the wrong stream.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn one_contract_is_good_for_one_set_of_tokens() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let good = proposal(&welcome, BatchSize::Calls8);
    let more = proposal(&welcome, BatchSize::Calls8);
    let granted = propose(&market, good.clone()).await;
    assert!(matches!(granted, ContractAnswer::Granted(_)));
    let other_calls = Proposal {
        call_request: more.call_request.clone(),
        ..good.clone()
    };
    let other_ratings = Proposal {
        rating_request: more.rating_request.clone(),
        ..good.clone()
    };
    // Not even an invitation, which nobody asked for, may differ.
    let invited = Proposal {
        invitation: Some([1; 32]),
        ..good.clone()
    };
    for again in [other_calls, other_ratings, invited] {
        let answer = propose(&market, again).await;
        assert_eq!(reason(&answer), Some(ContractRefusal::Malformed));
    }
    assert!(propose(&market, good).await == granted, "the same again");
    let totals = market.status().await.contracts;
    assert_eq!((totals[0].granted, totals[0].calls_issued), (1, 8));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_proposals_that_race_for_a_contract_one_is_granted() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    for round in 1..=10 {
        let one = proposal(&welcome, BatchSize::Calls8);
        let other = Proposal {
            call_request: proposal(&welcome, BatchSize::Calls8).call_request,
            ..one.clone()
        };
        let racing = [one.clone(), other.clone(), one, other].map(|it| propose(&market, it));
        let answers = join_all(racing).await;
        let is_granted: Vec<_> = answers
            .iter()
            .map(|it| matches!(it, ContractAnswer::Granted(_)))
            .collect();
        let [one, other, ..] = is_granted[..] else {
            panic!("four");
        };
        assert!(one != other && is_granted[2..] == [one, other]);
        assert!(answers[0] == answers[2] && answers[1] == answers[3]);
        assert_eq!(market.contracts().await.0, round);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_get_the_same_and_nothing_more() {
    let market = Market::open().await;
    let (mut stream, welcome) = market.greet().await;
    let (proposal, proposed) = draw_up(&welcome.advert, BatchSize::Calls8, seed());
    let request = ContractRequest::Propose(Box::new(proposal));
    let propose = sealed(&welcome, &request);
    let frame = propose.frame().expect("a frame");
    let mut bodies = Vec::new();
    for _ in 0..3 {
        send(&mut stream, &frame).await;
        bodies.push(receive(&mut stream).await.expect("an answer").into_body());
    }
    acknowledge(stream).await;
    for (_, copy) in join_all((0..8).map(|_| market.deliver(&frame))).await {
        bodies.push(copy.into_body());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert_eq!(market.contracts().await, (1, 0));
    let answer = propose.open(&bodies[0]).expect("opens");
    let Ok(Step::Agreed(agreement)) = proposed.receive(answer) else {
        panic!("it was granted");
    };
    let confirm = sealed(&welcome, &agreement.confirmation());
    let frame = confirm.frame().expect("a frame");
    let mut bodies = Vec::new();
    for _ in 0..5 {
        bodies.push(market.deliver(&frame).await.1.into_body());
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
    assert!(confirm.open(&bodies[0]) == Ok(ContractAnswer::Confirmed));
    assert_eq!(market.contracts().await, (1, 1));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_contracts_own_key_confirms() {
    let market = Market::open().await;
    let welcome = market.greet().await.1;
    let (one, other) = (
        agree(&market, &welcome.advert).await,
        agree(&market, &welcome.advert).await,
    );
    let (id, signature) = (one.contract.id(), one.client_signature);
    let refused = |contract, signature, expected| {
        let request = ContractRequest::Confirm {
            contract,
            signature,
        };
        let market = &market;
        async move {
            let answer = ask_alone(market, &request).await;
            assert_eq!(reason(&answer), Some(expected));
        }
    };
    let bad = ContractRefusal::BadSignature;
    for bit in (0..512).step_by(19) {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        refused(id, flipped, bad).await;
    }
    let stranger = ContractKey::from_seed(&[9; 32]);
    let forged = one.contract.countersign(&one.provider_signature, &stranger);
    refused(id, forged, bad).await;
    refused(id, other.client_signature, bad).await;
    refused(id, one.provider_signature, bad).await;
    refused(id, [0; 64], bad).await;
    let unknown = ContractRefusal::UnknownContract;
    refused(ContractId([7; 32]), signature, unknown).await;
    assert_eq!(market.contracts().await, (2, 0));
    for contract in [&one, &one, &other] {
        let answer = ask_alone(&market, &confirmation(contract)).await;
        assert!(answer == ContractAnswer::Confirmed);
    }
    refused(id, forged, bad).await;
    assert_eq!(market.contracts().await, (2, 2));
    market.assert_alive().await;
}

/// A contract that lacks the confirmation.
async fn agree(market: &Market, advert: &Advert) -> SignedContract {
    let (proposal, proposed) = draw_up(advert, BatchSize::Calls8, seed());
    let answer = propose(market, proposal).await;
    match proposed.receive(answer) {
        Ok(Step::Agreed(agreement)) => agreement.contract,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_four_requests() {
    let market = Market::open().await;
    let (mut stream, welcome) = market.greet().await;
    let proposal = proposal(&welcome, BatchSize::Calls8);
    let request = ContractRequest::Propose(Box::new(proposal));
    for number in 0..6 {
        let frame = sealed(&welcome, &request).frame().expect("a frame");
        send(&mut stream, &frame).await;
        let answer = receive(&mut stream).await;
        let is_answered = answer.is_some_and(|it| it.kind() == FrameKind::ContractAnswer);
        assert_eq!(is_answered, number < 4, "request {number}");
    }
    assert_eq!(market.contracts().await, (1, 0));
    let status = market.status().await;
    assert_eq!(status.contracts_granted, 1, "the same was granted again");
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_good_for_one_contract() {
    let market = Market::open().await;
    let (mut stream, welcome) = market.greet().await;
    let frame = sealed_proposal(&welcome).frame().expect("a frame");
    send(&mut stream, &frame).await;
    let granted = receive(&mut stream).await.expect("an answer");
    assert_eq!(granted.kind(), FrameKind::ContractAnswer);
    let another = sealed_proposal(&welcome).frame().expect("a frame");
    send(&mut stream, &another).await;
    let answer = receive(&mut stream).await.expect("an answer");
    assert_eq!(refusal(&answer), Some(Refusal::Malformed));
    assert_eq!(market.contracts().await, (1, 0));
    market.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_and_contracts_do_not_share_a_stream() {
    let market = Market::open().await;
    let tokens = market.tokens(BatchSize::Calls8).await;
    let (before, _) = market.contracts().await;
    // A call after a contract.
    let (mut stream, welcome) = market.greet().await;
    send(
        &mut stream,
        &sealed_proposal(&welcome).frame().expect("one"),
    )
    .await;
    let granted = receive(&mut stream).await.expect("an answer");
    assert_eq!(granted.kind(), FrameKind::ContractAnswer);
    let call = seal(&welcome, &market.request(tokens[0], b"a call"));
    send(&mut stream, call.frame()).await;
    let answer = receive(&mut stream).await.expect("an answer");
    assert_eq!(refusal(&answer), Some(Refusal::Malformed));
    drop(stream);
    assert_eq!(market.runs().await, 0);
    // A contract after a call.
    let (mut stream, welcome) = market.greet().await;
    let request = market.request(tokens[0], b"a call");
    send(&mut stream, seal(&welcome, &request).frame()).await;
    let replied = receive(&mut stream).await.expect("an answer");
    assert_eq!(replied.kind(), FrameKind::Reply);
    send(
        &mut stream,
        &sealed_proposal(&welcome).frame().expect("one"),
    )
    .await;
    assert!(receive(&mut stream).await.is_none(), "the stream is closed");
    // A contract beside a call, which is then given up.
    let (mut stream, welcome) = market.greet().await;
    let endless = Request {
        function: FunctionSource::Attached(endless()),
        ..market.request(tokens[1], b"")
    };
    send(&mut stream, seal(&welcome, &endless).frame()).await;
    send(
        &mut stream,
        &sealed_proposal(&welcome).frame().expect("one"),
    )
    .await;
    assert!(receive(&mut stream).await.is_none(), "the stream is closed");
    assert_eq!(market.contracts().await.0, before + 1);
    market.assert_alive().await;
}

fn endless() -> Vec<u8> {
    wat::parse_str(LOOP).expect("good WAT")
}
