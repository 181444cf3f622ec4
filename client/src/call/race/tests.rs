use proptest::prelude::*;

use super::*;

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

const RIGHT: End = End::Answer([1; 32]);
const WRONG: End = End::Answer([2; 32]);

/// What a provider does, and after which time.
#[derive(Clone, Copy, Debug)]
struct Script(u64, End);

/// A call that does not end: it is given up with the call's time.
const NEVER: u64 = u64::MAX;

#[derive(Debug, PartialEq)]
struct Story {
    /// Who was asked, and when.
    asked: Vec<(usize, u64)>,
    verdict: Verdict,
    at: u64,
}

/// Plays a call against providers under virtual time, in seconds.
fn play(policy: Policy, providers: &[Script]) -> Story {
    let mut race = Race::new(policy, providers.len());
    let mut running: Vec<(Duration, usize, End)> = Vec::new();
    let (mut now, mut asked) = (Duration::ZERO, Vec::new());
    loop {
        match race.next(now) {
            Step::Start(candidate) => {
                let Script(after, end) = providers[candidate];
                let (at, end) = match after {
                    NEVER => (policy.max_time.max(now), End::Failed),
                    after => (now + seconds(after), end),
                };
                running.push((at, candidate, end));
                asked.push((candidate, now.as_secs()));
            }
            Step::Wait(until) => {
                running.sort_by_key(|it| it.0);
                let ends = running.first().map(|it| it.0);
                if let Some(until) = until.filter(|it| ends.is_none_or(|ends| *it < ends)) {
                    assert!(until > now, "a wait that is over");
                    now = until;
                    continue;
                }
                assert!(!running.is_empty(), "waits for nothing");
                let (at, candidate, end) = running.remove(0);
                now = at;
                race.ended(candidate, end, now);
            }
            Step::Over(verdict) => {
                let at = now.as_secs();
                return Story { asked, verdict, at };
            }
        }
    }
}

fn single() -> Policy {
    Policy {
        max_time: seconds(120),
        replicas: 1,
        agree: 1,
    }
}

fn replicated() -> Policy {
    Policy {
        replicas: 3,
        agree: 2,
        ..single()
    }
}

#[test]
fn one_provider_that_answers_is_the_only_one_asked() {
    let story = play(single(), &[Script(2, RIGHT), Script(1, RIGHT)]);
    assert_eq!(story.asked, [(0, 0)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(0), 2));
}

#[test]
fn a_provider_that_fails_is_followed_by_the_next_at_once() {
    let story = play(single(), &[Script(3, End::Failed), Script(1, RIGHT)]);
    assert_eq!(story.asked, [(0, 0), (1, 3)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(1), 4));
}

#[test]
fn a_provider_that_is_silent_is_joined_by_the_next_after_its_slot() {
    let providers = [
        Script(NEVER, RIGHT),
        Script(NEVER, RIGHT),
        Script(1, RIGHT),
        Script(1, RIGHT),
    ];
    let story = play(single(), &providers);
    assert_eq!(story.asked, [(0, 0), (1, 40), (2, 80)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(2), 81));
}

#[test]
fn slots_do_not_tell_how_long_the_caller_waits() {
    let ms = Duration::from_millis;
    for (max_time, expected) in [
        (0, 0),
        (3_000, 625),
        (15_000, 5_000),
        (29_999, 5_000),
        (30_000, 10_000),
        (119_999, 20_000),
        (120_000, 40_000),
        (130_000, 40_000),
        (239_999, 40_000),
    ] {
        assert_eq!(slot(ms(max_time)), ms(expected), "{max_time}");
    }
    assert!(slot(Duration::MAX) <= Duration::MAX / SLOTS);
}

#[test]
fn a_late_answer_counts() {
    let story = play(single(), &[Script(45, RIGHT), Script(NEVER, RIGHT)]);
    assert_eq!(story.asked, [(0, 0), (1, 40)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(0), 45));
}

#[test]
fn a_call_that_no_provider_would_answer_goes_to_one() {
    let story = play(single(), &[Script(1, End::Hopeless), Script(1, RIGHT)]);
    assert_eq!(story.asked, [(0, 0)]);
    assert_eq!((story.verdict, story.at), (Verdict::Failed, 1));
}

