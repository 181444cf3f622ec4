use std::time::Duration;

use proptest::prelude::*;

use super::*;

const START: Duration = Duration::ZERO;
const NAME: SessionName = [7; 16];

fn both() -> (ReliableStream<()>, ReliableStream<()>) {
    let (caller, opening) = ReliableStream::call(NAME, START);
    assert_eq!(opening.blocks, OPENING_BLOCKS);
    let provider = ReliableStream::answer(&opening.message, START).expect("opens");
    (caller, provider)
}

/// What `flow` reads out of a message.
fn read(flow: &mut ReliableStream<()>, message: &[u8], now: Duration) -> Received<()> {
    flow.receive(message, (), now).expect("goes on")
}

#[test]
fn data_passes_in_both_directions() {
    let (mut caller, mut provider) = both();
    let greeting = provider.send(b"greeting", Next::Wait, START).expect("fits");
    assert_eq!(greeting[0].blocks, 0, "a provider has no reply blocks");
    let received = read(&mut caller, &greeting[0].message, START);
    assert_eq!(received.pieces, [(b"greeting".to_vec(), ())]);
    let call = caller
        .send(&[1; PIECE + 1], Next::End, START)
        .expect("fits");
    assert_eq!(call.len(), 2);
    // In the other order.
    assert!(
        read(&mut provider, &call[1].message, START)
            .pieces
            .is_empty()
    );
    let received = read(&mut provider, &call[0].message, START);
    assert_eq!(received.pieces.len(), 2);
    assert!(received.is_last);
    let end = provider.send(b"", Next::End, START).expect("fits");
    assert!(read(&mut caller, &end[0].message, START).is_last);
    assert!(caller.is_acknowledged());
}

#[test]
fn a_lost_reply_is_repeated_when_the_caller_wonders() {
    let (mut caller, mut provider) = both();
    provider.send(b"lost", Next::Wait, START).expect("fits");
    assert!(caller.probe(START).is_empty(), "not yet");
    let later = caller.probe_at().expect("a caller wonders");
    let asked = caller.probe(later);
    // The opening is not acknowledged either.
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].blocks, FEW_BLOCKS);
    let answered = read(&mut provider, &asked[0].message, later);
    assert_eq!(answered.send.len(), 1);
    let received = read(&mut caller, &answered.send[0].message, later);
    assert_eq!(received.pieces, [(b"lost".to_vec(), ())]);
    // Twice is no news.
    let again = read(&mut caller, &answered.send[0].message, later);
    assert!(again.pieces.is_empty() && again.send.is_empty());
    assert!(caller.probe_at() > Some(later));
}

#[test]
fn who_is_asked_without_need_says_that_it_is_there() {
    let (mut caller, mut provider) = both();
    let later = caller.probe_at().expect("a caller wonders");
    let asked = caller.probe(later);
    let answered = read(&mut provider, &asked[0].message, later);
    assert_eq!(answered.send.len(), 1);
    assert!(
        read(&mut caller, &answered.send[0].message, later)
            .send
            .is_empty()
    );
    assert!(caller.is_acknowledged(), "the opening has arrived");
    assert!(provider.probe(later).is_empty());
    assert_eq!(provider.probe_at(), None);
}

#[test]
fn the_rules_are_kept() {
    let (mut caller, mut provider) = both();
    let too_much = caller.send(&vec![0; MAX_BYTES + 1], Next::Wait, START);
    assert_eq!(too_much.err(), Some(StreamError::TooMuch));
    let segment = |session, kind, acknowledged| {
        let segment = Segment {
            session,
            kind,
            acknowledged,
        };
        segment.encode()
    };
    let data = |number, len| Kind::Data {
        number,
        last: false,
        data: vec![0; len],
    };
    for (what, bad) in [
        ("another session", segment([8; 16], Kind::Probe, 0)),
        ("acknowledges the future", segment(NAME, Kind::Probe, 9)),
        ("far ahead", segment(NAME, data(1 + WINDOW, 1), 0)),
        ("too long", segment(NAME, data(1, PIECE + 1), 0)),
        ("junk", vec![1; 99]),
    ] {
        let error = provider.receive(&bad, (), START).err();
        assert_eq!(error, Some(StreamError::Malformed), "{what}");
    }
    let reset = segment(NAME, Kind::Reset, 0);
    let error = provider.receive(&reset, (), START).err();
    assert_eq!(error, Some(StreamError::Reset));
}

#[test]
fn a_peer_cannot_send_without_end() {
    let (_, mut provider) = both();
    let mut error = None;
    for number in 1..200 {
        let segment = Segment {
            session: NAME,
            kind: Kind::Data {
                number,
                last: false,
                data: vec![0; PIECE],
            },
            acknowledged: 0,
        };
        error = provider.receive(&segment.encode(), (), START).err();
        if error.is_some() {
            break;
        }
    }
    assert_eq!(error, Some(StreamError::TooMuch));
}

