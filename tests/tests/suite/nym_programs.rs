//! The programs over Nym, and over Tor and Nym at once, as a newcomer runs them.

use std::process::Output;
use std::time::Duration;

use dlambda_proto::{Endpoint, Endpoints, FunctionId, NymAddress};
use dlambda_tests::program::{Program, run};
use serde_json::Value;
use tempfile::TempDir;

use crate::shell::{DEADLINE, Shell, code, stderr};
use crate::support::{AT_ONCE, functions};

/// Networks as `dlambda-testnet up` starts them.
pub(crate) struct Networks {
    program: Program,
    pub(crate) ready: Value,
    pub(crate) dir: TempDir,
}

impl Networks {
    pub(crate) async fn up(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, log) = (dir.path().join("net"), dir.path().join("log"));
        let args = ["up", "--dir", files.to_str().expect("text")];
        let args = [&args, options].concat();
        let started = Program::start("dlambda-testnet", &args, &log, DEADLINE).await;
        let (program, ready) = started.expect("networks");
        Self {
            program,
            ready,
            dir,
        }
    }

    fn shell(&self) -> Shell {
        Shell::new(self.ready["network"].as_str().expect("a path").as_ref())
    }

    /// Ends them; what was said for people.
    pub(crate) async fn down(self) -> String {
        self.program.stop(DEADLINE).await.expect("stops");
        std::fs::read_to_string(self.dir.path().join("log")).expect("a log")
    }
}

/// One provider behind both networks, and callers who come by either.
#[tokio::test(flavor = "multi_thread")]
async fn a_provider_at_two_doors_is_one_provider() {
    let networks = Networks::up(&["--nym", "--nym-traffic", "fast"]).await;
    let shell = networks.shell();
    let (provider, address) = shell.provider(&["--transport", "tor,nym"]).await;
    let endpoints: Endpoints = address.parse().expect("addresses");
    let [Endpoint::Onion(onion), Endpoint::Nym(nym)] = endpoints.as_slice() else {
        panic!("{address}");
    };
    let (onion, nym) = (onion.unredacted(), nym.unredacted());

    let agree = ["contract", &address, "--calls", "8", "--yes", AT_ONCE];
    let agree = [&agree[..], &["--transport", "nym"]].concat();
    let agreed = shell.dlambda(&agree, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));
    // Tokens that were bought over Nym are good over Tor, and the other way.
    for (args, tokens) in [
        (["invoke", &address, "upper", "--transport", "nym"], 7),
        (["invoke", &address, "upper", "--transport", "tor"], 6),
        (["invoke", &address, "upper", "--transport", "auto"], 5),
        (["invoke", &onion, "upper", "--transport", "auto"], 4),
        (["invoke", &nym, "upper", "--transport", "auto"], 3),
    ] {
        let output = shell.dlambda(&args, b"hello").await;
        assert_eq!(code(&output), 0, "{args:?}: {}", stderr(&output));
        assert_eq!(output.stdout, b"HELLO");
        assert_eq!(fresh_tokens(&shell).await, tokens, "{args:?}");
    }
    let wrong = ["invoke", &nym, "upper", "--transport", "tor"];
    let wrong = shell.dlambda(&wrong, b"").await;
    assert_eq!(code(&wrong), 2, "{}", stderr(&wrong));
    provider.stop(DEADLINE).await.expect("drains and stops");
    let said = networks.down().await;
    assert!(said.contains("authorities"), "{said}");
}

async fn fresh_tokens(shell: &Shell) -> u64 {
    let wallet = shell.dlambda(&["wallet", "--format", "json"], b"").await;
    let wallet: Value = serde_json::from_slice(&wallet.stdout).expect("JSON");
    wallet["contracts"][0]["fresh"].as_u64().expect("a number")
}

