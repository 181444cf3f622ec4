//! `dlambda run` and `dlambda function inspect`, as a function's developer
//! and an auditor use them. No network but loopback sockets.

mod cases;
mod inspect;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use dlambda_tests::program::{Program, binary, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::hostile_functions::LOOP;
use crate::support::{AT_ONCE, functions};

const DEADLINE: Duration = Duration::from_secs(100);

const MEMORY: &str = "(module (memory (export \"memory\") 1) (func (export \"_start\")
    (loop $l (br_if $l (i32.ne (memory.grow (i32.const 64)) (i32.const -1)))) unreachable))";

/// Prints 16 random bytes.
const RANDOM: &str = "(module
    (import \"wasi_snapshot_preview1\" \"random_get\" (func $random (param i32 i32) (result i32)))
    (import \"wasi_snapshot_preview1\" \"fd_write\"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export \"memory\") 1)
    (func (export \"_start\")
        (drop (call $random (i32.const 1024) (i32.const 16)))
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 16))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))";

/// The menu of a provider that has little patience.
const PLANS: &str = "
    [execution]
    workers = 1

    [[plan]]
    name = 'thrifty'
    memory_mib = 1
    fuel = 1_000_000
    wall_ms = 60_000
    input_kib = 1
    output_kib = 1
    concurrent = 3

    [[plan]]
    name = 'hasty'
    memory_mib = 64
    fuel = 1_000_000_000_000_000
    wall_ms = 200
    input_kib = 1
    output_kib = 1

    [[plan]]
    name = 'real'
    memory_mib = 64
    fuel = 1_000_000_000
    wall_ms = 10_000
    input_kib = 1
    output_kib = 1
    deterministic = false
";

struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> String {
        let path = self.0.path().join(name);
        path.to_str().expect("text").to_owned()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.path(name), bytes).expect("written");
        self.path(name)
    }

    fn wat(&self, name: &str, text: &str) -> String {
        self.write(name, &wat::parse_str(text).expect("good WAT"))
    }

    async fn dlambda(&self, args: &[&str], input: &[u8]) -> Output {
        let home = self.path("home");
        let args = [&["--home", &home], args].concat();
        run("dlambda", &args, input, DEADLINE).await.expect("ends")
    }

    /// Runs a function and reads the report.
    async fn report(&self, args: &[&str], input: &[u8]) -> (Output, Value) {
        let path = self.path("report.json");
        let args = [&["run", "--report", &path], args].concat();
        let output = self.dlambda(&args, input).await;
        let report = std::fs::read(&path).expect("a report");
        (output, serde_json::from_slice(&report).expect("JSON"))
    }

    /// The files of compiled code.
    fn code(&self) -> Vec<PathBuf> {
        let directory = Path::new(&self.path("home")).join("cache/code.cache");
        let entries = std::fs::read_dir(directory).expect("a cache");
        entries
            .map(|entry| entry.expect("an entry").path())
            .collect()
    }
}

