//! Calls that name no provider, on a market over real Tor: contracts made ahead, providers killed
//! under way, a crash of the caller.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use dlambda_tests::program::binary;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::shell::{DEADLINE, code, stderr};
use crate::tor_market::World;

const LINES: usize = 200;

/// Contracts with all four; then 200 calls of which each goes to any, while two are killed.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_is_lost_or_billed_twice_while_providers_are_killed() {
    let mut world = Box::pin(World::new(4)).await;
    world.all_know(4, 4).await;
    nothing_held_is_named(&world).await;
    fill(&world).await;
    one_call_goes_to_any(&world).await;
    let before = held(&world).await;
    let spent_before: u64 = before.values().map(|it| it.spent).sum();

    let mut map = Map::start(&world, &["--spacing", "0.1", "--concurrency", "6"]);
    map.feed(LINES).await;
    let mut answers = map.read(LINES / 4).await;
    for _ in 0..2 {
        let gone = world.market.providers.pop().expect("a provider");
        gone.program.kill().await.expect("it ran");
        answers.extend(map.read(LINES / 8).await);
    }
    answers.extend(map.read(LINES / 2).await);
    assert_eq!(answers.len(), LINES);
    map.end(0).await;

    let mut by_provider: BTreeMap<String, u64> = BTreeMap::new();
    for (number, answer) in (1..).zip(&answers) {
        assert_eq!(answer["line"], number, "in order");
        assert_eq!(answer["output"], format!("LINE {number}"), "{answer}");
        let provider = answer["provider"].as_str().expect("an id");
        *by_provider.entry(provider.to_owned()).or_default() += 1;
    }
    println!("answers by provider: {by_provider:?}");
    let after = held(&world).await;
    let spent: u64 = after.values().map(|it| it.spent).sum();
    assert_eq!(
        spent - spent_before,
        LINES as u64,
        "each answer is paid once"
    );
    for id in [world.id(0), world.id(1)] {
        let (before, after) = (&before[&id], &after[&id]);
        let answered = by_provider.get(&id).copied().unwrap_or(0);
        assert_eq!(
            after.spent - before.spent,
            answered,
            "where it was answered"
        );
        assert_eq!(
            after.interrupted, 0,
            "nothing is in doubt at a provider that lives"
        );
    }
    world.market.down(DEADLINE).await.expect("they stop");
}

/// What is in the file is not called again.
#[tokio::test(flavor = "multi_thread")]
async fn a_map_that_is_killed_goes_on_where_it_was() {
    let world = Box::pin(World::new(2)).await;
    world.all_know(2, 2).await;
    fill(&world).await;
    let journal = world.shell.path("done.jsonl");
    let args = ["--spacing", "0.1", "--resume", &journal];
    let mut map = Map::start(&world, &args);
    map.feed(24).await;
    map.read(8).await;
    map.kill().await;
    let written = std::fs::read_to_string(&journal).expect("a file");
    // The first line says what is called; the last may be cut.
    let done = written.matches('\n').count() - 1;
    assert!((8..24).contains(&done), "{done} were done");

    let mut map = Map::start(&world, &args);
    map.feed(24).await;
    let answers = map.read(24).await;
    map.end(0).await;
    for (number, answer) in (1..).zip(&answers) {
        assert_eq!(answer["output"], format!("LINE {number}"), "{answer}");
    }
    let resumed = answers.iter().filter(|it| it["resumed"] == true).count();
    assert_eq!(resumed, done);
    let held = held(&world).await;
    let spent: u64 = held.values().map(|it| it.spent).sum();
    let in_doubt: u64 = held.values().map(|it| it.interrupted).sum();
    // A call that was under way comes back with its token if it goes to the same provider first.
    println!("{spent} tokens spent, {in_doubt} in doubt, for 24 lines");
    assert!(
        (24..=24 + 4).contains(&(spent + in_doubt)),
        "{spent} {in_doubt}"
    );
    a_file_of_another_call_is_refused(&world, &journal).await;
    world.market.down(DEADLINE).await.expect("they stop");
}

