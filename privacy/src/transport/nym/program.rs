//! The helper as a process.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use thiserror::Error;
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

/// Why there is no helper to start.
#[derive(Debug, Error)]
pub(super) enum ProgramError {
    #[error(
        "the program dlambda-nym is missing: `make nym` builds it; it belongs beside this program, or where DLAMBDA_NYM says"
    )]
    Missing,
    /// Whoever can change it gets all that this user may do.
    #[error(
        "{} belongs to another user than this program does, or anybody may change it; DLAMBDA_NYM names another",
        .0.display()
    )]
    NotTrusted(PathBuf),
}

impl Program {
    /// The program that `DLAMBDA_NYM` names, or the one beside this program.
    pub(super) fn find() -> Result<Self, ProgramError> {
        if let Some(path) = std::env::var_os(VARIABLE) {
            return Self::at(path.into());
        }
        let this = std::env::current_exe().map_err(|_| ProgramError::Missing)?;
        Self::beside(&this)
    }

    /// This very file; whoever names it answers for it.
    pub(super) fn at(path: PathBuf) -> Result<Self, ProgramError> {
        let found = path.is_file().then_some(Self(path));
        found.ok_or(ProgramError::Missing)
    }

    fn beside(this: &Path) -> Result<Self, ProgramError> {
        let path = this.with_file_name(format!("{NAME}{}", std::env::consts::EXE_SUFFIX));
        let found = Self::at(path)?;
        if is_trusted(&found.0, this) {
            Ok(found)
        } else {
            Err(ProgramError::NotTrusted(found.0))
        }
    }
}

/// Whether a program belongs to root or to the owner of this one, and not everybody may change it.
/// A group that may is trusted: distributions give their users groups of their own, and
/// `/usr/local` to those who administer it.
fn is_trusted(path: &Path, this: &Path) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o002;
    let (Ok(found), Ok(this)) = (path.metadata(), this.metadata()) else {
        return false;
    };
    [0, this.uid()].contains(&found.uid()) && found.mode() & OTHERS_MAY_WRITE == 0
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

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, mode: u32) {
        fs::write(path, "").expect("written");
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
    }

    #[test]
    fn a_helper_in_the_directory_above_is_not_found() {
        let directory = tempfile::tempdir().expect("a directory");
        let below = directory.path().join("below");
        fs::create_dir(&below).expect("a directory");
        let this = below.join("dlambda");
        write(&this, 0o755);
        write(&directory.path().join(NAME), 0o755);
        assert!(matches!(Program::beside(&this), Err(ProgramError::Missing)));
        write(&below.join(NAME), 0o755);
        assert!(Program::beside(&this).is_ok());
    }

    #[test]
    fn a_helper_that_anybody_may_change_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let (this, helper) = (
            directory.path().join("dlambda"),
            directory.path().join(NAME),
        );
        write(&this, 0o755);
        for (mode, trusted) in [(0o755, true), (0o775, true), (0o757, false), (0o702, false)] {
            write(&helper, mode);
            assert_eq!(Program::beside(&this).is_ok(), trusted, "{mode:o}");
        }
    }
}