#[test]
fn all_that_fail_are_a_failure_and_no_more_than_three_are_asked() {
    let story = play(single(), &[Script(1, End::Failed); 9]);
    assert_eq!(story.asked, [(0, 0), (1, 1), (2, 2)]);
    assert_eq!(story.verdict, Verdict::Failed);
    assert_eq!(play(single(), &[]).verdict, Verdict::Failed);
}

#[test]
fn replicas_are_asked_at_once_and_a_liar_is_waited_for() {
    let providers = [Script(2, RIGHT), Script(6, WRONG), Script(3, RIGHT)];
    let story = play(replicated(), &providers);
    assert_eq!(story.asked, [(0, 0), (1, 0), (2, 0)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(0), 6));
}

#[test]
fn a_replica_that_takes_much_longer_is_not_waited_for() {
    let providers = [Script(2, RIGHT), Script(90, WRONG), Script(3, RIGHT)];
    let story = play(replicated(), &providers);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(0), 8));
}

#[test]
fn a_replica_that_fails_is_replaced_and_answers_that_differ_are_settled() {
    let failed = [Script(1, End::Failed), Script(2, RIGHT)];
    let more = [Script(2, WRONG), Script(1, RIGHT)];
    let story = play(replicated(), &[failed, more].concat());
    assert_eq!(story.asked, [(0, 0), (1, 0), (2, 0), (3, 1)]);
    assert_eq!((story.verdict, story.at), (Verdict::Answered(1), 2));
    let third = End::Answer([3; 32]);
    let different = [Script(1, RIGHT), Script(2, WRONG), Script(3, third)];
    let story = play(replicated(), &different);
    assert_eq!(story.verdict, Verdict::NoAgreement);
    let story = play(
        replicated(),
        &[&different[..], &[Script(1, WRONG)]].concat(),
    );
    assert_eq!(story.asked.last(), Some(&(3, 3)));
    assert_eq!((story.verdict, story.at), (Verdict::Answered(1), 4));
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(RIGHT),
        2 => Just(WRONG),
        4 => Just(End::Failed),
        1 => Just(End::Hopeless),
    ]
}

proptest! {
    #[test]
    fn every_path_ends_in_time(
        scripts in prop::collection::vec(
            (prop_oneof![3 => 0_u64..200, 1 => Just(NEVER)], end()), 0..9),
        max_time in 1_u64..300, replicas in 1_usize..6, agree in 1_usize..6,
    ) {
        let agree = agree.min(replicas);
        let policy = Policy { max_time: seconds(max_time), replicas, agree };
        // An attempt gives up when the time of the call is over.
        let cut = |after: u64| if after < max_time { after } else { NEVER };
        let scripts: Vec<_> = (scripts.into_iter())
            .map(|(after, end)| Script(cut(after), end))
            .collect();
        let story = play(policy, &scripts);
        prop_assert!(story.at <= 2 * max_time, "{story:?}");
        prop_assert!(story.asked.len() <= replicas + 2);
        prop_assert!(story.asked.iter().all(|(_, at)| *at < max_time));
        let mut asked: Vec<_> = story.asked.iter().map(|it| it.0).collect();
        prop_assert!(asked.is_sorted(), "in their order");
        asked.dedup();
        prop_assert_eq!(asked.len(), story.asked.len(), "nobody is asked twice");
        if let Verdict::Answered(first) = story.verdict {
            let Script(_, end) = scripts[first];
            let equal = story.asked.iter().filter(|it| scripts[it.0].1 == end);
            prop_assert!(equal.count() >= agree);
        }
        // Whoever could have answered alone was asked, if nobody was hopeless.
        let hopeless = scripts.iter().any(|it| it.1 == End::Hopeless);
        if replicas == 1 && story.verdict == Verdict::Failed && !hopeless {
            let quick = scripts.iter().take(3);
            prop_assert!(quick.filter(|it| it.0 == 0).all(|it| it.1 == End::Failed));
        }
    }
}
