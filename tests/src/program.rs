//! Our own programs, run as a user would run them, and ended with the test.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// One of the workspace's programs, as just built.
///
/// # Errors
///
/// If it has not been built: `make build` does.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // target/debug/NAME, or target/debug/deps/NAME for a test.
    let path = own
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file());
    path.with_context(|| format!("{name} is not built; run `make build`"))
}

/// A program that runs until it is stopped; killed when dropped.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
}

impl Program {
    /// Starts a program and waits for the JSON line by which it says that it
    /// is ready. Its standard error goes to `log`.
    ///
    /// # Errors
    ///
    /// If it ends, or prints something else, or nothing before `deadline`.
    pub async fn start(
        name: &str,
        args: &[&str],
        log: &Path,
        deadline: Duration,
    ) -> Result<(Self, Value)> {
        let level = std::env::var("DLAMBDA_LOG").unwrap_or_default();
        Self::start_logging(name, args, log, &level, deadline).await
    }

    /// The same, with a level for its log.
    ///
    /// # Errors
    ///
    /// Those of [`Program::start`].
    pub async fn start_logging(
        name: &str,
        args: &[&str],
        log: &Path,
        level: &str,
        deadline: Duration,
    ) -> Result<(Self, Value)> {
        let log_file = std::fs::File::create(log)?;
        let mut child = Command::new(binary(name)?)
            .args(args)
            .env("DLAMBDA_LOG", level)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .kill_on_drop(true)
            .spawn()?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        let mut program = Self {
            name: name.to_owned(),
            child,
        };
        let mut line = String::new();
        let mut reader = BufReader::new(stdout);
        let read = timeout(deadline, reader.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            let _ = program.child.start_kill();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{name} did not get ready: {said}");
        }
        let ready = serde_json::from_str(&line).with_context(|| format!("{name} said {line}"))?;
        Ok((program, ready))
    }

    /// The process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends SIGTERM and waits for the end.
    ///
    /// # Errors
    ///
    /// If it does not end before `deadline`, or not with success.
    pub async fn stop(mut self, deadline: Duration) -> Result<()> {
        self.signal(Signal::TERM)?;
        let status = timeout(deadline, self.child.wait())
            .await
            .with_context(|| format!("{} did not stop", self.name))??;
        if !status.success() {
            bail!("{} ended with {status}", self.name);
        }
        Ok(())
    }

    /// Kills it at once, as a crash or an operator would.
    ///
    /// # Errors
    ///
    /// If it was gone already.
    pub async fn kill(mut self) -> Result<()> {
        self.signal(Signal::KILL)?;
        self.child.wait().await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self
            .child
            .id()
            .and_then(|id| Pid::from_raw(id.cast_signed()));
        let pid = pid.with_context(|| format!("{} has ended by itself", self.name))?;
        Ok(kill_process(pid, signal)?)
    }
}

/// Runs a program to its end with this standard input.
///
/// # Errors
///
/// If it cannot be started or does not end before `deadline`. An exit code
/// other than 0 is not an error.
pub async fn run(name: &str, args: &[&str], input: &[u8], deadline: Duration) -> Result<Output> {
    let mut child = Command::new(binary(name)?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().context("standard input is piped")?;
    let feed = async {
        // A program that has heard enough may close its input early.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    let output = timeout(deadline, both)
        .await
        .with_context(|| format!("{name} did not end"))??;
    Ok(output)
}
