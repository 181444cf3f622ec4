//! What our programs leave behind on their user's machine, what they let others on it see, and what
//! they let a stranger do to its terminal.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dlambda_tests::program::{binary, run};
use rustix::process::getuid;
use tempfile::TempDir;

use crate::kill::shop::Shop;
use crate::support::functions;

const DEADLINE: Duration = Duration::from_secs(60);

/// Any user but root.
const NOBODY: u32 = 65_534;

/// Sets the clipboard of terminals that let themselves be told to.
const CLIPBOARD: &str = "(module
    (import \"wasi_snapshot_preview1\" \"fd_write\"
        (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export \"memory\") 1)
    (data (i32.const 1024) \"\\1b]52;c;YQ==\\07fine\\n\")
    (func (export \"_start\")
        (i32.store (i32.const 0) (i32.const 1024))
        (i32.store (i32.const 4) (i32.const 17))
        (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))";

fn mode(path: &Path) -> u32 {
    let metadata = std::fs::metadata(path).expect("it was written");
    metadata.permissions().mode() & 0o777
}

/// A file that everybody may read, as an earlier program may have left it.
fn open_to_all(path: &Path) {
    std::fs::write(path, b"old").expect("written");
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o644)).expect("ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_and_receipts_are_for_their_owner_alone() {
    let shop = Shop::open().await;
    let client = shop.client();
    client.json(&["contract", &shop.address, "--yes"]).await;
    let (report, receipt) = (shop.path("report.json"), shop.path("upper.receipt"));
    for again in [false, true] {
        let files = [&report, &receipt].map(|path| path.to_str().expect("text"));
        let args = ["invoke", &shop.address, "upper", "--report", files[0]];
        let args = [&args[..], &["--receipt", files[1]]].concat();
        let output = client.run(&args, b"a").await;
        assert!(output.status.success(), "{output:?}");
        assert_eq!((mode(&report), mode(&receipt)), (0o600, 0o600), "{again}");
        open_to_all(&report);
        open_to_all(&receipt);
    }
    let failed = ["invoke", &shop.address, "lower", "--report"];
    let failed = [&failed[..], &[report.to_str().expect("text")]].concat();
    assert!(!client.run(&failed, b"a").await.status.success());
    assert_eq!(mode(&report), 0o600, "of a call that failed, too");
}

/// Runs a command on a terminal, with what is typed there.
async fn on_a_terminal(command: &[&str]) -> String {
    let line = command.join(" ");
    let script = tokio::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(DEADLINE, script).await;
    let output = output.expect("it ends").expect("script (bsdutils) is here");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_functions_output_cannot_drive_our_terminal_unless_that_is_asked_for() {
    let dir = tempfile::tempdir().expect("a directory");
    let function = dir.path().join("clipboard.wasm");
    std::fs::write(&function, wat::parse_str(CLIPBOARD).expect("good WAT")).expect("written");
    let (function, home) = (text(&function), dir.path().join("home"));
    let dlambda = binary("dlambda").expect("built");
    let args = ["run", "--home", text(&home), function];
    let bytes = "\u{1b}]52;c;YQ==\u{7}fine";

    let command = [&[text(&dlambda)], &args[..]].concat();
    let shown = on_a_terminal(&command).await;
    assert!(shown.contains("\\x1b]52;c;YQ==\\x07fine"), "{shown:?}");
    assert!(!shown.contains("\u{1b}]52"), "{shown:?}");
    let raw = on_a_terminal(&[&command[..], &["--raw"]].concat()).await;
    assert!(raw.contains(bytes), "{raw:?}");
    let piped = run("dlambda", &args, b"", DEADLINE).await.expect("ends");
    assert_eq!(piped.stdout, [bytes.as_bytes(), b"\n"].concat());
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// A process that ends with the test.
struct Running(Child);

impl Running {
    /// Starts it as another user if we are root: of root's processes everything is root's anyway.
    fn start(command: &mut Command) -> Self {
        if getuid().is_root() {
            std::os::unix::process::CommandExt::uid(command, NOBODY);
        }
        let quiet = command.stdin(Stdio::piped()).stdout(Stdio::null());
        Self(quiet.spawn().expect("starts"))
    }

    fn file(&self, name: &str) -> String {
        format!("/proc/{}/{name}", self.0.id())
    }

    /// Whether others of the same user can look into it.
    fn is_open(&self) -> bool {
        let metadata = std::fs::metadata(self.file("environ")).expect("it runs");
        metadata.uid() != 0
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn core_limit(process: u32) -> String {
    let limits = std::fs::read_to_string(format!("/proc/{process}/limits"));
    let limits = limits.expect("it runs");
    let line = limits.lines().find(|line| line.starts_with("Max core"));
    let words: Vec<_> = line.expect("Linux").split_whitespace().collect();
    words[4..6].join(" ")
}

/// A directory in which others may run things.
fn shared_directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).expect("ours");
    dir
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_with_keys_leave_no_core_dumps_and_cannot_be_looked_into() {
    let dir = shared_directory();
    let (program, function) = (dir.path().join("dlambda"), dir.path().join("upper.wasm"));
    std::fs::copy(binary("dlambda").expect("built"), &program).expect("copied");
    std::fs::copy(functions().join("upper.wasm"), &function).expect("copied");
    std::fs::set_permissions(&function, PermissionsExt::from_mode(0o644)).expect("ours");
    let sleeping = Running::start(Command::new("sleep").arg("60"));
    // It waits for its input.
    let dlambda = Running::start(Command::new(&program).args(["run", text(&function)]));
    let started = Instant::now();
    while dlambda.is_open() && started.elapsed() < DEADLINE {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(sleeping.is_open(), "usually one can");
    assert!(!dlambda.is_open());
    assert_eq!(core_limit(dlambda.0.id()), "0 0");
    let shop = Shop::open().await;
    assert_eq!(core_limit(shop.provider_pid()), "0 0");
}

/// Whether somebody is connected to this port of ours.
fn is_connected(port: &str) -> bool {
    let port: u16 = port.parse().expect("a port");
    let local = format!(":{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("Linux");
    table.lines().skip(1).any(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        words[1].ends_with(&local) && words[3] == "01"
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn no_connection_is_held_while_a_person_reads_the_terms() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let shop = Shop::open().await;
    let client = shop.client();
    let args = client.args(&["contract", &shop.address]);
    let dlambda = binary("dlambda").expect("built");
    let line = format!("{} {}", text(&dlambda), args.join(" "));
    let mut script = tokio::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script (bsdutils) is here");
    let mut keyboard = script.stdin.take().expect("piped");
    let mut screen = script.stdout.take().expect("piped");
    let mut shown = String::new();
    let asked = async {
        let mut buffer = [0; 4096];
        while !shown.contains("Agree?") {
            let read = screen.read(&mut buffer).await.expect("reads");
            assert!(read > 0, "it ended: {shown}");
            shown += &String::from_utf8_lossy(&buffer[..read]);
        }
    };
    tokio::time::timeout(DEADLINE, asked)
        .await
        .expect("it asks");
    let port = shop.address.rsplit(':').next().expect("a port");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!is_connected(port), "while somebody reads");
    keyboard.write_all(b"y\n").await.expect("typed");
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(DEADLINE, screen.read_to_end(&mut rest)).await;
    ended.expect("it ends").expect("reads");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("\"confirmed\":true"), "{rest}");
    assert!(script.wait().await.expect("ends").success());
}

#[test]
fn mistakes_on_the_command_line_are_json_if_that_is_asked_for() {
    for (program, args) in [
        (
            "dlambda",
            &["--format", "json", "invoke", "nowhere", "upper"][..],
        ),
        ("dlambda", &["nosuch", "--format=json"]),
        ("dlambda-provider", &["--format", "json", "nosuch"]),
    ] {
        let program = binary(program).expect("built");
        let output = Command::new(program).args(args).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty(), "{args:?}");
        let said: serde_json::Value = serde_json::from_slice(&output.stderr).expect("JSON");
        assert_eq!(said["error"]["kind"], "usage", "{said}");
        assert_eq!(said["error"]["retry"], "never", "{said}");
        let message = said["error"]["message"].as_str().expect("text");
        assert!(!message.is_empty() && !message.contains("Usage:"), "{said}");
    }
    let help = Command::new(binary("dlambda").expect("built"))
        .args(["--format", "json", "--help"])
        .output()
        .expect("runs");
    assert!(help.status.success() && !help.stdout.is_empty());
}
