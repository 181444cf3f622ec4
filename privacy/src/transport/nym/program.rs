//! The helper as a process.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::process::{Child, Command};

/// Names the helper, where it is not beside this program.
const VARIABLE: &str = "DLAMBDA_NYM";
const NAME: &str = "dlambda-nym";

/// Starts helpers, one after the other.
#[async_trait]
pub(super) trait Launch: Send + Sync + 'static {
    async fn launch(&mut self) -> io::Result<Launched>;
}

/// A helper that runs. It ends when this is dropped.
pub(super) struct Launched {
    pub(super) input: Box<dyn AsyncWrite + Send + Unpin>,
    pub(super) output: Box<dyn AsyncRead + Send + Unpin>,
    /// Killed when dropped.
    pub(super) _child: Option<Child>,
}

/// The program `dlambda-nym`.
#[derive(Clone)]
pub(super) struct Program(PathBuf);

impl Program {
    /// The program that `DLAMBDA_NYM` names; or the one beside this program,
    /// or in the directory above (where cargo puts it, seen from a test).
    pub(super) fn find() -> Option<Self> {
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Some(Self(path.into())).filter(|it| it.0.is_file());
        }
        let this = std::env::current_exe().ok()?;
        this.ancestors()
            .skip(1)
            .take(2)
            .map(|directory| directory.join(format!("{NAME}{}", std::env::consts::EXE_SUFFIX)))
            .find(|path| path.is_file())
            .map(Self)
    }
}

#[async_trait]
impl Launch for Program {
    async fn launch(&mut self) -> io::Result<Launched> {
        let mut command = Command::new(&self.0);
        // What is in our environment is no business of a program that talks to the network.
        command.env_clear();
        for name in ["TMPDIR", "DLAMBDA_LOG"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/")
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
        Ok(Launched {
            input: Box::new(child.stdin.take().ok_or_else(gone)?),
            output: Box::new(child.stdout.take().ok_or_else(gone)?),
            _child: Some(child),
        })
    }
}