/// The whole life of a provider and its callers, without Tor.
#[tokio::test(flavor = "multi_thread")]
async fn over_nym_everything_is_as_over_tor() {
    let networks = Networks::up(&["--nym", "--no-tor", "--nym-traffic", "fast"]).await;
    assert_eq!(
        (&networks.ready["relays"], &networks.ready["mixes"]),
        (&0.into(), &6.into())
    );
    let shell = networks.shell();
    let (provider, address) = shell.provider(&["--transport", "nym"]).await;
    assert!(matches!(address.parse(), Ok(Endpoint::Nym(_))), "{address}");

    calls_receipts_and_audits(&shell, &address).await;
    mistakes_have_their_exit_codes(&shell, &address).await;
    logs_hold_no_secrets(&shell, &address).await;
    let doctor = shell.dlambda(&["doctor", &address], b"").await;
    assert_eq!(code(&doctor), 0, "{}", stderr(&doctor));

    provider.stop(DEADLINE).await.expect("drains and stops");
    let (provider, again) = shell.provider(&["--transport", "nym"]).await;
    assert_eq!(again, address, "a restart keeps the address");
    let after = shell
        .dlambda(&["invoke", &address, "upper"], b"again")
        .await;
    assert_eq!(after.stdout, b"AGAIN", "{}", stderr(&after));

    provider.stop(DEADLINE).await.expect("drains and stops");
    let said = networks.down().await;
    // Which gateways are used is drawn: both sides may enter by one.
    for layer in ["mix 1", "mix 2", "mix 3", "gateway"] {
        let lines = said.lines().filter_map(|line| line.strip_prefix(layer));
        let carried = lines.filter_map(|line| {
            let mut words = line.split_whitespace();
            // The number of a gateway belongs to its name.
            let words = if layer == "gateway" {
                words.nth(1)
            } else {
                words.next()
            };
            words?.parse::<u64>().ok()
        });
        assert!(carried.sum::<u64>() > 0, "{layer}: {said}");
    }
    without_a_network(&shell, &address).await;
}

async fn calls_receipts_and_audits(shell: &Shell, address: &str) {
    let none = shell.dlambda(&["invoke", address, "upper"], b"hello").await;
    assert_eq!(code(&none), 4, "{}", stderr(&none));
    let agree = ["contract", address, "--calls", "32", "--yes", AT_ONCE];
    let agreed = shell.dlambda(&agree, b"").await;
    assert_eq!(code(&agreed), 0, "{}", stderr(&agreed));

    let (report, receipt) = (shell.path("report.json"), shell.path("upper.receipt"));
    let args = [
        "invoke",
        address,
        "upper",
        "--report",
        &report,
        "--receipt",
        &receipt,
    ];
    let output = shell.dlambda(&args, b"hello").await;
    assert_eq!(output.stdout, b"HELLO", "{}", stderr(&output));
    assert!(output.stderr.is_empty(), "{}", stderr(&output));
    let report: Value =
        serde_json::from_slice(&std::fs::read(&report).expect("a report")).expect("JSON");
    assert!(
        report["time"]["round_trip_ms"].as_f64() > Some(0.0),
        "{report}"
    );
    let shown = shell.dlambda(&["receipt", "show", &receipt], b"").await;
    assert_eq!(code(&shown), 0, "{}", stderr(&shown));

    // A response that is not liked was answered all the same: no token waits.
    let missing = ["invoke", address, "hello-http", "--http", "GET /nowhere"];
    let missing = [&missing[..], &["--fail"]].concat();
    let missing = shell.dlambda(&missing, b"").await;
    assert_eq!(code(&missing), 1, "{}", stderr(&missing));
    let wallet = shell.dlambda(&["wallet", "--format", "json"], b"").await;
    let wallet: Value = serde_json::from_slice(&wallet.stdout).expect("JSON");
    let listed = &wallet["contracts"][0];
    assert_eq!(
        (&listed["fresh"], &listed["spent"]),
        (&30.into(), &2.into())
    );

    // A function of one's own travels, and is checked.
    let own = functions().join("wordcount.wasm");
    let audit = ["audit", address, own.to_str().expect("text")];
    let audited = shell.dlambda(&audit, b"one two three").await;
    assert_eq!(code(&audited), 0, "{}", stderr(&audited));
}

