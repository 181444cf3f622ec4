//! Killed with SIGKILL at any moment, a store has all that it acknowledged.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const PATH: &str = "DLAMBDA_TEST_STORE";
const ROUND: &str = "DLAMBDA_TEST_ROUND";

const ROUNDS: u64 = 25;

/// What a child says: that this is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Acknowledged {
    Spent(String),
    Granted(String),
    Confirmed(String),
    Begun(u64),
    Ended(u64),
}

impl Acknowledged {
    /// What follows the word in the output of a test.
    const WORD: &str = "acknowledged";

    /// One write, so that no other thread's comes in between.
    fn say(&self) {
        let (kind, what) = match self {
            Self::Spent(token) => ("spent", token.clone()),
            Self::Granted(proposal) => ("granted", proposal.clone()),
            Self::Confirmed(proposal) => ("confirmed", proposal.clone()),
            Self::Begun(epoch) => ("begun", epoch.to_string()),
            Self::Ended(epoch) => ("ended", epoch.to_string()),
        };
        let line = format!("\n{} {kind} {what} .\n", Self::WORD);
        let mut out = std::io::stdout().lock();
        out.write_all(line.as_bytes()).expect("someone listens");
        out.flush().expect("someone listens");
    }

    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split(' ').collect();
        // The point at the end: a line that was cut off was not said.
        let [Self::WORD, kind, what, "."] = words[..] else {
            return None;
        };
        let what = what.to_owned();
        Some(match kind {
            "spent" => Self::Spent(what),
            "granted" => Self::Granted(what),
            "confirmed" => Self::Confirmed(what),
            "begun" => Self::Begun(what.parse().ok()?),
            "ended" => Self::Ended(what.parse().ok()?),
            _ => return None,
        })
    }

    fn check(&self, store: &Store, epochs: &[(Epoch, EpochRecord)]) {
        match self {
            Self::Spent(token) => {
                assert_eq!(
                    spend(store, token, "other"),
                    Ok(SpendOutcome::Other),
                    "{token}"
                );
                assert_eq!(
                    spend(store, token, token),
                    Ok(SpendOutcome::Again),
                    "{token}"
                );
            }
            Self::Granted(name) => {
                let found = store.grant(&bytes(name)).expect("readable");
                let found = found.unwrap_or_else(|| panic!("the grant of {name} is lost"));
                assert!(found.grant == grant(name) && found.contract == contract(EPOCH, name));
            }
            Self::Confirmed(name) => {
                let signed = store.signed_contract(&contract(EPOCH, name).id());
                assert!(signed.expect("readable").is_some(), "{name} is lost");
            }
            Self::Begun(epoch) => {
                let wanted = (Epoch(*epoch), record(1, 100));
                assert!(epochs.contains(&wanted), "epoch {epoch} is lost");
            }
            Self::Ended(ended) => {
                let is_back = epochs.iter().any(|(epoch, _)| epoch.0 == *ended);
                assert!(!is_back, "epoch {ended} is back");
            }
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let (Some(path), Ok(round)) = (std::env::var_os(PATH), std::env::var(ROUND)) {
        return be_killed(Path::new(&path), round.parse().expect("a number"));
    }
    let (_dir, path, store) = store();
    drop(store);
    let mut all = Vec::new();
    for round in 0..ROUNDS {
        let enough = 1 + RandomState::new().hash_one(round) % 400;
        let (said, acknowledged) = run_and_kill(&path, round, enough);
        assert!(
            acknowledged.len() as u64 >= enough,
            "a child failed: {said}"
        );
        all.extend(acknowledged);
        let store = Store::open(&path).expect("is repaired");
        let epochs = store.epochs().expect("readable");
        for acknowledged in &all {
            acknowledged.check(&store, &epochs);
        }
        let has = |wanted: fn(&Acknowledged) -> bool| all.iter().any(wanted);
        if round == ROUNDS - 1 {
            assert!(has(|it| matches!(it, Acknowledged::Spent(_))));
            assert!(has(|it| matches!(it, Acknowledged::Confirmed(_))));
            assert!(has(|it| matches!(it, Acknowledged::Begun(_))));
            assert!(has(|it| matches!(it, Acknowledged::Ended(_))));
        }
    }
}

/// Runs a child until it has acknowledged so much, kills it, and returns all
/// that it said.
fn run_and_kill(path: &Path, round: u64, enough: u64) -> (String, Vec<Acknowledged>) {
    let mut child = start(path, round);
    let out = child.stdout.take().expect("piped");
    let (mut said, mut acknowledged) = (String::new(), Vec::new());
    for line in BufReader::new(out).lines() {
        let line = line.expect("text");
        acknowledged.extend(Acknowledged::parse(&line));
        said.push_str(&line);
        said.push('\n');
        if acknowledged.len() as u64 == enough {
            child.kill().expect("it runs");
        }
    }
    child.wait().expect("it has ended");
    (said, acknowledged)
}

fn start(path: &Path, round: u64) -> Child {
    let module = module_path!().split_once("::").expect("a crate").1;
    Command::new(std::env::current_exe().expect("known"))
        .arg(format!("{module}::what_was_acknowledged_survives_kill_9"))
        .args(["--exact", "--nocapture"])
        .env(PATH, path)
        .env(ROUND, round.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts")
}

/// The child: does everything at once, and says what is done.
fn be_killed(path: &Path, round: u64) {
    let store = Store::open(path).expect("opens");
    let next = &AtomicU64::new(0);
    let store = &store;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let token = format!("token-{round}-{i}");
                    assert_eq!(spend(store, &token, &token), Ok(SpendOutcome::First));
                    Acknowledged::Spent(token).say();
                    let old = format!("token-{round}-{}", i / 2);
                    assert_ne!(spend(store, &old, "other"), Ok(SpendOutcome::First));
                }
            });
        }
        scope.spawn(move || {
            for i in 0.. {
                let name = format!("proposal-{round}-{i}");
                let contract = contract(EPOCH, &name);
                let granted = store.record_grant(bytes(&name), &contract, &grant(&name));
                granted.expect("granted");
                Acknowledged::Granted(name.clone()).say();
                store.confirm(&contract.id(), [1; 64]).expect("confirmed");
                Acknowledged::Confirmed(name).say();
            }
        });
        scope.spawn(move || {
            for i in 1.. {
                // One that ends at once, and one that stays.
                let (short, epoch) = (1000 * (round + 1) + 2 * i, 1000 * (round + 1) + 2 * i + 1);
                let begun = store.begin_epoch(Epoch(short), &record(2, 50));
                begun.expect("begins");
                store.end_epochs(UnixSeconds(50)).expect("ends");
                Acknowledged::Ended(short).say();
                if i % 10 == 1 {
                    let begun = store.begin_epoch(Epoch(epoch), &record(1, 100));
                    begun.expect("begins");
                    Acknowledged::Begun(epoch).say();
                }
            }
        });
    });
}
