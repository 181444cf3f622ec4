//! What a function is, and why it is refused.

use std::time::Duration;

use dlambda_tests::program::binary;
use serde_json::Value;

use super::{Desk, RANDOM, code, example, stderr};

const IMPORT: &str = "(module (import \"env\" \"steal\" (func)) (func (export \"_start\")))";

#[tokio::test(flavor = "multi_thread")]
async fn what_a_provider_refuses_is_refused_with_the_import_to_blame() {
    let desk = Desk::new();
    let import = desk.wat("import.wasm", IMPORT);
    let library = desk.wat("library.wasm", "(module (func (export \"add\")))");
    let script = desk.write("script.wasm", b"#!/bin/sh");
    for (args, expected, said) in [
        (&["run", &import][..], 4, "env::steal"),
        (&["run", &library], 4, "entry point"),
        (&["run", &script], 2, "not a WebAssembly binary"),
        (&["run", "missing.wasm"], 8, "missing.wasm"),
        (
            &["run", &library, "--plan", "huge"],
            2,
            "small, medium, large",
        ),
        (
            &["run", &library, "--http", "/", "--", "argument"],
            2,
            "--http",
        ),
        (&["run", &library, "--header", "a: b"], 2, "--http"),
    ] {
        let output = desk.dlambda(args, b"").await;
        assert_eq!(code(&output), expected, "{args:?}: {}", stderr(&output));
        assert!(
            stderr(&output).contains(said),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(output.stdout.is_empty());
    }
    for (file, said) in [
        (&import, "env::steal"),
        (&library, "entry point"),
        (&script, "not a valid"),
    ] {
        let output = desk.dlambda(&["function", "inspect", file], b"").await;
        let findings = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(code(&output), 4, "{findings}");
        let verdict = findings.lines().find(|line| line.starts_with("verdict"));
        assert!(
            verdict.is_some_and(|line| line.contains(said)),
            "{findings}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inspecting_says_what_a_function_is() {
    let desk = Desk::new();
    for (name, kind, import) in [
        ("upper", "preview1", "wasi_snapshot_preview1::fd_write"),
        ("wordcount", "preview2", "wasi:cli/stdin"),
        ("hello-http", "http", "wasi:http/types"),
    ] {
        let file = example(name);
        let args = ["function", "inspect", &file, "--format", "json"];
        let output = desk.dlambda(&args, b"").await;
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        let wasm = std::fs::read(&file).expect("an example");
        let cid = dlambda_proto::FunctionId::of(&wasm).unredacted();
        assert_eq!(found["function"], cid);
        assert_eq!(
            (&found["kind"], &found["accepted"]),
            (&kind.into(), &true.into())
        );
        let imports = found["imports"].as_array().expect("imports").iter();
        let mut imports = imports.filter_map(Value::as_str);
        assert!(imports.any(|name| name.starts_with(import)), "{found}");
        let (_, report) = desk.report(&[&file], b"").await;
        assert_eq!(
            (&report["function"], &report["kind"]),
            (&cid.into(), &kind.into())
        );
        assert_eq!(report["engine"], found["engine"]);
    }
    let random = desk.wat("random.wasm", RANDOM);
    let output = desk.dlambda(&["function", "inspect", &random], b"").await;
    let findings = String::from_utf8_lossy(&output.stdout).into_owned();
    let vary = "on others these vary: wasi_snapshot_preview1::random_get";
    assert!(findings.contains(vary), "{findings}");
}

/// Each loop changes a local, and each local is asked for at the end: the compiler has to keep all
/// of them apart in every loop. 137 KB, for which it takes 2 GB and most of a minute if it
/// is not stopped.
fn compile_bomb() -> String {
    use std::fmt::Write as _;
    let mut text = format!(
        "(module (func (export \"_start\") (local{})",
        " i64".repeat(3_000)
    );
    for number in 0..6_000 {
        let local = number % 3_000;
        let _infallible = write!(
            text,
            "(loop (local.set {local} (i64.add (local.get {local}) (i64.const 1)))
                (br_if 0 (i64.eqz (local.get {local}))))"
        );
    }
    for local in 0..3_000 {
        let other = (local + 1) % 3_000;
        let _infallible = write!(
            text,
            "(local.set {local} (i64.add (local.get {local}) (local.get {other})))"
        );
    }
    text + "))"
}

#[tokio::test(flavor = "multi_thread")]
async fn inspecting_a_compile_bomb_takes_neither_memory_nor_time() {
    let desk = Desk::new();
    let bomb = desk.wat("bomb.wasm", &compile_bomb());
    let home = desk.path("home");
    let mut inspecting = tokio::process::Command::new(binary("dlambda").expect("built"))
        .args(["--home", &home, "--max-time", "4"])
        .args(["function", "inspect", &bomb])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .expect("starts");
    let process = inspecting.id().expect("lives");
    let begun = std::time::Instant::now();
    let mut most = 0;
    while inspecting.try_wait().expect("a child").is_none() {
        most = most.max(peak_memory(process).unwrap_or(0));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let output = inspecting.wait_with_output().await.expect("ends");
    assert!(
        begun.elapsed() < Duration::from_secs(20),
        "{:?}",
        begun.elapsed()
    );
    assert!((1..100 << 20).contains(&most), "{most}");
    assert!(
        stderr(&output).contains("not compiled within 4 seconds"),
        "{}",
        stderr(&output)
    );
}

/// Bytes, while the process lives.
fn peak_memory(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}
