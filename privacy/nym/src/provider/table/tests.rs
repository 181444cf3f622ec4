use super::*;

fn tag(n: u32) -> AnonymousSenderTag {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    AnonymousSenderTag::from_bytes(bytes)
}

#[test]
fn the_longest_idle_session_makes_room() {
    let start = Instant::now();
    let mut table = Table::default();
    for n in 0..SESSIONS {
        let n = u32::try_from(n).expect("small");
        let (_, evicted) = table.add(tag(n), start + Duration::from_millis(n.into()));
        assert_eq!(evicted, None);
    }
    let later = start + Duration::from_secs(60);
    assert_eq!(table.sender(&tag(0), later), Sender::Known(SessionId(1)));
    let (_, evicted) = table.add(tag(u32::MAX), later);
    assert_eq!(evicted, Some(SessionId(2)));
    assert_eq!(table.sender(&tag(1), later), Sender::New);
    table.end(SessionId(100), later);
    let (_, evicted) = table.add(tag(u32::MAX - 1), later);
    assert_eq!(evicted, None, "one that has ended goes first, unheard");
    assert_eq!(table.sender(&tag(99), later), Sender::New);
    assert_eq!(table.sessions.len(), SESSIONS);
    assert_eq!(table.by_tag.len(), SESSIONS);
}

#[test]
fn idle_sessions_are_forgotten() {
    let start = Instant::now();
    let mut table = Table::default();
    let (idle, _) = table.add(tag(1), start);
    let (used, _) = table.add(tag(2), start);
    let (ended, _) = table.add(tag(3), start);
    table.end(ended, start);
    let soon = start + AFTERGLOW + Duration::from_secs(1);
    assert_eq!(table.expire(soon), []);
    assert!(!table.knows(&tag(3)));
    table.queue(used, vec![1], soon).expect("has room");
    let late = start + IDLE + Duration::from_secs(1);
    assert_eq!(table.expire(late), [idle]);
    assert!(table.knows(&tag(2)));
}

#[test]
fn what_waits_is_bounded_and_taken_in_turn() {
    let now = Instant::now();
    let mut table = Table::default();
    let (one, _) = table.add(tag(1), now);
    let (two, _) = table.add(tag(2), now);
    table.queue(one, vec![1], now).expect("has room");
    table.queue(one, vec![2], now).expect("has room");
    table.queue(two, vec![3], now).expect("has room");
    let mut taken = Vec::new();
    while let Some((id, _)) = table.turn() {
        taken.push(table.take(id, now).expect("waits"));
    }
    assert_eq!(taken, [vec![1], vec![3], vec![2]]);
    for _ in 0..MESSAGES_WAITING {
        table.queue(one, vec![0; 10], now).expect("has room");
    }
    assert_eq!(table.queue(one, vec![0], now), Err(Reason::Busy));
    assert!(!table.is_live(one));
    assert!(!table.is_waiting());
    assert_eq!(table.bytes_waiting, 0);
    assert_eq!(table.queue(one, vec![0], now), Ok(()), "is dropped");
    assert_eq!(table.sender(&tag(1), now), Sender::Ended);
}

#[test]
fn what_waits_in_all_sessions_is_bounded() {
    let now = Instant::now();
    let mut table = Table::default();
    let full = BYTES_WAITING / (64 << 10);
    let ids: Vec<_> = (0..=u32::try_from(full).expect("small"))
        .map(|n| table.add(tag(n), now).0)
        .collect();
    for id in &ids[..full] {
        table.queue(*id, vec![0; 64 << 10], now).expect("has room");
    }
    assert_eq!(table.queue(ids[full], vec![0], now), Err(Reason::Busy));
    table.discard(ids[0]);
    table.queue(ids[1], vec![0], now).expect("has room again");
}
