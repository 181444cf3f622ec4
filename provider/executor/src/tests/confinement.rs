//! The confinement, with WebAssembly broken: native code in a confined process, doing what an
//! intruder would.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::processes::{eventually, lives, status};
use super::{config, executor, run};
use crate::backend::worker::{Response, Setup};
use crate::confinement::probe;
use crate::{
    Absence, ConfinementLayer, Executor, ExecutorConfig, ExecutorError, Isolation, Limits,
    executor_program,
};
use dlambda_proto::Status;

/// A child that sleeps, until dropped.
struct Victim(Child);

impl Victim {
    fn start() -> Self {
        // In a group of its own: signals to that of the test are not for it.
        let sleep = Command::new("sleep").arg("600").process_group(0).spawn();
        Self(sleep.unwrap())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What `dlambda-executor probe` says of each attempt.
fn confined(key: &Path, victim: u32, port: u16) -> BTreeMap<String, String> {
    let (mut here, there) = UnixStream::pair().unwrap();
    let mut child = Command::new(executor_program().unwrap())
        .arg("probe")
        .arg(key)
        .args([victim.to_string(), port.to_string()])
        // Of its own, all of which it could change if it were let.
        .process_group(0)
        .stdin(Stdio::from(OwnedFd::from(there)))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let setup = minicbor::to_vec(Setup {
        calls: 4,
        memory_bytes: 64 << 20,
        data_bytes: 1 << 30,
        message_bytes: 1 << 20,
    });
    let setup = setup.unwrap();
    let len = u32::try_from(setup.len()).unwrap();
    here.write_all(&len.to_le_bytes()).unwrap();
    here.write_all(&setup).unwrap();
    let mut report = String::new();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_to_string(&mut report).unwrap();
    assert!(child.wait().unwrap().success(), "{report}");
    report
        .lines()
        .map(|line| line.split_once(": ").unwrap())
        .map(|(what, outcome)| (what.to_owned(), outcome.to_owned()))
        .collect()
}

#[test]
fn an_intruder_can_compute_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let key = directory.path().join("key");
    std::fs::write(&key, "secret").unwrap();
    std::fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let victim = Victim::start();

    let attempts = confined(&key, victim.0.id(), port);
    let allowed: Vec<_> = attempts
        .iter()
        .filter(|(_, outcome)| *outcome == "done")
        .map(|(what, _)| what.as_str())
        .collect();
    assert_eq!(allowed, ["make a thread, which it may"], "{attempts:#?}");
    let state = status(victim.0.id(), "State").unwrap();
    assert!(state.starts_with('S'), "{state}");
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "somebody connected");
    assert!(!key.with_extension("probe").exists());
    assert_eq!(std::fs::read(&key).unwrap(), b"secret");

