//! What code in a confined process can still do, tried for real.
//!
//! The test of the confinement: a worker whose WebAssembly engine has failed. As confined as any,
//! then native code that does what an intruder would.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, Uid, getpriority_process, kill_process, setpriority_pgrp, setpriority_process,
    setpriority_user,
};

/// One thing tried.
pub(crate) type Attempt = (&'static str, Result<(), String>);

/// Tries everything. `file` is one that this user could read before, `other` a process that it
/// could signal, and `port` one on which somebody listens on this machine.
#[allow(clippy::disallowed_methods, reason = "the point is that they fail")]
pub(crate) fn attempts(file: &Path, other: i32, port: u16) -> Vec<Attempt> {
    let pid = Pid::from_raw(other);
    vec![
        ("read the file", outcome(read(file))),
        (
            "read its directory",
            outcome(std::fs::read_dir(file.parent().unwrap_or(file))),
        ),
        ("make a file", outcome(File::create("/tmp/dlambda-probe"))),
        (
            "make a file beside it",
            outcome(File::create(file.with_extension("probe"))),
        ),
        (
            "read another process",
            outcome(read(Path::new(&format!("/proc/{other}/environ")))),
        ),
        (
            "read its own environment",
            outcome(read(Path::new("/proc/self/environ"))),
        ),
        ("connect", outcome(TcpStream::connect(("127.0.0.1", port)))),
        ("listen", outcome(TcpListener::bind("127.0.0.1:0"))),
        ("send a datagram", outcome(UdpSocket::bind("127.0.0.1:0"))),
        (
            "connect to a local socket",
            outcome(UnixStream::connect("/run/dbus/system_bus_socket")),
        ),
        ("make a local socket", outcome(UnixDatagram::unbound())),
        ("run a program", outcome(Command::new("/bin/true").spawn())),
        (
            "ask whether a process lives",
            outcome(pid.map_or(Ok(()), rustix::process::test_kill_process)),
        ),
        (
            "stop a process",
            outcome(pid.map_or(Ok(()), |pid| kill_process(pid, Signal::STOP))),
        ),
        (
            "stop every process",
            outcome(rustix::process::kill_current_process_group(Signal::CONT)),
        ),
        ("raise its limits", outcome(raise_limits())),
        (
            "ask for the priority of a process",
            outcome(getpriority_process(pid)),
        ),
        (
            "change the priority of a process",
            outcome(setpriority_process(pid, 19)),
        ),
        // Their own priority, so that nothing changes where it is allowed.
        (
            "change the priority of its group",
            outcome(setpriority_pgrp(None, own_priority())),
        ),
        ("change the priority of its user", renice_user()),
        (
            "ask for the affinity of a process",
            outcome(rustix::thread::sched_getaffinity(pid)),
        ),
        (
            "read the time that a process used",
            outcome(processor_time(other)),
        ),
        (
            "signal a thread of a process",
            outcome(signal_thread(other)),
        ),
        ("allocate without end", allocate()),
        ("share memory", outcome(share())),
        ("make a thread, which it may", outcome(thread())),
    ]
}

fn outcome<T, E: std::fmt::Display>(result: Result<T, E>) -> Result<(), String> {
    result.map(drop).map_err(|error| error.to_string())
}

fn read(path: &Path) -> std::io::Result<()> {
    let mut byte = [0];
    File::open(path)?.read_exact(&mut byte)
}

/// The lowest if it may not ask, as in a worker: no process has a lower one, which it could not
/// change.
fn own_priority() -> i32 {
    getpriority_process(None).unwrap_or(19)
}

fn renice_user() -> Result<(), String> {
    if rustix::process::geteuid().is_root() {
        // It would be every process of the system.
        return Err("not tried".to_owned());
    }
    // 0 is the user that asks.
    outcome(setpriority_user(Uid::from_raw(0), own_priority()))
}

/// By the clock that is named after the process.
#[allow(unsafe_code, reason = "there is no safe wrapper for such clocks")]
fn processor_time(process: i32) -> std::io::Result<()> {
    const SCHEDULED: i32 = 2;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the time is ours, and large enough.
    match unsafe { libc::clock_gettime(!process << 3 | SCHEDULED, &raw mut time) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// With no signal: whether it might.
#[allow(unsafe_code, reason = "there is no safe wrapper")]
fn signal_thread(process: i32) -> std::io::Result<()> {
    // SAFETY: the call takes numbers only.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, process, 0) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn raise_limits() -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit {
        current: None,
        maximum: None,
    };
    Ok(setrlimit(Resource::Data, none)?)
}

/// 64 GiB, far above every limit; asks, and touches nothing.
fn allocate() -> Result<(), String> {
    let mut all = Vec::new();
    for _ in 0..64 {
        let mut part: Vec<u8> = Vec::new();
        part.try_reserve_exact(1 << 30)
            .map_err(|error| error.to_string())?;
        all.push(part);
    }
    Ok(())
}

/// Shared memory is not counted by limits.
#[allow(
    unsafe_code,
    reason = "the kernel chooses where, and nobody uses what is there"
)]
fn share() -> rustix::io::Result<()> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
    // SAFETY: it takes nobody's place.
    unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            4_096,
            ProtFlags::READ,
            MapFlags::SHARED,
        )
    }
    .map(drop)
}

fn thread() -> std::io::Result<()> {
    let thread =
        std::thread::Builder::new().spawn(|| std::thread::sleep(Duration::from_millis(1)))?;
    thread.join().map_err(|_| std::io::ErrorKind::Other.into())
}

/// Writes a line for each attempt.
pub(crate) fn report(attempts: &[Attempt]) {
    let mut stdout = std::io::stdout();
    for (what, outcome) in attempts {
        let _ = match outcome {
            Ok(()) => writeln!(stdout, "{what}: done"),
            Err(error) => writeln!(stdout, "{what}: {error}"),
        };
    }
}
