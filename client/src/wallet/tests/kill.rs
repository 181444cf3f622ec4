//! Processes that are killed at any moment.
//!
//! Children take tokens and end them in all ways, and write down what they do
//! in a journal that outlives them; it is then read as the provider would.

use std::collections::{HashMap, HashSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use dlambda_privacy::os_rng;
use rand_core::Rng as _;

use super::*;

const DIRECTORY: &str = "DLAMBDA_TEST_WALLET";
const JOURNAL: &str = "DLAMBDA_TEST_JOURNAL";
/// Few different calls, so that interrupted ones come again.
const CALLS: u32 = 10;
const TOKENS: BatchSize = BatchSize::Calls128;

/// A process of its own, if the test below starts it; otherwise no test.
#[test]
fn child() {
    let (Ok(directory), Ok(journal)) = (std::env::var(DIRECTORY), std::env::var(JOURNAL)) else {
        return;
    };
    let wallet = open(Path::new(&directory));
    let journal = Path::new(&journal);
    while let Some(held) = wallet.reserve(&call(random_call())).expect("takes") {
        live_through(held, journal);
    }
}

fn random_call() -> u8 {
    u8::try_from(below(CALLS)).expect("few")
}

fn live_through(held: ReservedToken, journal: &Path) {
    let event = |what: &str| {
        let nonce = hex::encode(held.token().nonce);
        let seed = hex::encode(held.seed());
        note(
            journal,
            &format!("{what} {} {nonce} {seed}", std::process::id()),
        );
    };
    event("took");
    match below(8) {
        // A call, from its beginning to its end.
        0 => {
            event("sent");
            event("ending");
            let nonce = hex::encode(held.token().nonce);
            held.commit().expect("spends");
            note(journal, &format!("spent {} {nonce} -", std::process::id()));
        }
        1..4 => {
            event("sent");
            event("ending");
        }
        _ => {
            event("ending");
            held.release().expect("releases");
        }
    }
}

fn below(limit: u32) -> u32 {
    os_rng().next_u32() % limit
}

/// One write for one line: lines of several processes do not mix.
fn note(journal: &Path, line: &str) {
    let file = OpenOptions::new().append(true).create(true).open(journal);
    let line = format!("{line}\n");
    file.and_then(|mut file| file.write_all(line.as_bytes()))
        .expect("writes");
}

#[test]
fn killed_processes_lose_no_token_and_none_is_sent_for_two_calls() {
    let place = Place::new();
    let like = Like {
        calls: TOKENS,
        ..USUAL
    };
    like.buy(&place.open());
    let journal = place.path.with_file_name("journal");
    for _ in 0..16 {
        let children = [(); 2].map(|()| start(&place.path, &journal));
        for mut child in children {
            await_lines(&mut child, &journal, below(12));
            thread_sleep_micros(below(4_000));
            // Before the kill: from then on its tokens may go to others.
            note(&journal, &format!("killing {} - -", child.id()));
            child.kill().expect("kills");
            child.wait().expect("ends");
        }
    }
    let seen = read_journal(&journal);
    assert!(seen.resumed > 0, "nothing was put to the test");
    account_for_all(&place.open(), &seen);
}

fn start(directory: &Path, journal: &Path) -> Child {
    let test = format!("{}::child", module_path!());
    let (_, test) = test.split_once("::").expect("a crate's name");
    Command::new(std::env::current_exe().expect("ourselves"))
        .args(["--exact", test, "--nocapture"])
        .env(DIRECTORY, directory)
        .env(JOURNAL, journal)
        .stdout(Stdio::null())
        .spawn()
        .expect("starts")
}

/// Waits until the child has written so many more lines, or has ended.
fn await_lines(child: &mut Child, journal: &Path, more: u32) {
    let own = format!(" {} ", child.id());
    let count = || {
        let text = std::fs::read_to_string(journal).unwrap_or_default();
        text.lines().filter(|line| line.contains(&own)).count()
    };
    let wanted = count() + usize::try_from(more).expect("few");
    while count() < wanted {
        if child.try_wait().expect("looks").is_some() {
            return;
        }
        thread_sleep_micros(500);
    }
}

fn thread_sleep_micros(micros: u32) {
    std::thread::sleep(Duration::from_micros(micros.into()));
}

#[derive(Default)]
struct Seen {
    /// The seed that a token was sent with.
    sent: HashMap<String, String>,
    ending: HashSet<String>,
    spent: HashSet<String>,
    resumed: usize,
}

/// Follows the journal, which is in the order in which things happened.
fn read_journal(journal: &Path) -> Seen {
    let mut seen = Seen::default();
    let mut holders: HashMap<String, String> = HashMap::new();
    // Killed, or about to be: they may still write a line or two.
    let mut doomed: HashSet<String> = HashSet::new();
    let text = std::fs::read_to_string(journal).expect("reads");
    for line in text.lines() {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let [what, process, nonce, seed] = <[String; 4]>::try_from(words).expect("four words");
        match what.as_str() {
            "took" => {
                assert!(!seen.spent.contains(&nonce), "a spent token was given out");
                let before = holders.insert(nonce.clone(), process);
                let is_free = before.is_none_or(|holder| doomed.contains(&holder));
                assert!(is_free, "two processes had one token");
                seen.resumed += usize::from(seen.sent.contains_key(&nonce));
                let first = seen.sent.get(&nonce).unwrap_or(&seed);
                assert_eq!(*first, seed, "a token that was sent came for another call");
            }
            "sent" => {
                seen.sent.insert(nonce, seed);
            }
            "ending" => {
                holders.remove(&nonce);
                seen.ending.insert(nonce);
            }
            "spent" => {
                seen.spent.insert(nonce);
            }
            _ => {
                doomed.insert(process);
            }
        }
    }
    seen
}

/// Every token is fresh, or there for the call it was sent for, or spent.
fn account_for_all(wallet: &Wallet, seen: &Seen) {
    let [fresh, in_use, interrupted, spent] = counts(wallet);
    assert_eq!(in_use, 0);
    assert_eq!(fresh + interrupted + spent, usize::from(TOKENS.calls()));
    let mut held: HashMap<String, ReservedToken> = HashMap::new();
    for number in 0..u8::try_from(CALLS).expect("few") {
        while let Some(again) = wallet.reserve(&call(number)).expect("takes") {
            if !again.resumed() {
                again.release().expect("releases");
                break;
            }
            let nonce = hex::encode(again.token().nonce);
            let seed = hex::encode(again.seed());
            assert_eq!(*seen.sent.get(&nonce).unwrap_or(&seed), seed);
            assert!(held.insert(nonce, again).is_none(), "given out twice");
        }
    }
    assert_eq!(held.len(), interrupted);
    for _ in 0..fresh {
        let next = take(wallet, 200);
        let nonce = hex::encode(next.token().nonce);
        assert!(!seen.sent.contains_key(&nonce), "it was sent, and is fresh");
        assert!(held.insert(nonce, next).is_none(), "given out twice");
    }
    let bought = USUAL.tokens_of(TOKENS);
    let lost: Vec<_> = bought.iter().filter(|it| !held.contains_key(*it)).collect();
    assert_eq!(lost.len(), spent);
    assert!(lost.iter().all(|it| seen.ending.contains(*it)), "lost");
    assert!(seen.spent.iter().all(|it| lost.contains(&it)));
}

impl Like {
    fn tokens_of(self, calls: BatchSize) -> Vec<String> {
        let tokens = Self { calls, ..self }.tokens();
        tokens.iter().map(|it| hex::encode(it.nonce)).collect()
    }
}
