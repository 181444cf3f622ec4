//! Modules that misuse what preview 1 gives them. Each exits with the number that the host
//! answered.

use super::{Case, End, HOST_CALL, case, each_ends_as_it_should, wat};
use dlambda_proto::{Status, StopKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preview1() {
    each_ends_as_it_should(cases()).await;
}

const IMPORTS: &[(&str, &str)] = &[
    ("args_get", "(param i32 i32) (result i32)"),
    ("clock_time_get", "(param i32 i64 i32) (result i32)"),
    ("environ_get", "(param i32 i32) (result i32)"),
    ("environ_sizes_get", "(param i32 i32) (result i32)"),
    ("fd_allocate", "(param i32 i64 i64) (result i32)"),
    ("fd_close", "(param i32) (result i32)"),
    ("fd_fdstat_get", "(param i32 i32) (result i32)"),
    ("fd_prestat_get", "(param i32 i32) (result i32)"),
    ("fd_read", "(param i32 i32 i32 i32) (result i32)"),
    ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
    ("fd_renumber", "(param i32 i32) (result i32)"),
    ("fd_seek", "(param i32 i64 i32 i32) (result i32)"),
    ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
    (
        "path_link",
        "(param i32 i32 i32 i32 i32 i32 i32) (result i32)",
    ),
    (
        "path_open",
        "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)",
    ),
    ("path_symlink", "(param i32 i32 i32 i32 i32) (result i32)"),
    ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
    ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
    ("proc_exit", "(param i32)"),
    ("proc_raise", "(param i32) (result i32)"),
    ("random_get", "(param i32 i32) (result i32)"),
    ("sock_accept", "(param i32 i32 i32) (result i32)"),
    ("sock_recv", "(param i32 i32 i32 i32 i32 i32) (result i32)"),
    ("sock_send", "(param i32 i32 i32 i32 i32) (result i32)"),
    ("sock_shutdown", "(param i32 i32) (result i32)"),
];

const BADF: u8 = 8;
const FAULT: u8 = 21;
const INVALID: u8 = 28;
const NOT_SUPPORTED: u8 = 58;
const NO_MEMORY: u8 = 48;
const NO_SOCKET: u8 = 57;

/// At 16 its memory has a path, at 64 an iovec for the 16 bytes at 16.
fn guest(body: &str) -> bytes::Bytes {
    let imports = IMPORTS.iter().map(|(name, ty)| {
        format!("(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} {ty}))")
    });
    let imports: String = imports.collect();
    wat(&format!(
        "(module {imports} (memory (export \"memory\") 16)
            (data (i32.const 16) \"../../etc/passwd\") (data (i32.const 64) \"\\10\\00\\00\\00\\10\\00\\00\\00\")
            (func (export \"_start\") {body}))"
    ))
}

/// The call must be answered with this number.
fn answers(name: &'static str, call: &str, errno: u8) -> Case {
    let guest = guest(&format!("(call $proc_exit {call})"));
    case(name, guest, End::Is(Status::Exited(errno)))
}

fn traps(name: &'static str, call: &str) -> Case {
    case(name, guest(&format!("(drop {call})")), HOST_CALL)
}

pub(super) fn cases() -> Vec<Case> {
    [files(), sockets(), pointers(), floods(), exits()]
        .into_iter()
        .flatten()
        .collect()
}

fn files() -> Vec<Case> {
    let open = |directory: i32| {
        format!(
            "(call $path_open (i32.const {directory}) (i32.const 1) (i32.const 16) (i32.const 16) (i32.const 0)
                (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 128))"
        )
    };
    vec![
        answers("opens a file in no directory", &open(3), BADF),
        answers("opens a file in standard input", &open(0), BADF),
        answers("opens a file in descriptor -1", &open(-1), BADF),
        answers(
            "looks for a directory given",
            "(call $fd_prestat_get (i32.const 3) (i32.const 0))",
            BADF,
        ),
        answers(
            "lists standard output",
            "(call $fd_readdir (i32.const 1) (i32.const 0) (i32.const 4096) (i64.const 0) (i32.const 128))",
            BADF,
        ),
        answers(
            "removes a file",
            "(call $path_unlink_file (i32.const 3) (i32.const 16) (i32.const 16))",
            BADF,
        ),
        answers(
            "makes a link",
            "(call $path_symlink (i32.const 16) (i32.const 16) (i32.const 3) (i32.const 16) (i32.const 16))",
            BADF,
        ),
        answers(
            "links one file to another",
            "(call $path_link (i32.const 0) (i32.const 0) (i32.const 16) (i32.const 16) (i32.const 1) (i32.const 16) (i32.const 16))",
            BADF,
        ),
        answers(
            "seeks in standard input",
            "(call $fd_seek (i32.const 0) (i64.const -1) (i32.const 0) (i32.const 128))",
            70,
        ),
        answers(
            "closes what is not open",
            "(call $fd_close (i32.const 1000))",
            BADF,
        ),
        answers(
            "closes its output and writes",
            "(call $fd_close (i32.const 1)) drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))",
            BADF,
        ),
        answers(
            "renumbers to 2^31",
            "(call $fd_renumber (i32.const 1) (i32.const 0x7fffffff))",
            BADF,
        ),
        answers(
            "allocates a terabyte of a file",
            "(call $fd_allocate (i32.const 1) (i64.const 0) (i64.const 0x10000000000))",
            BADF,
        ),
        answers(
            "reads what is for writing",
            "(call $fd_read (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))",
            BADF,
        ),
        answers(
            "reads its environment",
            "(call $environ_sizes_get (i32.const 128) (i32.const 132)) drop (i32.load (i32.const 128))",
            0,
        ),
    ]
}

fn sockets() -> Vec<Case> {
    vec![
        answers(
            "accepts a connection",
            "(call $sock_accept (i32.const 3) (i32.const 0) (i32.const 128))",
            BADF,
        ),
        answers(
            "receives from a socket",
            "(call $sock_recv (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 0) (i32.const 128) (i32.const 132))",
            NO_SOCKET,
        ),
        answers(
            "sends to a socket",
            "(call $sock_send (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 0) (i32.const 128))",
            NO_SOCKET,
        ),
        answers(
            "shuts a socket down",
            "(call $sock_shutdown (i32.const 0) (i32.const 3))",
            NO_SOCKET,
        ),
    ]
}

fn pointers() -> Vec<Case> {
    vec![
        traps(
            "writes from beyond its memory",
            "(call $fd_write (i32.const 1) (i32.const 0x7fffff00) (i32.const 1) (i32.const 128))",
        ),
        answers(
            "writes 2^32 - 1 pieces",
            "(call $fd_write (i32.const 1) (i32.const 64) (i32.const -1) (i32.const 128))",
            NO_MEMORY,
        ),
        answers(
            "writes a piece of 4 GiB",
            "(i32.store (i32.const 68) (i32.const -1)) (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))",
            NO_MEMORY,
        ),
        traps(
            "writes and has the answer put beyond its memory",
            "(call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const -4))",
        ),
        answers(
            "reads nothing to beyond its memory",
            "(i32.store (i32.const 64) (i32.const -8)) (call $fd_read (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))",
            0,
        ),
        traps(
            "4 GiB of random bytes",
            "(call $random_get (i32.const 0) (i32.const -1))",
        ),
        traps(
            "has its arguments put beyond its memory",
            "(call $args_get (i32.const -16) (i32.const -16))",
        ),
        answers(
            "opens a path of 4 GiB",
            "(call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0) (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 128))",
            NO_MEMORY,
        ),
        answers(
            "waits for 2^32 - 1 things",
            "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const -1) (i32.const 0))",
            INVALID,
        ),
        answers(
            "waits for nothing",
            "(call $poll_oneoff (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            INVALID,
        ),
        answers(
            "waits for things beyond its memory",
            "(call $poll_oneoff (i32.const -48) (i32.const 0) (i32.const 1000) (i32.const 0))",
            FAULT,
        ),
        answers(
            "has what it waited for put beyond its memory",
            "(i32.store8 (i32.const 256) (i32.const 0)) (i32.store (i32.const 264) (i32.const 1)) (call $poll_oneoff (i32.const 248) (i32.const -8) (i32.const 1) (i32.const 0))",
            FAULT,
        ),
        traps(
            "reads a clock that there is not",
            "(call $clock_time_get (i32.const 77) (i64.const 0) (i32.const 128))",
        ),
        answers(
            "reads the CPU's clock",
            "(call $clock_time_get (i32.const 2) (i64.const 0) (i32.const 128))",
            BADF,
        ),
    ]
}

fn floods() -> Vec<Case> {
    let again = |call: &str| guest(&format!("(loop (drop {call}) (br 0))"));
    vec![
        case("floods its output", again("(call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Output))),
        case("floods its errors", again("(call $fd_write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Fuel))),
        case("writes the whole of its memory for ever", again("(i32.store (i32.const 64) (i32.const 0)) (i32.store (i32.const 68) (i32.const 1048576)) (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Output))),
        case("writes 100,000 empty pieces for ever", again("(call $fd_write (i32.const 1) (i32.const 131072) (i32.const 100000) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Deadline))).wall(200),
        case("reads at the end for ever", again("(call $fd_read (i32.const 0) (i32.const 64) (i32.const 1) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Fuel))).fuel(10_000_000),
        case("random bytes for ever", again("(call $random_get (i32.const 0) (i32.const 65536))"), End::Is(Status::Stopped(StopKind::Fuel))),
        case("asks the time for ever", again("(call $clock_time_get (i32.const 0) (i64.const 0) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Fuel))).fuel(10_000_000),
        case("opens files for ever", again("(call $path_open (i32.const 3) (i32.const 0) (i32.const 16) (i32.const 16) (i32.const 1) (i64.const 0x1fffffff) (i64.const 0x1fffffff) (i32.const 0) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Deadline))).wall(200),
        case("sleeps for ever, in no time", again("(i32.store (i32.const 272) (i32.const 1)) (i64.store (i32.const 280) (i64.const -1)) (call $poll_oneoff (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 128))"), End::Is(Status::Stopped(StopKind::Fuel))).fuel(1_000_000),
    ]
}

fn exits() -> Vec<Case> {
    let exit = |status: i64| guest(&format!("(call $proc_exit (i32.const {status}))"));
    vec![
        case("exits with 256", exit(256), End::Is(Status::Exited(255))),
        case("exits with -1", exit(-1), End::Is(Status::Exited(255))),
        case(
            "exits with 2^31",
            exit(0x8000_0000),
            End::Is(Status::Exited(255)),
        ),
        answers(
            "raises a signal",
            "(call $proc_raise (i32.const 9))",
            NOT_SUPPORTED,
        ),
        case(
            "a memory of another name",
            wat(
                "(module (import \"wasi_snapshot_preview1\" \"random_get\" (func $r (param i32 i32) (result i32))) (memory (export \"other\") 1) (func (export \"_start\") (drop (call $r (i32.const 0) (i32.const 8)))))",
            ),
            HOST_CALL,
        ),
        case(
            "a memory that is a function",
            wat(
                "(module (import \"wasi_snapshot_preview1\" \"random_get\" (func $r (param i32 i32) (result i32))) (func (export \"memory\")) (func (export \"_start\") (drop (call $r (i32.const 0) (i32.const 8)))))",
            ),
            HOST_CALL,
        ),
        case(
            "a host function as its entry point",
            wat(
                "(module (import \"wasi_snapshot_preview1\" \"proc_exit\" (func $exit (param i32))) (export \"_start\" (func $exit)))",
            ),
            End::NoEntryPoint,
        ),
        case(
            "a trap after output",
            guest(
                "(drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 128))) unreachable",
            ),
            End::Is(Status::Stopped(StopKind::Unreachable)),
        ),
    ]
}
