//! `wasi:http` handlers, unchanged: a request goes in, a response comes out, and nothing is added
//! on the way.

use bytes::Bytes;
use dlambda_client::{Call, CallError, Output};
use dlambda_executor::{Abi, Executor, ExecutorError, Function, Invocation, Limits, Outcome};
use dlambda_proto::{HttpError, HttpField, HttpRequest, HttpResponse, Status, StopKind};

use crate::cases::{Case, Subject, ample, examples, executor, in_processes};
use crate::support::{LONG, World, alias};

const MIB: usize = 1 << 20;

/// What the library that most clients are built on would add by itself, and what a proxy would.
const NOT_ADDED: [&str; 9] = [
    "accept",
    "connection",
    "content-length",
    "date",
    "forwarded",
    "host",
    "transfer-encoding",
    "user-agent",
    "x-forwarded-for",
];

fn hello() -> Subject {
    let found = examples()
        .into_iter()
        .find(|subject| subject.name == "hello-http");
    found.expect("an example")
}

struct Handler {
    executor: Executor,
    function: Function,
}

impl Handler {
    async fn new() -> Self {
        let executor = executor(in_processes());
        let (function, _) = executor.prepare(hello().wasm).await.expect("prepared");
        assert_eq!(function.abi(), Abi::Http);
        Self { executor, function }
    }

    async fn try_run(
        &self,
        invocation: Invocation,
        limits: &Limits,
    ) -> Result<Outcome, ExecutorError> {
        self.executor.run(&self.function, invocation, limits).await
    }

    async fn run(&self, http: Option<HttpRequest>, body: impl Into<Bytes>) -> Outcome {
        self.run_within(1 << 20, http, body).await
    }

    /// With this many bytes of output.
    async fn run_within(
        &self,
        output_bytes: usize,
        http: Option<HttpRequest>,
        body: impl Into<Bytes>,
    ) -> Outcome {
        let limits = Limits {
            output_bytes,
            ..Limits::default()
        };
        let ended = self.try_run(invocation(http, body), &limits).await;
        ended.expect("an outcome")
    }
}

fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> HttpRequest {
    try_request(method, path, fields).expect("a request")
}

fn try_request(
    method: &str,
    path: &str,
    fields: &[(&str, &str)],
) -> Result<HttpRequest, HttpError> {
    let fields = fields.iter();
    let fields: Result<Vec<_>, _> = fields
        .map(|(name, value)| HttpField::new(name, value.as_bytes()))
        .collect();
    HttpRequest::new(method, path)?.with_fields(fields?)
}

fn invocation(http: Option<HttpRequest>, body: impl Into<Bytes>) -> Invocation {
    Invocation {
        http,
        input: body.into(),
        ..Invocation::default()
    }
}

/// Bytes that are not all alike.
fn body(len: usize) -> Vec<u8> {
    let bytes = (0..len as u64).map(|at| (at.wrapping_mul(0x9e37_79b9) >> 13).to_le_bytes()[0]);
    bytes.collect()
}

