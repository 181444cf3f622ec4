//! HTTP handlers that do not answer, answer too much, or ask for the network.

use super::{Case, End, HOST_CALL, TRAP, case, each_ends_as_it_should, wat};
use dlambda_proto::{HttpResponse, Status, StopKind};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handlers() {
    each_ends_as_it_should(cases()).await;
}

/// A handler with this body. It has `$request`, `$out`, and room for `$response`, `$body` and
/// `$stream`.
fn handler(body: &str) -> bytes::Bytes {
    wat(&include_str!("handler.wat").replace("BODY", body))
}

/// Makes a response and gives it; its body is open.
const ANSWER: &str = "(local.set $response (call $response (call $fields)))
    (call $open (local.get $response)) (local.set $stream) (local.set $body)
    (call $answer (local.get $out) (local.get $response))";
const PUT: &str = "(call $put (local.get $stream) (i32.const 0) (i32.const 4096) (i32.const 128))";
const END: &str = "(call $drop-stream (local.get $stream))
    (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 128))";

const FINE: End = End::Is(Status::Exited(0));
const NOTHING: End = End::Is(Status::Stopped(StopKind::NoResponse));

pub(super) fn cases() -> Vec<Case> {
    [answers(), heads(), large_heads(), egress(), requests()]
        .into_iter()
        .flatten()
        .collect()
}

fn answers() -> Vec<Case> {
    let endless = format!("{ANSWER} (loop {PUT} (br 0))");
    let unsent = format!(
        "{} (loop {PUT} (br 0))",
        ANSWER
            .replace("(call $answer", "(drop) (drop) (;call;)")
            .replace(
                "(drop) (drop) (;call;) (local.get $out) (local.get $response))",
                ""
            )
    );
    vec![
        case("answers nothing", handler(""), NOTHING),
        case(
            "never returns",
            handler("(loop (br 0))"),
            End::Is(Status::Stopped(StopKind::Fuel)),
        ),
        case(
            "never returns after its answer",
            handler(&format!("{ANSWER} {END} (loop (br 0))")),
            End::Is(Status::Stopped(StopKind::Fuel)),
        ),
        case(
            "answers without end",
            handler(&endless),
            End::Is(Status::Stopped(StopKind::Output)),
        ),
        case(
            "writes without end and never answers",
            handler(&unsent),
            End::Is(Status::Stopped(StopKind::Deadline)),
        )
        .wall(300),
        case(
            "leaves its body open",
            handler(&format!("{ANSWER} {PUT}")),
            FINE,
        ),
        case(
            "answers and ends its body",
            handler(&format!("{ANSWER} {PUT} {END}")),
            FINE,
        ),
        case(
            "answers and traps",
            handler(&format!("{ANSWER} {END} unreachable")),
            TRAP(StopKind::Unreachable),
        ),
        case(
            "answers twice",
            handler(&format!(
                "{ANSWER} {END} (call $answer (local.get $out) (call $response (call $fields)))"
            )),
            HOST_CALL,
        ),
        case(
            "answers with an error",
            handler(
                "(call $set (local.get $out) (i32.const 1) (i32.const 38) (i32.const 1) (i64.const 0) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 0))",
            ),
            NOTHING,
        ),
        case(
            "answers with an error beyond its memory",
            handler(
                "(call $set (local.get $out) (i32.const 1) (i32.const 38) (i32.const 1) (i64.const 0xfffffff0) (i32.const -1) (i32.const 0) (i32.const 0) (i32.const 0))",
            ),
            HOST_CALL,
        ),
        case(
            "answers with a response that it has not",
            handler("(call $answer (local.get $out) (i32.const 7777))"),
            HOST_CALL,
        ),
        case(
            "answers somebody else",
            handler("(call $answer (i32.const 7777) (call $response (call $fields)))"),
            HOST_CALL,
        ),
        case(
            "answers with its request",
            handler("(call $answer (local.get $out) (local.get $request))"),
            HOST_CALL,
        ),
        case(
            "writes beyond its memory",
            handler(&format!(
                "{ANSWER} (call $put (local.get $stream) (i32.const 2097151) (i32.const 4096) (i32.const 128))"
            )),
            HOST_CALL,
        ),
        case(
            "ends its body with its stream open",
            handler(&format!(
                "{ANSWER} (call $finish (local.get $body) (i32.const 0) (i32.const 0) (i32.const 128))"
            )),
            HOST_CALL,
        ),
    ]
}

