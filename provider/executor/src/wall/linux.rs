//! The walls that Linux offers.

use std::fs;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, Ruleset, RulesetAttr as _,
    RulesetStatus, Scope,
};
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, chdir, chroot, geteuid, set_dumpable_behavior, setrlimit,
};
use rustix::thread::{
    Gid, Uid, UnshareFlags, set_no_new_privs, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::ExecutorError;
use crate::engine::setup;
use crate::wall::{Confinement, Wall, filter};

/// `nobody`, on every distribution.
const NOBODY: u32 = 65_534;
/// Descriptors: two for each function that is loaded.
const DESCRIPTORS: u64 = 1_024;

pub(super) fn confine(confinement: &Confinement) -> Result<Vec<Wall>, ExecutorError> {
    // If the machine runs out of memory, better this process than its parent. Not everywhere can it say so.
    let _ = fs::write("/proc/self/oom_score_adj", "1000");
    let mut walls = vec![Wall::SystemCalls, Wall::Resources];
    limit(confinement).map_err(setup)?;
    if geteuid().is_root() {
        walls.extend(leave_namespaces());
        walls.extend(leave_root().is_ok().then_some(Wall::Root));
        become_nobody().map_err(setup)?;
        walls.push(Wall::User);
    }
    // After the change of user, which would undo it. There is no death signal: it follows the thread that started us, not
    // the process, and a closed socket or a limit of time ends us just as well.
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(setup)?;
    set_no_new_privs(true).map_err(setup)?;
    walls.extend(forbid_files().then_some(Wall::Files));
    filter::install().map_err(setup)?;
    walls.sort();
    Ok(walls)
}

#[allow(unsafe_code, reason = "there is no safe wrapper")]
pub(super) fn close_inherited() {
    // SAFETY: the process has just begun, and has opened nothing.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

fn limit(confinement: &Confinement) -> rustix::io::Result<()> {
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
    set(Resource::Data, confinement.data_bytes)?;
    set(Resource::Fsize, confinement.file_bytes)?;
    set(Resource::Nofile, DESCRIPTORS)?;
    if let Some(seconds) = confinement.cpu_seconds {
        set(Resource::Cpu, seconds)?;
    }
    rustix::process::setpriority_process(None, confinement.niceness)
}

/// As far as the machine allows: containers often do not.
#[allow(
    unsafe_code,
    reason = "the call can leave a process without its files; here that is the point"
)]
fn leave_namespaces() -> Option<Wall> {
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
    leave(UnshareFlags::NEWNET).is_ok().then_some(Wall::Network)
}

/// A directory that is in no file system any more.
fn leave_root() -> std::io::Result<()> {
    let empty = std::env::temp_dir().join(format!("dlambda-empty-{}", std::process::id()));
    fs::create_dir(&empty)?;
    let entered = chdir(&empty);
    fs::remove_dir(&empty)?;
    entered?;
    chroot(".")?;
    chdir("/")?;
    Ok(())
}

fn become_nobody() -> rustix::io::Result<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)
}

/// Whether the kernel enforces it: 5.13 and later, if it was built with it.
fn forbid_files() -> bool {
    let abi = ABI::V6;
    let restricted = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))
        .and_then(|ruleset| ruleset.handle_access(AccessNet::from_all(abi)))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(landlock::RulesetCreated::restrict_self);
    restricted.is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}