#[test]
fn what_does_not_open_is_reset() {
    let (mut caller, _) = both();
    let call = caller.send(b"call", Next::Wait, START).expect("fits");
    let refused = ReliableStream::<()>::answer(&call[0].message, START)
        .err()
        .flatten();
    let reset = refused.expect("an answer");
    assert_eq!(
        caller.receive(&reset.message, (), START).err(),
        Some(StreamError::Reset)
    );
    // Resets are not answered: two who know nothing of each other would never stop.
    assert!(matches!(
        ReliableStream::<()>::answer(&reset.message, START),
        Err(None)
    ));
    assert!(matches!(
        ReliableStream::<()>::answer(b"junk", START),
        Err(None)
    ));
    let (_, opening) = ReliableStream::<()>::call(NAME, START);
    let mut marked = opening.message;
    marked[25] = 7;
    assert!(matches!(
        ReliableStream::<()>::answer(&marked, START),
        Err(None)
    ));
}

/// Under cover traffic a mebibyte takes a quarter of a minute to leave.
#[test]
fn what_has_not_left_yet_is_not_repeated() {
    let (mut caller, mut provider) = both();
    let greeting = provider.send(b"hello", Next::Wait, START).expect("fits");
    read(&mut caller, &greeting[0].message, START);
    let large = caller.send(&[1; 1 << 20], Next::Wait, START).expect("fits");
    let wondering = caller.probe_at().expect("a caller wonders");
    assert!(
        wondering >= START + Duration::from_secs(16),
        "{wondering:?}"
    );
    let probe = read(&mut provider, &large[0].message, START).send;
    assert!(probe.is_empty(), "data is no question");
    // A provider that says again and again that nothing has come.
    let nagging = provider.outgoing(Kind::Probe, 0).message;
    let mut repeated = 0;
    for second in 0..300 {
        let now = START + Duration::from_secs(second);
        repeated += read(&mut caller, &nagging, now).send.len();
    }
    assert!(repeated > 0, "what may be lost is repeated");
    // 22 segments, each at most five times in as many minutes.
    assert!(repeated <= 5 * large.len(), "{repeated}");
}

proptest! {
    /// Over a network that loses, repeats and reorders, everything arrives once and in order.
    #[test]
    fn everything_arrives(
        fates in proptest::collection::vec(0_u8..8, 1..200),
        question in 1_usize..400_000,
        answer in 1_usize..400_000,
    ) {
        let (mut caller, mut provider) = both();
        let question: Vec<u8> = (0..=250).cycle().take(question).collect();
        let answer: Vec<u8> = (0..=240).cycle().take(answer).collect();
        let mut now = START;
        let mut to_provider = caller.send(&question, Next::Wait, now).expect("fits");
        let mut to_caller: Vec<Outgoing> = Vec::new();
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        let mut fates = fates.into_iter();
        for _ in 0..400 {
            if answered.len() == answer.len() {
                break;
            }
            now += Duration::from_secs(7);
            for outgoing in deliver(std::mem::take(&mut to_provider), &mut fates) {
                let received = provider.receive(&outgoing, (), now).expect("goes on");
                let before = asked.len();
                asked.extend(received.pieces.into_iter().flat_map(|(piece, ())| piece));
                to_caller.extend(received.send);
                if before < question.len() && asked.len() == question.len() {
                    to_caller.extend(provider.send(&answer, Next::End, now).expect("fits"));
                }
            }
            for outgoing in deliver(std::mem::take(&mut to_caller), &mut fates) {
                let received = caller.receive(&outgoing, (), now).expect("goes on");
                answered.extend(received.pieces.into_iter().flat_map(|(piece, ())| piece));
                to_provider.extend(received.send);
            }
            to_provider.extend(caller.probe(now));
        }
        prop_assert!(asked == question);
        prop_assert!(answered == answer);
    }
}

/// Of 8 messages 2 are lost, 1 comes twice and 2 come late; when the fates are used up all is well.
fn deliver(messages: Vec<Outgoing>, fates: &mut impl Iterator<Item = u8>) -> Vec<Vec<u8>> {
    let (mut now, mut late) = (Vec::new(), Vec::new());
    for Outgoing { message, .. } in messages {
        match fates.next() {
            Some(0 | 1) => {}
            Some(2) => now.extend([message.clone(), message]),
            Some(3 | 4) => late.push(message),
            _ => now.push(message),
        }
    }
    late.extend(now);
    late
}
