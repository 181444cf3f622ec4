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
fn whoever_has_most_waiting_makes_room_for_all_others() {
    let now = Instant::now();
    let mut table = Table::default();
    let (heavy, _) = table.add(tag(u32::MAX), now);
    let piece = 64 << 10;
    let full = u32::try_from(BYTES_WAITING / piece).expect("small");
    for n in 0..full - 1 {
        let (light, _) = table.add(tag(n), now);
        table.queue(light, vec![0; piece], now).expect("has room");
        assert_eq!(table.relieve(now), []);
    }
    for _ in 0..2 {
        table.queue(heavy, vec![0; piece], now).expect("is heavier");
    }
    assert_eq!(table.relieve(now), [heavy]);
    assert!(!table.is_live(heavy));
    assert_eq!(table.bytes_waiting, BYTES_WAITING - piece);
    assert_eq!(table.relieve(now), []);
}

#[test]
fn a_flood_of_single_messages_moves_nobody_who_wrote_more() {
    let start = Instant::now();
    let mut table = Table::default();
    let (calling, _) = table.add(tag(u32::MAX), start);
    table.sender(&tag(u32::MAX), start);
    let later = start + Duration::from_secs(1);
    for n in 0..2 * u32::try_from(SESSIONS).expect("small") {
        table.add(tag(n), later);
    }
    assert!(table.is_live(calling));
    assert_eq!(table.sessions.len(), SESSIONS);
}