fn example(name: &str) -> String {
    let path = functions().join(format!("{name}.wasm"));
    path.to_str().expect("text").to_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn code_is_kept_and_a_changed_byte_of_it_noticed() {
    let desk = Desk::new();
    let upper = example("upper");
    let (first, report) = desk.report(&[&upper], b"a").await;
    assert_eq!(
        (&first.stdout[..], &report["start"]),
        (&b"A"[..], &"compiled".into())
    );
    let (_, report) = desk.report(&[&upper], b"a").await;
    assert_eq!(
        (&report["start"], &report["cold"]),
        (&"cached".into(), &true.into())
    );

    let [file] = &desk.code()[..] else {
        panic!("one file of code")
    };
    let mut bytes = std::fs::read(file).expect("code");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(file, bytes).expect("written");
    let (after, report) = desk.report(&[&upper], b"a").await;
    assert_eq!(
        (&after.stdout[..], &report["start"]),
        (&b"A"[..], &"compiled".into())
    );
    let (_, report) = desk.report(&[&upper], b"a").await;
    assert_eq!(report["start"], "cached", "the changed file was replaced");

    let key = Path::new(&desk.path("home")).join("state/code-cache.key");
    let mode = std::fs::metadata(&key).expect("a key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).expect("ours");
    let open_key = desk.dlambda(&["run", &upper], b"a").await;
    assert_eq!(code(&open_key), 8, "{}", stderr(&open_key));
    assert!(stderr(&open_key).contains("code-cache.key") && open_key.stdout.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_the_seed_can_repeat_a_run() {
    let desk = Desk::new();
    let random = desk.wat("random.wasm", RANDOM);
    let (first, report) = desk.report(&[&random], b"").await;
    assert_eq!(first.stdout.len(), 16, "{}", stderr(&first));
    let (other, _) = desk.report(&[&random], b"").await;
    assert_ne!(first.stdout, other.stdout, "seeds are fresh unless given");

    let seed = report["seed"].as_str().expect("a seed");
    let (again, repeated) = desk
        .report(&[&random, "--seed", seed, "--repeat", "3"], b"")
        .await;
    assert_eq!(again.stdout, first.stdout);
    assert_eq!(repeated["reproduced"], true);
    let runs = repeated["runs"].as_array().expect("runs");
    let starts: Vec<_> = runs.iter().map(|run| &run["start"]).collect();
    assert_eq!(starts, ["cached", "warm", "warm"]);
    for run in runs {
        assert_eq!(run["fuel"], report["fuel"]);
        assert_eq!(run["peak_memory_bytes"], report["peak_memory_bytes"]);
    }

    let bare = [&random, "--seed", seed, "--no-process-isolation"];
    let (bare, in_process) = desk.report(&bare, b"").await;
    assert_eq!(
        (&bare.stdout, &in_process["fuel"]),
        (&first.stdout, &report["fuel"])
    );
    assert!(stderr(&bare).starts_with("DANGER: "), "{}", stderr(&bare));
    assert_eq!(in_process["confinement"], serde_json::json!([]));
    let layers = report["confinement"].as_array().expect("layers");
    assert!(layers.contains(&"seccomp".into()) && layers.contains(&"rlimits".into()));

    let plans = desk.write("plans.toml", PLANS.as_bytes());
    let real = [
        &random, "--plans", &plans, "--plan", "real", "--seed", seed, "--repeat", "2",
    ];
    let (real, report) = desk.report(&real, b"").await;
    assert_eq!(
        code(&real),
        0,
        "nobody promised anything: {}",
        stderr(&real)
    );
    assert_ne!(real.stdout, first.stdout);
    assert_eq!(
        (&report["deterministic"], &report["reproduced"]),
        (&false.into(), &Value::Null)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_end_a_run_and_are_named() {
    let desk = Desk::new();
    let plans = desk.write("plans.toml", PLANS.as_bytes());
    let endless = desk.wat("endless.wasm", LOOP);
    let hungry = desk.wat("hungry.wasm", MEMORY);
    let upper = example("upper");
    for (function, plan, input, status, said) in [
        (
            &endless,
            "thrifty",
            0,
            "fuel-exhausted",
            "the 1000000 fuel of plan thrifty",
        ),
        (
            &endless,
            "hasty",
            0,
            "deadline-exceeded",
            "the 200 ms of plan hasty",
        ),
        (
            &hungry,
            "hasty",
            0,
            "memory-exceeded",
            "the 67108864 bytes of memory of plan hasty",
        ),
        (&upper, "hasty", 1024, "exited", ""),
    ] {
        let args = [function, "--plans", &plans, "--plan", plan];
        let (output, report) = desk.report(&args, &vec![b'x'; input]).await;
        assert_eq!(report["status"], status, "{}", stderr(&output));
        assert_eq!(
            code(&output),
            i32::from(status != "exited"),
            "{}",
            stderr(&output)
        );
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
        assert_eq!(report["limits"]["name"], plan);
    }
    let (refused, report) = desk
        .report(&[&upper, "--plans", &plans], &[b'x'; 1025])
        .await;
    assert_eq!((code(&refused), &report["error"]), (4, &"refused".into()));
    assert!(stderr(&refused).contains("1025 bytes; plan thrifty takes at most 1024"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_shown_as_curl_would() {
    let desk = Desk::new();
    let hello = example("hello-http");
    let (shown, report) = desk
        .report(
            &[&hello, "--http", "/echo", "-H", "content-type: a/b"],
            b"x",
        )
        .await;
    assert_eq!(
        (code(&shown), &shown.stdout[..]),
        (0, &b"x"[..]),
        "{}",
        stderr(&shown)
    );
    let content_type = serde_json::json!({ "name": "content-type", "value": "a/b" });
    assert_eq!(
        report["http"],
        serde_json::json!({ "status": 200, "headers": [content_type] })
    );
    let fields = desk
        .dlambda(&["run", &hello, "--http", "/headers"], b"")
        .await;
    assert_eq!(fields.stdout, b"", "no field that was not asked for");
    for (more, expected) in [(&[][..], 0), (&["--fail"], 1)] {
        let args = [&["run", &hello, "--http", "GET /nowhere"], more].concat();
        let missing = desk.dlambda(&args, b"").await;
        assert_eq!(
            (code(&missing), &missing.stdout[..]),
            (expected, &b"not found\n"[..])
        );
        assert_eq!(stderr(&missing).contains("HTTP status 404"), expected == 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_helper_program_it_says_what_to_install() {
    let desk = Desk::new();
    std::fs::create_dir(desk.path("bin")).expect("made");
    let alone = desk.path("bin/dlambda");
    std::fs::copy(binary("dlambda").expect("built"), &alone).expect("copied");
    let run = |more: &[&'static str]| {
        let mut command = tokio::process::Command::new(&alone);
        let home = desk.path("home");
        command
            .args(["--home", &home, "run", &example("primes")])
            .args(more);
        command
            .args(["--", "100"])
            .stdin(std::process::Stdio::null());
        async move { command.output().await.expect("runs") }
    };
    let output = run(&[]).await;
    assert_eq!(code(&output), 8, "{}", stderr(&output));
    assert!(
        stderr(&output).contains("dlambda-executor"),
        "{}",
        stderr(&output)
    );
    assert!(
        stderr(&output).contains("--no-process-isolation"),
        "{}",
        stderr(&output)
    );
    let output = run(&["--no-process-isolation"]).await;
    assert_eq!(
        (code(&output), &output.stdout[..]),
        (0, &b"25\n"[..]),
        "{}",
        stderr(&output)
    );
}

/// The same bytes, fuel and memory as from a provider, over loopback sockets.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_gives_what_a_local_run_gives() {
    let desk = Desk::new();
    let network = b"name = 'direct'\ntransport = 'dangerously-direct'\n";
    let network = desk.write("network.toml", network);
    let (published, data) = (functions(), desk.path("provider"));
    let published = published.to_str().expect("text");
    let args = [
        "run",
        "--functions",
        published,
        "--data",
        &data,
        "--network",
        &network,
        "--format",
        "json",
    ];
    let log = desk.0.path().join("provider.log");
    let started = Program::start("dlambda-provider", &args, &log, DEADLINE).await;
    let (provider, ready) = started.expect("a provider");
    let address = ready["address"].as_str().expect("an address");
    let agree = ["--network", &network, "contract", address, "--yes", AT_ONCE];
    let agreed = desk.dlambda(&agree, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    let remote = desk.path("remote.json");
    let invoke = [
        "--network",
        &network,
        "invoke",
        "--report",
        &remote,
        address,
    ];
    for (name, more) in [
        ("sha256", &[][..]),
        ("wordcount", &[]),
        (
            "hello-http",
            &["-i", "--http", "PUT /echo", "-H", "content-type: a/b"],
        ),
        (
            "hello-http",
            &["-i", "--http", "/echo", "-H", "x: y", "--fail"],
        ),
        ("hello-http", &["-i", "--http", "GET /nowhere", "--fail"]),
        ("hello-http", &["-i"]),
    ] {
        let there = desk
            .dlambda(&[&invoke[..], &[name], more].concat(), b"body")
            .await;
        let (here, local) = desk
            .report(&[&[&*example(name)], more].concat(), b"body")
            .await;
        assert_eq!(
            code(&there),
            code(&here),
            "{name}: {} {}",
            stderr(&there),
            stderr(&here)
        );
        assert_eq!(there.stdout, here.stdout, "{name}");
        let there: Value =
            serde_json::from_slice(&std::fs::read(&remote).expect("a report")).expect("JSON");
        for key in [
            "engine",
            "fuel",
            "peak_memory_bytes",
            "http",
            "function",
            "deterministic",
        ] {
            assert_eq!(there[key], local[key], "{key} of {name}");
        }
        assert_eq!(there["bytes"]["input_bytes"], local["bytes"]["input_bytes"]);
        assert_eq!(
            (&there["start"], &there["cold"]),
            (&"warm".into(), &false.into())
        );
    }
    provider.stop(DEADLINE).await.expect("stops");
}