async fn mistakes_have_their_exit_codes(shell: &Shell, address: &str) {
    let exit_3 = shell.exit_3();
    let nobody = nobody(address);
    for (args, expected, said) in [
        (
            ["invoke", address, "no-such"],
            4,
            "publishes no function of this name",
        ),
        (["invoke", address, &exit_3], 1, "exit status 3"),
        (["invoke", &nobody, "upper"], 3, "cannot be reached"),
        (["invoke", "a.b@c", "upper"], 2, "Nym address"),
    ] {
        shell.dlambda_fails(&args, expected, said).await;
    }
    let elsewhere = ["invoke", address, "upper", "--transport", "tor"];
    let elsewhere = shell.dlambda(&elsewhere, b"").await;
    assert_eq!(code(&elsewhere), 2, "{}", stderr(&elsewhere));
    let missing = ("DLAMBDA_NYM", "/nowhere/dlambda-nym");
    let missing = shell
        .dlambda_with(missing, &["invoke", address, "upper"], b"")
        .await;
    assert_eq!(code(&missing), 8, "{}", stderr(&missing));
    assert!(
        stderr(&missing).contains("make nym"),
        "{}",
        stderr(&missing)
    );
}

/// An address at the same gateway at which nobody is.
fn nobody(address: &str) -> String {
    let Ok(Endpoint::Nym(address)) = address.parse() else {
        panic!("a Nym address");
    };
    let mut bytes = *address.as_bytes();
    let other = dlambda_proto::IdentityKey::from_seed(&[7; 32]).id();
    bytes[..32].copy_from_slice(other.as_bytes());
    let address = NymAddress::from_bytes(bytes);
    address.expect("keys").unredacted()
}

/// Everything is logged at the finest level, by the helpers as well; none of
/// what must stay secret is in it.
async fn logs_hold_no_secrets(shell: &Shell, address: &str) {
    let (input, argument) = ("canary-in-the-input", "canary-in-the-arguments");
    let args = ["invoke", address, "args-echo", "--", argument];
    let trace = ("DLAMBDA_LOG", "trace");
    let output: Output = shell.dlambda_with(trace, &args, input.as_bytes()).await;
    assert_eq!(output.stdout, format!("function\n{argument}\n").as_bytes());
    let provider = std::fs::read_to_string(shell.path("provider.log")).expect("a log");
    let logs = [("caller", stderr(&output)), ("provider", provider)];
    let cid = std::fs::read(functions().join("args-echo.wasm")).expect("an example");
    let cid = FunctionId::of(&cid).unredacted();
    // Identity, encryption key and gateway are secrets each.
    let parts: Vec<&str> = address.split(['.', '@']).collect();
    assert_eq!(parts.len(), 3);
    let secrets = [input, argument, "args-echo", &cid]
        .into_iter()
        .chain(parts);
    for secret in secrets {
        for (whose, log) in &logs {
            assert!(!log.contains(secret), "the {whose}'s log holds {secret}");
        }
    }
}

async fn without_a_network(shell: &Shell, address: &str) {
    let (home, network) = (shell.path("fresh"), shell.path("gone.toml"));
    // Port 1 is nobody's.
    let text = "name = \"gone\"\ntransport = \"nym\"\n[nym]\napi_url = \"http://127.0.0.1:1/\"\n";
    std::fs::write(&network, text).expect("written");
    let common = ["--network", &network, "--home", &home, "--max-time", "15"];
    for args in [&["invoke", address, "upper"][..], &["doctor"]] {
        let args = [&common[..], args].concat();
        let output = run("dlambda", &args, b"", Duration::from_secs(90)).await;
        let output = output.expect("ends");
        assert_eq!(code(&output), 5, "{}", stderr(&output));
    }
}
