//! Components that are too large, too many, or misuse what preview 2 gives them.

use bytes::Bytes;
use dlambda_proto::{Measure, Status, StopKind};

use super::super::component;
use super::{Case, End, HOST_CALL, TRAP, case, command, each_ends_as_it_should, wat};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn components() {
    each_ends_as_it_should(cases()).await;
}

const FINE: End = End::Is(Status::Exited(0));
const OUT_OF_FUEL: End = End::Is(Status::Stopped(StopKind::Fuel));

/// A command around the core instance `$guest`, which exports `run`.
fn runs(fields: &str) -> Bytes {
    wat(&format!(
        "(component $C {fields}
            (func $run (result (result)) (canon lift (core func $guest \"run\")))
            (instance $command (export \"run\" (func $run)))
            (export \"wasi:cli/run@0.2.0\" (instance $command)))"
    ))
}

/// A command whose guest has this body, and these fields besides.
fn guest(fields: &str, body: &str) -> Bytes {
    runs(&format!(
        "(core module $m {fields} (func (export \"run\") (result i32) {body}))
        (core instance $guest (instantiate $m))"
    ))
}

/// A command that calls one function of the host, `$f`. Its answers go where `realloc` says, with
/// the guest in `$again` at hand.
fn calls(import: &str, options: &str, ty: &str, realloc: &str, body: &str) -> Bytes {
    runs(&format!(
        "{import}
        (core module $libc (memory (export \"memory\") 1) (table (export \"table\") 1 funcref)
            (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) {realloc}))
        (core instance $libc (instantiate $libc))
        (alias core export $libc \"memory\" (core memory $memory))
        (alias core export $libc \"realloc\" (core func $realloc))
        (core func $f (canon lower (func $host \"f\") {options}))
        (core module $m (import \"host\" \"f\" (func $f {ty})) (import \"libc\" \"memory\" (memory 1))
            (import \"libc\" \"table\" (table 1 funcref)) (elem (i32.const 0) $again)
            (func $again {body}) (func (export \"run\") (result i32) (call $again) (i32.const 0)))
        (core instance $guest (instantiate $m (with \"host\" (instance (export \"f\" (func $f)))) (with \"libc\" (instance $libc))))"
    ).replace("(func $host \"f\")", &named(import)))
}

/// The function that an import is for.
fn named(import: &str) -> String {
    let name = import
        .split("(func")
        .next()
        .and_then(|before| before.rsplit('"').nth(1));
    format!("(func $host \"{}\")", name.unwrap())
}

pub(super) fn cases() -> Vec<Case> {
    [guests(), instances(), types(), hosts()]
        .into_iter()
        .flatten()
        .collect()
}

fn guests() -> Vec<Case> {
    vec![
        case("a component that is well", guest("", "(i32.const 0)"), FINE),
        case(
            "a result that is none",
            guest("", "(i32.const 2)"),
            HOST_CALL,
        ),
        case(
            "a component that loops",
            guest("", "(loop (br 0)) (i32.const 0)"),
            OUT_OF_FUEL,
        ),
        case(
            "a component that recurses",
            guest("(func $f (call $f))", "(call $f) (i32.const 0)"),
            TRAP(StopKind::StackOverflow),
        ),
        case(
            "a component that loops at its start",
            guest("(func $s (loop (br 0))) (start $s)", "(i32.const 0)"),
            OUT_OF_FUEL,
        ),
        case(
            "an adapted module that opens files",
            component(&command("unreachable")),
            TRAP(StopKind::Unreachable),
        ),
        case(
            "a component with nothing in it",
            wat("(component)"),
            End::NoEntryPoint,
        ),
        case(
            "a component that runs something else",
            wat(
                "(component (core module $m (func (export \"run\"))) (core instance $i (instantiate $m)) (func (export \"run\") (canon lift (core func $i \"run\"))))",
            ),
            End::NoEntryPoint,
        ),
        case(
            "an interface of its own devising",
            runs(
                "(import \"evil:host/shell\" (instance $host (export \"run\" (func)))) (core module $m (func (export \"run\") (result i32) (i32.const 0))) (core instance $guest (instantiate $m))",
            ),
            End::UnsupportedImport,
        ),
    ]
}

fn instances() -> Vec<Case> {
    let of = |count: usize, fields: &str| {
        let more = "(core instance (instantiate $more))".repeat(count);
        runs(&format!(
            "(core module $more {fields}) {more}
            (core module $m (func (export \"run\") (result i32) (i32.const 0))) (core instance $guest (instantiate $m))"
        ))
    };
    let nested = (0..60).fold("(core module)".to_owned(), |inner, _| {
        format!("(component {inner})")
    });
    let wide: String = "(component $x (core module $m (func)) (core instance (instantiate $m)))"
        .to_owned()
        + &"(instance (instantiate $x))".repeat(2_000);
    let modules = "(core module (func))".repeat(900);
    let functions = format!("(core module {})", "(func)".repeat(60_000)).repeat(2);
    let plain = "(core module $m (func (export \"run\") (result i32) (i32.const 0))) (core instance $guest (instantiate $m))";
    vec![
        case("thirty-one instances more", of(31, ""), FINE),
        case("thirty-two instances more", of(32, ""), End::Unsupported),
        case("900 instances", of(900, ""), End::Unsupported),
        case("thirty memories", of(30, "(memory 1)"), End::Unsupported),
        case(
            "thirty tables",
            of(30, "(table 1 funcref)"),
            End::Unsupported,
        ),
        case(
            "thirty instances that all loop",
            of(30, "(func $s (loop (br 0))) (start $s)"),
            OUT_OF_FUEL,
        ),
        case(
            "2,000 components in one",
            runs(&format!("{wide} {plain}")),
            End::Malformed,
        ),
        case(
            "components within components",
            runs(&format!("{nested} {plain}")),
            FINE,
        ),
        case(
            "900 modules in one",
            runs(&format!("{modules} {plain}")),
            FINE,
        ),
        case(
            "120,000 functions in two modules",
            runs(&format!("{functions} {plain}")),
            End::TooLarge(Measure::Functions),
        ),
    ]
}

fn types() -> Vec<Case> {
    let plain = "(core module $m (func (export \"run\") (result i32) (i32.const 0))) (core instance $guest (instantiate $m))";
    let doubled: String = (1..40)
        .map(|level| format!("(type $t{level} (tuple $t{0} $t{0}))", level - 1))
        .collect();
    let listed: String = (1..500)
        .map(|level| format!("(type $t{level} (list $t{}))", level - 1))
        .collect();
    let flags: String = (0..33).map(|flag| format!(" \"f{flag}\"")).collect();
    let cases: String = (0..5_000).map(|number| format!(" \"c{number}\"")).collect();
    let nested = (0..40).fold("(type (func))".to_owned(), |inner, _| {
        format!("(type (component {inner}))")
    });
    let many = "(type (func (param \"a\" u8)))".repeat(20_000);
    vec![
        case(
            "a type that doubles forty times",
            runs(&format!("(type $t0 (tuple u8 u8)) {doubled} {plain}")),
            End::Malformed,
        ),
        case(
            "500 lists in each other",
            runs(&format!("(type $t0 (list u8)) {listed} {plain}")),
            End::Malformed,
        ),
        case(
            "33 flags",
            runs(&format!("(type (flags{flags})) {plain}")),
            End::Malformed,
        ),
        case(
            "an enumeration of 5,000",
            runs(&format!("(type (enum{cases})) {plain}")),
            FINE,
        ),
        case(
            "40 component types in each other",
            runs(&format!("{nested} {plain}")),
            FINE,
        ),
        case(
            "20,000 function types",
            runs(&format!("{many} {plain}")),
            FINE,
        ),
    ]
}

fn hosts() -> Vec<Case> {
    let random = "(import \"wasi:random/random@0.2.0\" (instance $host (export \"get-random-bytes\" (func (param \"len\" u64) (result (list u8))))))";
    let memory = "(memory $memory) (realloc $realloc)";
    let clock = "(import \"wasi:io/poll@0.2.0\" (instance $poll (export \"pollable\" (type (sub resource)))))
        (alias export $poll \"pollable\" (type $pollable))
        (import \"wasi:clocks/monotonic-clock@0.2.0\" (instance $host (alias outer $C $pollable (type $p')) (export \"pollable\" (type $p (eq $p')))
            (export \"subscribe-duration\" (func (param \"when\" u64) (result (own $p))))))";
    let poll = "(import \"wasi:io/poll@0.2.0\" (instance $host (export \"pollable\" (type $p (sub resource)))
            (export \"poll\" (func (param \"in\" (list (borrow $p))) (result (list u32))))))";
    let socket = "(import \"wasi:sockets/network@0.2.0\" (instance $network
            (type $code (enum \"unknown\" \"access-denied\" \"not-supported\" \"invalid-argument\" \"out-of-memory\" \"timeout\" \"concurrency-conflict\" \"not-in-progress\" \"would-block\" \"invalid-state\" \"new-socket-limit\" \"address-not-bindable\" \"address-in-use\" \"remote-unreachable\" \"connection-refused\" \"connection-reset\" \"connection-aborted\" \"datagram-too-large\" \"name-unresolvable\" \"temporary-resolver-failure\" \"permanent-resolver-failure\"))
            (export \"error-code\" (type (eq $code)))
            (type $family (enum \"ipv4\" \"ipv6\")) (export \"ip-address-family\" (type (eq $family)))))
        (alias export $network \"error-code\" (type $code)) (alias export $network \"ip-address-family\" (type $family))
        (import \"wasi:sockets/tcp@0.2.0\" (instance $tcp (export \"tcp-socket\" (type (sub resource)))))
        (alias export $tcp \"tcp-socket\" (type $socket))
        (import \"wasi:sockets/tcp-create-socket@0.2.0\" (instance $host
            (alias outer $C $code (type $c')) (export \"error-code\" (type $c (eq $c')))
            (alias outer $C $family (type $f')) (export \"ip-address-family\" (type $f (eq $f')))
            (alias outer $C $socket (type $s')) (export \"tcp-socket\" (type $s (eq $s')))
            (export \"create-tcp-socket\" (func (param \"address-family\" $f) (result (result (own $s) (error $c)))))))";
    let draws = |name, length: &str, realloc: &str, end| {
        case(
            name,
            calls(
                random,
                memory,
                "(param i64 i32)",
                realloc,
                &format!("(call $f (i64.const {length}) (i32.const 16))"),
            ),
            end,
        )
    };
    vec![
        draws("random bytes for itself", "64", "(i32.const 1024)", FINE),
        draws("2^64 - 1 random bytes", "-1", "(i32.const 1024)", HOST_CALL),
        draws(
            "has random bytes put beyond its memory",
            "64",
            "(i32.const -8)",
            HOST_CALL,
        ),
        draws(
            "asks again from where it allocates",
            "64",
            "(call_indirect (i32.const 0)) (i32.const 1024)",
            TRAP(StopKind::OtherTrap),
        ),
        draws(
            "loops where it allocates",
            "64",
            "(loop (br 0)) (i32.const 0)",
            OUT_OF_FUEL,
        ),
        draws(
            "recurses where it allocates",
            "64",
            "(call 0 (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))",
            TRAP(StopKind::StackOverflow),
        ),
        draws(
            "grows where it allocates",
            "64",
            "(loop (if (i32.eq (memory.grow (i32.const 64)) (i32.const -1)) (then unreachable)) (br 0)) (i32.const 0)",
            End::Is(Status::Stopped(StopKind::Memory)),
        ),
        case(
            "timers without end",
            calls(
                clock,
                "",
                "(param i64) (result i32)",
                "(i32.const 0)",
                "(loop (drop (call $f (i64.const -1))) (br 0))",
            ),
            HOST_CALL,
        ),
        case(
            "waits for nothing at all",
            calls(
                poll,
                memory,
                "(param i32 i32 i32)",
                "(i32.const 1024)",
                "(call $f (i32.const 0) (i32.const 0) (i32.const 16))",
            ),
            HOST_CALL,
        ),
        case(
            "waits for what it has not",
            calls(
                poll,
                memory,
                "(param i32 i32 i32)",
                "(i32.const 1024)",
                "(call $f (i32.const 0) (i32.const 1000) (i32.const 16))",
            ),
            HOST_CALL,
        ),
        case(
            "waits for 2^30 things",
            calls(
                poll,
                memory,
                "(param i32 i32 i32)",
                "(i32.const 1024)",
                "(call $f (i32.const 0) (i32.const 0x40000000) (i32.const 16))",
            ),
            HOST_CALL,
        ),
        case(
            "makes sockets without end",
            calls(
                socket,
                memory,
                "(param i32 i32)",
                "(i32.const 1024)",
                "(loop (call $f (i32.const 0) (i32.const 16)) (br 0))",
            ),
            OUT_OF_FUEL,
        )
        .fuel(1_000_000),
        case(
            "makes a socket and gets an error",
            calls(
                socket,
                memory,
                "(param i32 i32)",
                "(i32.const 1024)",
                "(call $f (i32.const 0) (i32.const 16)) (if (i32.eqz (i32.load8_u (i32.const 16))) (then unreachable))",
            ),
            FINE,
        ),
    ]
}