fn heads() -> Vec<Case> {
    let field = |name: u32, value: u32| {
        format!(
            "(call $append (local.get $body) (i32.const 0) (i32.const {name}) (i32.const 3) (i32.const {value}) (i32.const 128))"
        )
    };
    let status = |code: u32| {
        handler(&format!(
            "(local.set $response (call $response (call $fields)))
            (if (i32.eqz (call $status (local.get $response) (i32.const {code}))) (then unreachable))"
        ))
    };
    vec![
        case(
            "header fields without end",
            handler(&format!(
                "(local.set $body (call $fields)) (loop {} (br 0))",
                field(1, 1)
            )),
            HOST_CALL,
        ),
        case(
            "a header field of a mebibyte",
            handler(&format!(
                "(memory.fill (i32.const 3) (i32.const 97) (i32.const 1048576)) (local.set $body (call $fields)) {}",
                field(1, 1 << 20)
            )),
            HOST_CALL,
        ),
        case(
            "a name that is none",
            handler(&format!(
                "(local.set $body (call $fields)) {} (if (i32.ne (i32.load8_u (i32.const 128)) (i32.const 1)) (then unreachable))",
                field(4, 1)
            )),
            NOTHING,
        ),
        case(
            "header objects without end",
            handler("(loop (drop (call $fields)) (br 0))"),
            HOST_CALL,
        ),
        case(
            "responses without end",
            handler("(loop (drop (call $response (call $fields))) (br 0))"),
            HOST_CALL,
        ),
        case("status 99", status(99), NOTHING),
        case("status 65,535", status(65_535), NOTHING),
        case(
            "status beyond 16 bits",
            status(65_536 + 200),
            TRAP(StopKind::Unreachable),
        ),
    ]
}

/// Heads that the library takes from a guest; a reply carries the smaller ones only.
fn large_heads() -> Vec<Case> {
    let answers = |fields: usize, value: usize| {
        let field = format!(
            "(call $append (local.get $body) (i32.const 0) (i32.const 1) (i32.const 4096) (i32.const {value}) (i32.const 128))
            (if (i32.load8_u (i32.const 128)) (then unreachable))"
        );
        let answer = ANSWER.replace("(call $fields)", "(local.get $body)");
        handler(&format!(
            "(memory.fill (i32.const 4096) (i32.const 97) (i32.const 32768))
            (local.set $body (call $fields)) {} {answer} {END}",
            field.repeat(fields)
        ))
    };
    let (fields, bytes) = (HttpResponse::MAX_HEAD_FIELDS, HttpResponse::MAX_HEAD_BYTES);
    let refused = End::Is(Status::Stopped(StopKind::BadResponse));
    // The name has one byte.
    vec![
        case("a head of the most bytes", answers(1, bytes - 1), FINE),
        case("a head of a byte more", answers(1, bytes), refused),
        case("a head of twice as much", answers(1, 2 * bytes), refused),
        case("a head of the most fields", answers(fields, 1), FINE),
        case("a head of a field more", answers(fields + 1, 1), refused),
    ]
}

/// A handler that traps unless its request is refused for where it wants to go.
fn egress() -> Vec<Case> {
    let asks = |authority: &str, then: &str| {
        handler(&format!(
            "(local.set $body (call $request (call $fields))) {authority}
            (call $send (local.get $body) (i32.const 0) (i32.const 0) (i32.const 128)) {then}"
        ))
    };
    let named =
        "(drop (call $authority (local.get $body) (i32.const 1) (i32.const 0) (i32.const 1)))
        (drop (call $path (local.get $body) (i32.const 1) (i32.const 4) (i32.const 5)))";
    // An option of a result of a result; the error's number is that of a prohibited destination.
    let refused = "(if (i32.load8_u (i32.const 128)) (then unreachable))
        (call $block (call $subscribe (i32.load (i32.const 136))))
        (call $get (i32.load (i32.const 136)) (i32.const 256))
        (if (i32.ne (i32.load8_u (i32.const 272)) (i32.const 1)) (then unreachable))
        (if (i32.ne (i32.load8_u (i32.const 280)) (i32.const 4)) (then unreachable))";
    vec![
        case("asks the network", asks(named, refused), NOTHING),
        case(
            "asks nobody",
            asks(
                "",
                "(if (i32.eqz (i32.load8_u (i32.const 128))) (then unreachable))",
            ),
            NOTHING,
        ),
    ]
}

/// What cannot be a request at all is refused by `HttpRequest` itself.
fn requests() -> Vec<Case> {
    let asked = |name, method: &str, path: &str, fields: &[(&str, &[u8])], end| {
        case(name, handler(&format!("{ANSWER} {END}")), end).asks(method, path, fields)
    };
    vec![
        asked("is asked well", "GET", "/a?b=c", &[("x-y", b"z")], FINE),
        asked(
            "is asked for a host with a path",
            "GET",
            "/",
            &[("host", b"a/b")],
            End::BadInvocation,
        ),
    ]
}
