//! The confinement layers that Linux offers.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::{fs, io, process};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdirat, open, openat, unlinkat};
use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, chdir, chroot, fchdir, geteuid, set_dumpable_behavior,
    setrlimit,
};
use rustix::thread::{
    Gid, Uid, UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::ExecutorError;
use crate::confinement::{
    Absence, Confinement, ConfinementConfig, ConfinementLayer, LayerError, filter,
};
use crate::engine::setup;

/// `nobody`, on every distribution.
const NOBODY: u32 = 65_534;
/// Descriptors: two for each function that is loaded.
const DESCRIPTORS: u64 = 1_024;
/// Where an empty directory is made: first where root alone may write.
const TEMP_DIRECTORIES: [&str; 3] = ["/run", "/dev/shm", "/tmp"];
/// What Landlock can refuse in the newest kernels; older ones refuse as much of it as they know.
const LANDLOCK: ABI = ABI::V6;

pub(super) fn confine(config: &ConfinementConfig) -> Result<Confinement, ExecutorError> {
    // If the machine runs out of memory, better this process than its parent. Not everywhere can it
    // say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let mut confinement = Confinement {
        active: vec![ConfinementLayer::SystemCalls, ConfinementLayer::Resources],
        absent: Vec::new(),
    };
    limit(config).map_err(setup)?;
    if geteuid().is_root() {
        confinement.record(ConfinementLayer::Network, leave_namespaces())?;
        confinement.record(ConfinementLayer::Root, leave_root())?;
        become_nobody().map_err(setup)?;
        confinement.record(ConfinementLayer::User, Ok(()))?;
    } else {
        for layer in [
            ConfinementLayer::Network,
            ConfinementLayer::Root,
            ConfinementLayer::User,
        ] {
            confinement.record(layer, Err(LayerError::Absent(Absence::NotRoot)))?;
        }
    }
    // After the change of user, which would undo it. There is no death signal: it follows the
    // thread that started us, not the process, and a closed socket or a limit of time ends us just
    // as well.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(setup)?;
    set_no_new_privs(true).map_err(setup)?;
    confinement.record(ConfinementLayer::Files, forbid_files())?;
    filter::install().map_err(setup)?;
    confinement.active.sort();
    confinement.absent.sort();
    Ok(confinement)
}

#[allow(unsafe_code, reason = "there is no safe wrapper")]
pub(super) fn close_inherited() {
    // SAFETY: the process has just begun, and has opened nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

fn limit(config: &ConfinementConfig) -> rustix::io::Result<()> {
    let set = |resource, value: u64| {
        let both = Some(value);
        setrlimit(
            resource,
            Rlimit {
                current: both,
                maximum: both,
            },
        )
    };
    set(Resource::Core, 0)?;
    set(Resource::Data, config.data_bytes)?;
    set(Resource::Fsize, config.file_bytes)?;
    set(Resource::Nofile, DESCRIPTORS)?;
    if let Some(seconds) = config.cpu_seconds {
        set(Resource::Cpu, seconds)?;
    }
    rustix::process::setpriority_process(None, config.niceness)
}

/// The network namespace is a layer; the others are left as far as the machine allows: containers
/// often do not.
#[allow(
    unsafe_code,
    reason = "the call can leave a process without its files; here that is the point"
)]
fn leave_namespaces() -> Result<(), LayerError> {
    let leave = |flags| {
        // SAFETY: the process has one thread and opens nothing by itself any more.
        unsafe { rustix::thread::unshare_unsafe(flags) }
    };
    for flags in [
        UnshareFlags::NEWIPC,
        UnshareFlags::NEWUTS,
        UnshareFlags::NEWNS,
    ] {
        let _ = leave(flags);
    }
    Ok(leave(UnshareFlags::NEWNET)?)
}

/// Has a directory for its root that is in no file system any more.
fn leave_root() -> Result<(), LayerError> {
    fchdir(empty_directory(&TEMP_DIRECTORIES.map(Path::new))?)?;
    chroot(".")?;
    Ok(chdir("/")?)
}

/// A directory that was made for this and removed at once, in the first of these directories that
/// takes it.
fn empty_directory(places: &[&Path]) -> Result<OwnedFd, LayerError> {
    let mut worst = LayerError::from(Errno::ROFS);
    for place in places {
        match removed_directory(place) {
            Ok(directory) => return Ok(directory),
            // There is no such place on this system.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => {
                if !matches!(worst, LayerError::Failed(_)) {
                    worst = errno.into();
                }
            }
        }
    }
    Err(worst)
}

/// Others may write to the place: so the name cannot be guessed, other users may not enter, and
/// what is opened is what was made.
fn removed_directory(place: &Path) -> Result<OwnedFd, Errno> {
    let place = open(
        place,
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    // Its keys are random.
    let name = format!(
        "dlambda-{:016x}",
        RandomState::new().hash_one(process::id())
    );
    mkdirat(&place, &name, Mode::RWXU)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = openat(&place, &name, flags, Mode::empty());
    unlinkat(&place, &name, AtFlags::REMOVEDIR)?;
    let directory = opened?;
    let found = fstat(&directory)?;
    let private = found.st_uid == geteuid().as_raw() && found.st_mode & 0o077 == 0;
    private.then_some(directory).ok_or(Errno::EXIST)
}

fn become_nobody() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Enforced by kernels from 5.13 on, if they were built with it.
fn forbid_files() -> Result<(), LayerError> {
    let abi = LANDLOCK;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    let status = restricted.map_err(|error| LayerError::Failed(io::Error::other(error)))?;
    if status.ruleset == RulesetStatus::NotEnforced {
        return Err(LayerError::Absent(Absence::NoKernelSupport));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    #[test]
    fn the_empty_root_is_private_and_has_no_name() {
        let place = tempfile::tempdir().unwrap();
        let missing = place.path().join("missing");
        let directory = empty_directory(&[&missing, place.path()]).unwrap();
        let found = fs::File::from(directory).metadata().unwrap();
        assert_eq!(found.permissions().mode() & 0o7777, 0o700);
        assert_eq!(found.uid(), geteuid().as_raw());
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_system_without_a_place_for_the_root_is_told_from_a_place_that_fails() {
        let nowhere = empty_directory(&[Path::new("/missing")]).unwrap_err();
        // In which no file can be made.
        let forbidden = empty_directory(&[Path::new("/proc/self/fd")]).unwrap_err();
        for error in [nowhere, forbidden] {
            assert!(
                matches!(error, LayerError::Absent(Absence::NotPermitted)),
                "{error:?}"
            );
        }
        let place = tempfile::tempdir().unwrap();
        let endless = place.path().join("endless");
        std::os::unix::fs::symlink(&endless, &endless).unwrap();
        let failed = empty_directory(&[&endless, Path::new("/missing")]).unwrap_err();
        assert!(matches!(failed, LayerError::Failed(_)), "{failed:?}");
        assert!(empty_directory(&[&endless, place.path()]).is_ok());
    }
}
