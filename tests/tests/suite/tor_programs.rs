//! The programs, as a newcomer runs them, on a private Tor network.

use std::path::Path;
use std::time::Duration;

use dlambda_tests::program::run;
use dlambda_tests::shared::tor_network;
use serde_json::Value;
use tempfile::TempDir;

use crate::hostile_functions::LOOP;
use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// The whole life of a provider and its callers, on one network.
#[tokio::test(flavor = "multi_thread")]
async fn from_first_start_to_a_network_that_is_gone() {
    let network = tor_network().await.expect("a network");
    let shell = Shell::new(&network);
    let (provider, address) = shell.provider(&[]).await;

    contract_and_wallet(&shell, &address).await;
    by_alias_cid_and_path(&shell, &address).await;
    mistakes_have_their_exit_codes(&shell, &address).await;
    several_at_once_from_one_home(&shell, &address).await;
    logs_hold_no_secrets(&shell, &address).await;
    status_and_doctor(&shell, &address).await;

    provider.stop(DEADLINE).await.expect("drains and stops");
    let (provider, again) = shell.provider(&[]).await;
    assert_eq!(again, address, "a restart keeps the address");
    provider.kill().await.expect("was running");

    network_down(&shell.dir, &network).await;
}

async fn contract_and_wallet(shell: &Shell, address: &str) {
    let none = shell.dlambda(&["invoke", address, "upper"], b"hello").await;
    assert_eq!(code(&none), 4, "{}", stderr(&none));
    assert!(stderr(&none).contains("dlambda contract"));
    let asked = shell.dlambda(&["contract", address], b"").await;
    assert_eq!(code(&asked), 2, "nobody to ask: {}", stderr(&asked));
    let nine = shell
        .dlambda(&["contract", address, "--calls", "9"], b"")
        .await;
    assert_eq!(code(&nine), 2, "{}", stderr(&nine));
    let agree = ["contract", address, "--calls", "32", "--yes", AT_ONCE];
    let agreed = shell
        .dlambda(&[&agree[..], &["--format", "json"]].concat(), b"")
        .await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    assert!(stderr(&agreed).contains("32 calls on plan small"));
    let contract: Value = serde_json::from_slice(&agreed.stdout).expect("JSON");
    assert_eq!(contract["confirmed"], true);
    let wallet = shell.dlambda(&["wallet", "--format", "json"], b"").await;
    let wallet: Value = serde_json::from_slice(&wallet.stdout).expect("JSON");
    let listed = &wallet["contracts"][0];
    assert_eq!(listed["contract"], contract["contract"]);
    assert_eq!(
        (&listed["fresh"], &listed["ratings"]),
        (&32.into(), &4.into())
    );
}

async fn by_alias_cid_and_path(shell: &Shell, address: &str) {
    let report = shell.path("report.json");
    let by_alias = shell
        .dlambda(&["invoke", address, "upper", "--report", &report], b"hello")
        .await;
    assert_eq!(
        (code(&by_alias), &by_alias.stdout[..]),
        (0, &b"HELLO"[..]),
        "{}",
        stderr(&by_alias)
    );
    assert!(by_alias.stderr.is_empty(), "{}", stderr(&by_alias));
    let report: Value =
        serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON");
    let cid = report["function"].as_str().expect("a CID").to_owned();
    for stage in ["connect_ms", "round_trip_ms", "queue_ms", "execute_ms"] {
        assert!(report["time"][stage].is_number(), "{stage}");
    }
    assert!(report["fuel"].as_u64() > Some(0) && report["cold"] == false);
    assert_eq!(report["bytes"]["input_bytes"], 5);

    let by_cid = shell.dlambda(&["invoke", address, &cid], b"hello").await;
    assert_eq!(by_cid.stdout, b"HELLO", "{}", stderr(&by_cid));

    let own = wat::parse_str("(module (memory (export \"memory\") 3) (func (export \"_start\")))");
    let own = shell.write("own.wasm", &own.expect("good WAT"));
    for attached in [true, false] {
        let report = shell.path("report.json");
        let by_path = shell
            .dlambda(&["invoke", address, &own, "--report", &report], b"")
            .await;
        assert_eq!(code(&by_path), 0, "{}", stderr(&by_path));
        let report: Value =
            serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON");
        assert_eq!(report["attached"], attached, "it travels once");
    }
}

