//! One `tor` process: started, signalled by its id, never left behind.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use super::TestnetError;

/// The daemon, and the tool that makes authority certificates.
pub(super) const TOR: &str = "tor";
pub(super) const TOR_GENCERT: &str = "tor-gencert";

/// Fails with a clear sentence unless both programs can be found.
pub(super) fn require_programs() -> Result<(), TestnetError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in [TOR, TOR_GENCERT] {
        if !std::env::split_paths(&path).any(|dir| dir.join(program).is_file()) {
            return Err(TestnetError::MissingProgram(program));
        }
    }
    Ok(())
}

/// A `tor` command that reads no system-wide configuration.
pub(super) fn tor_arguments(torrc: &Path) -> [&std::ffi::OsStr; 4] {
    [
        "--defaults-torrc".as_ref(),
        "/dev/null".as_ref(),
        "-f".as_ref(),
        torrc.as_os_str(),
    ]
}

/// A running `tor`; dropping it kills and reaps it.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts `tor` on the torrc in `dir`; its output is appended to `dir/log`.
    pub(super) fn start(name: &str, dir: &Path) -> Result<Self, TestnetError> {
        let log = dir.join("log");
        let output = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(TestnetError::io("open", &log))?;
        let log_start = output.metadata().map_or(0, |meta| meta.len());
        let errors = output.try_clone().map_err(TestnetError::io("open", &log))?;
        let child = Command::new(TOR)
            .args(tor_arguments(&dir.join("torrc")))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            // Out of reach of the terminal's Ctrl-C: the owner ends it in order.
            .process_group(0)
            .spawn()
            .map_err(TestnetError::io("start", TOR))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            log_start,
        })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal; a process that has just ended is no error.
    pub(super) fn signal(&self, signal: Signal) {
        // The child is not reaped before drop, so the id is still its own.
        if let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw) {
            let _ended_already = kill_process(pid, signal);
        }
    }

    /// Fails with the end of the log when the process has ended.
    pub(super) fn check_alive(&mut self) -> Result<(), TestnetError> {
        if matches!(self.child.try_wait(), Ok(None)) {
            return Ok(());
        }
        let log = self.log();
        if log.contains("Address already in use") {
            return Err(TestnetError::PortInUse(self.name.clone()));
        }
        let lines: Vec<_> = log.lines().collect();
        Err(TestnetError::NodeExited {
            name: self.name.clone(),
            log_tail: lines[lines.len().saturating_sub(5)..].join("\n"),
        })
    }

    /// What the process has logged since it was started.
    pub(super) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX);
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    /// Whether tor says that it has built a circuit.
    pub(super) fn is_bootstrapped(&self) -> bool {
        self.log().contains("Bootstrapped 100%")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when the process is gone and reaped already.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}