fn head(outcome: &Outcome) -> &HttpResponse {
    outcome.http.as_ref().expect("a response")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_of_the_example() {
    let handler = Handler::new().await;
    let cases: Vec<Case> = hello().cases;
    assert!(cases.len() >= 10);
    for case in cases {
        let ended = handler.try_run(case.invocation.clone(), &ample()).await;
        let faults = case.faults(&ended.expect("an outcome"));
        assert!(faults.is_empty(), "{}: {faults:?}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_any_length_come_back() {
    let handler = Handler::new().await;
    for len in [0, 1, 100 << 10, MIB - 1, MIB] {
        let sent = body(len);
        let echo = request("POST", "/echo", &[]);
        let outcome = handler.run(Some(echo), sent.clone()).await;
        assert_eq!(outcome.status, Status::Exited(0), "{len} bytes");
        assert_eq!(head(&outcome).status(), 200);
        assert!(outcome.stdout == sent, "{len} bytes came back changed");
        // It copies a buffer at a time.
        assert!(outcome.usage.peak_memory < 4 * MIB as u64);
        // Each byte is paid for, in and out.
        assert!(outcome.usage.fuel >= 2 * len as u64);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_limit_is_cut_there() {
    let handler = Handler::new().await;
    for (limit, len) in [(MIB, MIB + 1), (1_000, 1_001), (1_000, MIB), (0, 1)] {
        let sent = body(len);
        let echo = request("POST", "/echo", &[]);
        let outcome = handler.run_within(limit, Some(echo), sent.clone()).await;
        assert_eq!(
            outcome.status,
            Status::Stopped(StopKind::Output),
            "{len} of {limit}"
        );
        assert!(outcome.http.is_none(), "half a response is none");
        assert!(outcome.stdout == sent[..limit], "{len} of {limit}");
    }
    // The head is no output: a response without a body fits into nothing.
    let get = request("GET", "/status/204", &[]);
    let outcome = handler.run_within(0, Some(get), "").await;
    assert_eq!(outcome.status, Status::Exited(0));
    assert_eq!(head(&outcome).status(), 204);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_request_the_input_decides() {
    let handler = Handler::new().await;
    for (input, status, answer) in [("", 200, "hello"), ("input", 404, "not found\n")] {
        let outcome = handler.run(None, input).await;
        assert_eq!(head(&outcome).status(), status, "GET without, POST with");
        assert_eq!(outcome.stdout, answer);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_function_chooses_its_status() {
    let handler = Handler::new().await;
    for status in [200, 201, 204, 301, 304, 400, 404, 500, 503, 599] {
        let get = request("GET", &format!("/status/{status}"), &[]);
        let outcome = handler.run(Some(get), "").await;
        assert_eq!(outcome.status, Status::Exited(0), "an answer is a success");
        assert_eq!(head(&outcome).status(), status);
        assert!(outcome.stdout.is_empty());
    }
}

/// What a function sees is what its caller wrote, and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_added_to_a_request_or_a_response() {
    let handler = Handler::new().await;
    let seen = async |fields: &[(&str, &str)], body: &'static str| {
        let get = request("GET", "/headers", fields);
        let outcome = handler.run(Some(get), body).await;
        assert_eq!(head(&outcome).status(), 200);
        // One field of its own, and no others.
        let field = HttpField::new("content-type", b"text/plain; charset=utf-8");
        assert!(head(&outcome).fields() == [field.expect("a field")]);
        String::from_utf8(outcome.stdout.to_vec()).expect("text")
    };
    assert_eq!(seen(&[], "").await, "");
    assert_eq!(seen(&[], "a body").await, "");
    // In lower case, twice if sent twice, empty if sent empty, bytes above 127 as they are.
    let fields = [
        ("X-One", "1"),
        ("Accept", "text/html"),
        ("x-empty", ""),
        ("x-one", "2"),
        ("x-utf8", "Zoë"),
        ("user-agent", "none of your business"),
    ];
    assert_eq!(
        seen(&fields, "a body").await,
        "accept: text/html\nuser-agent: none of your business\nx-empty: \nx-one: 1\nx-one: 2\nx-utf8: Zoë\n"
    );
    // Those that are about a connection end here, since there is none; the host becomes the
    // request's authority.
    let connection = [
        ("host", "example.org"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("x-only", "this"),
    ];
    assert_eq!(seen(&connection, "").await, "x-only: this\n");
    for name in NOT_ADDED {
        let others = [("x-only", "this")];
        assert!(!seen(&others, "a body").await.contains(name), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_request_is_refused_before_it_runs() {
    let handler = Handler::new().await;
    for bad in [
        try_request("", "/", &[]),
        try_request("G T", "/", &[]),
        try_request("GET", "", &[]),
        try_request("GET", "*", &[]),
        try_request("GET", "?query", &[]),
        try_request("GET", "http://elsewhere/", &[]),
        try_request("GET", "/a b", &[]),
        try_request("GET", "/\r\nx: y", &[]),
        try_request("GET", "/", &[("a b", "c")]),
        try_request("GET", "/", &[("a", "b\r\nc: d")]),
        try_request("GET", "/", &[("", "b")]),
    ] {
        assert!(bad.is_err());
    }
    // What can be said, but is no request either.
    let bad = request("GET", "/", &[("host", "a/b")]);
    let ended = handler.try_run(invocation(Some(bad), ""), &ample()).await;
    let error = ended.expect_err("refused");
    assert!(matches!(error, ExecutorError::BadInvocation(_)), "{error}");
}

async fn ask(world: &World, call: Call) -> Result<Output, CallError> {
    world.querier().call(&call, LONG, |_| {}).await
}

fn call(world: &World) -> Call {
    Call::new(world.endpoint(), alias("hello-http"))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_through_a_provider() {
    let world = World::new().await;
    for case in hello().cases {
        let http = case.invocation.http.as_ref().expect("a request");
        let call = call(&world)
            .http(http.clone())
            .input(case.invocation.input.to_vec());
        let answer = ask(&world, call).await.expect("an answer");
        let outcome = Outcome {
            status: Status::Exited(0),
            stdout: answer.stdout.into(),
            http: answer.http,
            stderr: answer.stderr.into(),
            stderr_truncated: false,
            usage: dlambda_executor::Usage {
                fuel: answer.usage.fuel,
                peak_memory: answer.usage.peak_memory_bytes,
                instantiate: std::time::Duration::ZERO,
                wall: std::time::Duration::ZERO,
            },
        };
        let faults = case.faults(&outcome);
        assert!(faults.is_empty(), "{}: {faults:?}", case.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_through_a_provider() {
    let world = World::new().await;
    let echo = HttpRequest::new("POST", "/echo").expect("a request");
    // The head counts as input, so that a body of a whole MiB does not fit into the plan.
    for len in [0, 1, 100 << 10, MIB - 100] {
        let sent = body(len);
        let call = call(&world).http(echo.clone()).input(sent.clone());
        let answer = ask(&world, call).await.expect("an answer");
        assert!(answer.stdout == sent, "{len} bytes came back changed");
        assert_eq!(answer.http.map(|head| head.status()), Some(200));
    }
    let too_large = call(&world).http(echo.clone()).input(body(MIB));
    let error = ask(&world, too_large).await.expect_err("too large");
    assert!(matches!(error, CallError::TooLarge), "{error}");
    world.assert_alive().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_cuts_a_body_beyond_the_plans_output() {
    let mut config = dlambda_provider::ProviderConfig::without_tokens();
    config.plans[0].output_bytes = 10_000;
    let world = World::with(config).await;
    let echo = HttpRequest::new("POST", "/echo").expect("a request");
    let fits = call(&world).http(echo.clone()).input(body(10_000));
    assert_eq!(
        ask(&world, fits).await.expect("an answer").stdout,
        body(10_000)
    );
    let beyond = call(&world).http(echo).input(body(10_001));
    let error = ask(&world, beyond).await.expect_err("too much");
    let CallError::FunctionStopped { reason, .. } = &error else {
        panic!("{error}");
    };
    assert!(reason.contains("10000 bytes of output"), "{reason}");
    world.assert_alive().await;
}

/// Neither the caller's program nor the provider's leaves a trace in the request.
#[tokio::test(flavor = "multi_thread")]
async fn a_function_at_a_provider_sees_its_callers_fields_only() {
    let world = World::new().await;
    let headers = HttpRequest::new("GET", "/headers").expect("a request");
    let bare = call(&world).http(headers.clone());
    assert_eq!(ask(&world, bare).await.expect("an answer").stdout, b"");
    let fields = headers.with_field("X-One: 1").expect("a field");
    let answer = ask(&world, call(&world).http(fields).input("a body")).await;
    let answer = answer.expect("an answer");
    assert_eq!(answer.stdout, b"x-one: 1\n");
    let response = answer.http.expect("a response");
    let names: Vec<&str> = response.fields().iter().map(|field| field.name()).collect();
    assert_eq!(names, ["content-type"]);
    // Without a request there is one all the same.
    let hello = ask(&world, call(&world)).await.expect("an answer");
    assert_eq!(hello.stdout, b"hello");
    let posted = ask(&world, call(&world).input("x")).await;
    assert_eq!(
        posted
            .expect("an answer")
            .http
            .map(|response| response.status()),
        Some(404)
    );
}
