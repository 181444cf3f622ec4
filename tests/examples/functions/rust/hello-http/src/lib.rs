//! hello-http, a component that serves `wasi:http/incoming-handler`:
//!
//! - `GET /` answers `hello`
//! - `POST /echo` answers the body it was sent, with its content type
//! - `GET /headers` answers the request's headers, one `name: value` a line
//! - `GET /status/NNN` answers with that status, of 200 to 599, and no body
//!
//! Anything else is 404.

use std::io::{self, Write};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};
use wasip2::io::streams::OutputStream;

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let text = b"text/plain; charset=utf-8".as_slice();
        match (request.method(), path) {
            (Method::Get, "/") => respond(out, 200, Some(text), |body| body.write_all(b"hello")),
            (Method::Get, "/headers") => {
                let lines = headers(&request);
                respond(out, 200, Some(text), |body| body.write_all(&lines));
            }
            (Method::Post, "/echo") => echo(request, out),
            (Method::Get, path) => match path.strip_prefix("/status/").and_then(status) {
                Some(status) => respond(out, status, None, |_| Ok(())),
                None => not_found(out),
            },
            _ => not_found(out),
        }
    }
}

/// Sends a response whose body `write` writes. A body that fails is not
/// finished, so that the caller sees it was cut.
fn respond(
    out: ResponseOutparam,
    status: u16,
    content_type: Option<&[u8]>,
    write: impl FnOnce(&mut OutputStream) -> io::Result<()>,
) {
    let headers = Fields::new();
    if let Some(value) = content_type {
        // One that the host refuses is one it would not have let in.
        let _ = headers.set("content-type", &[value.to_vec()]);
    }
    let response = OutgoingResponse::new(headers);
    response
        .set_status_code(status)
        .expect("status of 200 to 599");
    let body = response.body().expect("the first to ask for the body");
    ResponseOutparam::set(out, Ok(response));
    let mut stream = body.write().expect("the first to ask for the stream");
    let written = write(&mut stream).and_then(|()| Write::flush(&mut stream));
    drop(stream);
    if written.is_ok() {
        let _ = OutgoingBody::finish(body, None);
    }
}

fn not_found(out: ResponseOutparam) {
    respond(out, 404, Some(b"text/plain; charset=utf-8"), |body| {
        body.write_all(b"not found\n")
    });
}

/// Copies a buffer at a time, so a body of any length takes little memory.
fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let content_type = request.headers().get("content-type").into_iter().next();
    let content_type = content_type
        .as_deref()
        .unwrap_or(b"application/octet-stream");
    let body = request.consume().expect("the first to ask for the body");
    let mut input = body.stream().expect("the first to ask for the stream");
    respond(out, 200, Some(content_type), |output| {
        io::copy(&mut input, output).map(drop)
    });
}

/// The request's headers in the order of their names, which the host does not promise.
fn headers(request: &IncomingRequest) -> Vec<u8> {
    let mut entries = request.headers().entries();
    entries.sort();
    let mut lines = Vec::new();
    for (name, value) in entries {
        lines.extend([name.as_bytes(), b": ", &value, b"\n"].concat());
    }
    lines
}

fn status(text: &str) -> Option<u16> {
    let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
    digits
        .then(|| text.parse().ok())?
        .filter(|status| (200..600).contains(status))
}
