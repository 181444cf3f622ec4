//! The `dlambda-executor` program, which runs and compiles functions: where it is, what it does,
//! and how this process and it write to each other.

pub(crate) mod ipc;
mod program;

pub use program::main;

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const NAME: &str = "dlambda-executor";

/// Why there is no `dlambda-executor` program to start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// It is not where this program is.
    #[error("the program dlambda-executor is not beside this one")]
    Missing,
    /// Another user could have changed it, and would get all the rights of this one.
    #[error("{} belongs to another user, or anybody may change it", .0.display())]
    NotTrusted(PathBuf),
    /// The system does not tell where this program is.
    #[error("this program does not know where it is: {0}")]
    Unknown(#[source] io::Error),
}

/// Finds the `dlambda-executor` program that was installed with this one: in the same directory,
/// and nowhere else.
///
/// # Errors
///
/// [`ProgramError`].
pub fn executor_program() -> Result<PathBuf, ProgramError> {
    let this = std::env::current_exe().map_err(ProgramError::Unknown)?;
    // Cargo puts tests into a directory below that of programs.
    #[cfg(test)]
    let this = this.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    beside(&this)
}

fn beside(this: &Path) -> Result<PathBuf, ProgramError> {
    let program = this.with_file_name(format!("{NAME}{}", std::env::consts::EXE_SUFFIX));
    let Ok(found) = program.metadata() else {
        return Err(ProgramError::Missing);
    };
    if !found.is_file() {
        return Err(ProgramError::Missing);
    }
    let ours = this.metadata().map(|this| this.uid()).ok();
    if is_trusted(&found, ours) {
        Ok(program)
    } else {
        Err(ProgramError::NotTrusted(program))
    }
}

/// Whether a program belongs to root, to this user or to the owner of this program, and not
/// everybody may change it. A group that may is trusted: distributions give their users groups of
/// their own, and `/usr/local` to those who administer it.
fn is_trusted(found: &Metadata, owner: Option<u32>) -> bool {
    const OTHERS_MAY_WRITE: u32 = 0o002;
    let own = rustix::process::geteuid().as_raw();
    let trusted = [Some(0), Some(own), owner].contains(&Some(found.uid()));
    trusted && found.mode() & OTHERS_MAY_WRITE == 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn write(path: &Path, mode: u32) {
        fs::write(path, "").unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_program_in_the_directory_above_is_not_found() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        fs::create_dir(&below).unwrap();
        let (planted, right) = (directory.path().join(NAME), below.join(NAME));
        write(&planted, 0o755);
        let this = below.join("dlambda");
        write(&this, 0o755);
        assert!(matches!(beside(&this), Err(ProgramError::Missing)));
        write(&right, 0o755);
        assert_eq!(beside(&this).unwrap(), right);
    }

    #[test]
    fn a_program_that_anybody_may_change_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (this, program) = (
            directory.path().join("dlambda"),
            directory.path().join(NAME),
        );
        write(&this, 0o755);
        for (mode, trusted) in [(0o755, true), (0o775, true), (0o757, false), (0o702, false)] {
            write(&program, mode);
            let found = beside(&this);
            assert_eq!(found.is_ok(), trusted, "{mode:o} {found:?}");
        }
        if rustix::process::geteuid().is_root() {
            write(&program, 0o755);
            std::os::unix::fs::chown(&program, Some(12_345), None).unwrap();
            assert!(matches!(beside(&this), Err(ProgramError::NotTrusted(_))));
        }
    }
}
