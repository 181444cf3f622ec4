//! A provider cannot tell audits from calls by size, content or time.

use std::time::Duration;

use dlambda_client::{Corpus, waits};
use dlambda_crypto::padding;
use dlambda_privacy::os_rng;
use rand_core::Rng as _;
use tempfile::TempDir;

/// Of each kind.
const EVENTS: usize = 2000;
const DAY: Duration = Duration::from_secs(24 * 3600);

/// What a provider can use: the padded size, how random the content looks, and the time since the
/// event before.
type Features = [f64; 3];

struct Event {
    at: Duration,
    input: Vec<u8>,
    audit: bool,
}

/// Inputs as callers might send them: parts of a real text, of very different lengths.
fn corpus() -> (TempDir, Corpus) {
    let dir = tempfile::tempdir().expect("a directory");
    let text = include_str!("../../../README.md");
    for (number, line) in text.lines().filter(|line| !line.is_empty()).enumerate() {
        let input = line.repeat(1 + (number * number) % 90);
        std::fs::write(dir.path().join(number.to_string()), input).expect("written");
    }
    let corpus = Corpus::open(dir.path()).expect("inputs");
    (dir, corpus)
}

fn calls(corpus: &Corpus) -> Vec<Event> {
    let at = || DAY.mul_f64(f64::from(os_rng().next_u32()) / f64::from(u32::MAX));
    let call = |_| Event {
        at: at(),
        input: corpus.draw(&mut os_rng()).expect("an input"),
        audit: false,
    };
    (0..EVENTS).map(call).collect()
}

/// Audits as the program makes them: twenty auditors, a hundred each.
fn audits(corpus: &Corpus) -> Vec<Event> {
    let one = |_| {
        let mut at = Duration::ZERO;
        let waits = waits(100, DAY, &mut os_rng());
        waits.into_iter().map(move |wait| {
            at += wait;
            at
        })
    };
    let times = (0..EVENTS / 100).flat_map(one);
    let audit = |at| Event {
        at,
        input: corpus.draw(&mut os_rng()).expect("an input"),
        audit: true,
    };
    times.map(audit).collect()
}

/// Audits that are easy to tell: uniform letters.
fn made_up(at: Duration) -> Event {
    let letters = (0..os_rng().next_u32() % 4096).map(|_| b'a' + (os_rng().next_u32() % 26) as u8);
    Event {
        at,
        input: letters.collect(),
        audit: true,
    }
}

/// Bits a byte.
fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_f64; 256];
    bytes
        .iter()
        .for_each(|byte| counts[usize::from(*byte)] += 1.0);
    let whole: f64 = counts.iter().sum();
    let shares = counts.iter().filter(|it| **it > 0.0).map(|it| it / whole);
    shares.map(|share| -share * share.log2()).sum()
}

fn observed(mut events: Vec<Event>) -> Vec<(Features, bool)> {
    events.sort_by_key(|event| event.at);
    let mut before = Duration::ZERO;
    let features = events.into_iter().map(|event| {
        let gap = event.at.saturating_sub(before).as_secs_f64();
        before = event.at;
        let size = padding::bucket(event.input.len()).expect("it fits");
        let size = f64::from(u32::try_from(size).expect("small"));
        ([size, entropy(&event.input), gap], event.audit)
    });
    features.collect()
}

/// How often the best threshold of one feature, learnt from every other event, is right about the
/// rest.
fn best_accuracy(events: &[(Features, bool)]) -> f64 {
    let (learn, test): (Vec<_>, Vec<_>) =
        events.iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let right = |on: &[(usize, &(Features, bool))], feature: usize, threshold: f64, above: bool| {
        let hits = on
            .iter()
            .filter(|(_, (features, audit))| ((features[feature] > threshold) == above) == *audit);
        f64::from(u32::try_from(hits.count()).expect("few"))
            / f64::from(u32::try_from(on.len()).expect("few"))
    };
    let mut best = (0.0, 0.0);
    for feature in 0..3 {
        for candidate in learn.iter().step_by(10) {
            let threshold = candidate.1.0[feature];
            for above in [true, false] {
                let learnt = right(&learn, feature, threshold, above);
                if learnt > best.0 {
                    best = (learnt, right(&test, feature, threshold, above));
                }
            }
        }
    }
    best.1
}

#[test]
fn a_classifier_does_no_better_than_chance() {
    let (_dir, corpus) = corpus();
    let mut events = calls(&corpus);
    events.extend(audits(&corpus));
    let accuracy = best_accuracy(&observed(events));
    println!("right about {accuracy:.3} of {EVENTS} events");
    // Six standard deviations of a fair coin.
    assert!((accuracy - 0.5).abs() < 0.07, "{accuracy}");
}

#[test]
fn the_same_classifier_finds_made_up_inputs_and_bursts() {
    let (_dir, corpus) = corpus();
    let mut with_made_up = calls(&corpus);
    with_made_up.extend(audits(&corpus).into_iter().map(|it| made_up(it.at)));
    let accuracy = best_accuracy(&observed(with_made_up));
    println!("right about {accuracy:.3} of made-up inputs");
    assert!(accuracy > 0.8, "{accuracy}");

    let mut with_bursts = calls(&corpus);
    with_bursts.extend(
        audits(&corpus)
            .into_iter()
            .enumerate()
            .map(|(number, it)| Event {
                // A hundred within seconds, for each auditor.
                at: DAY / 21 * u32::try_from(1 + number / 100).expect("few")
                    + Duration::from_millis(100) * u32::try_from(number % 100).expect("few"),
                ..it
            }),
    );
    let accuracy = best_accuracy(&observed(with_bursts));
    println!("right about {accuracy:.3} of bursts");
    assert!(accuracy > 0.8, "{accuracy}");
}