async fn mistakes_have_their_exit_codes(shell: &Shell, address: &str) {
    let exit_3 = shell.exit_3();
    let text = shell.write("text.wasm", b"#!/bin/sh");
    let import =
        wat::parse_str("(module (import \"env\" \"steal\" (func)) (func (export \"_start\")))");
    let import = shell.write("import.wasm", &import.expect("good WAT"));
    let nobody = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    for (args, expected, said) in [
        (
            ["invoke", "example.com", "upper"],
            2,
            "not an onion address",
        ),
        (
            ["invoke", address, "no-such"],
            4,
            "publishes no function of this name",
        ),
        (["invoke", address, &text], 2, "not a WebAssembly binary"),
        (["invoke", address, &import], 4, "env::steal"),
        (["invoke", address, &exit_3], 1, "exit status 3"),
        (["invoke", address, "missing.wasm"], 8, "missing.wasm"),
        (["invoke", nobody, "upper"], 3, "cannot be reached"),
    ] {
        shell.dlambda_fails(&args, expected, said).await;
    }
    let json = shell
        .dlambda(&["invoke", address, "no-such", "--format", "json"], b"")
        .await;
    let error: Value = serde_json::from_slice(&json.stderr).expect("JSON");
    assert_eq!(error["error"]["kind"], "refused");
}

async fn several_at_once_from_one_home(shell: &Shell, address: &str) {
    let calls = (0..4).map(|i| async move {
        let output = shell
            .dlambda(&["invoke", address, "upper"], format!("n{i}").as_bytes())
            .await;
        assert_eq!(
            output.stdout,
            format!("N{i}").as_bytes(),
            "{}",
            stderr(&output)
        );
    });
    futures::future::join_all(calls).await;
}

/// Everything is logged at the finest level; none of what must stay secret is in it.
async fn logs_hold_no_secrets(shell: &Shell, address: &str) {
    let input = "canary-in-the-input";
    let args = [
        "invoke",
        address,
        "args-echo",
        "--",
        "canary-in-the-arguments",
    ];
    let trace = ("DLAMBDA_LOG", "trace");
    let output = shell.dlambda_with(trace, &args, input.as_bytes()).await;
    assert_eq!(output.stdout, b"function\ncanary-in-the-arguments\n");
    let provider = std::fs::read_to_string(shell.path("provider.log")).expect("a log");
    let logs = [("caller", stderr(&output)), ("provider", provider)];
    let name = address.trim_end_matches(".onion");
    let cid = dlambda_proto::FunctionId::of(
        &std::fs::read(functions().join("args-echo.wasm")).expect("an example"),
    );
    for secret in [
        input,
        "canary-in-the-arguments",
        "args-echo",
        name,
        &cid.unredacted(),
    ] {
        for (whose, log) in &logs {
            assert!(log.contains("TRACE"), "it is a log at the finest level");
            assert!(!log.contains(secret), "the {whose}'s log holds {secret}");
        }
    }
}