/// Exit 4, and what to do.
async fn nothing_held_is_named(world: &World) {
    let args = ["invoke", "any", "upper"];
    world
        .shell
        .dlambda_fails(&args, 4, "dlambda wallet fill")
        .await;
}

async fn fill(world: &World) {
    let providers = world.ids().len().to_string();
    let args = [
        "wallet",
        "fill",
        "--providers",
        &providers,
        "--calls",
        "128",
    ];
    let args = [&args[..], &["--within", "12", "--format", "json"]].concat();
    let filled = world.shell.dlambda(&args, b"").await;
    assert_eq!(code(&filled), 0, "{}", stderr(&filled));
    let filled: Value = serde_json::from_slice(&filled.stdout).expect("JSON");
    assert_eq!(filled["contracts"], world.ids().len(), "{filled}");
    assert_eq!(filled["looked_at"], filled["contracts"], "{filled}");
}

async fn one_call_goes_to_any(world: &World) {
    let report = world.shell.path("report.json");
    let args = ["invoke", "any", "upper", "--hedge", "--report", &report];
    let called = world.shell.dlambda(&args, b"any").await;
    assert_eq!(called.stdout, b"ANY", "{}", stderr(&called));
    let report = std::fs::read(Path::new(&report)).expect("a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let provider = report["provider"].as_str().expect("an id");
    assert!(world.ids().contains(&provider.to_owned()));
    let args = ["invoke", "any", "upper", "--replicas", "3"];
    let called = world.shell.dlambda(&args, b"three").await;
    assert_eq!(called.stdout, b"THREE", "{}", stderr(&called));
}

async fn a_file_of_another_call_is_refused(world: &World, journal: &str) {
    let args = ["map", "cat", "--resume", journal];
    world
        .shell
        .dlambda_fails(&args, 2, "is of another call")
        .await;
}

/// Tokens of a provider.
struct Tokens {
    spent: u64,
    interrupted: u64,
}

async fn held(world: &World) -> BTreeMap<String, Tokens> {
    let listed = world
        .shell
        .dlambda(&["wallet", "--format", "json"], b"")
        .await;
    let listed: Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let contracts = listed["contracts"].as_array().expect("a list");
    let number = |it: &Value| it.as_u64().expect("a number");
    let tokens = contracts.iter().map(|it| {
        let tokens = Tokens {
            spent: number(&it["spent"]),
            interrupted: number(&it["interrupted"]),
        };
        (it["provider"].as_str().expect("an id").to_owned(), tokens)
    });
    tokens.collect()
}

/// `dlambda map`, under way.
struct Map {
    child: Child,
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    log: std::path::PathBuf,
}

impl Map {
    fn start(world: &World, args: &[&str]) -> Self {
        let home = world.shell.path("caller");
        let log = world.shell.dir.path().join("map.log");
        let mut child = Command::new(binary("dlambda").expect("built"))
            .args(["--home", &home, "--network", world.shell.network()])
            .args(["map", "upper", "--format", "json"])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).expect("a file"))
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let stdout = child.stdout.take().expect("piped");
        Self {
            child,
            lines: BufReader::new(stdout).lines(),
            log,
        }
    }

    async fn feed(&mut self, count: usize) {
        let mut stdin = self.child.stdin.take().expect("piped");
        let lines: String = (1..=count)
            .map(|number| format!("line {number}\n"))
            .collect();
        stdin.write_all(lines.as_bytes()).await.expect("it reads");
    }

    async fn read(&mut self, count: usize) -> Vec<Value> {
        let mut answers = Vec::new();
        while answers.len() < count {
            let line = timeout(DEADLINE, self.lines.next_line()).await;
            let line = line.expect("in time").expect("text");
            let Some(line) = line else {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                panic!("{} answers: {said}", answers.len());
            };
            let answer: Value = serde_json::from_str(&line).expect("JSON");
            assert_eq!(answer["ok"], true, "{answer}");
            answers.push(answer);
        }
        answers
    }

    async fn end(mut self, expected: i32) {
        let status = timeout(DEADLINE, self.child.wait()).await;
        let status = status.expect("in time").expect("ends");
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert_eq!(status.code(), Some(expected), "{said}");
    }

    async fn kill(mut self) {
        self.child.kill().await.expect("it ran");
    }
}