    // The same without confinement, or the test would show nothing. Every one of these works, for
    // this very user.
    let unconfined = probe::attempts(&key, i32::try_from(victim.0.id()).unwrap(), port);
    let names: Vec<_> = unconfined
        .iter()
        .map(|(what, _)| (*what).to_owned())
        .collect();
    assert_eq!(names.len(), attempts.len());
    assert!(
        names.iter().all(|name| attempts.contains_key(name)),
        "{names:?}"
    );
    let failed: Vec<_> = unconfined
        .iter()
        .filter(|(what, outcome)| {
            // Not every machine has a message bus, overcommits memory, or lets limits be raised;
            // and root has too many processes.
            let machine = [
                "connect to a local socket",
                "raise its limits",
                "allocate without end",
                "change the priority of its user",
            ];
            outcome.is_err() && !machine.contains(what)
        })
        .collect();
    assert!(failed.is_empty(), "{failed:?}");
    // It stops when it next gets a processor, which at its new priority takes a while on a busy
    // machine.
    let stopped = || status(victim.0.id(), "State").unwrap().starts_with('T');
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stopped() {
        assert!(Instant::now() < deadline, "it was not stopped");
        std::thread::sleep(Duration::from_millis(10));
    }
    let _ = std::fs::remove_file("/tmp/dlambda-probe");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_workers_are_confined() {
    let executor = executor();
    executor.ready().await.unwrap();
    eventually("two workers", || executor.processes().len() == 2).await;
    let outcome = run(&executor, super::command(""), &Limits::default()).await;
    assert_eq!(outcome.status, Status::Exited(0));
    let layers = executor.confinement_layers();
    println!("{layers:?}");
    assert!(
        layers.contains(&ConfinementLayer::SystemCalls)
            && layers.contains(&ConfinementLayer::Resources),
        "{layers:?}"
    );
    let root = rustix::process::geteuid().is_root();
    assert_eq!(layers.contains(&ConfinementLayer::User), root);
    let absent = executor.absent_layers();
    for layer in ConfinementLayer::ALL {
        let reason = absent.iter().find(|(other, _)| *other == layer);
        assert_ne!(
            layers.contains(&layer),
            reason.is_some(),
            "{layers:?} {absent:?}"
        );
    }
    assert!(!root || absent.iter().all(|(_, why)| *why != Absence::NotRoot));
    assert_eq!(executor.trouble(), None);
    for worker in executor.processes() {
        let line = |name: &str| status(worker, name).unwrap();
        assert_eq!(
            (line("NoNewPrivs").as_str(), line("Seccomp").as_str()),
            ("1", "2")
        );
        assert_eq!(line("CapEff"), "0000000000000000");
        if root {
            assert_eq!(line("Uid"), "65534\t65534\t65534\t65534");
            assert_eq!(line("Gid"), "65534\t65534\t65534\t65534");
            assert_eq!(line("Groups"), "");
            let empty = std::fs::read_dir(format!("/proc/{worker}/root")).map(Iterator::count);
            assert!(
                !layers.contains(&ConfinementLayer::Root)
                    || empty.is_ok_and(|entries| entries == 0)
            );
        }
        assert!(lives(worker));
        holds_nothing(worker);
    }
}

/// Descriptors of a worker: its socket, /dev/null, what tokio has, and sealed code. Only root can
/// look.
fn holds_nothing(worker: u32) {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{worker}/fd")) else {
        return;
    };
    let mut others = Vec::new();
    for entry in entries {
        let target = std::fs::read_link(entry.unwrap().path()).unwrap();
        let target = target.to_string_lossy().into_owned();
        let known = ["socket:[", "anon_inode:[event", "/memfd:"];
        if target != "/dev/null" && !known.iter().any(|known| target.starts_with(known)) {
            others.push(target);
        }
    }
    assert!(others.is_empty(), "{others:?}");
}

/// A program in the place of `dlambda-executor` whose first message says that it cannot start.
fn program_that_fails(directory: &Path, reason: &str) -> std::path::PathBuf {
    let report = minicbor::to_vec(Response::Failed(reason.to_owned())).unwrap();
    let mut message = u32::try_from(report.len()).unwrap().to_le_bytes().to_vec();
    message.extend(report);
    let message: String = message.iter().map(|byte| format!("\\{byte:03o}")).collect();
    let program = directory.join("executor");
    let script = format!("#!/bin/sh\nprintf '{message}' >&0\nread -r never\n");
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, Permissions::from_mode(0o700)).unwrap();
    program
}

#[tokio::test]
async fn a_worker_whose_confinement_fails_runs_nothing_and_the_executor_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let reason =
        "the confinement layer chroot is available on this system and failed: no space left";
    let executor = Executor::new(ExecutorConfig {
        isolation: Isolation::Processes {
            program: program_that_fails(directory.path(), reason),
            workers: 1,
        },
        ..config()
    })
    .unwrap();
    let error = executor.ready().await.unwrap_err();
    assert!(
        matches!(&error, ExecutorError::Setup(why) if why.contains(reason)),
        "{error:?}"
    );
    assert!(executor.trouble().is_some_and(|why| why.contains(reason)));
    assert!(executor.confinement_layers().is_empty());
}
