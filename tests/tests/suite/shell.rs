//! The programs, as somebody at a shell runs them.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use dlambda_tests::program::{Program, binary, run};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::support::functions;

/// For one command, on a loaded machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(330);

/// A directory for everybody's files, and the network that is used.
pub(crate) struct Shell {
    network: String,
    pub(crate) dir: TempDir,
}

impl Shell {
    pub(crate) fn new(network: &Path) -> Self {
        Self {
            network: network.to_str().expect("text").to_owned(),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    pub(crate) fn path(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        path.to_str().expect("text").to_owned()
    }

    pub(crate) fn network(&self) -> &str {
        &self.network
    }

    /// A provider that logs everything, and its address.
    pub(crate) async fn provider(&self, more: &[&str]) -> (Program, String) {
        let (functions, data) = (functions(), self.path("provider"));
        let args = [
            "run",
            "--functions",
            functions.to_str().expect("text"),
            "--data",
            &data,
            "--network",
            self.network(),
            "--format",
            "json",
        ];
        let args = [&args, more].concat();
        let log = self.dir.path().join("provider.log");
        let name = "dlambda-provider";
        let started = Program::start_logging(name, &args, &log, "trace", DEADLINE).await;
        let (provider, ready) = started.expect("a provider");
        assert_eq!(ready["ready"], true);
        let address = ready["address"].as_str().expect("an address").to_owned();
        (provider, address)
    }

    pub(crate) async fn dlambda(&self, args: &[&str], input: &[u8]) -> Output {
        let home = self.path("caller");
        let common = ["--home", &home, "--network", self.network()];
        let args = [&common[..], args].concat();
        run("dlambda", &args, input, DEADLINE).await.expect("ends")
    }

    /// The same, with a variable in its environment.
    pub(crate) async fn dlambda_with(
        &self,
        variable: (&str, &str),
        args: &[&str],
        input: &[u8],
    ) -> Output {
        let home = self.path("caller");
        let mut child = tokio::process::Command::new(binary("dlambda").expect("built"))
            .args(["--home", &home, "--network", self.network()])
            .args(args)
            .env(variable.0, variable.1)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("starts");
        let mut stdin = child.stdin.take().expect("piped");
        // A command that was given wrongly does not read.
        let _ = stdin.write_all(input).await;
        drop(stdin);
        let ended = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
        ended.expect("in time").expect("ends")
    }

    /// Fails as it should: with this exit code and these words, and without output.
    pub(crate) async fn dlambda_fails(&self, args: &[&str], expected: i32, said: &str) {
        let output = self.dlambda(args, b"").await;
        let words = stderr(&output);
        assert_eq!(code(&output), expected, "{args:?}: {words}");
        assert!(words.contains(said), "{args:?}: {words}");
        assert!(output.stdout.is_empty());
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(Path::new(&path), bytes).expect("written");
        path
    }

    /// A function that ends with exit status 3.
    pub(crate) fn exit_3(&self) -> String {
        let exit_3 = wat::parse_str(
            "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32)))
            (memory (export \"memory\") 1) (func (export \"_start\") (call $exit (i32.const 3))))",
        );
        self.write("exit3.wasm", &exit_3.expect("good WAT"))
    }
}

pub(crate) fn code(output: &Output) -> i32 {
    output.status.code().expect("ended by itself")
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
