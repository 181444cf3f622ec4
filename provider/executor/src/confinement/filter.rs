//! The system calls that are left: computing, memory, threads, time, and the descriptors that are
//! open already.

use std::collections::BTreeMap;

use libc::{c_long, *};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

type Error = Box<dyn std::error::Error>;

/// Calls without conditions. None of them names a file, a process, a group, a user or an address.
const ALLOWED: &[c_long] = &[
    SYS_brk,
    SYS_close,
    SYS_dup,
    SYS_epoll_create1,
    SYS_epoll_ctl,
    SYS_epoll_pwait,
    SYS_epoll_pwait2,
    SYS_eventfd2,
    SYS_exit,
    SYS_exit_group,
    SYS_fstat,
    // Of memory that looks like a file: initial contents of memories are kept in such.
    SYS_ftruncate,
    SYS_futex,
    SYS_getpid,
    SYS_getppid,
    SYS_getrandom,
    SYS_gettid,
    SYS_lseek,
    SYS_madvise,
    SYS_membarrier,
    SYS_memfd_create,
    SYS_mprotect,
    SYS_mremap,
    SYS_munmap,
    SYS_nanosleep,
    SYS_pread64,
    SYS_read,
    SYS_readv,
    SYS_recvfrom,
    SYS_recvmsg,
    SYS_restart_syscall,
    SYS_rseq,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_rt_sigreturn,
    SYS_sched_yield,
    SYS_sendmsg,
    SYS_sendto,
    SYS_set_robust_list,
    SYS_sigaltstack,
    SYS_write,
    SYS_writev,
    // Answered with "no such call" by the first filter, so that the C library takes `clone`
    // instead.
    SYS_clone3,
    // The same of the affinity of all threads but the caller's own: the C library asks for that of
    // a new one, and does without it.
    SYS_sched_getaffinity,
    #[cfg(target_arch = "x86_64")]
    SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    SYS_gettimeofday,
    #[cfg(target_arch = "x86_64")]
    SYS_poll,
    SYS_ppoll,
];

/// `PRIO_PROCESS`, whose type is not the same in all C libraries.
const ONE_PROCESS: u64 = 0;

/// Installs the filter for this thread and all that it will start. Other calls fail with EPERM.
pub(super) fn install() -> Result<(), Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let missing = SeccompFilter::new(
        BTreeMap::from([
            (SYS_clone3, vec![]),
            (SYS_sched_getaffinity, vec![only(0, SeccompCmpOp::Ne, 0)?]),
        ]),
        SeccompAction::Allow,
        SeccompAction::Errno(ENOSYS.cast_unsigned()),
        arch,
    )?;
    let rest = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(EPERM.cast_unsigned()),
        SeccompAction::Allow,
        arch,
    )?;
    for filter in [missing, rest] {
        let program: BpfProgram = filter.try_into()?;
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        ALLOWED.iter().map(|call| (*call, Vec::new())).collect();
    let thread = u64::from(CLONE_THREAD.cast_unsigned());
    rules.insert(
        SYS_clone,
        vec![only(0, SeccompCmpOp::MaskedEq(thread), thread)?],
    );
    // Of one's own: shared memory counts against no limit.
    let kind = u64::from(MAP_TYPE.cast_unsigned());
    let own = u64::from(MAP_PRIVATE.cast_unsigned());
    rules.insert(SYS_mmap, vec![only(3, SeccompCmpOp::MaskedEq(kind), own)?]);
    // Whatever names a process or a group may name one's own only.
    //
    // Of one's own thread, and neither of a group nor of a user; unprivileged, a priority only
    // falls.
    let own_thread = [(0, ONE_PROCESS), (1, 0)];
    rules.insert(SYS_setpriority, vec![all_equal(&own_thread)?]);
    // A negative clock is the time that some process has used.
    let sign = 1 << 31;
    for call in [SYS_clock_gettime, SYS_clock_getres, SYS_clock_nanosleep] {
        rules.insert(call, vec![only(0, SeccompCmpOp::MaskedEq(sign), 0)?]);
    }
    // An abort is a signal to oneself.
    let this = u64::from(std::process::id());
    rules.insert(SYS_tgkill, vec![equal(0, this)?]);
    rules.insert(
        SYS_prctl,
        vec![equal(0, PR_SET_NAME.cast_unsigned().into())?],
    );
    rules.insert(SYS_ioctl, vec![equal(1, FIONBIO)?]);
    // Of an open descriptor. A path beside the flag would be looked up, and tell whether a file
    // exists; what it holds stays out of reach.
    let open_file = AT_EMPTY_PATH.cast_unsigned().into();
    rules.insert(SYS_newfstatat, vec![equal(3, open_file)?]);
    rules.insert(SYS_statx, vec![equal(2, open_file)?]);
    let commands = [
        F_GETFD,
        F_SETFD,
        F_GETFL,
        F_SETFL,
        F_DUPFD_CLOEXEC,
        F_ADD_SEALS,
        F_GET_SEALS,
    ];
    let commands = commands.map(|command| equal(1, command.cast_unsigned().into()));
    rules.insert(SYS_fcntl, commands.into_iter().collect::<Result<_, _>>()?);
    Ok(rules)
}

fn equal(argument: u8, value: u64) -> Result<SeccompRule, Error> {
    all_equal(&[(argument, value)])
}

/// Each of these arguments has the value beside it.
fn all_equal(arguments: &[(u8, u64)]) -> Result<SeccompRule, Error> {
    let conditions = arguments
        .iter()
        .map(|(argument, value)| condition(*argument, SeccompCmpOp::Eq, *value));
    Ok(SeccompRule::new(conditions.collect::<Result<_, _>>()?)?)
}

fn only(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, Error> {
    Ok(SeccompRule::new(vec![condition(
        argument, compare, value,
    )?])?)
}

/// Looks at the lower half of the argument: all of it in the calls above, whose arguments are
/// integers of C.
fn condition(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompCondition, Error> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)?;
    Ok(condition)
}
