//! The program: its lines, its commands, its ends.

use std::process::Stdio;

use nym_sdk::mixnet::MixnetClientBuilder;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::support::{PATIENCE, build, fast, receive, send};

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    fn start(args: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_dlambda-mixnet"))
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self {
            input: child.stdin.take(),
            output: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        }
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(PATIENCE, self.output.next_line()).await;
        let line = line
            .expect("no line in time")
            .unwrap()
            .expect("no more lines");
        serde_json::from_str(&line).unwrap()
    }

    async fn ask(&mut self, command: &str) -> Value {
        let input = self.input.as_mut().unwrap();
        input
            .write_all(format!("{command}\n").as_bytes())
            .await
            .unwrap();
        self.line().await
    }

    /// Waits for its end: the last line, and what it said to people.
    async fn end(mut self) -> (Value, String) {
        let counters = self.line().await;
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        assert!(status.expect("it does not end").unwrap().success());
        let mut said = String::new();
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut said).await.unwrap();
        (counters, said)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_the_program_talk_and_it_counts() {
    let dir = tempfile::tempdir().unwrap();
    let capture = dir.path().join("capture");
    let mut program = Program::start(&["--gateways", "1", "--capture", capture.to_str().unwrap()]);
    let hello = program.line().await;
    assert_eq!(hello["nodes"].as_array().unwrap().len(), 6);
    assert_eq!(hello["pid"], program.child.id().unwrap());

    let builder = MixnetClientBuilder::new_ephemeral();
    let gateway = hello["gateways"][0]["identity"]
        .as_str()
        .unwrap()
        .to_owned();
    let api_url = hello["api_url"].as_str().unwrap();
    let mut client = build(builder, api_url, gateway, fast()).await;
    send(&client, *client.nym_address(), "to myself", 0).await;
    assert_eq!(receive(&mut client).await.message, b"to myself");

    let counters = program.ask("counters").await;
    assert_eq!(counters["gateways"][0]["sessions"], 1);
    assert!(counters["mixes"][0]["bytes"].is_u64());
    let ok = serde_json::json!({ "ok": true });
    for command in ["kick 0", "stop 0", "restart 0", "loss 0.5"] {
        assert_eq!(program.ask(command).await, ok, "{command}");
    }
    for command in ["kick 7", "loss 2", "dance"] {
        assert_eq!(program.ask(command).await["ok"], false, "{command}");
    }
    program
        .input
        .as_mut()
        .unwrap()
        .write_all(b"quit\n")
        .await
        .unwrap();
    let (counters, said) = program.end().await;
    assert_eq!(counters["gateways"][0]["registered"], 1);
    assert!(said.contains("mix 3"), "{said}");
    check_records(&std::fs::read(&capture).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_its_input_ends_it() {
    let mut program = Program::start(&[]);
    program.line().await;
    program.input = None;
    program.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signal_ends_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut program = Program::start(&[]);
        program.line().await;
        let pid = i32::try_from(program.child.id().unwrap()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
        program.end().await;
    }
}

/// The file is records from the first byte to the last.
fn check_records(mut file: &[u8]) {
    let mut links = std::collections::BTreeSet::new();
    while !file.is_empty() {
        let end = file.iter().position(|byte| *byte == b'\n').unwrap();
        let header: Value = serde_json::from_slice(&file[..end]).unwrap();
        let len = usize::try_from(header["len"].as_u64().unwrap()).unwrap();
        assert_eq!(file[end + 1 + len], b'\n');
        links.insert(header["to"].as_str().unwrap().to_owned());
        file = &file[end + len + 2..];
    }
    assert!(
        links.contains("api") && links.contains("gateway0/clients"),
        "{links:?}"
    );
}