async fn status_and_doctor(shell: &Shell, address: &str) {
    let data = shell.path("provider");
    let args = ["status", "--data", &data, "--format", "json"];
    let status = run("dlambda-provider", &args, b"", DEADLINE)
        .await
        .expect("ends");
    let status: Value = serde_json::from_slice(&status.stdout).expect("JSON");
    assert_eq!(status["status"]["state"], "ready");
    assert!(
        status["status"]["succeeded"].as_u64() >= Some(8),
        "{status}"
    );
    let execution = &status["status"]["execution"];
    assert!(execution["fuel"].as_u64() > Some(0), "{status}");
    let layers = execution["confinement"].as_array().expect("layers");
    assert!(layers.contains(&"seccomp".into()), "{status}");
    let absent = execution["absent_layers"].as_array().expect("layers");
    assert_eq!(layers.len() + absent.len(), 6, "{status}");
    assert_eq!(execution["trouble"], Value::Null);
    assert_eq!(status["status"]["queues"][0]["plan"], "small");
    let functions = status["status"]["functions"].as_array().expect("functions");
    assert!(
        functions
            .iter()
            .any(|f| f["alias"] == "upper" && f["calls"].as_u64() >= Some(3))
    );
    let elsewhere = shell.path("nowhere");
    let args = ["status", "--data", &elsewhere];
    let none = run("dlambda-provider", &args, b"", DEADLINE)
        .await
        .expect("ends");
    assert_eq!(code(&none), 3, "{}", stderr(&none));
    let doctor = shell
        .dlambda(&["doctor", address, "--format", "json"], b"")
        .await;
    let findings: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    assert_eq!(
        (code(&doctor), &findings["ok"]),
        (0, &Value::Bool(true)),
        "{findings}"
    );
    let mut checks = findings["checks"].as_array().expect("checks").iter();
    let confinement = checks.find(|check| check["check"] == "confinement");
    let found = confinement.and_then(|check| check["finding"].as_str());
    assert!(
        found.is_some_and(|found| found.contains("seccomp")),
        "{findings}"
    );
}

/// Takes some minutes in which next to nothing happens: three circuits of up to 45 s each are
/// waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_killed_in_mid_call_is_missed() {
    let network = tor_network().await.expect("a network");
    let shell = Shell::new(&network);
    let (provider, address) = shell.provider(&[]).await;
    let endless = shell.write("endless.wasm", &wat::parse_str(LOOP).expect("good WAT"));
    let agree = ["contract", &address, "--plan", "large", "--yes", AT_ONCE];
    let agreed = shell.dlambda(&agree, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    let args = [
        "invoke",
        &address,
        &endless,
        "--plan",
        "large",
        "--max-time",
        "300",
    ];
    let calling = shell.dlambda(&args, b"");
    let kill = async {
        tokio::time::sleep(Duration::from_secs(8)).await;
        provider.kill().await.expect("was running");
    };
    let (output, ()) = tokio::join!(calling, kill);
    assert_eq!(
        code(&output),
        3,
        "no provider any more: {}",
        stderr(&output)
    );
}

/// The same network with no authority at its address any more.
async fn network_down(dir: &TempDir, network: &Path) {
    let mut text = std::fs::read_to_string(network).expect("a network file");
    let mut at = 0;
    while let Some(found) = text[at..].find("127.0.0.1:") {
        at += found + "127.0.0.1:".len();
        let port = text[at..].find(|it: char| !it.is_ascii_digit());
        text.replace_range(at..at + port.expect("more text"), "1");
    }
    assert!(at > 0, "there were addresses");
    let file = dir.path().join("network.toml");
    std::fs::write(&file, text).expect("written");
    let (file, home) = (file.to_str().expect("text"), dir.path().join("fresh"));
    let common = [
        "--network",
        file,
        "--home",
        home.to_str().expect("text"),
        "--max-time",
        "15",
    ];
    let nobody = "2gzyxa5ihm7nsggfxnu52rck2vv4rvmdlkiu3zzui5du4xyclen53wid.onion";
    for args in [&["invoke", nobody, "upper"][..], &["doctor"]] {
        let args = [&common[..], args].concat();
        let output = run("dlambda", &args, b"", Duration::from_secs(60))
            .await
            .expect("ends");
        assert_eq!(code(&output), 5, "{}", stderr(&output));
    }
}
